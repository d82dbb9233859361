package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// An application is the test application that the start of vectors.json describes,
// behind a guard in one of its configurations.
type application struct {
	suite   *suite
	store   *store
	cache   *senderauth.Cache
	limiter *senderauth.MemoryLimiter
	handler http.Handler
	calls   atomic.Int32 // calls of the application's handlers
	log     io.Writer    // gets everything that is logged
}

const (
	cacheTTL = 10 * time.Minute
	allowed  = "https://app.example" // the origin of cors-outside
)

// backends replace the store and the limiter of an application. Nil stands for its own.
type backends struct {
	validator senderauth.Validator
	checkKey  func(key string) bool
	limiter   senderauth.Limiter
	observe   func(context.Context, senderauth.Event)
}

func newApplication(t *testing.T, s *suite, config, storeExtra string, b backends, out io.Writer) *application {
	a := &application{suite: s, store: newStore(t, s), limiter: senderauth.NewMemoryLimiter(senderauth.MemoryLimiterConfig{}), log: out}
	a.store.instead = b.validator
	cache := senderauth.CacheConfig{TTL: cacheTTL}
	cfg := senderauth.Config{Limits: map[string]senderauth.Limit{}, Limiter: a.limiter, StripKey: true, CheckKey: b.checkKey, Observe: senderauth.Observers(a.observe, b.observe)}
	if b.limiter != nil {
		cfg.Limiter = b.limiter
	}
	for name, p := range s.Policies {
		cfg.Limits[name] = p.limit
	}
	twoPolicies, cors := false, false
	switch config {
	case "", "default":
	case "cors-outside":
		cors = true
	case "require-tls":
		cfg.RequireTLS = true
	case "require-tls-trust-proxy":
		cfg.RequireTLS = true
		cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	case "keep-credential":
		cfg.StripKey = false
	case "two-policies":
		twoPolicies = true
	case "store-error", "store-down":
		a.store.set("error")
	case "store-timeout":
		a.store.set("block")
		cache.LookupTimeout = 100 * time.Millisecond
	case "store-panic":
		a.store.set("panic")
	case "limiter-error":
		cfg.Limiter = brokenLimiter{}
	case "limiter-error-closed":
		cfg.Limiter = brokenLimiter{}
		cfg.FailClosed = true
	default:
		t.Fatalf("unknown configuration %q", config)
	}
	switch storeExtra {
	case "":
	case "a sender row with the nil UUID and an active key equal to A.active":
		a.store.keys[s.Credentials["A.active"].Key] = record{owner: "00000000-0000-0000-0000-000000000000"}
	default:
		t.Fatalf("unknown store_extra %q", storeExtra)
	}

	var err error
	a.cache, err = senderauth.NewCache(a.store, cache)
	require.NoError(t, err)
	guard, err := senderauth.New(a.cache, cfg)
	require.NoError(t, err)

	mux := a.routes()
	guarded := guard.ChargingBy(func(r *http.Request) []string {
		names := []string{"default"}
		// The handlers of the mux itself, such as that of a redirect, are no routes.
		if h, _ := mux.Handler(r); h != nil {
			if rt, ok := h.(route); ok {
				names[0] = rt.limit
			}
		}
		if twoPolicies {
			names = append(names, "daily")
		}
		return names
	}).Wrap(mux)

	a.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health/live" {
			a.answer(w, r)
			return
		}
		// Act as an outer layer that has already set fields of another representation.
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
		w.Header().Set("Accept-Ranges", "bytes")
		guarded.ServeHTTP(w, r)
	})
	if cors {
		a.handler = allowOrigin(a.handler)
	}
	return a
}

// A route is a handler of the application and the name of the limit to charge for it.
type route struct {
	limit string
	http.Handler
}

func (a *application) routes() *http.ServeMux {
	mux := http.NewServeMux()
	handle := func(pattern, limit string, before func(http.ResponseWriter)) {
		mux.Handle(pattern, route{limit, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			a.calls.Add(1)
			sender, _ := senderauth.SenderFrom(r.Context())
			fmt.Fprintf(a.log, "%+v %+v\n", r.Context(), sender)
			if before != nil {
				before(w)
			}
			a.answer(w, r)
		})})
	}
	status := func(n int) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { w.WriteHeader(n) }
	}
	set := func(name, value string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { w.Header().Set(name, value) }
	}
	handle("GET /v2/contacts", "default", nil)
	handle("GET /v2/contacts/{id}", "contact-id", nil)
	handle("GET /v2/contacts/none", "default", status(http.StatusNotFound))
	handle("POST /v2/messages/phone", "messages", nil)
	handle("POST /v2/messages/quick-message", "quick-message", nil)
	handle("/v2/any", "default", nil)
	handle("POST /v2/echo", "default", nil)
	handle("GET /v2/boom", "default", status(http.StatusInternalServerError))
	handle("GET /v2/app401", "default", func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusUnauthorized)
	})
	handle("GET /v2/cacheable", "default", set("Cache-Control", "public, max-age=60"))
	handle("GET /v2/moved", "default", func(w http.ResponseWriter) {
		w.Header().Set("Location", "/v2/contacts")
		w.WriteHeader(http.StatusMovedPermanently)
	})
	handle("GET /v2/ownlimit", "default", set("RateLimit", `"upstream";r=1`))
	handle("GET /v2/unlimited", "unlimited", nil)
	handle("GET /v2/closed", "closed", nil)
	mux.Handle("GET /v2/panic", route{"default", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { panic(fmt.Sprintf("%+v", r)) })})
	return mux
}

