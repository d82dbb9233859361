package keydesk_test

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/keydesk"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// hostile are the values of a form that tries to reach another sender.
func hostile(more url.Values) url.Values {
	form := url.Values{"sender": {senderA}, "sender_id": {senderA}, "SenderID": {senderA}}
	for name, values := range more {
		form[name] = values
	}
	return form
}

// tenantRoutes holds, for each route, the answer to a tenant that asks for what belongs
// to another tenant. A new route needs an entry.
var tenantRoutes = map[string]struct {
	status int
	form   url.Values
	json   string
	key    bool // the page takes ?key=
}{
	// With the tenant's own data.
	"GET /{$}":       {status: 200},
	"GET /generate":  {status: 200},
	"POST /generate": {status: 200, form: url.Values{"token": {"a-token-that-is-long-enough"}, "name": {"mine"}, "environment": {"staging"}, "format": {"uuid"}, "expires": {"never"}, "scopes": {"*"}}},
	"GET /usage":     {status: 200, key: true},
	"GET /limits":    {status: 200, key: true},
	"GET /audit":     {status: 200, key: true},

	"GET /keys/{key}":          {status: 404},
	"GET /keys/{key}/rotate":   {status: 404},
	"POST /keys/{key}/rotate":  {status: 404, form: url.Values{"grace": {"0"}, "expires": {"same"}}},
	"POST /keys/{key}/disable": {status: 404},
	"POST /keys/{key}/enable":  {status: 404},
	"GET /keys/{key}/access":   {status: 404},
	"POST /keys/{key}/access":  {status: 404, form: url.Values{"scopes": {""}, "networks": {""}, "before": {"* from  as theirs"}, "name": {"mine"}}},
	"GET /keys/{key}/revoke":   {status: 404},
	"POST /keys/{key}/revoke":  {status: 404},

	"GET /api/v1/openapi.json":              {status: 200},
	"GET /api/v1/keys":                      {status: 200},
	"POST /api/v1/keys":                     {status: 201, json: `{"sender_id":"` + senderA + `","name":"mine"}`},
	"GET /api/v1/usage":                     {status: 200, key: true},
	"GET /api/v1/limits":                    {status: 200, key: true},
	"GET /api/v1/audit":                     {status: 200, key: true},
	"GET /api/v1/keys/{key}":                {status: 404},
	"POST /api/v1/keys/{key}/rotate":        {status: 404, json: `{"grace_seconds":60}`},
	"PUT /api/v1/keys/{key}/access":         {status: 404, json: `{"scopes":[],"networks":[]}`},
	"POST /api/v1/keys/{key}/disable":       {status: 404},
	"POST /api/v1/keys/{key}/enable":        {status: 404},
	"POST /api/v1/keys/{key}/revoke":        {status: 404},
	"GET /api/v1/senders":                   {status: 404},
	"POST /api/v1/senders":                  {status: 404, json: `{}`},
	"GET /api/v1/senders/{sender}":          {status: 404},
	"PUT /api/v1/senders/{sender}/limits":   {status: 404, json: `{"limits":{"default":"unlimited"}}`},
	"POST /api/v1/senders/{sender}/disable": {status: 404},
	"POST /api/v1/senders/{sender}/enable":  {status: 404},

	"GET /senders":                   {status: 404},
	"GET /create-sender":             {status: 404},
	"POST /create-sender":            {status: 404, form: url.Values{"id": {"cccccccc-3a0e-4d6e-9c2b-0f7f5a1c0a11"}}},
	"GET /senders/{sender}":          {status: 404},
	"GET /senders/{sender}/plan":     {status: 404},
	"POST /senders/{sender}/plan":    {status: 404, form: url.Values{"limits": {"default=unlimited"}, "before": {""}}},
	"POST /senders/{sender}/disable": {status: 404},
	"POST /senders/{sender}/enable":  {status: 404},
}

