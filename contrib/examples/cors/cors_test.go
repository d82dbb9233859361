package cors_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

const (
	sender = "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11"
	key    = "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01"
)

type response struct {
	Status int
	Header http.Header
	Body   string
}

func do(h http.Handler, method string, header http.Header) response {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, "/v1/messages", nil)
	r.Header = header
	h.ServeHTTP(w, r)
	return response{w.Code, w.Header(), w.Body.String()}
}

func preflight() http.Header {
	return http.Header{
		"Origin":                         {"https://app.example"},
		"Access-Control-Request-Method":  {"POST"},
		"Access-Control-Request-Headers": {"content-type,x-api-key,x-sender-id"},
	}
}

// A preflight carries no credentials, so the guard must not see it.
func TestPreflightPassesWithCORSOutsideTheGuard(t *testing.T) {
	keys, err := senderauth.Static(senderauth.Credentials{SenderID: sender, APIKey: key})
	require.NoError(t, err)
	var outcomes []senderauth.Outcome
	guard, err := senderauth.New(keys, senderauth.Config{
		Limits:     map[string]senderauth.Limit{"default": {Requests: 1, Per: time.Hour}},
		RateFields: senderauth.RateFieldsDraft,
		Observe:    func(_ context.Context, e senderauth.Event) { outcomes = append(outcomes, e.Outcome) },
	})
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/messages", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })
	api := allow.Handler(guard.Wrap(mux))

	require.Equal(t, response{204, http.Header{
		"Access-Control-Allow-Headers": {"content-type,x-api-key,x-sender-id"},
		"Access-Control-Allow-Methods": {"POST"},
		"Access-Control-Allow-Origin":  {"*"},
		"Access-Control-Max-Age":       {"600"},
		"Vary":                         {"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"},
	}, ""}, do(api, "OPTIONS", preflight()))
	require.Empty(t, outcomes, "a preflight does not reach the guard")

	const exposed = "Ratelimit, Ratelimit-Policy, Retry-After, Www-Authenticate, X-Api-Key-Expires, X-Ratelimit-Limit, X-Ratelimit-Remaining, X-Ratelimit-Reset"
	require.Equal(t, response{401, http.Header{
		"Access-Control-Allow-Origin":   {"*"},
		"Access-Control-Expose-Headers": {exposed},
		"Cache-Control":                 {"no-store"},
		"Content-Type":                  {"application/problem+json"},
		"Vary":                          {"Origin"},
		"Www-Authenticate":              {`ApiKey realm="api"`},
		"X-Content-Type-Options":        {"nosniff"},
	}, `{"status":401,"title":"Unauthorized","detail":"Header x-api-key not found","type":"about:blank"}`},
		do(api, "POST", http.Header{"Origin": {"https://app.example"}}))

	call := http.Header{"Origin": {"https://app.example"}, "X-Sender-Id": {sender}, "X-Api-Key": {key}}
	require.Equal(t, response{202, http.Header{
		"Access-Control-Allow-Origin":   {"*"},
		"Access-Control-Expose-Headers": {exposed},
		"Cache-Control":                 {"private"},
		"Ratelimit":                     {`"default";r=0;t=3600`},
		"Ratelimit-Policy":              {`"default";q=1;w=3600`},
		"Vary":                          {"Origin"},
	}, ""}, do(api, "POST", call))

	limited := do(api, "POST", call)
	require.Equal(t, 429, limited.Status)
	require.Regexp(t, regexp.MustCompile(`^[1-9][0-9]*$`), limited.Header.Get("Retry-After"))
	require.Equal(t, "*", limited.Header.Get("Access-Control-Allow-Origin"))
	require.Equal(t, exposed, limited.Header.Get("Access-Control-Expose-Headers"))
	require.Equal(t, []senderauth.Outcome{senderauth.MissingKey, senderauth.Admitted, senderauth.Limited}, outcomes)
}

// The wrong order: the guard refuses the preflight, and the browser does not let the
// page see why.
func TestPreflightIsRefusedWithCORSInsideTheGuard(t *testing.T) {
	keys, err := senderauth.Static(senderauth.Credentials{SenderID: sender, APIKey: key})
	require.NoError(t, err)
	guard, err := senderauth.New(keys, senderauth.Config{Limits: map[string]senderauth.Limit{"default": senderauth.PerMinute(60)}})
	require.NoError(t, err)

	res := do(guard.Wrap(allow.Handler(http.NotFoundHandler())), "OPTIONS", preflight())
	require.Equal(t, 401, res.Status)
	require.NotContains(t, res.Header, "Access-Control-Allow-Origin")
}