func (a *application) answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		fmt.Fprintln(a.log, err)
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	sender, _ := senderauth.SenderFrom(r.Context())
	_, sawKey := r.Header["X-Api-Key"]
	_, sawSender := r.Header["X-Sender-Id"]
	json.NewEncoder(w).Encode(map[string]any{
		"sender": sender.ID, "method": r.Method, "path": r.URL.Path,
		"saw_api_key": sawKey, "saw_sender_id": sawSender, "body": string(body),
	})
}

// observe logs an event and its context as text and as JSON.
func (a *application) observe(ctx context.Context, e senderauth.Event) {
	fmt.Fprintf(a.log, "%+v %#v\n", e, e)
	slog.New(slog.NewJSONHandler(a.log, &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true})).
		DebugContext(ctx, "decision", "event", e, "err", e.Err, "context", fmt.Sprintf("%+v", ctx))
}

// serve runs a server while it calls f with the server's address.
func (a *application) serve(t *testing.T, f func(addr string)) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &http.Server{Handler: a.handler, ErrorLog: log.New(a.log, "", 0), Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	defer func() {
		require.NoError(t, srv.Close())
		require.ErrorIs(t, <-done, http.ErrServerClosed)
	}()
	f(ln.Addr().String())
}

// allowOrigin is the CORS layer of cors-outside.
func allowOrigin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Origin") == allowed {
			w.Header().Set("Access-Control-Allow-Origin", allowed)
			w.Header().Set("Access-Control-Expose-Headers", "RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate")
			if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
				w.Header().Set("Access-Control-Allow-Headers", "x-api-key, x-sender-id")
				w.WriteHeader(http.StatusNoContent)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

type brokenLimiter struct{}

func (brokenLimiter) Take(context.Context, string, []senderauth.Charge) ([]senderauth.Balance, error) {
	return nil, errors.New("the limiter is down")
}

// A store is a Validator with the credentials of the suite, in their states.
type store struct {
	mu      sync.Mutex
	mode    string               // "ok", "error", "block", "panic"
	instead senderauth.Validator // answers in mode ok, if it is not nil
	keys    map[string]record
	lookups int
}

// A record is a key of the store that is active between from and until.
type record struct {
	name, owner   string
	from, until   time.Time
	ownerDisabled bool
}

func newStore(t *testing.T, s *suite) *store {
	st := &store{mode: "ok", keys: map[string]record{}}
	for name, c := range s.Credentials {
		st.put(t, s, name, c.State)
	}
	return st
}

var keyState = regexp.MustCompile(`^(active|rotated|disabled|inactive|deleted|never issued|absent)\b(?:.*(expires_at|grace_until|valid_from) = now([+-]\d+s)?$)?`)

// put sets the state of a credential. state is in the words of the suite.
func (st *store) put(t *testing.T, s *suite, name, state string) {
	c, ok := s.Credentials[name]
	require.True(t, ok, "unknown credential %q", name)
	m := keyState.FindStringSubmatch(state)
	require.NotNil(t, m, "unknown state %q", state)
	at := time.Now()
	if m[3] != "" {
		d, err := time.ParseDuration(m[3])
		require.NoError(t, err)
		at = at.Add(d)
	}
	owner := s.Senders[c.Sender]
	r := record{name: name, owner: owner.ID, ownerDisabled: owner.State == "disabled"}
	switch m[2] {
	case "expires_at", "grace_until":
		r.until = at
	case "valid_from":
		r.from = at
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	switch m[1] {
	case "active", "rotated":
		st.keys[c.Key] = r
	default:
		delete(st.keys, c.Key)
	}
}

func (st *store) set(mode string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.mode = mode
}

// takeLookups returns the number of lookups since the last call of takeLookups.
func (st *store) takeLookups() int {
	st.mu.Lock()
	defer st.mu.Unlock()
	n := st.lookups
	st.lookups = 0
	return n
}

func (st *store) Validate(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
	st.mu.Lock()
	st.lookups++
	mode := st.mode
	r, found := st.keys[c.APIKey]
	st.mu.Unlock()
	now := time.Now()
	switch {
	case mode == "error":
		return senderauth.Sender{}, errors.New("the store is down")
	case mode == "block":
		<-ctx.Done()
		return senderauth.Sender{}, ctx.Err()
	case mode == "panic":
		// The worst that a store can do. The guard must not pass the key on.
		panic(fmt.Errorf("lookup of key %s failed", c.APIKey))
	case st.instead != nil:
		return st.instead.Validate(ctx, c)
	case !found, now.Before(r.from), !r.until.IsZero() && !now.Before(r.until):
		return senderauth.Sender{}, senderauth.ErrInvalidKey
	case c.SenderID != r.owner:
		return senderauth.Sender{}, senderauth.ErrKeyMismatch
	case r.ownerDisabled:
		return senderauth.Sender{}, senderauth.ErrInvalidSender
	}
	return senderauth.Sender{ID: r.owner, KeyID: r.name, Expires: r.until}, nil
}
