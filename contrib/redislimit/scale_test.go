package redislimit

import (
	"math"
	"math/big"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// FuzzMeasure checks that every number of a scale is exact in a double, and that its rate
// is never above the limit's and less than a millionth below it.
func FuzzMeasure(f *testing.F) {
	const most = 1_000_000_000 // Requests and Burst of a limit
	for _, l := range []senderauth.Limit{
		senderauth.PerSecond(10), senderauth.PerMinute(200), {Requests: 5, Per: 24 * time.Hour, Burst: 5},
		{Requests: 1, Per: 1}, {Requests: most, Per: 1}, {Requests: 999_999_937, Per: 7*24*time.Hour + 1},
		{Requests: 1, Per: math.MaxInt64, Burst: most}, {Requests: 1, Per: math.MaxInt64}, coarse,
	} {
		f.Add(l.Requests, int64(l.Per), l.Burst)
	}
	f.Fuzz(func(t *testing.T, requests int, per int64, burst int) {
		l := senderauth.Limit{Requests: requests, Per: time.Duration(per), Burst: burst}
		if requests > most || burst > most {
			return
		}
		s := new(scales).of(l)
		if s == nil {
			return
		}
		require.Equal(t, uint64(s.burst)*s.perToken, s.full)
		require.LessOrEqual(t, s.full, uint64(maxFull))
		require.EqualValues(t, s.tick, float32(s.tick))
		require.Positive(t, s.perTick)
		if s.tick > 1 {
			require.EqualValues(t, 1, s.perTick, "or a part of a tick could overfill the bucket")
		}
		// perTick / (perToken x tick us) against Requests / Per, unless one
		// tick fills the bucket.
		got := new(big.Rat).SetFrac(new(big.Int).SetUint64(s.perTick), new(big.Int).Mul(new(big.Int).SetUint64(s.perToken), new(big.Int).SetUint64(s.tick)))
		want := big.NewRat(int64(requests), per)
		want.Mul(want, big.NewRat(1000, 1))
		require.LessOrEqual(t, got.Cmp(want), 0)
		if s.perTick < s.full {
			want.Mul(want, big.NewRat(999_999, 1_000_000))
			require.Positive(t, got.Cmp(want))
		}
	})
}

// The scale of a limit is exact if its full bucket fits a double.
func TestUsualLimitsAreExact(t *testing.T) {
	for _, l := range []senderauth.Limit{
		senderauth.PerSecond(100_000_000), senderauth.PerMinute(200),
		{Requests: 10_000, Per: 30 * 24 * time.Hour}, {Requests: 1_000_000, Per: 24 * time.Hour, Burst: 1000},
	} {
		s := measure(l)
		require.EqualValues(t, 1, s.tick)
		aMicrosecond := big.NewRat(int64(l.Requests)*1000, int64(l.Per)) // in tokens
		require.Zero(t, aMicrosecond.Cmp(big.NewRat(int64(s.perTick), int64(s.perToken))), l)
	}
}

// A wait is rounded up, and shortened by the time that the level has been unchanged.
func TestWait(t *testing.T) {
	s := measure(senderauth.Limit{Requests: 3, Per: time.Second, Burst: 10})
	require.Zero(t, s.wait(s.full, s.full, 0))
	require.Equal(t, 333_334*time.Microsecond, s.wait(0, s.perToken, 0))
	require.Equal(t, 333_333*time.Microsecond, s.wait(0, s.perToken, time.Microsecond))
	require.Equal(t, 333_335*time.Microsecond, s.wait(0, s.perToken, -time.Microsecond), "the clock of Redis was set back")
	require.Equal(t, time.Microsecond, s.wait(0, s.perToken, time.Hour))
	s = measure(senderauth.Limit{Requests: 1, Per: math.MaxInt64, Burst: 1_000_000_000})
	require.Equal(t, time.Duration(math.MaxInt64), s.wait(0, s.full, 0))
}

// A cost above the burst is one part more than a full bucket.
func TestCostAboveTheBurst(t *testing.T) {
	s := measure(senderauth.Limit{Requests: 1, Per: time.Hour, Burst: 3})
	require.Equal(t, s.full, s.parts(3))
	require.Equal(t, s.full+1, s.parts(4))
	require.Equal(t, s.full+1, s.parts(math.MaxInt))
}
