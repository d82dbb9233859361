package senderauth_test

import (
	"context"
	"math"
	"math/big"
	mathrand "math/rand/v2"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"
)

// Most of what a limiter must do is in senderauthtest.TestLimiter, which
// TestMemoryLimiterIsALimiter runs on an exact clock. Here is the rest.

// take charges the limit "default" of the n-th sender.
func take(t testing.TB, l senderauth.Limiter, n int, limit senderauth.Limit, cost int) senderauth.Balance {
	t.Helper()
	b, err := l.Take(context.Background(), senderID(n), []senderauth.Charge{{Name: "default", Limit: limit, Cost: cost}})
	require.NoError(t, err)
	require.Len(t, b, 1)
	return b[0]
}

func newLimiter(buckets int) *senderauth.MemoryLimiter {
	return senderauth.NewMemoryLimiter(senderauth.MemoryLimiterConfig{Buckets: buckets})
}

// hourly is a bucket that gets nothing back during a test.
func hourly(burst int) senderauth.Limit {
	return senderauth.Limit{Requests: 1, Per: time.Hour, Burst: burst}
}

// On the real clock, with everybody at the lock at once, a bucket admits no
// more than burst + rate x T.
func TestPitfall01ContentionMintsNothing(t *testing.T) {
	l := newLimiter(0)
	limit := senderauth.Limit{Requests: 2000, Per: time.Second, Burst: 5}
	var admitted atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range 16 {
		wg.Go(func() {
			for range 500 {
				b, err := l.Take(context.Background(), senderID(1), []senderauth.Charge{{Name: "default", Limit: limit, Cost: 1}})
				if err != nil {
					t.Error(err)
				} else if !b[0].Refused {
					admitted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	most := 5 + 2000*time.Since(start).Seconds()
	require.LessOrEqual(t, float64(admitted.Load()), most)
}

func TestPitfall02IdleEvictionHandsNoQuotaBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(1)
		limit := senderauth.Limit{Requests: 5, Per: time.Minute}
		for n := range 2000 {
			require.False(t, take(t, l, n, limit, 5).Refused)
		}
		require.Equal(t, 2000, l.Len(), "the table grows past its mark")
		for n := range 2000 {
			require.True(t, take(t, l, n, limit, 1).Refused)
		}
		// A minute less a moment later not one bucket is full.
		time.Sleep(time.Minute - 1)
		for n := range 2000 {
			require.Equal(t, 4, take(t, l, n, limit, 0).Remaining)
		}
		require.Equal(t, 2000, l.Len())
		// Then all are, and a few busy senders clear the table.
		time.Sleep(time.Nanosecond)
		for n := range 20_000 {
			take(t, l, 5000+n%300, limit, 1)
		}
		require.Less(t, l.Len(), 800)
		for n := range 2000 {
			require.Equal(t, 5, take(t, l, n, limit, 0).Remaining)
		}
	})
}

// One bucket that is not full keeps all of its sender's, wherever in the row it
// is.
func TestPitfall02OneBucketThatOwesKeepsItsSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(1)
		charges := func(n, cost int) []senderauth.Balance {
			names := []senderauth.Charge{{Name: "a", Limit: three, Cost: cost}, {Name: "b", Limit: three, Cost: cost}, {Name: "c", Limit: three, Cost: cost}}
			names[n%3].Limit = hourly(3)
			b, err := l.Take(context.Background(), senderID(n), names)
			require.NoError(t, err)
			return b
		}
		for n := range 300 {
			charges(n, 3)
		}
		time.Sleep(time.Minute) // two of the three are full
		for n := range 10_000 {
			take(t, l, 1000+n%300, three, 1)
		}
		for n := range 300 {
			for i, b := range charges(n, 0) {
				require.Equal(t, i == n%3, b.Remaining == 0)
			}
		}
	})
}

