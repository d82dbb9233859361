package main

import (
	"fmt"
	"time"

	"github.com/senderauth/senderauth"
)

// A bucket is the model of what one sender has left of one limit. It holds the most and
// the fewest tokens that there can be.
//
// Normally a bucket in Redis decides. During a trouble an instance may decide by its own
// share of the limit instead. All shares together are at most a second bucket of the same
// limit, and the model does not know which of the two a request was charged to: it has
// one of twice the size.
type bucket struct {
	burst, rate float64 // rate is in tokens a second

	most     float64 // tokens in Redis, and in the shares during a trouble
	shares   float64 // tokens in the shares, otherwise
	troubled bool
	at       time.Time     // of most and shares
	slowest  time.Duration // answer since the bucket was full

	fewest   float64
	fewestAt time.Time
	latest   time.Duration // answer since fewest was a full bucket
}

func newBucket(l senderauth.Limit, now time.Time) *bucket {
	burst := float64(l.EffectiveBurst())
	return &bucket{
		burst: burst, rate: float64(l.Requests) / l.Per.Seconds(),
		most: burst, shares: burst, at: now,
		fewest: burst, fewestAt: now,
	}
}

// refill lets the tokens flow until now.
func (b *bucket) refill(now time.Time) {
	tokens := b.rate * max(now.Sub(b.at).Seconds(), 0)
	b.at = latest(b.at, now)
	size := b.burst
	if b.troubled {
		size *= 2
		tokens *= 2
	}
	b.shares = min(b.shares+tokens, b.burst)
	if b.most = min(b.most+tokens, size); b.most == size {
		b.slowest = 0
	}
}

// begin begins a trouble.
func (b *bucket) begin(at time.Time) {
	b.refill(at)
	b.troubled = true
	b.most += b.shares
}

// lose notes that Redis lost its data: its bucket is full again.
func (b *bucket) lose(at time.Time) {
	b.refill(at)
	b.most = min(b.most, b.burst) + b.burst
}

// settle ends a trouble. The bucket in Redis may be empty, because calls without an answer
// may have taken tokens.
func (b *bucket) settle(at time.Time) {
	b.refill(at)
	b.troubled = false
	b.most = min(b.most, b.burst)
	b.shares = b.most
	b.fewest, b.fewestAt, b.latest = min(b.fewestIn(at), 0), at, 0
}

// charge takes the token of a request that was admitted between sent and got, and says
// what is wrong if there cannot have been one.
func (b *bucket) charge(sent, got time.Time) string {
	b.refill(got)
	b.slowest = max(b.slowest, got.Sub(sent))
	b.most--
	// The bucket in Redis may have begun to refill when the request was sent.
	slack := b.rate*b.slowest.Seconds() + 1e-6
	if missing := -b.most - slack; missing > 0 {
		b.most = 0 // report it once
		return fmt.Sprintf("%.2f tokens too many were taken", missing)
	}
	return ""
}

// spend takes the token of a request that was admitted between sent and got from the
// fewest that may be left.
func (b *bucket) spend(sent, got time.Time) {
	left := b.fewestIn(sent)
	if b.fewest+b.rate*(sent.Sub(b.fewestAt)-b.latest).Seconds() >= b.burst {
		b.latest = 0 // the bucket is full, however late it began to refill
	}
	b.latest = max(b.latest, got.Sub(sent))
	b.fewest, b.fewestAt = left-1, latest(b.fewestAt, sent)
}

// fewestIn returns how many tokens there were at least at a time, but for what a full
// bucket may have begun to refill too early.
func (b *bucket) fewestIn(at time.Time) float64 {
	return min(b.fewest+b.rate*at.Sub(b.fewestAt).Seconds(), b.burst)
}

// hasOne reports whether there certainly was a token at a time.
func (b *bucket) hasOne(at time.Time) bool {
	return b.fewestIn(at)-b.rate*b.latest.Seconds() >= 1+1e-6
}
