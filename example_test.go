package senderauth_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/senderauth/senderauth"
)

// get requests path with the credentials c and prints what a client looks at.
func get(h http.Handler, path string, c senderauth.Credentials) {
	r := httptest.NewRequest("GET", path, nil)
	if c.SenderID != "" {
		r.Header.Set("x-sender-id", c.SenderID)
	}
	if c.APIKey != "" {
		r.Header.Set("x-api-key", c.APIKey)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code == http.StatusTooManyRequests {
		// Skip the body, because it contains the seconds until the next token.
		fmt.Println(w.Code, w.Header().Get("X-RateLimit-Remaining"), "of", w.Header().Get("X-RateLimit-Limit"), "left")
		return
	}
	fmt.Println(w.Code, w.Body)
}

var (
	acme  = senderauth.Credentials{SenderID: "7a1de7b4-3a0e-4d6e-9c2b-1f0e8d7c6b5a", APIKey: "0b9d3c1e-6f52-4c8a-b1d7-2e9f1a3c5d07"}
	other = senderauth.Credentials{SenderID: "c4f3b2a1-0d9e-4b7a-8c6d-5e4f3a2b1c0d", APIKey: "5d07e9f1-a3c5-4b1d-9f52-0b9d3c1e6f52"}
)

// The shortest start: a fixed set of keys, one limit, one handler.
func Example() {
	keys, err := senderauth.Static(acme)
	if err != nil {
		panic(err)
	}
	guard, err := senderauth.New(keys, senderauth.Config{
		Limits: map[string]senderauth.Limit{"default": senderauth.PerMinute(2)},
	})
	if err != nil {
		panic(err)
	}
	contacts := guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sender, _ := senderauth.SenderFrom(r.Context())
		fmt.Fprint(w, "the contacts of ", sender.ID)
	}))

	get(contacts, "/v1/contacts", senderauth.Credentials{})
	get(contacts, "/v1/contacts", acme)
	get(contacts, "/v1/contacts", acme)
	get(contacts, "/v1/contacts", acme)
	// Output:
	// 401 {"status":401,"title":"Unauthorized","detail":"Header x-api-key not found","type":"about:blank"}
	// 200 the contacts of 7a1de7b4-3a0e-4d6e-9c2b-1f0e8d7c6b5a
	// 200 the contacts of 7a1de7b4-3a0e-4d6e-9c2b-1f0e8d7c6b5a
	// 429 0 of 2 left
}

// The validator puts the limits of a sender's plan into Sender.Limits. They
// override Config.Limits by name.
func ExampleSender_plans() {
	plans := map[string]map[string]senderauth.Limit{
		acme.SenderID:  {"default": senderauth.Unlimited()},
		other.SenderID: {"default": senderauth.Blocked()},
	}
	keys, err := senderauth.Static(acme, other)
	if err != nil {
		panic(err)
	}
	store := senderauth.ValidatorFunc(func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		s, err := keys.Validate(ctx, c)
		s.Limits = plans[s.ID]
		return s, err
	})
	guard, err := senderauth.New(store, senderauth.Config{
		Limits: map[string]senderauth.Limit{"default": senderauth.PerMinute(1)},
	})
	if err != nil {
		panic(err)
	}
	h := guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }))
	get(h, "/", acme)
	get(h, "/", acme)
	get(h, "/", other)
	// Output:
	// 200 ok
	// 200 ok
	// 429 0 of 0 left
}

// Wrap is a func(http.Handler) http.Handler, so it works with the Use and With of
// chi, and without a router as here: one guard authenticates everything, and one at
// each route charges.
func ExampleGuard_Wrap() {
	keys, err := senderauth.Static(acme)
	if err != nil {
		panic(err)
	}
	guard, err := senderauth.New(keys, senderauth.Config{
		Limits: map[string]senderauth.Limit{
			"default":  senderauth.PerMinute(100),
			"messages": senderauth.PerMinute(1),
		},
	})
	if err != nil {
		panic(err)
	}
	use := func(h http.Handler, middleware ...func(http.Handler) http.Handler) http.Handler {
		for _, m := range middleware {
			h = m(h)
		}
		return h
	}
	name := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Pattern) })
	mux := http.NewServeMux()
	mux.Handle("GET /v1/contacts", use(name, guard.Wrap))
	mux.Handle("GET /v1/messages", use(name, guard.Charging("messages").Wrap))
	h := use(mux, guard.Charging().Wrap)

	get(h, "/v1/contacts", acme)
	get(h, "/v1/messages", acme)
	get(h, "/v1/messages", acme)
	get(h, "/v1/nothing", senderauth.Credentials{})
	// Output:
	// 200 GET /v1/contacts
	// 200 GET /v1/messages
	// 429 0 of 1 left
	// 401 {"status":401,"title":"Unauthorized","detail":"Header x-api-key not found","type":"about:blank"}
}

