package senderauth

import (
	"math"
	"time"
	"unique"

	"golang.org/x/time/rate"
)

// A bucketKind is what all buckets of one name and limit have in common.
type bucketKind struct {
	name  string
	limit Limit
}

// A bucket holds one sender's tokens for one limit. It is used only under its
// shard's lock, with times that never go back: given an older time, a
// rate.Limiter mints tokens.
type bucket struct {
	// A handle takes the place of 40 bytes, so that an account is two cache lines:
	// 241 B a bucket instead of 273 (BenchmarkHeld/bucket).
	of   unique.Handle[bucketKind]
	next *bucket
	rate.Limiter
}

// fill makes b a full bucket for c.
func (b *bucket) fill(c *Charge) {
	b.of = unique.Make(bucketKind{c.Name, c.Limit})
	b.Limiter = *rate.NewLimiter(c.Limit.perSecond(), c.Limit.EffectiveBurst())
}

// adopt moves b to another limit. Its tokens stay, up to the new burst: a
// change of plan neither hands out tokens nor takes any.
func (b *bucket) adopt(c *Charge, now time.Time) {
	b.of = unique.Make(bucketKind{c.Name, c.Limit})
	// SetBurstAt leaves tokens above a smaller burst, but every later call
	// ignores them.
	b.SetLimitAt(now, c.Limit.perSecond())
	b.SetBurstAt(now, c.Limit.EffectiveBurst())
}

func (b *bucket) full(now time.Time) bool {
	return b.TokensAt(now) >= float64(b.Burst())
}

// balance decides c at now, and returns the balance that taking c leaves. It
// takes nothing: AllowN does, once all charges of a request are decided. AllowN
// itself cannot decide, because it admits up to a nanosecond early. A nil
// bucket is a full one.
func (b *bucket) balance(c *Charge, now time.Time) Balance {
	switch c.Limit {
	case Unlimited():
		return Balance{Remaining: math.MaxInt}
	case Blocked():
		if c.Cost == 0 {
			return Balance{}
		}
		return Balance{Refused: true, RetryAfter: -1}
	}
	burst := c.Limit.EffectiveBurst()
	tokens, cost := float64(burst), float64(c.Cost)
	if b != nil {
		if b.of.Value().limit != c.Limit {
			b.adopt(c, now)
		}
		tokens = b.TokensAt(now)
	}
	var bal Balance
	switch {
	case c.Cost > burst:
		bal.Refused, bal.RetryAfter = true, -1
	case tokens < cost:
		bal.Refused, bal.RetryAfter = true, b.wait(c, tokens, now)
	default:
		tokens -= cost
	}
	bal.Remaining = int(tokens)
	bal.ResetAfter = c.Limit.refill(float64(burst) - tokens)
	return bal
}

// wait returns how long after now b has the tokens for c. It asks b, because
// what refill returns can be some nanoseconds too short.
func (b *bucket) wait(c *Charge, tokens float64, now time.Time) time.Duration {
	d := c.Limit.refill(float64(c.Cost) - tokens)
	for step := time.Duration(1); d <= math.MaxInt64-step; step *= 2 {
		if b.TokensAt(now.Add(d)) >= float64(c.Cost) {
			return d
		}
		d += step
	}
	return math.MaxInt64
}

// perSecond returns the rate of l. The product is exact up to maxTokens.
func (l Limit) perSecond() rate.Limit {
	return rate.Limit(float64(l.Requests) * float64(time.Second) / float64(l.Per))
}

// refill returns the time in which tokens flow back, rounded up to nanoseconds.
// Up to an eighth is taken for an error of the arithmetic: a second must not
// become a nanosecond more, which clients would be told as two seconds.
func (l Limit) refill(tokens float64) time.Duration {
	if tokens <= 0 {
		return 0
	}
	ns := math.Ceil(tokens*float64(l.Per)/float64(l.Requests) - 1./8)
	if ns >= math.MaxInt64 {
		return math.MaxInt64
	}
	return max(time.Duration(ns), 1)
}
