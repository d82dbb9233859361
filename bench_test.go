package senderauth_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"testing"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/senderauth/senderauth"
	"golang.org/x/time/rate"
)

// The benchmarks, BenchmarkFloor included, share one cache and one limiter with
// benchSenders senders, because the cost of an allocation depends on the size of
// the live heap.
const benchSenders = 100_000

type benchFixture struct {
	ids, keys  []string
	cache      *senderauth.Cache
	none, both *senderauth.Guard
	zipf       []int32 // senders in the order of demand
	uniform    []int32
}

var bench = sync.OnceValue(func() *benchFixture {
	f := &benchFixture{
		ids:     make([]string, benchSenders),
		keys:    make([]string, benchSenders),
		zipf:    make([]int32, 1<<17),
		uniform: make([]int32, 1<<17),
	}
	for i := range f.ids {
		f.ids[i] = fmt.Sprintf("7a1de7b4-3a0e-4d6e-9c2b-%012x", i+1)
		f.keys[i] = fmt.Sprintf("0b9d3c1e-6f52-4c8a-b1d7-%012x", i+1)
	}
	random := rand.New(rand.NewPCG(1, 2))
	demand := rand.NewZipf(random, 1.1, 1, benchSenders-1)
	for i := range f.zipf {
		f.zipf[i] = int32(demand.Uint64())
		f.uniform[i] = random.Int32N(benchSenders)
	}
	store := senderauth.ValidatorFunc(func(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		if c.APIKey[0] != '0' {
			return senderauth.Sender{}, senderauth.ErrInvalidKey
		}
		return senderauth.Sender{ID: c.SenderID}, nil
	})
	var err error
	f.cache, err = senderauth.NewCache(store, senderauth.CacheConfig{TTL: 24 * time.Hour, RejectedTTL: 24 * time.Hour})
	must(err)
	limiter := senderauth.NewMemoryLimiter(senderauth.MemoryLimiterConfig{})
	for fields, guard := range map[senderauth.RateFields]**senderauth.Guard{
		senderauth.RateFieldsNone: &f.none,
		senderauth.RateFieldsBoth: &f.both,
	} {
		*guard, err = senderauth.New(f.cache, senderauth.Config{
			Limiter:    limiter,
			RateFields: fields,
			Limits: map[string]senderauth.Limit{
				"default": senderauth.PerSecond(1_000_000_000),
				"drained": {Requests: 1, Per: 10_000 * time.Hour, Burst: 1},
			},
		})
		must(err)
	}
	call := f.caller()
	h := f.none.Wrap(readSender)
	for i := range f.ids {
		call(h, f.ids[i], f.keys[i])
	}
	return f
})

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// readSender is the handler of every guard.
var readSender = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
	if s, ok := senderauth.SenderFrom(r.Context()); !ok || s.ID[0] != '7' {
		panic("no sender")
	}
})

// benchWriter is a ResponseWriter that costs nothing.
type benchWriter struct{ header http.Header }

func (w *benchWriter) Header() http.Header         { return w.header }
func (w *benchWriter) WriteHeader(int)             {}
func (w *benchWriter) Write(b []byte) (int, error) { return len(b), nil }

// caller returns a function that sends the same request with other credentials each
// time. Reusing the request keeps it in the processor's cache, as a request that
// was just parsed is.
func (f *benchFixture) caller() func(h http.Handler, id, key string) {
	id, key := []string{""}, []string{""}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header["X-Sender-Id"], r.Header["X-Api-Key"] = id, key
	w := &benchWriter{header: make(http.Header)}
	return func(h http.Handler, i, k string) {
		clear(w.header)
		id[0], key[0] = i, k
		h.ServeHTTP(w, r)
	}
}

// run sends one request for each sender in order, over and over.
func (f *benchFixture) run(b *testing.B, h http.Handler, order []int32) {
	call := f.caller()
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		s := order[i&(len(order)-1)]
		call(h, f.ids[s], f.keys[s])
		i++
	}
}

var oneSender = []int32{0}

type floorKey struct{}

// readFloor is a variable of an interface type, like the next handler of a
// middleware, so that the compiler has to put the copy of the request on the heap.
var readFloor http.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
	if s, ok := r.Context().Value(floorKey{}).(senderauth.Sender); !ok || s.ID[0] != '7' {
		panic("no sender")
	}
})

// BenchmarkFloor measures the least that a middleware costs if it passes a sender
// to the next handler in the context. Compare the others with floor/one.
func BenchmarkFloor(b *testing.B) {
	f := bench()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := senderauth.Sender{ID: r.Header["X-Sender-Id"][0]}
		readFloor.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), floorKey{}, s)))
	})
	b.Run("one", func(b *testing.B) { f.run(b, h, oneSender) })
	b.Run("zipf", func(b *testing.B) { f.run(b, h, f.zipf) })
	b.Run("uniform", func(b *testing.B) { f.run(b, h, f.uniform) })
}

