package senderauth

import (
	"math"
	"math/bits"
	"net/http"
	"strconv"
	"time"
)

// RateFields chooses the fields that tell a client about its limits in the response
// to a charged request.
type RateFields uint8

const (
	// RateFieldsBoth sends both families.
	RateFieldsBoth RateFields = iota
	// RateFieldsX sends X-RateLimit-Limit (the burst, or the whole allowance),
	// X-RateLimit-Remaining (whole tokens) and X-RateLimit-Reset (Unix seconds when
	// the bucket is full again, or the allowance starts anew). With several limits
	// they describe the tightest one, which has the fewest whole tokens left.
	RateFieldsX
	// RateFieldsDraft sends RateLimit and RateLimit-Policy of
	// draft-ietf-httpapi-ratelimit-headers-11, with one item for each limit: q is
	// the burst, w the seconds that refill it, r the whole tokens left, and t the
	// seconds to the next one. For an allowance, q is all of it, w the length of the
	// current period in seconds, and t the seconds until that ends. If the draft
	// changes, these fields may change with it.
	RateFieldsDraft
	// RateFieldsNone sends neither family. A 429 still has Retry-After.
	RateFieldsNone
)

// A rateItem is what the fields say about one bucket or allowance.
type rateItem struct {
	of      *namedLimit
	limit   Limit // of the sender, if not that of the name
	balance Balance
}

// rateItems appends what the fields say about a tally: nothing about an unlimited
// bucket, and nothing if the limiter failed.
func (t *tally) rateItems(dst []rateItem) []rateItem {
	for i, balance := range t.balances() {
		if l := t.charges()[i].Limit; l != Unlimited() {
			dst = append(dst, rateItem{t.bill.limits[i], l, balance})
		}
	}
	return dst
}

// set writes the fields for items, none of which is Unlimited, into h. unix is the
// time in nanoseconds.
//
// The values that change are cut from one string, and one array holds all values,
// each with its own capacity: two allocations for five fields.
func (f RateFields) set(h http.Header, items []rateItem, unix int64) {
	if len(items) == 0 {
		return
	}
	tight := tightest(items)
	var buf [256]byte
	b := strconv.AppendInt(buf[:0], int64(tight.balance.Remaining), 10)
	remaining := len(b)
	if f != RateFieldsDraft {
		b = strconv.AppendInt(b, unixAfter(unix, tight.balance.ResetAfter), 10)
	}
	reset := len(b)
	for i := range items {
		b = items[i].appendState(b, i > 0)
	}
	state := len(b)
	limit, policy := "", ""
	if len(items) == 1 && tight.limit == tight.of.limit && tight.of.policy != "" {
		limit, policy = tight.of.burst, tight.of.policy
	} else {
		limit = strconv.Itoa(tight.limit.EffectiveBurst())
		for i := range items {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = items[i].appendPolicy(b, unix)
		}
	}
	s := string(b)
	if policy == "" {
		policy = s[state:]
	}
	v := [5]string{limit, s[:remaining], s[remaining:reset], s[reset:state], policy}
	if f != RateFieldsDraft {
		h["X-Ratelimit-Limit"] = v[0:1:1]
		h["X-Ratelimit-Remaining"] = v[1:2:2]
		h["X-Ratelimit-Reset"] = v[2:3:3]
	}
	if f != RateFieldsX {
		h["Ratelimit"] = v[3:4:4]
		h["Ratelimit-Policy"] = v[4:5:5]
	}
}

// tightest returns the item with the fewest whole tokens left; among equals, the
// first that refused.
func tightest(items []rateItem) *rateItem {
	tight := &items[0]
	for i := range items {
		r, left := &items[i].balance, items[i].balance.Remaining-tight.balance.Remaining
		if left < 0 || left == 0 && r.Refused && !tight.balance.Refused {
			tight = &items[i]
		}
	}
	return tight
}

// appendState appends the item of RateLimit.
func (r *rateItem) appendState(b []byte, comma bool) []byte {
	if comma {
		b = append(b, ", "...)
	}
	b = append(b, r.of.quoted...)
	b = append(b, ";r="...)
	b = strconv.AppendInt(b, int64(r.balance.Remaining), 10)
	if t := r.nextToken(); t > 0 {
		b = append(b, ";t="...)
		b = strconv.AppendInt(b, seconds(t), 10)
	}
	return b
}

// appendPolicy appends the item of RateLimit-Policy. unix is the time in nanoseconds;
// only an allowance needs it, and the balance.
func (r *rateItem) appendPolicy(b []byte, unix int64) []byte {
	b = append(b, r.of.quoted...)
	b = append(b, ";q="...)
	b = strconv.AppendInt(b, int64(r.limit.EffectiveBurst()), 10)
	switch {
	case r.limit == Blocked():
		return b
	case r.limit.isAllowance():
		b = append(b, ";w="...)
		return strconv.AppendInt(b, seconds(r.period(unix)), 10)
	}
	b = append(b, ";w="...)
	return strconv.AppendInt(b, r.limit.window(), 10)
}

// period returns the length of an allowance's period.
func (r *rateItem) period(unix int64) time.Duration {
	// The limiter's clock may be off from this one. No period is shorter than an hour.
	c, end := r.limit.Calendar.of.Value(), time.Unix(0, unix).Add(r.balance.ResetAfter)
	n, end := c.at(end.Add(-time.Hour))
	return end.Sub(c.start(n))
}

// maxInteger is the largest Integer of RFC 9651 section 3.3.1.
const maxInteger = 999_999_999_999_999

// window returns the whole seconds that fill an empty bucket, rounded up: a window
// that is short by a fraction would promise more than the bucket admits.
func (l Limit) window() int64 {
	// 64 bits do not hold the product, and always hold the quotient.
	hi, lo := bits.Mul64(uint64(l.EffectiveBurst()), uint64(l.Per))
	w, rest := bits.Div64(hi, lo, uint64(l.Requests)*uint64(time.Second))
	if rest > 0 {
		w++
	}
	return int64(min(w, maxInteger))
}

// nextToken returns how long until one more whole token is there, or 0 if none is
// to come. The tokens after the next one take a known part of ResetAfter.
func (r *rateItem) nextToken() time.Duration {
	if r.limit.isAllowance() {
		return r.balance.ResetAfter
	}
	if r.balance.RetryAfter > 0 {
		return r.balance.RetryAfter
	}
	behind := r.limit.EffectiveBurst() - r.balance.Remaining - 1
	if behind < 0 || r.balance.ResetAfter <= 0 {
		return 0
	}
	token := (r.limit.Per-1)/time.Duration(r.limit.Requests) + 1
	hi, lo := bits.Mul64(uint64(behind), uint64(r.limit.Per))
	if hi >= uint64(r.limit.Requests) || r.balance.ResetAfter == math.MaxInt64 {
		return token // centuries from full: nothing more is known
	}
	after, _ := bits.Div64(hi, lo, uint64(r.limit.Requests))
	return min(max(r.balance.ResetAfter-time.Duration(after), 1), token)
}

// unixAfter returns the Unix time in whole seconds, rounded up, at d after now,
// which is in nanoseconds.
func unixAfter(now int64, d time.Duration) int64 {
	const second = int64(time.Second)
	rest := now%second + int64(d)%second
	return now/second + int64(d)/second + (rest+second-1)/second
}
