package main

import (
	"net/http"
	"time"

	"github.com/didip/tollbooth/v7"
	tollboothlimiter "github.com/didip/tollbooth/v7/limiter"
	"github.com/go-chi/httprate"
	"github.com/sethvargo/go-limiter/httplimit"
	"github.com/sethvargo/go-limiter/memorystore"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"
)

// requireKey is a minimal key check in front of a limiter.
func requireKey(store *keyStore, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sender, ok := store.check(r.Header.Get("X-Sender-Id"), r.Header.Get("X-Api-Key"))
		if !ok {
			http.Error(w, "invalid credentials", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, withSender(r, sender))
	})
}

var httprateKeys = &contender{
	id: "httprate", name: "key check + httprate", kind: peer, limit: "sliding window",
	lacks:   "revocation, several limits; one lock for all senders",
	modules: []string{"github.com/go-chi/httprate"},
	build: func(s site) (handlers, error) {
		limit := httprate.LimitBy(s.quota.requests, s.quota.per,
			func(r *http.Request) (string, error) { return senderOf(r), nil })
		return handlers{full: requireKey(s.store, limit(readContext(s)))}, nil
	},
}

var goLimiterKeys = &contender{
	id: "go-limiter", name: "key check + go-limiter", kind: peer, limit: "fixed window",
	lacks:   "revocation, several limits; tokens come back all at once",
	modules: []string{"github.com/sethvargo/go-limiter"},
	build: func(s site) (handlers, error) {
		store, err := memorystore.New(&memorystore.Config{Tokens: uint64(s.quota.requests), Interval: s.quota.per})
		if err != nil {
			return handlers{}, err
		}
		limit, err := httplimit.NewMiddleware(store, func(r *http.Request) (string, error) { return senderOf(r), nil })
		if err != nil {
			return handlers{}, err
		}
		return handlers{full: requireKey(s.store, limit.Handle(readContext(s)))}, nil
	},
}

var throttledKeys = &contender{
	id: "throttled", name: "key check + throttled", kind: peer, limit: "GCRA",
	lacks:   "revocation, limits per sender, several limits, a bound on memory (its bounded store is an LRU under one lock)",
	modules: []string{"github.com/throttled/throttled/v2"},
	build: func(s site) (handlers, error) {
		store, err := memstore.NewCtx(0)
		if err != nil {
			return handlers{}, err
		}
		rate, err := throttled.NewGCRARateLimiterCtx(store, throttled.RateQuota{
			MaxRate: throttled.PerDuration(s.quota.requests, s.quota.per), MaxBurst: s.quota.requests - 1,
		})
		if err != nil {
			return handlers{}, err
		}
		limit := throttled.HTTPRateLimiterCtx{RateLimiter: rate, VaryBy: varyBySender{}}
		return handlers{full: requireKey(s.store, limit.RateLimit(readContext(s)))}, nil
	},
}

type varyBySender struct{}

func (varyBySender) Key(r *http.Request) string { return senderOf(r) }

// tollboothKeys uses LimitByKeys, because the handler of tollbooth, which sends rate
// fields, also limits by address and path.
var tollboothKeys = &contender{
	id: "tollbooth", name: "key check + tollbooth", kind: peer, limit: "token bucket",
	lacks:   "revocation, limits per sender, several limits; one lock for all senders",
	modules: []string{"github.com/didip/tollbooth/v7"},
	build: func(s site) (handlers, error) {
		limit := tollbooth.NewLimiter(s.quota.perSecond(), &tollboothlimiter.ExpirableOptions{DefaultExpirationTTL: remembered, ExpireJobInterval: time.Minute})
		limit.SetBurst(s.quota.requests)
		next := readContext(s)
		return handlers{full: requireKey(s.store, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if refused := tollbooth.LimitByKeys(limit, []string{senderOf(r)}); refused != nil {
				http.Error(w, refused.Message, refused.StatusCode)
				return
			}
			next.ServeHTTP(w, r)
		}))}, nil
	},
}
