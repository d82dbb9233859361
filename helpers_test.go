package senderauth_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// senderID and apiKey return the credentials of the n-th sender. A key has digits
// that no sender ID has, so that noPart finds a part of a key anywhere.
func senderID(n int) string { return fmt.Sprintf("7a1de7b4-3a0e-4d6e-9c2b-%012x", n) }
func apiKey(n int) string   { return fmt.Sprintf("0b9d3c1e-6f52-4c8a-b1d7-%06xe3f5c7", n) }

func pair(n int) senderauth.Credentials {
	return senderauth.Credentials{SenderID: senderID(n), APIKey: apiKey(n)}
}

// owner returns the number of the sender that owns key.
func owner(key string) (n int, ok bool) {
	_, err := fmt.Sscanf(key, "0b9d3c1e-6f52-4c8a-b1d7-%06xe3f5c7", &n)
	return n, err == nil && key == apiKey(n)
}

// knowsAll is a validator that accepts every apiKey(n) as a key of senderID(n).
func knowsAll(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
	n, ok := owner(c.APIKey)
	switch {
	case !ok:
		return senderauth.Sender{}, senderauth.ErrInvalidKey
	case c.SenderID != "" && c.SenderID != senderID(n):
		return senderauth.Sender{}, senderauth.ErrKeyMismatch
	}
	return senderauth.Sender{ID: senderID(n), KeyID: "key-" + strconv.Itoa(n)}, nil
}

func refuseWith(err error) senderauth.ValidatorFunc {
	return func(context.Context, senderauth.Credentials) (senderauth.Sender, error) {
		return senderauth.Sender{}, err
	}
}

// bubble runs a subtest on synctest's clock, which starts at epoch.
func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// three is a limit with round numbers: one token a second, a burst of three.
var three = senderauth.Limit{Requests: 60, Per: time.Minute, Burst: 3}

func limits(l senderauth.Limit) map[string]senderauth.Limit {
	return map[string]senderauth.Limit{"default": l}
}

// An app is a guarded handler that records lookups, events and served requests.
type app struct {
	http.Handler
	guard *senderauth.Guard

	mu     sync.Mutex
	asked  []senderauth.Credentials
	events []senderauth.Event
	served []*http.Request
}

// newApp guards a handler that answers 200 with the sender's ID. The defaults are
// the validator knowsAll and the limit three.
func newApp(t testing.TB, v senderauth.ValidatorFunc, cfg senderauth.Config) *app {
	t.Helper()
	a := &app{}
	if v == nil {
		v = knowsAll
	}
	if cfg.Limits == nil {
		cfg.Limits = limits(three)
	}
	observe := cfg.Observe
	cfg.Observe = func(ctx context.Context, e senderauth.Event) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.events = append(a.events, e)
		if observe != nil {
			observe(ctx, e)
		}
	}
	guard, err := senderauth.New(senderauth.ValidatorFunc(func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		a.mu.Lock()
		a.asked = append(a.asked, c)
		a.mu.Unlock()
		return v(ctx, c)
	}), cfg)
	require.NoError(t, err)
	a.guard = guard
	a.Handler = guard.Wrap(a.hello())
	return a
}

// hello returns a handler that records the request and answers 200 with the
// sender's ID.
func (a *app) hello() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.served = append(a.served, r)
		a.mu.Unlock()
		s, _ := senderauth.SenderFrom(r.Context())
		w.Header()["Content-Type"] = []string{"text/plain"}
		fmt.Fprint(w, "hello "+s.ID)
	})
}

// outcomes returns the outcomes of all events so far.
func (a *app) outcomes() []senderauth.Outcome {
	var os []senderauth.Outcome
	for _, e := range a.events {
		os = append(os, e.Outcome)
	}
	return os
}

// limits returns the names of the limits in all events so far.
func (a *app) limits() []string {
	var names []string
	for _, e := range a.events {
		names = append(names, e.Limit)
	}
	return names
}

// observeTo returns a Config.Observe that appends to events.
func observeTo(events *[]senderauth.Event) func(context.Context, senderauth.Event) {
	return func(_ context.Context, e senderauth.Event) { *events = append(*events, e) }
}

