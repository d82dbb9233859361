package main

import (
	"crypto/sha256"
	"net/http"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2/expirable"
	"golang.org/x/time/rate"
)

// composition is what a team would compose from libraries: an expiring LRU with SHA-256
// digests as keys in front of the store, and a rate.Limiter for each sender.
var composition = &contender{
	id: "composition", name: "golang-lru + x/time/rate", kind: hand, limit: "token bucket",
	lacks:   "syntax checks, remembered rejections, revocation, a bound on buckets, shared lookups, limits per sender, several limits",
	modules: []string{"github.com/hashicorp/golang-lru/v2", "golang.org/x/time"},
	build: func(s site) (handlers, error) {
		c := &composed{
			store: s.store, next: readContext(s), quota: s.quota,
			cache:    lru.NewLRU[[sha256.Size]byte, string](senders, nil, remembered),
			limiters: make(map[string]*rate.Limiter),
		}
		return handlers{full: c}, nil
	},
}

type composed struct {
	store *keyStore
	next  http.Handler
	quota quota
	cache *lru.LRU[[sha256.Size]byte, string]

	mu       sync.Mutex
	limiters map[string]*rate.Limiter
}

func (c *composed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, key := r.Header.Get("X-Sender-Id"), r.Header.Get("X-Api-Key")
	digest := sha256.Sum256([]byte(id + key))
	sender, ok := c.cache.Get(digest)
	if !ok {
		if sender, ok = c.store.check(id, key); !ok {
			http.Error(w, "invalid credentials", http.StatusUnauthorized)
			return
		}
		c.cache.Add(digest, sender)
	}
	if !c.limiter(sender).Allow() {
		http.Error(w, "too many requests", http.StatusTooManyRequests)
		return
	}
	c.next.ServeHTTP(w, withSender(r, sender))
}

func (c *composed) limiter(sender string) *rate.Limiter {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.limiters[sender]
	if l == nil {
		l = rate.NewLimiter(rate.Limit(c.quota.perSecond()), c.quota.requests)
		c.limiters[sender] = l
	}
	return l
}
