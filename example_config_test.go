package senderauth_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/senderauth/senderauth"
)

// perMinute are the limits of the examples below.
var perMinute = map[string]senderauth.Limit{
	"default":  senderauth.PerMinute(60),
	"messages": senderauth.PerMinute(1000),
}

// newGuard returns a guard that knows acme.
func newGuard(cfg senderauth.Config) *senderauth.Guard {
	keys, err := senderauth.Static(acme)
	must(err)
	cfg.Limits = perMinute
	guard, err := senderauth.New(keys, cfg)
	must(err)
	return guard
}

// send sends a request with these header lines, name and value in turn, and prints
// the answer.
func send(h http.Handler, r *http.Request, lines ...string) {
	for i := 0; i < len(lines); i += 2 {
		r.Header.Set(lines[i], lines[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body)
}

var ok = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	sender, _ := senderauth.SenderFrom(r.Context())
	fmt.Fprint(w, "hello ", sender.ID)
})

// Keys that your customers have already, of any form, as "Authorization: Bearer
// sk_…", without a sender header.
func ExampleConfig_bearer() {
	keys, err := senderauth.Static(senderauth.Credentials{SenderID: acme.SenderID, APIKey: "sk_live_4eC39HqLyjWDarjtT1"})
	must(err)
	guard, err := senderauth.New(keys, senderauth.Config{
		KeyHeader: "Authorization",
		KeyScheme: "Bearer",
		KeyOnly:   true,
		CheckKey:  func(key string) bool { return strings.HasPrefix(key, "sk_live_") },
		Limits:    perMinute,
	})
	must(err)
	h := guard.Wrap(ok)

	send(h, httptest.NewRequest("GET", "/", nil), "Authorization", "Bearer sk_live_4eC39HqLyjWDarjtT1")
	send(h, httptest.NewRequest("GET", "/", nil), "Authorization", "Bearer sk_test_4eC39HqLyjWDarjtT1")
	// Output:
	// 200 hello 7a1de7b4-3a0e-4d6e-9c2b-1f0e8d7c6b5a
	// 401 {"status":401,"title":"Unauthorized","detail":"Invalid API credentials!","type":"about:blank"}
}

// Problems in the form of your own API, with the texts and fields of the guard.
func ExampleConfig_serveProblem() {
	guard := newGuard(senderauth.Config{
		ServeProblem: func(w http.ResponseWriter, r *http.Request, p *senderauth.Problem, o senderauth.Outcome) {
			p.Type = "https://api.example.com/problems/" + string(o)
			p.ServeHTTP(w, r)
		},
	})
	send(guard.Wrap(ok), httptest.NewRequest("GET", "/", nil))
	// Output:
	// 401 {"status":401,"title":"Unauthorized","detail":"Header x-api-key not found","type":"https://api.example.com/problems/missing_key"}
}

// A message to 600 recipients costs 600 tokens. The handler knows when it has read
// the request.
func ExampleGuard_Charge() {
	guard := newGuard(senderauth.Config{})
	h := guard.Charging().Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recipients := 600
		balance, problem := guard.Charge(r.Context(), "messages", recipients)
		if problem != nil {
			problem.ServeHTTP(w, r)
			return
		}
		fmt.Fprint(w, balance.Remaining, " left")
	}))

	send(h, httptest.NewRequest("POST", "/", nil), "x-sender-id", acme.SenderID, "x-api-key", acme.APIKey)
	send(h, httptest.NewRequest("POST", "/", nil), "x-sender-id", acme.SenderID, "x-api-key", acme.APIKey)
	// Output:
	// 200 400 left
	// 429 {"status":429,"title":"Too Many Requests","detail":"Rate limit exceeded. Please retry after 12 seconds.","type":"about:blank"}
}

// Limits chosen by the route that the mux will match, never by the text of the
// path.
func ExampleGuard_ChargingBy() {
	mux := http.NewServeMux()
	mux.Handle("GET /v1/contacts", ok)
	mux.Handle("POST /v1/messages", ok)
	guard := newGuard(senderauth.Config{})
	h := guard.ChargingBy(func(r *http.Request) []string {
		if _, pattern := mux.Handler(r); pattern == "POST /v1/messages" {
			return []string{"messages"}
		}
		return []string{"default"}
	}).Wrap(mux)

	r := httptest.NewRequest("POST", "/v1/%6dessages", nil)
	r.Header.Set("x-sender-id", acme.SenderID)
	r.Header.Set("x-api-key", acme.APIKey)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Println(w.Header().Get("RateLimit-Policy"))
	// Output:
	// "messages";q=1000;w=60
}

