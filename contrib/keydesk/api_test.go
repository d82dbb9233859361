package keydesk_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/keydesk"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// call sends a JSON body and returns the answer.
func (s *site) call(t testing.TB, as, method, path, body string, fields ...string) reply {
	r := httptest.NewRequest(method, "/api/v1"+path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	return s.send(t, as, r)
}

func decode[T any](t testing.TB, r reply) (v T) {
	t.Helper()
	require.Equal(t, "application/json", r.Header.Get("Content-Type"), r.body)
	require.NoError(t, json.Unmarshal([]byte(r.body), &v), r.body)
	return v
}

type issued struct {
	Key struct {
		ID       string
		SenderID string `json:"sender_id"`
		Scopes   []string
	}
	APIKey string `json:"api_key"`
}

func TestDescriptionListsEveryRouteOfTheAPI(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	doc := decode[struct {
		OpenAPI string
		Paths   map[string]map[string]any
	}](t, s.call(t, senderA, "GET", "/openapi.json", ""))
	require.Equal(t, "3.1.0", doc.OpenAPI)
	var described, routes []string
	for path, methods := range doc.Paths {
		for method := range methods {
			described = append(described, strings.ToUpper(method)+" /api/v1"+path)
		}
	}
	for _, route := range keydesk.Routes() {
		if strings.Contains(route, " /api/") {
			routes = append(routes, route)
		}
	}
	slices.Sort(routes)
	slices.Sort(described)
	require.Equal(t, routes, described)
}

func TestAPIGeneratesAKeyOnce(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	first := s.call(t, senderA, "POST", "/keys", `{"name":"web","scopes":["orders:read"]}`, "Idempotency-Key", "deploy-7")
	require.Equal(t, 201, first.StatusCode, first.body)
	got := decode[issued](t, first)
	sender, err := s.Validate(t.Context(), senderauth.Credentials{SenderID: senderA, APIKey: got.APIKey})
	require.NoError(t, err)
	require.Equal(t, got.Key.ID, sender.KeyID)
	require.Equal(t, []string{"orders:read"}, sender.Scopes)

	again := s.call(t, senderA, "POST", "/keys", `{"name":"web"}`, "Idempotency-Key", "deploy-7")
	again.want(t, 409, "A request with this Idempotency-Key has made "+got.Key.ID+" already")
	require.Len(t, s.keys(t), 1)
	require.Equal(t, 201, s.call(t, senderB, "POST", "/keys", `{}`, "Idempotency-Key", "deploy-7").StatusCode, "another tenant's request is another one")
	require.Equal(t, 201, s.call(t, senderA, "POST", "/keys", `{}`).StatusCode)
	all := decode[issued](t, s.call(t, senderA, "POST", "/keys", `{}`))
	require.Equal(t, []string{"*"}, all.Key.Scopes)
	none := decode[issued](t, s.call(t, senderA, "POST", "/keys", `{"scopes":[]}`))
	require.Empty(t, none.Key.Scopes, "an empty list is not everything")
	require.NotContains(t, s.call(t, senderA, "GET", "/keys", "").body, got.APIKey)
}

func TestAPIExplainsWrongFieldsAndChangesNothing(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	id := s.issue(t, sqlkeys.NewKey{SenderID: senderA, ExpiresAt: time.Now().Add(time.Hour)}).Key.ID
	before := s.audit(t)
	for _, c := range []struct {
		as, method, path, body string
		status                 int
		text                   string
	}{
		{senderA, "POST", "/keys", `{"name":"` + strings.Repeat("n", 201) + `"}`, 422, `"name":"The name has 201 bytes.`},
		{senderA, "POST", "/keys", `{"name":"a\u0000"}`, 422, `"name":"The name has control characters`},
		{senderA, "POST", "/keys", `{"environment":"moon"}`, 422, `"environment":"Choose one of`},
		{senderA, "POST", "/keys", `{"environment":""}`, 422, `"environment":"Choose one of`},
		{senderA, "POST", "/keys", `{"format":"hex"}`, 422, `"format":"Choose one of`},
		{senderA, "POST", "/keys", `{"expires_at":"2001-01-01T00:00:00Z"}`, 422, `"expires_at":"The instant is not in the future."`},
		{senderA, "POST", "/keys", `{"scopes":["a b"]}`, 422, `"scopes":"An entry is empty, or has a space`},
		{senderA, "POST", "/keys", `{"scopes":[""]}`, 422, `"scopes":"An entry is empty`},
		{senderA, "POST", "/keys", `{"scopes":null}`, 422, `"scopes":"Enter scopes, or * for everything."`},
		{senderA, "POST", "/keys", `{"networks":["10.0.0.1/8"]}`, 422, `"networks":`},
		{operator, "POST", "/keys", `{}`, 422, `"sender_id":"Enter the ID of a sender`},
		{senderA, "POST", "/keys", ``, 400, `The body is not one JSON object`},
		{senderA, "POST", "/keys", `null`, 400, `The body is not one JSON object`},
		{senderA, "POST", "/keys/" + id + "/rotate", `null`, 400, `The body is not one JSON object`},
		{senderA, "POST", "/keys", `[]`, 400, `The body is not one JSON object`},
		{senderA, "POST", "/keys", `{} {}`, 400, `The body is not one JSON object`},
		{senderA, "POST", "/keys", `{"nmae":"x"}`, 400, `The body is not one JSON object`},
		{senderA, "POST", "/keys", `{"name":"` + strings.Repeat("n", 64<<10) + `"}`, 413, `larger than 64 KiB`},
		{senderA, "POST", "/keys/" + id + "/rotate", `{"grace_seconds":-1}`, 422, `"grace_seconds":"The grace period is not between 0 and 30 days."`},
		{senderA, "POST", "/keys/" + id + "/rotate", `{"grace_seconds":9223372036854775807}`, 422, `"grace_seconds":`},
		{senderA, "POST", "/keys/" + id + "/rotate", `{"grace_seconds":7200}`, 422, `"grace_seconds":"The old key expires before that`},
		{senderA, "POST", "/keys/" + id + "/rotate", `{"expires_at":"2001-01-01T00:00:00Z"}`, 422, `"expires_at":`},
		{senderA, "PUT", "/keys/" + id + "/access", `{"scopes":[]}`, 422, `"networks":"Name the networks.`},
		{senderA, "PUT", "/keys/" + id + "/access", `{"networks":[]}`, 422, `"scopes":`},
		{operator, "POST", "/senders", `{"id":"acme"}`, 422, `"id":"Enter the ID of a sender`},
		{operator, "POST", "/senders", `{"limits":{"default":"fast"}}`, 422, `"limits":`},
		{operator, "POST", "/senders", `{"metadata":{"a=b":"c"}}`, 422, `"metadata":"A name or a value has a line break`},
		{operator, "PUT", "/senders/" + senderA + "/limits", `{}`, 422, `"limits":"Name the limits.`},
		{operator, "GET", "/usage", ``, 400, `Name a sender`},
		{operator, "GET", "/keys?after=nonsense", ``, 404, `There is no such page of the list.`},
		{senderA, "PATCH", "/keys", ``, 405, `does not take that kind of request`},
		{senderA, "POST", "/usage", `{}`, 405, `does not take that kind of request`},
		{senderA, "POST", "/nothing", `{}`, 404, `There is no such page or key.`},
		{senderA, "GET", "/nothing", ``, 404, `There is no such page or key.`},
	} {
		got := s.call(t, c.as, c.method, c.path, c.body)
		got.want(t, c.status, c.text)
		require.Equal(t, "application/problem+json", got.Header.Get("Content-Type"), c.path)
	}
	r := httptest.NewRequest("POST", "/api/v1/keys", strings.NewReader("{}"))
	r.Header.Set("Content-Type", "text/plain")
	s.send(t, senderA, r).want(t, 415, "application/json")
	require.Equal(t, before, s.audit(t))
}

func TestAPIToldOfStrangersAndOutages(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	s.call(t, "", "GET", "/keys", "").want(t, 403, `"detail":"You have no access to these API keys."`)
	r := httptest.NewRequest("POST", "/api/v1/keys", strings.NewReader("{}"))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	s.send(t, senderA, r).want(t, 403, "The request came from another site.")
	require.NoError(t, s.db.Close())
	away := s.call(t, senderA, "GET", "/keys", "")
	away.want(t, 503, `"detail":"The keys cannot be read or changed at the moment.`)
	require.Equal(t, "5", away.Header.Get("Retry-After"))
	require.Equal(t, "application/problem+json", away.Header.Get("Content-Type"))
	require.NotContains(t, away.body, "sql")
	require.Contains(t, s.log.String(), "sql: database is closed")
}

func TestAPIAsksToSignInWithoutARedirect(t *testing.T) {
	s := newSite(t, keydesk.Config{Authorize: func(*http.Request) (keydesk.Actor, error) { return keydesk.Actor{}, keydesk.SignIn("/login") }})
	got := s.call(t, "", "GET", "/keys", "")
	got.want(t, 401, `"detail":"Sign in first."`)
	require.Empty(t, got.Header.Get("Location"))
	require.Empty(t, s.log.String())
}
