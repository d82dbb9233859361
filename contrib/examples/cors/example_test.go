// Package cors shows how to open a guarded API to web pages of other origins: put the
// CORS middleware outside of the guard. A preflight carries no credentials, so a guard
// would refuse it and the browser would send no request. A refusal needs the CORS
// fields, too: without them the page cannot read why it was refused.
package cors_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/rs/cors"
	"github.com/senderauth/senderauth"
)

// allow lets any page send the two headers and read the guard's response fields. It
// allows no cookies, because the key is the credential.
var allow = cors.New(cors.Options{
	AllowedOrigins: []string{"*"},
	AllowedMethods: []string{http.MethodGet, http.MethodHead, http.MethodPost},
	AllowedHeaders: []string{"x-api-key", "x-sender-id", "content-type"},
	ExposedHeaders: []string{
		"RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate",
		"X-Api-Key-Expires", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset",
	},
	MaxAge: 600, // seconds
})

func Example() {
	keys, err := senderauth.Static(senderauth.Credentials{
		SenderID: "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11",
		APIKey:   "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01",
	})
	if err != nil {
		panic(err)
	}
	guard, err := senderauth.New(keys, senderauth.Config{
		Limits: map[string]senderauth.Limit{"default": senderauth.PerMinute(60)},
	})
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/messages", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })

	api := allow.Handler(guard.Wrap(mux)) // outside: CORS; inside: the guard

	preflight := httptest.NewRequest(http.MethodOptions, "/v1/messages", nil)
	preflight.Header.Set("Origin", "https://app.example")
	preflight.Header.Set("Access-Control-Request-Method", "POST")
	preflight.Header.Set("Access-Control-Request-Headers", "content-type,x-api-key,x-sender-id")
	w := httptest.NewRecorder()
	api.ServeHTTP(w, preflight)
	fmt.Println(w.Code, w.Header().Get("Access-Control-Allow-Headers"))

	call := httptest.NewRequest(http.MethodPost, "/v1/messages", nil)
	call.Header.Set("Origin", "https://app.example")
	w = httptest.NewRecorder()
	api.ServeHTTP(w, call)
	fmt.Println(w.Code, w.Header().Get("Access-Control-Allow-Origin"), w.Body)

	// Output:
	// 204 content-type,x-api-key,x-sender-id
	// 401 * {"status":401,"title":"Unauthorized","detail":"Header x-api-key not found","type":"about:blank"}
}