// request returns a GET with these header lines: name, value, name, value.
func request(lines ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for i := 0; i < len(lines); i += 2 {
		r.Header.Add(lines[i], lines[i+1])
	}
	return r
}

// of returns a request of the n-th sender.
func of(n int) *http.Request { return request("x-sender-id", senderID(n), "x-api-key", apiKey(n)) }

// A response is everything that a client sees.
type response struct {
	Status int
	Header map[string]string // several lines of a field are joined by line feeds
	Body   string
}

// serve returns what a client sees, apart from fields that net/http adds, such as
// Content-Length.
func serve(h http.Handler, r *http.Request) response {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	got := seen(w.Code, w.Result().Header, w.Body.String())
	if r.Method == http.MethodHead {
		return got.head()
	}
	return got
}

func seen(status int, h http.Header, body string) response {
	fields := map[string]string{}
	for name, lines := range h {
		fields[name] = strings.Join(lines, "\n")
	}
	return response{status, fields, body}
}

// with returns r with more fields: name, value, name, value.
func (r response) with(fields ...string) response {
	r.Header = maps.Clone(r.Header)
	for i := 0; i < len(fields); i += 2 {
		r.Header[fields[i]] = fields[i+1]
	}
	return r
}

// head returns the response to the same request with the method HEAD.
func (r response) head() response {
	r.Body = ""
	return r
}

// hello is the answer of an app's handler to the n-th sender.
func hello(n int) response {
	return response{200, map[string]string{"Content-Type": "text/plain", "Cache-Control": "private"}, "hello " + senderID(n)}
}

// refused is the whole response of a refusal.
func refused(status int, detail string) response {
	body := fmt.Sprintf(`{"status":%d,"title":%q,"detail":%q,"type":"about:blank"}`, status, http.StatusText(status), detail)
	r := response{status, map[string]string{
		"Content-Type":           "application/problem+json",
		"Cache-Control":          "no-store",
		"X-Content-Type-Options": "nosniff",
	}, body}
	if status == 401 {
		r.Header["Www-Authenticate"] = `ApiKey realm="api"`
	}
	if status == 503 {
		r.Header["Retry-After"] = "1"
	}
	return r
}

func limited(seconds string) response {
	return refused(429, "Rate limit exceeded. Please retry after "+seconds+" seconds.").with("Retry-After", seconds)
}

var (
	internal    = refused(500, "An internal error occurred.")
	unavailable = refused(503, "The service is temporarily unavailable. Please retry.")
)

// rateFields returns the fields of both families for one bucket: its burst, the
// tokens left, the seconds until it is full, and the two items of the draft.
func rateFields(burst, left, full int, state, policy string) []string {
	return append(rateFieldsX(burst, left, full), "Ratelimit", state, "Ratelimit-Policy", policy)
}

func rateFieldsX(burst, left, full int) []string {
	return []string{
		"X-Ratelimit-Limit", strconv.Itoa(burst),
		"X-Ratelimit-Remaining", strconv.Itoa(left),
		"X-Ratelimit-Reset", strconv.FormatInt(time.Now().Unix()+int64(full), 10),
	}
}

// threeLeft returns the fields of the limit three with left tokens.
func threeLeft(left int) []string {
	state := fmt.Sprintf(`"default";r=%d;t=1`, left)
	return rateFields(3, left, 3-left, state, `"default";q=3;w=3`)
}

// noPart fails the test if text contains eight consecutive characters of key.
func noPart(t testing.TB, text, key string) {
	t.Helper()
	text, key = strings.ToLower(text), strings.ToLower(key)
	for i := 0; i+8 <= len(key); i++ {
		if at := strings.Index(text, key[i:i+8]); at >= 0 {
			t.Fatalf("the text contains a part of the key, after %q", text[max(at-200, 0):at])
		}
	}
}

func newCache(t testing.TB, v senderauth.Validator, cfg senderauth.CacheConfig) *senderauth.Cache {
	t.Helper()
	c, err := senderauth.NewCache(v, cfg)
	require.NoError(t, err)
	return c
}
