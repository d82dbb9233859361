package senderauth

import (
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
)

// failedAttempts is the limit's name in events.
const failedAttempts = "failed_attempts"

// maxFailingAddresses bounds the memory of an attemptLimiter.
const maxFailingAddresses = 1 << 16

// An attemptLimiter limits the failed authentications of each client address.
// An evicted address starts with a full bucket again, which gains nothing for
// somebody who has 65,536 addresses to send from.
type attemptLimiter struct {
	limit Limit
	peers *peers

	mu      sync.Mutex
	buckets *simplelru.LRU[netip.Addr, *rate.Limiter]
}

func newAttemptLimiter(l Limit, p *peers) *attemptLimiter {
	buckets, _ := simplelru.NewLRU[netip.Addr, *rate.Limiter](maxFailingAddresses, nil)
	return &attemptLimiter{limit: l, peers: p, buckets: buckets}
}

// wait returns how long the address of r must wait for its next attempt; zero
// means that it need not.
func (a *attemptLimiter) wait(r *http.Request) time.Duration {
	addr := a.peers.client(r)
	a.mu.Lock()
	defer a.mu.Unlock()
	b, ok := a.buckets.Get(addr)
	if !ok {
		return 0
	}
	tokens := b.TokensAt(time.Now())
	if tokens >= 1 {
		return 0
	}
	return max(time.Duration((1-tokens)/float64(b.Limit())*float64(time.Second)), 1)
}

// fail counts a failed attempt of the address of r.
func (a *attemptLimiter) fail(r *http.Request) {
	addr := a.peers.client(r)
	a.mu.Lock()
	defer a.mu.Unlock()
	b, ok := a.buckets.Get(addr)
	if !ok {
		perSecond := rate.Limit(float64(a.limit.Requests) / a.limit.Per.Seconds())
		b = rate.NewLimiter(perSecond, a.limit.EffectiveBurst())
		a.buckets.Add(addr, b)
	}
	b.AllowN(time.Now(), 1)
}
