package otelsender_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

func senderID(n int) string { return fmt.Sprintf("7a1de7b4-3a0e-4d6e-9c2b-%012x", n) }
func apiKey(n int) string   { return fmt.Sprintf("0b9d3c1e-6f52-4c8a-b1d7-%012x", n) }

// of is a request of sender n.
func of(n int) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("x-sender-id", senderID(n))
	r.Header.Set("x-api-key", apiKey(n))
	return r
}

// knowsAll accepts the key of every sender.
func knowsAll(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
	if c.APIKey[24:] != c.SenderID[24:] {
		return senderauth.Sender{}, senderauth.ErrInvalidKey
	}
	return senderauth.Sender{ID: c.SenderID, KeyID: "key_" + c.SenderID[24:]}, nil
}

func newCache(t testing.TB, v senderauth.Validator) *senderauth.Cache {
	t.Helper()
	cache, err := senderauth.NewCache(v, senderauth.CacheConfig{})
	require.NoError(t, err)
	return cache
}

// guardOf returns a guard in front of a cache that knows all senders.
func guardOf(t testing.TB, cfg senderauth.Config) *senderauth.Guard {
	t.Helper()
	guard, err := senderauth.New(newCache(t, senderauth.ValidatorFunc(knowsAll)), cfg)
	require.NoError(t, err)
	return guard
}

var limits = map[string]senderauth.Limit{"default": senderauth.PerMinute(3), "messages": senderauth.PerMinute(1)}

var ok = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})

// serve returns the status of the response.
func serve(h http.Handler, r *http.Request) int {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}