// WithSender lets you test a handler without a guard.
func ExampleWithSender() {
	contacts := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sender, ok := senderauth.SenderFrom(r.Context())
		if !ok {
			http.Error(w, "not behind a guard", http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, "the contacts of ", sender.ID)
	})
	r := httptest.NewRequest("GET", "/v1/contacts", nil)
	r = r.WithContext(senderauth.WithSender(r.Context(), senderauth.Sender{ID: acme.SenderID}))
	w := httptest.NewRecorder()
	contacts.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body)
	// Output:
	// 200 the contacts of 7a1de7b4-3a0e-4d6e-9c2b-1f0e8d7c6b5a
}

// New reports every mistake in a configuration at once.
func ExampleNew_mistakes() {
	_, err := senderauth.New(nil, senderauth.Config{
		Limits:    map[string]senderauth.Limit{"messages": {}},
		KeyHeader: "x api key",
		Realm:     "\n",
	})
	fmt.Println(err)
	// Output:
	// senderauth: New: the Validator is nil
	// senderauth: Config.Limits: "default" is missing
	// senderauth: Config.Limits["messages"]: the zero Limit: say Unlimited() or Blocked(), or set Requests and Per
	// senderauth: Config.KeyHeader: "x api key" is not the name of a header field
	// senderauth: Config.Realm: "\n" is not printable ASCII
}

// The names of limits are literals in a program, so a wrong one panics when the
// program starts and not during a request.
func ExampleGuard_Charging_unknown() {
	keys, err := senderauth.Static(acme)
	if err != nil {
		panic(err)
	}
	guard, err := senderauth.New(keys, senderauth.Config{
		Limits: map[string]senderauth.Limit{"default": senderauth.PerMinute(100)},
	})
	if err != nil {
		panic(err)
	}
	defer func() { fmt.Println(recover()) }()
	guard.Charging("mesages")
	// Output:
	// senderauth: limit "mesages" is not in Config.Limits
}

// A Cache looks a pair up once, and again after Forget.
func ExampleCache_Forget() {
	revoked := false
	store := senderauth.ValidatorFunc(func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		if revoked {
			return senderauth.Sender{}, senderauth.ErrInvalidKey
		}
		return senderauth.Sender{ID: acme.SenderID}, nil
	})
	keys, err := senderauth.NewCache(store, senderauth.CacheConfig{TTL: time.Minute})
	if err != nil {
		panic(err)
	}
	ask := func() {
		_, err := keys.Validate(context.Background(), acme)
		fmt.Println(err)
	}
	ask()
	revoked = true
	ask() // from the cache, for a minute at most
	keys.Forget(acme.SenderID)
	ask()
	// Output:
	// <nil>
	// <nil>
	// senderauth: invalid API key
}

// A Validator that returns a Problem chooses the response itself.
func ExampleProblem() {
	store := senderauth.ValidatorFunc(func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		return senderauth.Sender{}, &senderauth.Problem{
			Status:     http.StatusForbidden,
			Detail:     "Billing is suspended.",
			Extensions: map[string]any{"invoice": "2026-11"},
		}
	})
	guard, err := senderauth.New(store, senderauth.Config{
		Limits: map[string]senderauth.Limit{"default": senderauth.PerMinute(100)},
	})
	if err != nil {
		panic(err)
	}
	get(guard.Wrap(http.NotFoundHandler()), "/", acme)
	// Output:
	// 403 {"status":403,"title":"Forbidden","detail":"Billing is suspended.","type":"about:blank","invoice":"2026-11"}
}