// Memory comes back after a flood of senders, and those who owe stay.
func TestTableShrinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(1)
		for n := range 100 {
			require.False(t, take(t, l, n, hourly(1), 1).Refused)
		}
		for n := range 8000 {
			take(t, l, 100+n, senderauth.PerSecond(1), 1)
		}
		require.Equal(t, 8100, l.Len())
		time.Sleep(time.Second)
		for n := range 8000 {
			take(t, l, n%100, hourly(1), 0)
			take(t, l, 100_000+n%300, senderauth.PerMinute(1000), 1)
		}
		require.Less(t, l.Len(), 1500)
		for n := range 100 {
			require.True(t, take(t, l, n, hourly(1), 1).Refused)
		}
	})
}

// What a remembered sender knows of its buckets does not survive them, and is
// of one limiter.
func TestReclaimedBucketsOfRememberedSenders(t *testing.T) {
	for name, guards := range map[string]int{"one guard": 1, "two guards with a limiter each, behind one cache": 2} {
		bubble(t, name, func(t *testing.T) {
			cache := newCache(t, senderauth.ValidatorFunc(knowsAll), senderauth.CacheConfig{TTL: 24 * time.Hour})
			limit := senderauth.Limit{Requests: 3, Per: 3 * time.Second}
			var handlers []http.Handler
			var limiters []*senderauth.MemoryLimiter
			for range guards {
				l := newLimiter(1)
				guard, err := senderauth.New(cache, senderauth.Config{Limits: limits(limit), Limiter: l})
				require.NoError(t, err)
				limiters = append(limiters, l)
				handlers = append(handlers, guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
			}
			for range 5 {
				for i := range 4 {
					for _, h := range handlers {
						require.Equal(t, i == 3, serve(h, of(1)).Status == 429)
					}
				}
				time.Sleep(3 * time.Second)
				for _, l := range limiters {
					for n := range 1000 { // until the sender's account is reclaimed
						take(t, l, 100+n, limit, 1)
					}
				}
			}
			// Directly and through the guard it is one bucket.
			for i, h := range handlers {
				require.False(t, take(t, limiters[i], 1, limit, 2).Refused)
				require.Equal(t, 200, serve(h, of(1)).Status)
				require.Equal(t, 429, serve(h, of(1)).Status)
				require.True(t, take(t, limiters[i], 1, limit, 1).Refused)
			}
		})
	}
}

func TestPitfall03ParallelRequestsAdmitExactlyTheBurst(t *testing.T) {
	for _, burst := range []int{1, 7, 100} {
		a := newApp(t, nil, senderauth.Config{Limits: limits(hourly(burst))})
		var admitted, refused atomic.Int64
		var wg sync.WaitGroup
		for range 300 {
			wg.Go(func() {
				switch serve(a, of(1)).Status {
				case 200:
					admitted.Add(1)
				case 429:
					refused.Add(1)
				}
			})
		}
		wg.Wait()
		require.Equal(t, int64(burst), admitted.Load())
		require.Equal(t, int64(300-burst), refused.Load())
	}
}

// No lock is held over the handler: one that waits for the next request of its
// own sender gets it.
func TestPitfall03NoLockIsHeldOverTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{})
		var depth int
		var h http.Handler
		h = a.guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if depth++; depth < 3 {
				require.Equal(t, 200, serve(h, of(1)).Status)
			}
		}))
		require.Equal(t, 200, serve(h, of(1)).Status)
		require.Equal(t, 3, depth)
	})
}

// Servers whose clocks differ mint nothing by it: a limiter is handed no instant,
// and goes by a clock of its own.
func TestPitfall05NoInstantIsHandedToALimiter(t *testing.T) {
	taken := reflect.TypeFor[senderauth.Limiter]().Method(0).Type
	require.Equal(t, "func(context.Context, string, []senderauth.Charge) ([]senderauth.Balance, error)", taken.String())
	for _, f := range reflect.VisibleFields(reflect.TypeFor[senderauth.Charge]()) {
		require.Contains(t, []string{"string", "senderauth.Limit", "int"}, f.Type.String())
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[senderauth.Limit]()) {
		require.Contains(t, []string{"int", "time.Duration"}, f.Type.String())
	}
}

func TestPitfall07CostAboveBurstCanNeverPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(0)
		never := senderauth.Balance{Refused: true, Remaining: 3, RetryAfter: -1}
		require.Equal(t, never, take(t, l, 1, three, 4))
		time.Sleep(time.Hour)
		require.Equal(t, never, take(t, l, 1, three, 4))
		require.Equal(t, senderauth.Balance{ResetAfter: 3 * time.Second}, take(t, l, 1, three, 3))
		require.Equal(t, senderauth.Balance{Refused: true, RetryAfter: -1, ResetAfter: 3 * time.Second}, take(t, l, 1, three, 4))
	})
}

func TestPitfall08UnlimitedAndBlockedAreSaidInWords(t *testing.T) {
	l := newLimiter(0)
	require.Equal(t, senderauth.Balance{Remaining: math.MaxInt}, take(t, l, 1, senderauth.Unlimited(), 1_000_000))
	require.Equal(t, senderauth.Balance{Refused: true, RetryAfter: -1}, take(t, l, 1, senderauth.Blocked(), 1))
	require.Zero(t, l.Len(), "neither keeps a bucket")
	require.NotEqual(t, senderauth.Unlimited(), senderauth.Blocked())
	_, err := l.Take(context.Background(), senderID(1), []senderauth.Charge{{Name: "default"}})
	require.EqualError(t, err, `senderauth: charge "default": Limit: the zero Limit: say Unlimited() or Blocked(), or set Requests and Per`)
	_, err = senderauth.New(senderauth.ValidatorFunc(knowsAll), senderauth.Config{Limits: limits(senderauth.Limit{})})
	require.EqualError(t, err, `senderauth: Config.Limits["default"]: the zero Limit: say Unlimited() or Blocked(), or set Requests and Per`)
}

// There is no tick at which a second burst comes.
func TestPitfall09NoSecondBurstAtATick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(0)
		limit := senderauth.PerSecond(100)
		time.Sleep(992 * time.Millisecond)
		admitted := 0
		for range 15 {
			for range 100 {
				if !take(t, l, 1, limit, 1).Refused {
					admitted++
				}
			}
			time.Sleep(time.Millisecond)
		}
		require.Equal(t, 101, admitted, "a hundred, and what flows back in 14 ms")
	})
}

// A bucket of this size is counted in ticks of a second: what is left of one
// is neither lost nor waited for twice.
func TestCoarseTicksLoseNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 999_999_999_999_999
		l := newLimiter(0)
		limit := senderauth.Limit{Requests: 3600, Per: time.Hour, Burst: most}
		require.False(t, take(t, l, 1, limit, most).Refused)
		admitted := 0
		for range 100 {
			time.Sleep(700 * time.Millisecond)
			if !take(t, l, 1, limit, 1).Refused {
				admitted++
			}
		}
		require.Equal(t, 70, admitted)
		time.Sleep(300 * time.Millisecond)
		b := take(t, l, 1, limit, 1)
		require.True(t, b.Refused)
		require.Equal(t, 700*time.Millisecond, b.RetryAfter)
		time.Sleep(b.RetryAfter)
		require.False(t, take(t, l, 1, limit, 1).Refused)
	})
}

// What a running tick has brought does not fill a bucket beyond its brim.
func TestCoarseTicksMintNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 999_999_999_999_999
		l := newLimiter(0)
		limit := senderauth.Limit{Requests: 7200, Per: time.Hour, Burst: most} // two tokens a tick
		take(t, l, 1, limit, 1)
		time.Sleep(900 * time.Millisecond) // full since 400 ms
		take(t, l, 1, limit, 1)
		time.Sleep(100 * time.Millisecond) // 0.8 tokens are missing
		require.True(t, take(t, l, 1, limit, most).Refused)
		time.Sleep(400 * time.Millisecond)
		require.False(t, take(t, l, 1, limit, most).Refused)
	})
}

