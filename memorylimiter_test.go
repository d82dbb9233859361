package senderauth_test

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// Most of what a limiter must do is in senderauthtest.TestLimiter, which
// TestMemoryLimiterIsALimiter runs. Here is the rest.

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
func TestContentionMintsNothing(t *testing.T) {
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

func TestReclaimingHandsNoQuotaBack(t *testing.T) {
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
func TestOneBucketThatOwesKeepsItsSender(t *testing.T) {
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

func TestParallelRequestsAdmitExactlyTheBurst(t *testing.T) {
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
func TestNoLockIsHeldOverTheHandler(t *testing.T) {
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

func TestCostAboveBurstCanNeverPass(t *testing.T) {
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

// There is no tick at which a second burst comes.
func TestNoSecondBurstAtATick(t *testing.T) {
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

// Refused requests and looks are most of what a full table sees under a flood.
func TestEveryRequestReclaims(t *testing.T) {
	for name, cost := range map[string]int{"refused": 4, "looks": 0} {
		bubble(t, name, func(t *testing.T) {
			l := newLimiter(1)
			for n := range 5000 {
				take(t, l, n, three, 1)
			}
			time.Sleep(time.Minute) // all are full
			require.Equal(t, 5000, l.Len())
			for n := range 5000 {
				take(t, l, 10_000+n, three, cost)
			}
			require.Less(t, l.Len(), 300)
		})
	}
}

func TestResetFillsAllBucketsOfASender(t *testing.T) {
	l := newLimiter(0)
	charges := []senderauth.Charge{{Name: "default", Limit: hourly(3), Cost: 3}, {Name: "messages", Limit: hourly(5), Cost: 5}}
	admitted := func(n int) bool {
		b, err := l.Take(context.Background(), senderID(n), charges)
		require.NoError(t, err)
		return !b[0].Refused && !b[1].Refused
	}
	for n := range 3 {
		require.True(t, admitted(n))
		require.False(t, admitted(n))
	}
	l.Reset(senderID(1))
	l.Reset(senderID(99)) // unknown
	require.Equal(t, 2, l.Len())
	require.False(t, admitted(0))
	require.True(t, admitted(1))
	require.False(t, admitted(1))
	require.False(t, admitted(2))
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