func TestNoRouteShowsOrChangesTheKeysOfAnotherTenant(t *testing.T) {
	for _, route := range keydesk.Routes() {
		t.Run(route, func(t *testing.T) {
			c, ok := tenantRoutes[route]
			require.True(t, ok, "%s is not in tenantRoutes", route)
			s := newSite(t, keydesk.Config{Limits: limits, Limiter: senderauth.NewMemoryLimiter(senderauth.MemoryLimiterConfig{})})
			foreign := s.issue(t, sqlkeys.NewKey{SenderID: senderA, Name: "theirs"})
			own := s.issue(t, sqlkeys.NewKey{SenderID: senderB, Name: "mine"})
			s.count(t, foreign.Key.ID, time.Now(), senderauth.Admitted, 987654)
			before, all := ofSender(s.audit(t), senderA), senderCount(t, s)

			method, path, _ := strings.Cut(route, " ")
			path = strings.TrimSuffix(path, "{$}")
			path = strings.ReplaceAll(path, "{sender}", senderA)
			ask := func(as, keyID string, more ...string) reply {
				asked := strings.ReplaceAll(path, "{key}", keyID) + "?sender=" + senderA + "&sender_id=" + senderA + strings.Join(more, "")
				r := httptest.NewRequest(method, asked, strings.NewReader(hostile(c.form).Encode()))
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				if strings.HasPrefix(path, "/api/") {
					r = httptest.NewRequest(method, asked, strings.NewReader(c.json))
					r.Header.Set("Content-Type", "application/json")
				}
				return s.send(t, as, r)
			}
			got := ask(senderB, foreign.Key.ID)
			require.Equal(t, c.status, got.StatusCode, got.body)
			for _, secret := range []string{senderA, foreign.Key.ID, "theirs", "987654", "987\u202f654", foreign.Credentials.APIKey} {
				require.NotContains(t, got.body, secret)
			}
			require.Equal(t, before, ofSender(s.audit(t), senderA), "nothing of the other tenant was changed")
			require.Equal(t, sqlkeys.Active, s.state(t, foreign.Key.ID))
			require.Equal(t, all, senderCount(t, s))

			if c.key {
				got, unknown := ask(senderB, "", "&key="+foreign.Key.ID), ask(senderB, "", "&key=key_aaaaaaaaaaaaaaaa")
				require.Equal(t, 404, got.StatusCode)
				require.Equal(t, unknown.body, got.body)
				require.Equal(t, 200, ask(senderB, "", "&key="+own.Key.ID).StatusCode)
				require.Equal(t, 200, ask(operator, "", "&key="+foreign.Key.ID).StatusCode)
			}
			if strings.Contains(path, "{key}") {
				unknown := ask(senderB, "key_aaaaaaaaaaaaaaaa")
				require.Equal(t, unknown.body, got.body, "a foreign key is answered like an unknown one")
				require.Equal(t, unknown.Header, got.Header)
				require.Equal(t, unknown.body, ask(senderB, "key_malformed").body)
				require.NotEqual(t, 404, ask(senderB, own.Key.ID).StatusCode, "the tenant reaches its own key")
				require.NotEqual(t, 404, ask(operator, foreign.Key.ID).StatusCode, "an operator reaches every key")
			}
			require.Equal(t, 403, ask("", foreign.Key.ID).StatusCode, "a stranger reaches nothing")
			require.Equal(t, 403, ask("nobody", foreign.Key.ID).StatusCode, "the zero Actor reaches nothing")
		})
	}
}

func senderCount(t *testing.T, s *site) (n int) {
	for _, err := range s.Senders(t.Context(), sqlkeys.SenderFilter{}) {
		require.NoError(t, err)
		n++
	}
	return n
}

func ofSender(entries []sqlkeys.AuditEntry, id string) []sqlkeys.AuditEntry {
	var own []sqlkeys.AuditEntry
	for _, e := range entries {
		if e.SenderID == id {
			own = append(own, e)
		}
	}
	return own
}