// What flows back may be more than a word holds.
func TestVeryFastLimitIsFullAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(0)
		limit := senderauth.Limit{Requests: 1 << 49, Per: time.Hour, Burst: 1000}
		for range 3 {
			require.False(t, take(t, l, 1, limit, 1000).Refused)
			time.Sleep(1 << 15)
			require.Equal(t, 1000, take(t, l, 1, limit, 0).Remaining)
		}
	})
}

// x/time/rate agrees, where its numbers are exact: eighths of a second.
func TestMemoryLimiterAgreesWithTimeRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := mathrand.New(mathrand.NewPCG(1, 2))
		for n := range 20 {
			limit := senderauth.Limit{Requests: 1 + random.IntN(16), Per: time.Second, Burst: 1 + random.IntN(8)}
			l, oracle := newLimiter(0), rate.NewLimiter(rate.Limit(limit.Requests), limit.Burst)
			for range 200 {
				cost := 1 + random.IntN(3)
				require.Equal(t, oracle.AllowN(time.Now(), cost), !take(t, l, n, limit, cost).Refused)
				require.Equal(t, int(oracle.TokensAt(time.Now())), take(t, l, n, limit, 0).Remaining)
				time.Sleep(time.Duration(random.IntN(4)) * time.Second / 8)
			}
		}
	})
}

func TestTakeReportsEveryMistake(t *testing.T) {
	l := newLimiter(0)
	b, err := l.Take(context.Background(), senderID(1), []senderauth.Charge{
		{Name: "a", Limit: senderauth.Limit{Requests: -3, Per: -1, Burst: -1}, Cost: -1},
		{Name: "b", Limit: three, Cost: 1},
		{Name: "b", Limit: three, Cost: 1},
	})
	require.Nil(t, b)
	for _, part := range []string{`charge "a": Limit: `, "Requests", "Per", "Burst", `charge "a": Cost -1 is below 0`, `charge "b" is given twice`} {
		require.ErrorContains(t, err, part)
	}
	require.Zero(t, l.Len())
}

// A look makes no bucket, so that nobody fills the table with looks.
func TestLooksMakeNoBucket(t *testing.T) {
	l := newLimiter(0)
	for n := range 100 {
		require.Equal(t, 3, take(t, l, n, three, 0).Remaining)
		require.True(t, take(t, l, n, three, 4).Refused)
	}
	require.Zero(t, l.Len())
}

// A change of plan loses nothing of a token that is on its way, or two plans in
// turn would starve their sender.
func TestLimitChangeKeepsPartsOfTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(0)
		half := senderauth.Limit{Requests: 1, Per: 2 * time.Second, Burst: 7}
		require.False(t, take(t, l, 1, three, 3).Refused)
		admitted := 0
		for i := range 120 { // 0.1 tokens, then 0.05
			time.Sleep(100 * time.Millisecond)
			if !take(t, l, 1, []senderauth.Limit{half, three}[i%2], 1).Refused {
				admitted++
			}
		}
		require.Equal(t, 9, admitted)

		// Who looks by another plan sees the same tokens.
		time.Sleep(2 * time.Second)
		require.Equal(t, 2, take(t, l, 1, half, 0).Remaining)
		require.Equal(t, 2, take(t, l, 1, three, 0).Remaining)
	})
}

