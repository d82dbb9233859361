package ginsender_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/ginsender"
)

// A route costs what gin costs without a guard (bare), plus what the guard costs without gin
// (net/http), plus the adapter.
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
	gin.SetMode(gin.ReleaseMode)
	bare, guarded := gin.New(), gin.New()
	bare.GET("/v1/contacts", func(*gin.Context) {})
	guarded.Use(ginsender.Middleware(guard.Wrap))
	guarded.GET("/v1/contacts", func(*gin.Context) {})
	for _, c := range []struct {
		name string
		h    http.Handler
	}{
		{"bare", bare},
		{"guard=net_http", guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))},
		{"guard=gin", guarded},
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