func TestEveryAnswerIsProtected(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	id := s.issue(t, sqlkeys.NewKey{SenderID: senderA}).Key.ID
	paths := []string{"", "/", "/nothing", "//", "/static/nothing.css"}
	for _, route := range keydesk.Routes() {
		_, path, _ := strings.Cut(route, " ")
		paths = append(paths, strings.NewReplacer("{$}", "", "{key}", id, "{sender}", senderA).Replace(path))
	}
	for _, as := range []string{senderA, operator, ""} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"} {
			for _, path := range paths {
				r := httptest.NewRequest(method, "/", nil)
				r.URL.Path = path
				got := s.send(t, as, r)
				h := got.Header
				require.Equal(t, "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; "+
					"frame-ancestors 'none'; base-uri 'none'", h.Get("Content-Security-Policy"), path)
				require.Equal(t, "no-store", h.Get("Cache-Control"), path)
				require.Equal(t, "same-origin", h.Get("Referrer-Policy"))
				require.Equal(t, "nosniff", h.Get("X-Content-Type-Options"))
				require.Equal(t, "DENY", h.Get("X-Frame-Options"))
				require.Equal(t, "same-origin", h.Get("Cross-Origin-Opener-Policy"))
				require.Equal(t, "same-origin", h.Get("Cross-Origin-Resource-Policy"))
				require.NotRegexp(t, `(?i)<script>|<script [^>]*>[^<]|<style|\sstyle=|\son\w+=|javascript:`, got.body, "nothing that the policy forbids")
			}
		}
	}
}

func TestOtherOriginsChangeNothing(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	id := s.issue(t, sqlkeys.NewKey{SenderID: senderA}).Key.ID
	for _, field := range [][2]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"}} {
		r := httptest.NewRequest("POST", "/keys/"+id+"/revoke", nil)
		r.Header.Set(field[0], field[1])
		s.send(t, senderA, r).want(t, 403, "The request came from another site.")
		require.Equal(t, sqlkeys.Active, s.state(t, id))
	}
	r := httptest.NewRequest("POST", "/keys/"+id+"/revoke", nil)
	r.Header.Set("Origin", "http://example.com")
	s.send(t, senderA, r).want(t, 303)
	require.Equal(t, sqlkeys.Revoked, s.state(t, id))
}

func TestOtherMethodsAreRefused(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	id := s.issue(t, sqlkeys.NewKey{SenderID: senderA}).Key.ID
	for path, allow := range map[string]string{
		"/":                        "GET, HEAD",
		"/generate":                "GET, HEAD, POST",
		"/keys/" + id + "/disable": "POST",
	} {
		got := s.send(t, senderA, httptest.NewRequest("PUT", path, nil))
		got.want(t, 405, "This page does not take that kind of request.")
		require.Equal(t, allow, got.Header.Get("Allow"))
	}
	got := s.get(t, senderA, "/keys/"+id+"/disable")
	got.want(t, 405)
	require.Equal(t, sqlkeys.Active, s.state(t, id))
}

func TestReadOnlyDeskChangesNothing(t *testing.T) {
	s := newSite(t, keydesk.Config{ReadOnly: true})
	id := s.issue(t, sqlkeys.NewKey{SenderID: senderA, Name: "web"}).Key.ID
	before := s.audit(t)
	for _, as := range []string{senderA, operator} {
		for _, route := range keydesk.Routes() {
			method, path, _ := strings.Cut(route, " ")
			path = strings.NewReplacer("{$}", "", "{key}", id, "{sender}", senderA).Replace(path)
			got := s.send(t, as, httptest.NewRequest(method, path, nil))
			if method != "GET" && got.StatusCode != 404 {
				got.want(t, 403, "Keys cannot be changed here.")
			}
			if got.StatusCode == 200 && !strings.HasPrefix(path, "/api/") {
				require.NotContains(t, got.body, `method="post"`, path)
				require.NotContains(t, got.body, "/generate")
				require.NotContains(t, got.body, "/revoke")
			}
		}
	}
	s.get(t, senderA, "/").want(t, 200, "web")
	s.get(t, senderA, "/keys/"+id).want(t, 200, "web")
	require.Equal(t, before, s.audit(t))
}