// Several guards, one after the other or at once, share what a limiter keeps:
// a configuration that is read anew hands no quota out.
func TestNewGuardFindsTheBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(0)
		before := newApp(t, nil, senderauth.Config{Limiter: l})
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(before, of(1)))
		after := newApp(t, nil, senderauth.Config{Limiter: l})
		require.Equal(t, hello(1).with(threeLeft(1)...), serve(after, of(1)))
		wider := newApp(t, nil, senderauth.Config{Limiter: l, Limits: limits(senderauth.Limit{Requests: 60, Per: time.Minute, Burst: 30}), RateFields: senderauth.RateFieldsX})
		require.Equal(t, hello(1).with(rateFieldsX(30, 0, 30)...), serve(wider, of(1)))
		require.Equal(t, 429, serve(wider, of(1)).Status)
	})
}

func TestPerSecondAndPerMinute(t *testing.T) {
	require.Equal(t, senderauth.Limit{Requests: 7, Per: time.Second}, senderauth.PerSecond(7))
	require.Equal(t, senderauth.Limit{Requests: 7, Per: time.Minute}, senderauth.PerMinute(7))
}

// Everybody at once, on a table that reclaims all the time: for the race
// detector, and no quota comes back.
func TestMemoryLimiterConcurrentUse(t *testing.T) {
	l := newLimiter(1)
	var admitted [200]atomic.Int64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				n := (g*17 + i) % 200
				limit := hourly(5)
				if n%2 == 0 {
					limit = senderauth.PerSecond(1_000_000_000) // full again at once
				}
				b, err := l.Take(context.Background(), senderID(n), []senderauth.Charge{{Name: "default", Limit: limit, Cost: 1}})
				if err != nil {
					t.Error(err)
				} else if !b[0].Refused {
					admitted[n].Add(1)
				}
				l.Len()
			}
		})
	}
	wg.Wait()
	for n := range admitted {
		if n%2 == 1 {
			require.Equal(t, int64(5), admitted[n].Load())
		}
	}
}

// However large or slow limits are and however often they change, a bucket never
// has more than exact numbers say, and who waits for RetryAfter is admitted.
func TestLimitsOfAnySizeMintNothing(t *testing.T) {
	seed := mathrand.Uint64()
	t.Logf("seed %d", seed)
	random := mathrand.New(mathrand.NewPCG(seed, 0))
	upTo := func(bits int) int64 { return 1 + random.Int64N(1<<(1+random.IntN(bits))) }
	for range 300 {
		var plans [3]senderauth.Limit
		for i := range plans {
			plans[i] = senderauth.Limit{
				Requests: int(min(upTo(50), 999_999_999_999_999)), Per: time.Duration(upTo(62)), Burst: int(min(upTo(50), 999_999_999_999_999)),
			}
		}
		synctest.Test(t, func(t *testing.T) {
			l := newLimiter(0)
			plan, last := plans[0], time.Now()
			level := new(big.Rat).SetInt64(int64(plan.Burst))
			fill := func() {
				gain := new(big.Rat).SetFrac64(int64(plan.Requests), int64(plan.Per))
				level.Add(level, gain.Mul(gain, new(big.Rat).SetInt64(int64(time.Since(last)))))
				if full := new(big.Rat).SetInt64(int64(plan.Burst)); level.Cmp(full) > 0 {
					level = full
				}
				last = time.Now()
			}
			admitted := func(n int64) senderauth.Balance {
				b := take(t, l, 1, plan, int(n))
				if !b.Refused {
					level.Sub(level, new(big.Rat).SetInt64(n))
					require.GreaterOrEqual(t, level.Sign(), 0, "%d were admitted under %+v and %s are left", n, plan, level.FloatString(9))
				}
				return b
			}
			admitted(1) // before that there is no bucket to change
			for range 60 {
				time.Sleep(time.Duration(1+random.Int64N(3)) << random.IntN(50))
				fill()
				plan = plans[random.IntN(len(plans))]
				fill()
				n := 1 + random.Int64N(int64(plan.Burst))
				if random.IntN(2) == 0 { // what is there, or one more
					n = max(new(big.Int).Quo(level.Num(), level.Denom()).Int64()+int64(random.IntN(2)), 1)
				}
				if b := admitted(n); b.RetryAfter > 0 && b.RetryAfter < 1<<55 {
					time.Sleep(b.RetryAfter)
					fill()
					require.False(t, admitted(n).Refused, "%v was not enough under %+v", b.RetryAfter, plan)
				}
			}
		})
	}
}

