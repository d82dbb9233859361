package senderauth_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
)

type benchWriter struct {
	header http.Header
	status int
}

func (w *benchWriter) Header() http.Header         { return w.header }
func (w *benchWriter) WriteHeader(status int)      { w.status = status }
func (w *benchWriter) Write(b []byte) (int, error) { return len(b), nil }

// reset empties the header as net/http does with a new map, at the price of
// emptying one.
func (w *benchWriter) reset() { clear(w.header); w.status = 0 }

func newBenchWriter() *benchWriter { return &benchWriter{header: make(http.Header, 16)} }

type floorKey struct{}

// BenchmarkFloor is what any middleware costs that hands on a value in the
// context: the others are ratios to it.
func BenchmarkFloor(b *testing.B) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Context().Value(floorKey{}).(string) == "" {
			b.Error("no value")
		}
	})
	r := httptest.NewRequest("GET", "/", nil)
	w := newBenchWriter()
	b.ReportAllocs()
	for b.Loop() {
		w.reset()
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), floorKey{}, "x")))
	}
}

func benchSender(i int) (id, key string) {
	return fmt.Sprintf("7a1de7b4-3a0e-4d6e-9c2b-%012x", i+1), fmt.Sprintf("0b9d3c1e-6f52-4c8a-b1d7-%012x", i+1)
}

func benchRequests(n int) []*http.Request {
	rs := make([]*http.Request, n)
	for i := range rs {
		id, key := benchSender(i)
		rs[i] = httptest.NewRequest("GET", "/", nil)
		rs[i].Header.Set("X-Sender-Id", id)
		rs[i].Header.Set("X-Api-Key", key)
	}
	return rs
}

func benchHandler(b *testing.B, fields senderauth.RateFields) http.Handler {
	keys, err := senderauth.NewCache(senderauth.ValidatorFunc(func(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		if c.APIKey[0] != '0' {
			return senderauth.Sender{}, senderauth.ErrInvalidKey
		}
		return senderauth.Sender{ID: c.SenderID}, nil
	}), senderauth.CacheConfig{TTL: time.Hour, RejectedTTL: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	guard, err := senderauth.New(keys, senderauth.Config{
		RateFields: fields,
		Limits:     map[string]senderauth.Limit{"default": senderauth.PerSecond(1_000_000_000), },
	})
	if err != nil {
		b.Fatal(err)
	}
	return guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := senderauth.SenderFrom(r.Context()); !ok {
			b.Error("no sender")
		}
	}))
}

func BenchmarkGuard(b *testing.B) {
	for _, c := range []struct {
		name    string
		fields  senderauth.RateFields
		senders int
	}{
		{"none/1", senderauth.RateFieldsNone, 1},
		{"both/1", senderauth.RateFieldsBoth, 1},
		{"none/zipf", senderauth.RateFieldsNone, 100_000},
		{"both/zipf", senderauth.RateFieldsBoth, 100_000},
	} {
		b.Run(c.name, func(b *testing.B) {
			h := benchHandler(b, c.fields)
			rs := benchRequests(c.senders)
			w := newBenchWriter()
			for _, r := range rs {
				h.ServeHTTP(w, r)
			}
			z := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.1, 1, uint64(c.senders-1))
			order := make([]*http.Request, 1<<16)
			for i := range order {
				order[i] = rs[0]
				if c.senders > 1 {
					order[i] = rs[z.Uint64()]
				}
			}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				w.reset()
				h.ServeHTTP(w, order[i&(1<<16-1)])
				i++
			}
		})
	}
}
