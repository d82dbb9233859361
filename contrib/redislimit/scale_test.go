package redislimit

import (
	"math"
	"math/big"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// FuzzMeasure holds a scale to what the scripts need of it: every number is
// exact in a double, and the rate is never above the limit's.
func FuzzMeasure(f *testing.F) {
	for _, l := range []senderauth.Limit{
		senderauth.PerSecond(10), senderauth.PerMinute(200), {Requests: 5, Per: 24 * time.Hour, Burst: 5},
		{Requests: 1, Per: 1}, {Requests: 1_000_000_000, Per: 7*24*time.Hour + 1},
		{Requests: 1, Per: math.MaxInt64, Burst: 1_000_000_000},
	} {
		f.Add(l.Requests, int64(l.Per), l.Burst)
	}
	f.Fuzz(func(t *testing.T, requests int, per int64, burst int) {
		l := senderauth.Limit{Requests: requests, Per: time.Duration(per), Burst: burst}
		s := new(scales).of(l)
		if s == nil {
			return
		}
		require.Equal(t, uint64(s.burst)*s.perToken, s.full)
		require.LessOrEqual(t, s.full, uint64(maxFull))
		require.EqualValues(t, s.tick, float32(s.tick))
		require.Positive(t, s.perTick)
		// perTick / (perToken x tick us) against Requests / Per, unless one
		// tick fills the bucket.
		got := new(big.Rat).SetFrac(new(big.Int).SetUint64(s.perTick), new(big.Int).Mul(new(big.Int).SetUint64(s.perToken), new(big.Int).SetUint64(s.tick)))
		want := big.NewRat(int64(requests), per)
		want.Mul(want, big.NewRat(1000, 1))
		require.LessOrEqual(t, got.Cmp(want), 0)
		if s.perTick < s.full {
			want.Mul(want, big.NewRat(998, 1000))
			require.GreaterOrEqual(t, got.Cmp(want), 0)
		}
	})
}

// TestSlots compares with values that a Cluster gave.
func TestSlots(t *testing.T) {
	for tag, slot := range map[string]uint16{"foo": 12182, "bar": 5061, "123456789": 12739, "": 0} {
		require.Equal(t, slot, crc16(tag)%16384, tag)
	}
}