// FuzzLimit holds a bucket of any valid limit against exact numbers: never more
// than the limit, and no less where a token takes a whole number of the ticks
// that the limiter counts in.
func FuzzLimit(f *testing.F) {
	const most = 999_999_999_999_999
	for _, l := range []senderauth.Limit{
		three, senderauth.PerSecond(1), senderauth.PerMinute(7), {Requests: 3, Per: 7, Burst: 2}, {Requests: most, Per: 1, Burst: most},
		{Requests: 1, Per: math.MaxInt64, Burst: most}, {Requests: most, Per: math.MaxInt64, Burst: 1}, {Requests: 7919, Per: 104729 * time.Hour, Burst: 1_299_709},
	} {
		f.Add(int64(l.Requests), int64(l.Per), int64(l.Burst), []byte{0, 1, 10, 1, 200, 2, 35, 0, 255, 250, 1, 1, 100, 3, 90, 1})
	}
	f.Fuzz(func(t *testing.T, requests, per, burst int64, schedule []byte) {
		limit := senderauth.Limit{Requests: int(requests), Per: time.Duration(per), Burst: int(burst)}
		if requests < 1 || per < 1 || burst < 0 || max(requests, burst) > most {
			_, err := newLimiter(0).Take(context.Background(), senderID(1), []senderauth.Charge{{Name: "default", Limit: limit, Cost: 1}})
			special := limit == senderauth.Unlimited() || limit == senderauth.Blocked()
			require.Equal(t, special, err == nil)
			return
		}
		if burst == 0 {
			burst = requests
		}
		synctest.Test(t, func(t *testing.T) {
			// Larger than this the limiter counts in coarser ticks.
			exact := new(big.Int).Mul(big.NewInt(burst), big.NewInt(per)).BitLen() <= 62
			l := newLimiter(0)
			full := new(big.Rat).SetInt64(burst)
			level := new(big.Rat).Set(full)
			last := time.Now()
			for pause, cost := range pairsOf(schedule) {
				// Pauses from a nanosecond to about a day, costs up to the burst.
				time.Sleep(time.Duration(1) << (pause % 47) * time.Duration(pause%7))
				n := int64(cost)
				if cost > 240 {
					n = burst / int64(256-int(cost))
				}
				gain := new(big.Rat).SetFrac(big.NewInt(requests), big.NewInt(per))
				level.Add(level, gain.Mul(gain, new(big.Rat).SetInt64(int64(time.Since(last)))))
				if level.Cmp(full) > 0 {
					level.Set(full)
				}
				last = time.Now()
				want := new(big.Rat).SetInt64(n)
				b := take(t, l, 1, limit, int(n))
				legal := level.Cmp(want) >= 0
				if !b.Refused {
					require.True(t, legal, "admitted %d of %s", n, level.FloatString(9))
					level.Sub(level, want)
				} else if exact {
					require.False(t, legal, "refused %d of %s", n, level.FloatString(9))
				}
				whole := new(big.Int).Div(level.Num(), level.Denom()).Int64()
				require.LessOrEqual(t, int64(b.Remaining), whole)
				require.GreaterOrEqual(t, b.Remaining, 0)
				require.GreaterOrEqual(t, b.ResetAfter, time.Duration(0))
				if exact {
					require.Equal(t, whole, int64(b.Remaining))
				}
				switch {
				case !b.Refused:
					require.Zero(t, b.RetryAfter)
				case n > burst:
					require.Negative(t, b.RetryAfter)
				default:
					require.Positive(t, b.RetryAfter)
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
