// Package readme compiles the Go snippets of the repository's README and of that of
// otelsender. Each snippet must appear, line by line, in a Go file of the examples.
package readme_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/senderclient"
	"github.com/stretchr/testify/require"
)

var contacts, send, invite http.Handler

func wrap(store senderauth.Validator, mux *http.ServeMux) error {
	keys, err := senderauth.NewCache(store, senderauth.CacheConfig{})
	if err != nil {
		return err
	}
	guard, err := senderauth.New(keys, senderauth.Config{
		Limits: map[string]senderauth.Limit{
			"default":   {Requests: 200, Per: time.Minute, Burst: 50},
			"sensitive": {Requests: 10, Per: time.Minute, Burst: 5},
			"messages":  senderauth.PerMinute(60),
		},
	})
	if err != nil {
		return err
	}
	mux.Handle("GET /v1/contacts", guard.Wrap(contacts))                              // charges "default"
	mux.Handle("POST /v1/messages", guard.Charging("messages").Wrap(send))            // charges "messages" instead
	mux.Handle("POST /v1/users", guard.Charging("default", "sensitive").Wrap(invite)) // both, or neither
	return nil
}

func handle(_ http.ResponseWriter, r *http.Request) string {
	sender, _ := senderauth.SenderFrom(r.Context())
	return sender.ID
}

func byRoute(guard *senderauth.Guard, mux *http.ServeMux) http.Handler {
	return guard.ChargingBy(func(r *http.Request) []string {
		if _, pattern := mux.Handler(r); pattern == "POST /v1/messages" {
			return []string{"messages"}
		}
		return []string{"default"}
	}).Wrap(mux)
}

func withPlans(store senderauth.Validator) senderauth.Validator {
	pro := map[string]senderauth.Limit{"default": {Requests: 2000, Per: time.Minute, Burst: 500}}
	plans := senderauth.ValidatorFunc(func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		s, err := store.Validate(ctx, c)
		if err == nil && s.ID == "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11" {
			s.Limits = pro
		}
		return s, err
	})
	return plans
}

type Store struct{ db *sql.DB }

func (s *Store) Validate(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
	digest := sha256.Sum256([]byte(c.APIKey))
	var owner string
	err := s.db.QueryRowContext(ctx, `SELECT sender_id FROM api_keys WHERE digest = $1 AND revoked_at IS NULL`, digest[:]).Scan(&owner)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return senderauth.Sender{}, senderauth.ErrInvalidKey
	case err != nil:
		return senderauth.Sender{}, err // an outage: 503, never 401
	case c.SenderID != "" && c.SenderID != owner: // "" with Config.KeyOnly
		return senderauth.Sender{}, senderauth.ErrKeyMismatch
	}
	return senderauth.Sender{ID: owner}, nil
}

func bearer(limits map[string]senderauth.Limit) senderauth.Config {
	cfg := senderauth.Config{
		KeyHeader: "Authorization",
		KeyScheme: "Bearer",
		KeyOnly:   true,
		CheckKey:  func(key string) bool { return strings.HasPrefix(key, "sk_live_") },
		Limits:    limits,
	}
	return cfg
}

func charge(guard *senderauth.Guard, w http.ResponseWriter, r *http.Request, recipients int) {
	balance, problem := guard.Charge(r.Context(), "messages", recipients)
	if problem != nil {
		problem.ServeHTTP(w, r) // 429, with Retry-After
		return
	}
	fmt.Fprint(w, balance.Remaining)
}

func requiring(guard *senderauth.Guard, mux *http.ServeMux, list, create http.Handler) {
	mux.Handle("GET /v1/orders", guard.Requiring("orders:read").Wrap(list))
	mux.Handle("POST /v1/orders", guard.Requiring("orders:read", "orders:write").Wrap(create))
}

func rehearsed() (cfg senderauth.Config) {
	cfg.DryRun = []string{"messages"}
	cfg.Observe = senderauth.LogEvents(slog.Default(), nil)
	return cfg
}

func behindNginx() (cfg senderauth.Config) {
	cfg.RequireTLS = true
	cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	return cfg
}

func logged() (cfg senderauth.Config) {
	cfg.Observe = senderauth.LogEvents(slog.Default(), nil)
	cfg.FailedAttempts = senderauth.Limit{Requests: 10, Per: time.Minute, Burst: 30}
	return cfg
}

