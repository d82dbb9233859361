package senderauth_test

import (
	"context"
	"math"
	"math/big"
	mathrand "math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// An exactLevel holds the tokens that a bucket should hold, on synctest's clock.
type exactLevel struct {
	plan   senderauth.Limit
	tokens *big.Rat
	at     time.Time
	slack  *big.Rat // what rounding may have added or taken
}

func newExactLevel(plan senderauth.Limit) *exactLevel {
	return &exactLevel{plan: plan, tokens: rat(plan.EffectiveBurst()), at: time.Now(), slack: new(big.Rat)}
}

func rat(n int) *big.Rat { return new(big.Rat).SetInt64(int64(n)) }

// fill adds what has flowed back, and goes on with plan.
func (e *exactLevel) fill(plan senderauth.Limit) {
	gain := big.NewRat(int64(e.plan.Requests), int64(e.plan.Per))
	e.tokens.Add(e.tokens, gain.Mul(gain, new(big.Rat).SetInt64(int64(time.Since(e.at)))))
	for _, l := range []senderauth.Limit{e.plan, plan} {
		if full := rat(l.EffectiveBurst()); e.tokens.Cmp(full) > 0 {
			e.tokens = full
		}
	}
	e.slack.Add(e.slack, new(big.Rat).SetFrac64(int64(max(e.plan.EffectiveBurst(), plan.EffectiveBurst())), 1<<50))
	e.plan, e.at = plan, time.Now()
}

// atLeast reports whether n tokens are there, if rounding took or added share
// times what it can.
func (e *exactLevel) atLeast(n, share int) bool {
	level := new(big.Rat).Mul(e.slack, rat(share))
	return level.Add(level, e.tokens).Cmp(rat(n)) >= 0
}

// charge takes n tokens of both, and holds the balance against the model.
func (e *exactLevel) charge(t *testing.T, l senderauth.Limiter, n int) senderauth.Balance {
	t.Helper()
	b := take(t, l, 1, e.plan, n)
	if b.Refused {
		require.False(t, e.atLeast(n, -1), "refused %d of %s under %+v", n, e.tokens.FloatString(9), e.plan)
	} else {
		require.True(t, e.atLeast(n, 1), "admitted %d of %s under %+v", n, e.tokens.FloatString(9), e.plan)
		e.tokens.Sub(e.tokens, rat(n))
	}
	require.True(t, e.atLeast(b.Remaining, 1), "%d of %s remain", b.Remaining, e.tokens.FloatString(9))
	require.False(t, e.atLeast(b.Remaining+1, -1), "%d of %s remain", b.Remaining, e.tokens.FloatString(9))
	require.GreaterOrEqual(t, b.ResetAfter, time.Duration(0))
	switch {
	case !b.Refused:
		require.Zero(t, b.RetryAfter)
	case n > e.plan.EffectiveBurst():
		require.Negative(t, b.RetryAfter)
	default:
		require.Positive(t, b.RetryAfter)
	}
	return b
}

// However large or slow limits are and however often they change, a bucket never
// has more than exact numbers and the bound on rounding say, and a client that
// waits for RetryAfter is admitted.
func TestLimitsOfAnySizeMintNothing(t *testing.T) {
	seed := mathrand.Uint64()
	t.Logf("seed %d", seed)
	random := mathrand.New(mathrand.NewPCG(seed, 0))
	upTo := func(bits int) int64 { return 1 + random.Int64N(1<<(1+random.IntN(bits))) }
	for range 100 {
		var plans [3]senderauth.Limit
		for i := range plans {
			plans[i] = senderauth.Limit{
				Requests: int(min(upTo(30), 1_000_000_000)), Per: max(time.Duration(upTo(62)), time.Microsecond), Burst: int(min(upTo(30), 1_000_000_000)),
			}
		}
		synctest.Test(t, func(t *testing.T) {
			l, exact := newLimiter(0), newExactLevel(plans[0])
			exact.charge(t, l, 1) // before that there is no bucket to change
			for range 60 {
				time.Sleep(time.Duration(1+random.Int64N(3)) << random.IntN(50))
				exact.fill(plans[random.IntN(len(plans))])
				n := 1 + random.IntN(exact.plan.Burst)
				if random.IntN(2) == 0 { // what is there, or one more
					n = max(int(new(big.Int).Quo(exact.tokens.Num(), exact.tokens.Denom()).Int64())+random.IntN(2), 1)
				}
				if b := exact.charge(t, l, n); b.RetryAfter > 0 && b.RetryAfter < 1<<55 {
					time.Sleep(b.RetryAfter)
					exact.fill(exact.plan)
					require.False(t, exact.charge(t, l, n).Refused, "%v was not enough under %+v", b.RetryAfter, exact.plan)
				}
			}
		})
	}
}

// FuzzLimit holds a bucket of any valid limit against exact numbers.
func FuzzLimit(f *testing.F) {
	const most = 1_000_000_000
	for _, l := range []senderauth.Limit{
		three, senderauth.PerSecond(1), senderauth.PerMinute(7), {Requests: 15, Per: time.Second, Burst: 5}, {Requests: 17, Per: time.Minute, Burst: 5},
		{Requests: 3, Per: 7001, Burst: 2}, {Requests: most, Per: time.Microsecond, Burst: most}, {Requests: 1, Per: math.MaxInt64, Burst: most},
		{Requests: most, Per: math.MaxInt64, Burst: 1}, {Requests: 7919, Per: 104729 * time.Hour, Burst: 1_299_709},
	} {
		f.Add(int64(l.Requests), int64(l.Per), int64(l.Burst), []byte{0, 1, 10, 1, 200, 2, 35, 0, 255, 250, 1, 1, 100, 3, 90, 1})
	}
	f.Fuzz(func(t *testing.T, requests, per, burst int64, schedule []byte) {
		limit := senderauth.Limit{Requests: int(requests), Per: time.Duration(per), Burst: int(burst)}
		if requests < 1 || per < 1000 || burst < 0 || max(requests, burst) > most {
			_, err := newLimiter(0).Take(context.Background(), senderID(1), []senderauth.Charge{{Name: "default", Limit: limit, Cost: 1}})
			special := limit == senderauth.Unlimited() || limit == senderauth.Blocked()
			require.Equal(t, special, err == nil)
			return
		}
		synctest.Test(t, func(t *testing.T) {
			l, exact := newLimiter(0), newExactLevel(limit)
			for pause, cost := range pairsOf(schedule) {
				// Pauses from a nanosecond to about a day, costs up to the burst.
				time.Sleep(time.Duration(1) << (pause % 47) * time.Duration(pause%7))
				exact.fill(limit)
				n := int(cost)
				if cost > 240 {
					n = limit.EffectiveBurst() / (256 - int(cost))
				}
				if b := exact.charge(t, l, n); b.RetryAfter > 0 && b.RetryAfter < 24*time.Hour {
					time.Sleep(b.RetryAfter)
					exact.fill(limit)
					require.False(t, exact.charge(t, l, n).Refused, "%v was not enough", b.RetryAfter)
				}
			}
		})
	})
}

// pairsOf are the bytes of b, two at a time.
func pairsOf(b []byte) func(func(byte, byte) bool) {
	return func(yield func(byte, byte) bool) {
		for two := range slices.Chunk(b, 2) {
			if len(two) < 2 || !yield(two[0], two[1]) {
				return
			}
		}
	}
}
