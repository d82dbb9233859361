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
	shift    uint8  // a tick is 2^shift microseconds: 0, or more where the burst is very large
	packed   string // the same, as the scripts read it
}

// pack returns the scale and a number of parts as the scripts read them.
func (s *scale) pack(parts uint64) string {
	var b [33]byte
	return string(appendDouble(append(b[:0], s.packed...), parts))
}

// measure returns the scale of a limit that is neither Unlimited nor Blocked.
func measure(l senderauth.Limit) *scale {
	s := &scale{burst: l.Burst, perToken: uint64(l.Per), perTick: uint64(l.Requests)}
	if s.burst == 0 {
		s.burst = l.Requests
	}
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
	b := appendDouble(make([]byte, 0, 25), s.perToken)
	b = appendDouble(b, s.perTick)
	b = appendDouble(b, s.full)
	s.packed = string(append(b, s.shift))
	return s
}

const maxFull = 1 << 52

// round makes a scale fit whose burst is very large: it takes up to a
// thousandth off the rate, never adds to it.
func (s *scale) round() {
	perToken := maxFull / uint64(s.burst)
	rate := new(big.Int).SetUint64(s.perTick)
	rate.Mul(rate, new(big.Int).SetUint64(perToken))
	old := new(big.Int).SetUint64(s.perToken)
	for ; ; s.shift++ {
		perTick := new(big.Int).Lsh(rate, uint(s.shift))
		if perTick.Quo(perTick, old); !perTick.IsUint64() {
			perTick.SetUint64(maxFull)
		}
		if s.perTick = perTick.Uint64(); s.perTick >= 1000 {
			break
		}
	}
	s.perToken, s.full = perToken, uint64(s.burst)*perToken
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

// wait returns how long a bucket takes from level to want, rounded up.
func (s *scale) wait(level, want uint64) time.Duration {
	if level >= want {
		return 0
	}
	ticks := (want - level + s.perTick - 1) / s.perTick
	hi, us := bits.Mul64(ticks, 1<<s.shift)
	if hi != 0 || us > math.MaxInt64/1000 {
		return math.MaxInt64
	}
	return time.Duration(us) * time.Microsecond
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
