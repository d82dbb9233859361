package redislimit

import (
	"context"
	"encoding/binary"
	"math"
	"math/big"
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/senderauth/senderauth"
)

// A scale is the arithmetic of one limit in whole numbers that a double holds
// exactly, for Redis' scripts have no others: a token has perToken parts, and
// each tick brings perTick of them.
type scale struct {
	burst    int
	perToken uint64
	perTick  uint64
	full     uint64 // burst x perToken, at most maxFull
	tick     uint64 // microseconds: 1, or more where the burst is very large
	packed   string // the same, as the scripts read it
}

// pack returns the scale and a number of parts as the scripts read them.
func (s *scale) pack(parts uint64) string {
	var b [36]byte
	return string(appendDouble(append(b[:0], s.packed...), parts))
}

// measure returns the scale of a limit that is neither Unlimited nor Blocked.
func measure(l senderauth.Limit) *scale {
	s := &scale{burst: l.EffectiveBurst(), perToken: uint64(l.Per), perTick: uint64(l.Requests), tick: 1}
	// Nanoseconds to microseconds without a remainder.
	if d := gcd(s.perToken, 1000); d > 1 {
		s.perToken /= d
		s.perTick *= 1000 / d
	} else {
		s.perTick *= 1000
	}
	d := gcd(s.perToken, s.perTick)
	s.perToken, s.perTick = s.perToken/d, s.perTick/d
	hi, full := bits.Mul64(uint64(s.burst), s.perToken)
	if s.full = full; hi != 0 || full > maxFull {
		s.round()
	}
	s.perTick = min(s.perTick, s.full) // one tick fills it either way
	b := appendDouble(make([]byte, 0, 28), s.perToken)
	b = appendDouble(b, s.perTick)
	b = appendDouble(b, s.full)
	s.packed = string(binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(s.tick))))
	return s
}

const maxFull = 1 << 52

// round makes a scale fit whose burst or Per is very large: it takes up to a
// thousandth off the rate, never adds to it.
func (s *scale) round() {
	// A part for each microsecond that a token takes, or for some of them.
	perToken, tick := (s.perToken-1)/s.perTick+1, uint64(1)
	for ; perToken > maxFull/uint64(s.burst); tick *= 2 {
		perToken = (perToken + 1) / 2
	}
	if perToken >= 1_000_000 {
		s.perToken, s.perTick, s.tick = perToken, 1, tick
		s.full = uint64(s.burst) * perToken
		return
	}
	perToken = maxFull / uint64(s.burst)
	rate := new(big.Rat).SetFrac(
		new(big.Int).Mul(new(big.Int).SetUint64(s.perTick), new(big.Int).SetUint64(perToken)),
		new(big.Int).SetUint64(s.perToken))
	s.perToken, s.full = perToken, uint64(s.burst)*perToken

	// Of the parts and the ticks of which a rate is made one is a thousand or
	// more, so that rounding it is little.
	thousand := big.NewRat(1000, 1)
	switch slow := new(big.Rat).Inv(rate); {
	case rate.Cmp(thousand) >= 0:
		s.perTick = floor(rate)
	case slow.Cmp(thousand) >= 0:
		s.perTick, s.tick = 1, roundUp(slow)
	case slow.Cmp(big.NewRat(1, 1)) >= 0:
		s.perTick, s.tick = 1000, roundUp(slow.Mul(slow, thousand))
	default:
		s.perTick, s.tick = floor(rate.Mul(rate, thousand)), 1000
	}
}

// floor returns the whole part, or what is more than any bucket.
func floor(r *big.Rat) uint64 {
	n := new(big.Int).Quo(r.Num(), r.Denom())
	if !n.IsUint64() {
		return maxFull
	}
	return n.Uint64()
}

// roundUp returns the next whole number that is a float32, as which the scripts
// keep it.
func roundUp(r *big.Rat) uint64 {
	f, _ := r.Float32()
	for new(big.Rat).SetFloat64(float64(f)).Cmp(r) < 0 {
		f = math.Nextafter32(f, math.MaxFloat32)
	}
	return uint64(math.Ceil(float64(f)))
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

func appendDouble(b []byte, n uint64) []byte {
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(n)))
}

// tokens returns the whole tokens of a level.
func (s *scale) tokens(level uint64) int { return int(level / s.perToken) }

// wait returns how long a bucket takes from level to want, rounded up, if it has
// had that level for some time. That is negative where Redis' clock was set
// back.
func (s *scale) wait(level, want uint64, since time.Duration) time.Duration {
	if level >= want {
		return 0
	}
	ticks := (want - level + s.perTick - 1) / s.perTick
	hi, us := bits.Mul64(ticks, s.tick)
	if hi != 0 || us > math.MaxInt64/1000 {
		return math.MaxInt64
	}
	return max(time.Duration(us)*time.Microsecond-since, time.Microsecond)
}

// scales remembers what measure returned: a gcd costs as much as everything
// else that a call needs.
type scales struct {
	m atomic.Pointer[map[senderauth.Limit]*scale]
}

// The limits of a fleet are few; where every sender has its own they are
// forgotten from time to time.
const maxScales = 1024

// judge says whether a limit is valid: looking at a bucket does not make one.
var judge = senderauth.NewMemoryLimiter(senderauth.MemoryLimiterConfig{Buckets: 1})

// of returns nil for a limit that is not valid.
func (c *scales) of(l senderauth.Limit) *scale {
	old := c.m.Load()
	if old != nil {
		if s := (*old)[l]; s != nil {
			return s
		}
	}
	if _, err := judge.Take(context.Background(), "", []senderauth.Charge{{Limit: l}}); err != nil {
		return nil
	}
	s := measure(l)
	m := map[senderauth.Limit]*scale{l: s}
	if old != nil && len(*old) < maxScales {
		for k, v := range *old {
			m[k] = v
		}
	}
	c.m.CompareAndSwap(old, &m)
	return s
}
