package redislimit

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/senderauth/senderauth"
)

// A scale is the arithmetic of one limit in whole numbers that a double holds
// exactly, because Redis scripts have no other numbers. A token has perToken
// parts, and each tick adds perTick of them.
type scale struct {
	limit    senderauth.Limit
	burst    int
	perToken uint64
	perTick  uint64        // 1 if tick is above 1
	full     uint64        // burst x perToken, at most maxFull
	tick     uint64        // microseconds: 1, or a power of two if the bucket takes over 142 years to fill
	term     time.Duration // how long tokens are leased; zero means not at all
	packed   string        // the limit as the scripts read it
}

const maxFull = 1 << 52

// measure returns the scale of a limit that is neither Unlimited nor Blocked.
func measure(l senderauth.Limit) *scale {
	s := &scale{limit: l, burst: l.EffectiveBurst(), perToken: uint64(l.Per), perTick: uint64(l.Requests), tick: 1}
	// Convert nanoseconds to microseconds without a remainder.
	d := gcd(s.perToken, 1000)
	s.perToken, s.perTick = s.perToken/d, s.perTick*(1000/d)
	d = gcd(s.perToken, s.perTick)
	s.perToken, s.perTick = s.perToken/d, s.perTick/d
	if most := maxFull / uint64(s.burst); s.perToken > most {
		s.round(most)
	}
	s.full = uint64(s.burst) * s.perToken
	s.perTick = min(s.perTick, s.full) // one tick fills the bucket either way
	s.packed = packLimit(s)
	return s
}

// round reduces a token to at most this many parts, and at least half as many. It rounds the
// cost of a token up: a limit loses less than a millionth of its rate and never gains any.
func (s *scale) round(most uint64) {
	us, tokens := s.perToken, s.perTick // us microseconds bring so many tokens
	for tokens*s.tick < (us+most-1)/most {
		s.tick *= 2 // until a tick adds a part
	}
	s.perTick, _ = mulDiv(most, tokens*s.tick, us)
	perToken, rest := mulDiv(s.perTick, us, tokens*s.tick)
	if rest > 0 {
		perToken++
	}
	s.perToken = perToken
}

// mulDiv returns a x b / c, which must be less than 2^64, and the remainder.
func mulDiv(a, b, c uint64) (quotient, rest uint64) {
	hi, lo := bits.Mul64(a, b)
	return bits.Div64(hi, lo, c)
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// parts returns the parts of a cost. One above the burst is a part more than the
// bucket can hold, so that it is refused and fits a double.
func (s *scale) parts(cost int) uint64 {
	if cost > s.burst {
		return s.full + 1
	}
	return uint64(cost) * s.perToken
}

// tokens returns the whole tokens of a level.
func (s *scale) tokens(level uint64) int { return int(level / s.perToken) }

// wait returns how long a bucket takes from level to want, rounded up, if it has
// been unchanged at that level for some time. That is negative if the clock of
// Redis was set back.
func (s *scale) wait(level, want uint64, unchanged time.Duration) time.Duration {
	if level >= want {
		return 0
	}
	ticks := (want - level + s.perTick - 1) / s.perTick
	hi, us := bits.Mul64(ticks, s.tick)
	if hi != 0 || us > math.MaxInt64/1000 {
		return math.MaxInt64
	}
	return max(time.Duration(us)*time.Microsecond-unchanged, time.Microsecond)
}

// balanceAt returns the balance of a bucket that has been unchanged at level for
// some time: before its need was refused, or after it was taken.
func (s *scale) balanceAt(level, need uint64, unchanged time.Duration, taken bool) senderauth.Balance {
	b := senderauth.Balance{Remaining: s.tokens(level), ResetAfter: s.wait(level, s.full, unchanged)}
	if !taken && level < need {
		b.Refused = true
		b.RetryAfter = -1
		if need <= s.full {
			b.RetryAfter = s.wait(level, need, unchanged)
		}
	}
	return b
}

// scales remembers what measure returned, because its divisions cost as much as
// everything else that a call needs.
type scales struct {
	lease time.Duration // Config.Lease
	known atomic.Pointer[map[senderauth.Limit]*scale]
}

// maxScales bounds the number of scales. A fleet has few limits. If every sender has its own
// limit, the scales are dropped from time to time.
const maxScales = 1024

// of returns the scale of a limit, or nil if the limit is not valid.
func (k *scales) of(l senderauth.Limit) *scale {
	known := k.known.Load()
	if known != nil {
		if s := (*known)[l]; s != nil {
			return s
		}
	}
	if l.Validate() != nil {
		return nil
	}
	s := measure(l)
	s.term = leaseTerm(s, k.lease)
	m := map[senderauth.Limit]*scale{l: s}
	if known != nil && len(*known) < maxScales {
		for limit, s := range *known {
			m[limit] = s
		}
	}
	k.known.CompareAndSwap(known, &m)
	return s
}