func TestScopesOfTheReadme(t *testing.T) {
	guard, err := senderauth.New(senderauth.ValidatorFunc(func(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		return senderauth.Sender{ID: c.SenderID, Scopes: []string{"orders:read"}}, nil
	}), senderauth.Config{Limits: map[string]senderauth.Limit{"default": senderauth.PerMinute(1)}})
	require.NoError(t, err)
	mux := http.NewServeMux()
	requiring(guard, mux, http.NotFoundHandler(), http.NotFoundHandler())
	for _, c := range []struct {
		method string
		want   int
	}{{"POST", 403}, {"GET", 404}} { // the refusal takes no token
		w, r := httptest.NewRecorder(), httptest.NewRequest(c.method, "/v1/orders", nil)
		r.Header.Set("X-Sender-Id", "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11")
		r.Header.Set("X-Api-Key", "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01")
		mux.ServeHTTP(w, r)
		require.Equal(t, c.want, w.Code)
	}
}

func contactsByClient() error {
	client, err := senderclient.New("https://api.example.com", senderclient.Config{})
	if err != nil {
		return err
	}
	res, err := client.Get("https://api.example.com/v1/contacts")
	if err == nil {
		defer res.Body.Close()
		err = senderclient.CheckResponse(res)
	}
	var limit *senderclient.RateLimitError
	switch {
	case errors.Is(err, senderclient.ErrInvalidKey):
		return fmt.Errorf("get another key: %w", err)
	case errors.As(err, &limit):
		return fmt.Errorf("come back in %v: %w", limit.Delay, err)
	case err != nil:
		return err
	}
	return nil
}

func TestClientOfTheReadmeAsksTheEnvironment(t *testing.T) {
	t.Setenv("SENT_SENDER_ID", acmeID)
	t.Setenv("SENT_API_KEY", "")
	require.EqualError(t, contactsByClient(), "senderclient: SENT_API_KEY is empty")
}

func TestBearerKeysOfTheReadme(t *testing.T) {
	keys, err := senderauth.Static(senderauth.Credentials{SenderID: "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11", APIKey: "sk_live_1"})
	require.NoError(t, err)
	guard, err := senderauth.New(keys, bearer(map[string]senderauth.Limit{"default": senderauth.PerMinute(1), "messages": senderauth.PerMinute(5)}))
	require.NoError(t, err)
	h := guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { charge(guard, w, r, 3) }))
	for _, want := range []string{"2", `{"status":429,"title":"Too Many Requests","detail":"Rate limit exceeded. Please retry after 60 seconds.","type":"about:blank"}`} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil)
		r.Header.Set("Authorization", "Bearer sk_live_1")
		h.ServeHTTP(w, r)
		require.Equal(t, want, w.Body.String())
	}
}

func TestHandlersOfTheReadmeFindTheirSender(t *testing.T) {
	r := httptest.NewRequest("GET", "/v1/contacts", nil)
	r = r.WithContext(senderauth.WithSender(r.Context(), senderauth.Sender{ID: "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11"}))
	require.Equal(t, "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11", handle(nil, r))
}

func TestPlansOfTheReadme(t *testing.T) {
	c := senderauth.Credentials{SenderID: "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11", APIKey: "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01"}
	keys, err := senderauth.Static(c)
	require.NoError(t, err)
	s, err := withPlans(keys).Validate(t.Context(), c)
	require.NoError(t, err)
	require.Equal(t, senderauth.Limit{Requests: 2000, Per: time.Minute, Burst: 500}, s.Limits["default"])
}

func TestRoutesOfTheReadmeAreChargedByPattern(t *testing.T) {
	c := senderauth.Credentials{SenderID: "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11", APIKey: "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01"}
	keys, err := senderauth.Static(c)
	require.NoError(t, err)
	cfg := logged()
	cfg.Limits = map[string]senderauth.Limit{"default": senderauth.PerMinute(200), "messages": senderauth.PerMinute(60)}
	guard, err := senderauth.New(keys, cfg)
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/messages", func(http.ResponseWriter, *http.Request) {})
	for target, policy := range map[string]string{
		"/v1/messages":   `"messages";q=60;w=60`,
		"/v1/%6dessages": `"messages";q=60;w=60`,
		"/v1/other":      `"default";q=200;w=60`,
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("POST", target, nil)
		r.Header.Set("x-sender-id", c.SenderID)
		r.Header.Set("x-api-key", c.APIKey)
		byRoute(guard, mux).ServeHTTP(w, r)
		require.Equal(t, policy, w.Header().Get("RateLimit-Policy"), target)
	}
}

