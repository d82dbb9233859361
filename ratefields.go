package senderauth

import (
	"math"
	"math/bits"
	"net/http"
	"strconv"
	"time"
)

// RateFields chooses the fields in which a response to a charged request tells
// the client about its limits.
type RateFields uint8

const (
	// RateFieldsBoth sends both families.
	RateFieldsBoth RateFields = iota
	// RateFieldsX sends X-RateLimit-Limit (the burst), X-RateLimit-Remaining
	// (whole tokens) and X-RateLimit-Reset (Unix seconds when the bucket is
	// full again). With several limits they tell of the tightest, the one with
	// the fewest whole tokens left.
	RateFieldsX
	// RateFieldsDraft sends RateLimit and RateLimit-Policy as
	// draft-ietf-httpapi-ratelimit-headers-11 has them, one item for each
	// limit: q is the burst, w the seconds that refill it, r the whole tokens
	// left, t the seconds to the next one. A draft is not a standard: the form
	// can change with it.
	RateFieldsDraft
	// RateFieldsNone sends neither. Retry-After is sent all the same.
	RateFieldsNone
)

// A rate is what the fields tell of one bucket.
type rate struct {
	of      *namedCharge
	limit   Limit // of the sender, if not that of the charge
	balance Balance
}

// set writes the fields for rates, of which none is Unlimited, into h; unix is
// the time, in nanoseconds.
//
// What changes is cut from one string, and all values are held by one array,
// each with its own capacity: two allocations for five fields.
func (f RateFields) set(h http.Header, rates []rate, unix int64) {
	if len(rates) == 0 || f == RateFieldsNone {
		return
	}
	tight := tightest(rates)
	var buf [256]byte
	b := strconv.AppendInt(buf[:0], int64(tight.balance.Remaining), 10)
	remaining := len(b)
	if f != RateFieldsDraft {
		b = strconv.AppendInt(b, unixAfter(unix, tight.balance.ResetAfter), 10)
	}
	reset := len(b)
	for i := range rates {
		b = rates[i].appendState(b, i > 0)
	}
	state := len(b)
	limit, policy := "", ""
	if len(rates) == 1 && tight.limit == tight.of.Limit {
		limit, policy = tight.of.burst, tight.of.policy
	} else {
		limit = strconv.Itoa(tight.limit.EffectiveBurst())
		for i := range rates {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = rates[i].limit.appendPolicy(b, rates[i].of.quoted)
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

// dropRateFields deletes what set has written, under any spelling.
func dropRateFields(h http.Header) {
	for name := range h {
		switch http.CanonicalHeaderKey(name) {
		case "Ratelimit", "Ratelimit-Policy", "X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset":
			delete(h, name)
		}
	}
}

// tightest is the rate with the fewest whole tokens left; of several the one
// that refused.
func tightest(rates []rate) *rate {
	tight := &rates[0]
	for i := range rates {
		r, left := &rates[i].balance, rates[i].balance.Remaining-tight.balance.Remaining
		if left < 0 || left == 0 && r.Refused && !tight.balance.Refused {
			tight = &rates[i]
		}
	}
	return tight
}

// appendState appends the item of RateLimit.
func (r *rate) appendState(b []byte, comma bool) []byte {
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

// appendPolicy appends the item of RateLimit-Policy.
func (l Limit) appendPolicy(b []byte, quoted string) []byte {
	b = append(b, quoted...)
	b = append(b, ";q="...)
	b = strconv.AppendInt(b, int64(l.EffectiveBurst()), 10)
	if l != Blocked() {
		b = append(b, ";w="...)
		b = strconv.AppendInt(b, l.window(), 10)
	}
	return b
}

// window is the whole seconds that fill an empty bucket, rounded up: a window
// that is short by a fraction would promise more than the bucket admits.
func (l Limit) window() int64 {
	hi, lo := bits.Mul64(uint64(l.EffectiveBurst()), uint64(l.Per))
	hi, lo = ceilDiv(hi, lo, uint64(l.Requests))
	hi, lo = ceilDiv(hi, lo, uint64(time.Second))
	if hi > 0 || lo > uint64(maxQuota) {
		return maxQuota
	}
	return int64(lo)
}

// ceilDiv divides a number of two words, rounding up.
func ceilDiv(hi, lo, by uint64) (uint64, uint64) {
	q, rest := bits.Div64(hi%by, lo, by)
	up := uint64(0)
	if rest > 0 {
		up = 1
	}
	q, carry := bits.Add64(q, up, 0)
	return hi/by + carry, q
}

// nextToken is how long until one more whole token is there; 0 where none is
// to come. A full bucket is as many tokens away as it lacks: those behind the
// next one take a known time.
func (r *rate) nextToken() time.Duration {
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

// unixAfter is the Unix time d after now, which is in nanoseconds, in whole
// seconds, rounded up.
func unixAfter(now int64, d time.Duration) int64 {
	const second = int64(time.Second)
	rest := now%second + int64(d)%second
	return now/second + int64(d)/second + (rest+second-1)/second
}
