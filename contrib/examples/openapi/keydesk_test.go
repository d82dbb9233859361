package openapi_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/keydesk"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
	"github.com/stretchr/testify/require"
)

// A described handler checks each request and each answer against its description.
type described struct {
	http.Handler
	t      *testing.T
	router routers.Router
	called map[string]map[int]bool // statuses by operation
}

const deskAPI = "/settings/api-keys/api/v1"

func newDescribed(t *testing.T) *described {
	db, err := sqlkeys.OpenDB(filepath.Join(t.TempDir(), "keys.db"))
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	store, err := sqlkeys.Open(t.Context(), db, sqlkeys.Config{Migrate: true})
	require.NoError(t, err)
	t.Cleanup(func() { store.Close() })
	_, err = store.CreateSender(t.Context(), sqlkeys.NewSender{ID: sender})
	require.NoError(t, err)
	desk, err := keydesk.New(store, keydesk.Config{
		Prefix: "/settings/api-keys",
		Authorize: func(r *http.Request) (keydesk.Actor, error) {
			switch user, _, _ := r.BasicAuth(); user {
			case "operator":
				return keydesk.Actor{Name: "olga", Operator: true}, nil
			case "tenant":
				return keydesk.Actor{Name: "ada", SenderID: sender}, nil
			}
			return keydesk.Actor{}, keydesk.SignIn("/login")
		},
		Limits:  map[string]senderauth.Limit{"default": senderauth.PerMinute(60)},
		Limiter: senderauth.NewMemoryLimiter(senderauth.MemoryLimiterConfig{}),
	})
	require.NoError(t, err)
	d := &described{Handler: desk, t: t, called: make(map[string]map[int]bool)}
	_, body := d.raw("tenant", "GET", "/openapi.json", "")
	doc, err := openapi3.NewLoader().LoadFromData(body)
	require.NoError(t, err)
	require.NoError(t, doc.Validate(t.Context()))
	require.Equal(t, "3.1.0", doc.OpenAPI)
	d.router, err = gorillamux.NewRouter(doc)
	require.NoError(t, err)
	for _, path := range doc.Paths.Map() {
		for _, operation := range path.Operations() {
			d.called[operation.OperationID] = make(map[int]bool)
		}
	}
	return d
}

func request(as, method, path, body string) *http.Request {
	r := httptest.NewRequest(method, deskAPI+path, strings.NewReader(body))
	r.SetBasicAuth(as, "")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

func (d *described) raw(as, method, path, body string) (*http.Response, []byte) {
	w := httptest.NewRecorder()
	d.ServeHTTP(w, request(as, method, path, body))
	res := w.Result()
	b, err := io.ReadAll(res.Body)
	require.NoError(d.t, err)
	return res, b
}

// call sends a request that matches the description, and decodes the answer.
func (d *described) call(as, method, path, body string, status int) (into struct {
	ID   string
	Key  struct{ ID string }
	Next *string
}) {
	d.t.Helper()
	r := request(as, method, path, body)
	route, params, err := d.router.FindRoute(r)
	require.NoError(d.t, err, path)
	in := &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}}
	if status != 422 && status != 400 { // a wrong request need not match
		require.NoError(d.t, openapi3filter.ValidateRequest(d.t.Context(), in), "%s %s %s", method, path, body)
	}
	res, b := d.raw(as, method, path, body)
	require.Equal(d.t, status, res.StatusCode, "%s", b)
	out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: res.StatusCode, Header: res.Header,
		Options: &openapi3filter.Options{IncludeResponseStatus: true}}
	out.Body = io.NopCloser(bytes.NewReader(b))
	require.NoError(d.t, openapi3filter.ValidateResponse(d.t.Context(), out), "%s %s: %s", method, path, b)
	d.called[route.Operation.OperationID][status] = true
	require.NoError(d.t, json.Unmarshal(b, &into))
	return into
}

func TestKeydeskAnswersAsItsDescriptionSays(t *testing.T) {
	d := newDescribed(t)
	d.call("tenant", "GET", "/openapi.json", "", 200)
	made := d.call("tenant", "POST", "/keys", `{"name":"web","scopes":["orders:read"],"networks":["10.0.0.0/8"],"expires_at":"2099-01-01T00:00:00Z"}`, 201).Key.ID
	d.call("operator", "POST", "/keys", `{"sender_id":"`+sender+`"}`, 201)
	d.call("operator", "POST", "/keys", `{"sender_id":"c3a1f0de-1111-4c7e-8d55-5a2f60b7e902"}`, 409)
	d.call("tenant", "POST", "/keys", `{"environment":"moon"}`, 422)
	d.call("tenant", "POST", "/keys", `[]`, 400)
	d.call("nobody", "GET", "/keys", "", 401)
	d.call("tenant", "GET", "/keys", "", 200)
	d.call("operator", "GET", "/keys?sender="+sender, "", 200)
	d.call("operator", "GET", "/keys?after=nonsense", "", 404)
	d.call("tenant", "GET", "/keys/"+made, "", 200)
	d.call("tenant", "GET", "/keys/key_aaaaaaaaaaaaaaaa", "", 404)
	d.call("tenant", "PUT", "/keys/"+made+"/access", `{"scopes":["*"],"networks":[]}`, 200)
	d.call("tenant", "POST", "/keys/"+made+"/disable", "", 200)
	d.call("tenant", "POST", "/keys/"+made+"/rotate", `{}`, 409)
	d.call("tenant", "POST", "/keys/"+made+"/enable", "", 200)
	d.call("tenant", "POST", "/keys/"+made+"/rotate", `{"grace_seconds":3600}`, 201)
	d.call("tenant", "GET", "/keys/"+made, "", 200)
	d.call("tenant", "POST", "/keys/"+made+"/revoke", "", 200)
	d.call("tenant", "POST", "/keys/"+made+"/revoke", "", 409)
	d.call("tenant", "GET", "/usage?period=7d", "", 200)
	d.call("operator", "GET", "/usage", "", 400)
	d.call("tenant", "GET", "/limits", "", 200)
	d.call("tenant", "GET", "/audit?key="+made, "", 200)
	other := d.call("operator", "POST", "/senders", `{"limits":{"default":"200/1m:50"},"metadata":{"company":"Acme"}}`, 201).ID
	d.call("operator", "GET", "/senders", "", 200)
	d.call("operator", "GET", "/senders/"+other, "", 200)
	d.call("tenant", "GET", "/senders/"+other, "", 404)
	d.call("operator", "PUT", "/senders/"+other+"/limits", `{"limits":{"default":"unlimited"}}`, 200)
	d.call("operator", "PUT", "/senders/"+other+"/limits", `{"limits":{"default":"fast"}}`, 422)
	d.call("operator", "POST", "/senders/"+other+"/disable", "", 200)
	d.call("operator", "POST", "/senders/"+other+"/enable", "", 200)
	for operation, statuses := range d.called {
		require.True(t, statuses[200] || statuses[201], "%s was not called with success", operation)
	}
}