func TestDryRunOfTheReadmeIsLogged(t *testing.T) {
	var log bytes.Buffer
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	cfg := rehearsed()
	cfg.Limits = map[string]senderauth.Limit{"default": senderauth.PerMinute(9), "messages": senderauth.PerMinute(1)}
	guard, err := senderauth.New(acme(t), cfg)
	require.NoError(t, err)
	h := guard.Charging("messages").Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for range 2 {
		require.Equal(t, 200, asAcme(h, "/").Code)
	}
	require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
	require.Contains(t, log.String(), "dry_run=messages")
}

func TestProxyOfTheReadmeEndsTLS(t *testing.T) {
	cfg := behindNginx()
	cfg.Limits = map[string]senderauth.Limit{"default": senderauth.PerMinute(9)}
	guard, err := senderauth.New(acme(t), cfg)
	require.NoError(t, err)
	h := guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for proto, want := range map[string]int{"https": 200, "http": 403, "": 403} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = "127.0.0.1:1234"
		if proto != "" {
			r.Header.Set("X-Forwarded-Proto", proto)
		}
		require.Equal(t, want, sent(h, r).Code, proto)
	}
}

func TestWrapperOfTheReadmeHidesCheckKey(t *testing.T) {
	store, err := senderauth.Static(senderauth.Credentials{SenderID: acmeID, APIKey: "sk_live_1"})
	require.NoError(t, err)
	cfg := senderauth.Config{Limits: map[string]senderauth.Limit{"default": senderauth.PerMinute(9)}}
	for _, checked := range []bool{false, true} {
		want := 401
		if checked {
			want, cfg.CheckKey = 200, store.(interface{ CheckKey(string) bool }).CheckKey
		}
		guard, err := senderauth.New(withPlans(store), cfg)
		require.NoError(t, err)
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("x-sender-id", acmeID)
		r.Header.Set("x-api-key", "sk_live_1")
		w := httptest.NewRecorder()
		guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
		require.Equal(t, want, w.Code)
	}
}

func TestGuardedRoutesOfTheReadme(t *testing.T) {
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	contacts, send, invite = ok, ok, ok
	mux := http.NewServeMux()
	require.NoError(t, wrap(&Store{}, mux))
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/v1/contacts", nil))
	require.Equal(t, http.StatusUnauthorized, w.Code)
}

// snippets returns the Go snippets of a file.
func snippets(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	all := strings.Split(string(text), "```go\n")[1:]
	require.NotEmpty(t, all, file)
	for i, s := range all {
		all[i], _, _ = strings.Cut(s, "```")
	}
	return all
}

func TestSnippetsAreCompiled(t *testing.T) {
	var sources []string
	require.NoError(t, filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") {
			var b []byte
			b, err = os.ReadFile(path)
			sources = append(sources, unindented(string(b)))
		}
		return err
	}))
	repository := snippets(t, "../../../README.md")
next:
	for _, s := range slices.Concat(repository, snippets(t, "../../otelsender/README.md")) {
		for _, source := range sources {
			if strings.Contains(source, unindented(s)) {
				continue next
			}
		}
		t.Errorf("no file of the examples has this snippet:\n%s", s)
	}
	lines := strings.FieldsFunc(repository[0], func(r rune) bool { return r == '\n' })
	require.LessOrEqual(t, len(lines), 20, "lines of the first program that are not blank")
}

func unindented(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "\n")
}

const acmeID, acmeKey = "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11", "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01"

func acme(t *testing.T) senderauth.Validator {
	t.Helper()
	keys, err := senderauth.Static(senderauth.Credentials{SenderID: acmeID, APIKey: acmeKey})
	require.NoError(t, err)
	return keys
}

func asAcme(h http.Handler, target string) *httptest.ResponseRecorder {
	return sent(h, httptest.NewRequest("GET", target, nil))
}

// sent is the answer to r, with acme's credentials.
func sent(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	r.Header.Set("x-sender-id", acmeID)
	r.Header.Set("x-api-key", acmeKey)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}
