package senderauth

import (
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// failedAttempts is the limit's name in events.
const failedAttempts = "failed_attempts"

// maxFailingAddresses bounds the memory of an attemptLimiter.
const maxFailingAddresses = 1 << 16

// An attemptLimiter limits the failed authentications of each client address. An
// evicted address starts with a full bucket again, which gains nothing for a client
// that has 65,536 addresses to send from.
type attemptLimiter struct {
	attempt Charge
	peers   *peers

	mu      sync.Mutex
	buckets *simplelru.LRU[netip.Addr, *bucket]
}

func newAttemptLimiter(l Limit, p *peers) *attemptLimiter {
	buckets, _ := simplelru.NewLRU[netip.Addr, *bucket](maxFailingAddresses, nil)
	return &attemptLimiter{attempt: Charge{Name: failedAttempts, Limit: l, Cost: 1}, peers: p, buckets: buckets}
}

// wait returns how long the address of r must wait for its next attempt; zero
// means that it need not.
func (a *attemptLimiter) wait(r *http.Request) time.Duration {
	addr := a.peers.client(r)
	a.mu.Lock()
	defer a.mu.Unlock()
	b, _ := a.buckets.Get(addr)
	return b.balance(&a.attempt, time.Now()).RetryAfter
}

// fail counts a failed attempt of the address of r.
func (a *attemptLimiter) fail(r *http.Request) {
	addr := a.peers.client(r)
	a.mu.Lock()
	defer a.mu.Unlock()
	b, ok := a.buckets.Get(addr)
	if !ok {
		b = new(bucket)
		b.fill(&a.attempt)
		a.buckets.Add(addr, b)
	}
	b.AllowN(time.Now(), 1)
}