// What a guard decided, in a program's log. No event holds a key.
func ExampleLogEvents() {
	withoutTime := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "elapsed" {
			return slog.Attr{}
		}
		return a
	}
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
	guard := newGuard(senderauth.Config{Observe: senderauth.LogEvents(logger, nil)})

	send(guard.Wrap(ok), httptest.NewRequest("GET", "/", nil))
	// Output:
	// level=INFO msg=senderauth outcome=missing_key cached=false error="senderauth: the header is absent or empty"
	// 401 {"status":401,"title":"Unauthorized","detail":"Header x-api-key not found","type":"about:blank"}
}

// A Validator on top of what you have already, here a map.
func ExampleValidatorFunc() {
	owners := map[string]string{acme.APIKey: acme.SenderID} // use digests of keys in real code
	validator := senderauth.ValidatorFunc(func(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		owner, found := owners[c.APIKey]
		switch {
		case !found:
			return senderauth.Sender{}, senderauth.ErrInvalidKey
		case owner != c.SenderID:
			return senderauth.Sender{}, senderauth.ErrKeyMismatch
		}
		return senderauth.Sender{ID: owner, Expires: time.Now().Add(time.Hour)}, nil
	})
	guard, err := senderauth.New(validator, senderauth.Config{Limits: perMinute})
	must(err)

	get(guard.Wrap(ok), "/", senderauth.Credentials{SenderID: other.SenderID, APIKey: acme.APIKey})
	// Output:
	// 401 {"status":401,"title":"Unauthorized","detail":"API key does not match sender ID","type":"about:blank"}
}

// In front of another server. The proxy adds the upstream's fields to those that
// the guard has set, so that one of the two must go; and it removes the fields that
// a client names in Connection, so that the sender is set after that.
func ExampleGuard_Wrap_reverseProxy() {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("RateLimit", `"upstream";r=1`)
		fmt.Fprintf(w, "sender %s, key %q", r.Header.Get("X-Sender-Id"), r.Header.Get("X-Api-Key"))
	}))
	defer upstream.Close()
	target, err := url.Parse(upstream.URL)
	must(err)

	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			sender, _ := senderauth.SenderFrom(r.In.Context())
			r.Out.Header.Set("X-Sender-Id", sender.ID)
		},
		ModifyResponse: func(res *http.Response) error {
			for _, name := range []string{"Cache-Control", "RateLimit", "RateLimit-Policy", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"} {
				res.Header.Del(name)
			}
			return nil
		},
	}
	h := newGuard(senderauth.Config{StripKey: true}).Wrap(proxy)

	r := httptest.NewRequest("GET", "/", nil)
	r.Header = http.Header{"X-Sender-Id": {acme.SenderID}, "X-Api-Key": {acme.APIKey}, "Connection": {"x-sender-id"}}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body)
	fmt.Println(w.Header()["Cache-Control"], w.Header()["Ratelimit-Policy"])
	// Output:
	// 200 sender 7a1de7b4-3a0e-4d6e-9c2b-1f0e8d7c6b5a, key ""
	// [private] ["default";q=60;w=60]
}

// Each sender may send two messages a month, and all messages are charged both limits.
func ExamplePerMonth() {
	keys, err := senderauth.Static(acme)
	must(err)
	guard, err := senderauth.New(keys, senderauth.Config{
		Limits: map[string]senderauth.Limit{
			"default": {Requests: 60, Per: time.Minute, Burst: 3},
			"month":   senderauth.PerMonth(2, time.UTC),
		},
		RateFields: senderauth.RateFieldsX,
	})
	must(err)
	h := guard.Charging("default", "month").Wrap(ok)
	for range 3 {
		r := httptest.NewRequest("POST", "/v1/messages", nil)
		r.Header.Set("x-sender-id", acme.SenderID)
		r.Header.Set("x-api-key", acme.APIKey)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(w.Code, w.Header().Get("X-RateLimit-Remaining"), "of", w.Header().Get("X-RateLimit-Limit"))
	}
	// Output:
	// 200 1 of 2
	// 200 0 of 2
	// 429 0 of 2
}