// BenchmarkPlain measures the usual composition of the same libraries, for
// comparison: a sharded LRU with the SHA-256 of the credentials as its key, and a
// sharded map with a rate.Limiter for each sender. It checks little, expires
// nothing and keeps none of this package's promises.
func BenchmarkPlain(b *testing.B) {
	f := bench()
	type shard struct {
		cache *lru.Cache[[sha256.Size]byte, senderauth.Sender]
		mu    sync.Mutex
		rates map[string]*rate.Limiter
	}
	var shards [64]shard
	for i := range shards {
		var err error
		shards[i].cache, err = lru.New[[sha256.Size]byte, senderauth.Sender](2 * benchSenders / len(shards))
		must(err)
		shards[i].rates = make(map[string]*rate.Limiter)
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, key := r.Header.Get("X-Sender-Id"), r.Header.Get("X-Api-Key")
		if len(id) != 36 || len(key) != 36 {
			panic("malformed")
		}
		digest := sha256.Sum256([]byte(id + key))
		s := &shards[digest[0]%64]
		sender, ok := s.cache.Get(digest)
		if !ok {
			sender = senderauth.Sender{ID: id}
			s.cache.Add(digest, sender)
		}
		s.mu.Lock()
		limiter := s.rates[id]
		if limiter == nil {
			limiter = rate.NewLimiter(1e9, 1e9)
			s.rates[id] = limiter
		}
		s.mu.Unlock()
		if !limiter.Allow() {
			panic("limited")
		}
		readFloor.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), floorKey{}, sender)))
	})
	b.Run("one", func(b *testing.B) { f.run(b, h, oneSender) })
	b.Run("zipf", func(b *testing.B) { f.run(b, h, f.zipf) })
}

// BenchmarkGuard admits cached senders, with no rate fields and with both families.
// The requests come from one sender, or from 100,000 with Zipf's or equal demand.
func BenchmarkGuard(b *testing.B) {
	f := bench()
	none, both := f.none.Wrap(readSender), f.both.Wrap(readSender)
	b.Run("fields=none/one", func(b *testing.B) { f.run(b, none, oneSender) })
	b.Run("fields=both/one", func(b *testing.B) { f.run(b, both, oneSender) })
	b.Run("fields=none/zipf", func(b *testing.B) { f.run(b, none, f.zipf) })
	b.Run("fields=both/zipf", func(b *testing.B) { f.run(b, both, f.zipf) })
	b.Run("fields=none/uniform", func(b *testing.B) { f.run(b, none, f.uniform) })
	b.Run("fields=both/uniform", func(b *testing.B) { f.run(b, both, f.uniform) })
}

// BenchmarkParallel admits 100,000 senders with equal demand on all cores. Run it
// with -cpu 2,8,32.
func BenchmarkParallel(b *testing.B) {
	f := bench()
	h := f.both.Wrap(readSender)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		call := f.caller()
		i := rand.IntN(len(f.uniform))
		for pb.Next() {
			s := f.uniform[i&(len(f.uniform)-1)]
			call(h, f.ids[s], f.keys[s])
			i++
		}
	})
}

// BenchmarkRefuse measures refusals, including all header fields and the body.
func BenchmarkRefuse(b *testing.B) {
	f := bench()
	h, drained := f.both.Wrap(readSender), f.both.Charging("drained").Wrap(readSender)
	refuse := func(name string, h http.Handler, id, key string) {
		b.Run(name, func(b *testing.B) {
			call := f.caller()
			call(h, id, key)
			b.ReportAllocs()
			for b.Loop() {
				call(h, id, key)
			}
		})
	}
	refuse("missing", h, f.ids[0], "")
	refuse("badkey", h, f.ids[0], "ffffffff-6f52-4c8a-b1d7-000000000001")
	refuse("limited", drained, f.ids[0], f.keys[0])
	refuse("huge", h, f.ids[0], string(make([]byte, 900_000)))
}

// BenchmarkHeld reports the heap that each of a million entries keeps, with all that
// finds them: the sender's ID, the index and the maps included.
func BenchmarkHeld(b *testing.B) {
	const entries = 1_000_000
	heap := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	held := func(name string, fill func() (add func(i int))) {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				before := heap()
				add := fill()
				for i := range entries {
					add(i)
				}
				b.ReportMetric((heap()-before)/entries, "B/entry")
				runtime.KeepAlive(add)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
	id := func(i int) string { return fmt.Sprintf("7a1de7b4-3a0e-4d6e-9c2b-%012x", i+1) }
	held("credential", func() func(int) {
		echo := senderauth.ValidatorFunc(func(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			return senderauth.Sender{ID: c.SenderID}, nil
		})
		cache, err := senderauth.NewCache(echo, senderauth.CacheConfig{Entries: entries, TTL: 24 * time.Hour})
		must(err)
		return func(i int) {
			_, err := cache.Validate(context.Background(), senderauth.Credentials{SenderID: id(i), APIKey: id(i)})
			must(err)
		}
	})
	held("bucket", func() func(int) {
		limiter := senderauth.NewMemoryLimiter(senderauth.MemoryLimiterConfig{Buckets: entries})
		charge := []senderauth.Charge{{Name: "default", Limit: senderauth.Limit{Requests: 1, Per: time.Hour, Burst: 50}, Cost: 1}}
		return func(i int) {
			_, err := limiter.Take(context.Background(), id(i), charge)
			must(err)
		}
	})
}
