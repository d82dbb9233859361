package echosender_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v5"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/echosender"
)

// A route costs what echo costs without a guard (bare), plus what the guard costs without
// echo (net/http), plus the adapter.
func BenchmarkRoute(b *testing.B) {
	cache, err := senderauth.NewCache(senderauth.ValidatorFunc(func(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		return senderauth.Sender{ID: c.SenderID}, nil
	}), senderauth.CacheConfig{})
	if err != nil {
		b.Fatal(err)
	}
	guard, err := senderauth.New(cache, senderauth.Config{Limits: map[string]senderauth.Limit{"default": senderauth.PerSecond(1_000_000_000)}})
	if err != nil {
		b.Fatal(err)
	}
	done := func(*echo.Context) error { return nil }
	bare, guarded := echo.New(), echo.New()
	bare.GET("/v1/contacts", done)
	guarded.Use(echosender.Middleware[echo.HandlerFunc](guard.Wrap))
	guarded.GET("/v1/contacts", done)
	for _, c := range []struct {
		name string
		h    http.Handler
	}{
		{"bare", bare},
		{"guard=net_http", guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))},
		{"guard=echo", guarded},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := httptest.NewRequest("GET", "/v1/contacts", nil)
			r.Header.Set("X-Sender-Id", "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11")
			r.Header.Set("X-Api-Key", "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01")
			w := &discard{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				c.h.ServeHTTP(w, r)
			}
			if w.status >= 400 {
				b.Fatal(w.status)
			}
		})
	}
}

// discard is a ResponseWriter that keeps the status only.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }
