package redislimit_test

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/stretchr/testify/require"
)

func TestTake(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		l := open(t, shared(t), redislimit.Config{Lease: lease, Timeout: patient})
		h := hourly(3)
		b := take(t, l, "a", charge("x", h, 2))
		require.Equal(t, 1, b[0].Remaining)
		require.False(t, b[0].Refused)
		require.InDelta(t, 2*time.Hour, b[0].ResetAfter, float64(time.Minute))

		b = take(t, l, "a", charge("x", h, 2), charge("y", h, 1))
		require.True(t, b[0].Refused)
		require.InDelta(t, time.Hour, b[0].RetryAfter, float64(time.Minute))
		require.Equal(t, senderauth.Balance{Remaining: 3}, b[1], "nothing was taken")

		b = take(t, l, "a", charge("x", h, 0), charge("y", h, 4), charge("z", senderauth.Unlimited(), 7))
		require.Equal(t, 1, b[0].Remaining)
		require.False(t, b[0].Refused, "a look is never refused")
		require.Equal(t, senderauth.Balance{Refused: true, Remaining: 3, RetryAfter: -1}, b[1], "a cost above the burst can never pass")
		require.Equal(t, senderauth.Balance{Remaining: math.MaxInt}, b[2])

		b = take(t, l, "a", charge("x", h, 1), charge("closed", senderauth.Blocked(), 1))
		require.Equal(t, 1, b[0].Remaining, "nothing was taken")
		require.Equal(t, senderauth.Balance{Refused: true, RetryAfter: -1}, b[1])
		b = take(t, l, "a", charge("x", h, 1), charge("closed", senderauth.Blocked(), 0))
		require.Equal(t, 0, b[0].Remaining)
		require.Equal(t, senderauth.Balance{}, b[1])
		require.Equal(t, 3, take(t, l, "b", charge("x", h, 0))[0].Remaining, "another sender's bucket")
		require.Empty(t, take(t, l, "a"))
	})
}

// Mistakes in a call get the same errors as from a MemoryLimiter.
func TestMistakes(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		l := open(t, shared(t), redislimit.Config{Lease: lease})
		for _, charges := range [][]senderauth.Charge{
			{charge("x", senderauth.Limit{}, 1)},
			{charge("x", senderauth.Limit{Requests: 1, Per: -1}, 1)},
			{charge("x", hourly(1), -1)},
			{charge("x", hourly(1), 1), charge("x", hourly(1), 1)},
			{charge("x", senderauth.Unlimited(), -1)},
		} {
			_, want := senderauth.NewMemoryLimiter(senderauth.MemoryLimiterConfig{}).Take(ctx, "a", charges)
			_, err := l.Take(ctx, "a", charges)
			require.EqualError(t, err, want.Error())
		}
	})
}

// Many callers on many instances get exactly the burst.
func TestExactlyTheBurst(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		c := shared(t)
		var limiters []*redislimit.Limiter
		for range 3 {
			limiters = append(limiters, open(t, c, redislimit.Config{Lease: 10 * lease, Timeout: patient}))
		}
		var admitted atomic.Int64
		var wg sync.WaitGroup
		for g := range 30 {
			wg.Go(func() {
				for range 20 {
					b, err := limiters[g%3].Take(ctx, "a", []senderauth.Charge{charge("x", hourly(100), 1), charge("y", hourly(1000), 2)})
					if err == nil && !b[0].Refused && !b[1].Refused {
						admitted.Add(1)
					}
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 100, admitted.Load())
		// The instances give back what they leased and did not use.
		eventually(t, func() error {
			if b := take(t, limiters[0], "a", charge("y", hourly(1000), 0)); b[0].Remaining != 800 {
				return fmt.Errorf("%d remain", b[0].Remaining)
			}
			return nil
		})
	})
}

func TestLimitChanges(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		l := open(t, shared(t), redislimit.Config{Lease: lease, Timeout: patient})
		remaining := func(limit senderauth.Limit, cost int) int {
			b := take(t, l, "a", charge("x", limit, cost))
			require.False(t, b[0].Refused)
			return b[0].Remaining
		}
		require.Equal(t, 6, remaining(hourly(10), 4))
		require.Equal(t, 6, remaining(hourly(100), 0), "a larger burst is not handed out")
		require.Equal(t, 4, remaining(hourly(4), 0), "a smaller one is enforced")
		require.Equal(t, 4, remaining(hourly(10), 0))
		odd := senderauth.Limit{Requests: 999_999_937, Per: 7*time.Second + 1, Burst: 1_000_000_000}
		require.GreaterOrEqual(t, remaining(odd, 0), 4)
		require.Equal(t, 10, remaining(hourly(10), 0))

		// A tick of one limit is not counted at the rate of the other.
		slow := senderauth.Limit{Requests: 1, Per: math.MaxInt64, Burst: 1_000_000_000}
		take(t, l, "b", charge("x", slow, slow.Burst))
		<-time.After(20 * time.Millisecond)
		fast := senderauth.Limit{Requests: 1, Per: 10 * time.Millisecond, Burst: 1000}
		changed := time.Now()
		take(t, l, "b", charge("x", fast, 0))
		left := take(t, l, "b", charge("x", fast, 0))[0].Remaining
		require.LessOrEqual(t, left, int(time.Since(changed)/fast.Per))
	})
}

// A large burst is rounded in the limit's favour, never in the sender's.
func TestExtremeLimits(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		l := open(t, shared(t), redislimit.Config{Lease: lease, Timeout: patient})
		for i, limit := range []senderauth.Limit{
			{Requests: 1, Per: time.Microsecond},
			{Requests: 1, Per: math.MaxInt64},
			{Requests: 1_000_000_000, Per: time.Microsecond},
			{Requests: 1, Per: math.MaxInt64, Burst: 1_000_000_000},
			{Requests: 3, Per: 7 * time.Hour, Burst: 1_000_000_000},
		} {
			name := fmt.Sprint(i)
			burst := max(limit.Burst, limit.Requests)
			b := take(t, l, "a", charge(name, limit, burst))
			require.False(t, b[0].Refused)
			require.LessOrEqual(t, b[0].Remaining, burst)
			require.Positive(t, b[0].ResetAfter)
			require.Less(t, b[0].ResetAfter.Seconds(), 1.01*float64(burst)*limit.Per.Seconds()/float64(limit.Requests)+0.001)
			b = take(t, l, "a", charge(name, limit, 0))
			require.LessOrEqual(t, b[0].Remaining, burst)
		}
	})
}

// Limiters of one prefix share the buckets of a name. A prefix of its own keeps a service
// apart.
func TestPrefixSeparatesServices(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		c := shared(t)
		same := redislimit.Config{Lease: lease, Timeout: patient}
		other := same
		other.Prefix = prefix(t) + "-other"
		require.Equal(t, 7, take(t, open(t, c, same), "a", charge("x", hourly(10), 3))[0].Remaining)
		require.Equal(t, 6, take(t, open(t, c, same), "a", charge("x", hourly(10), 1))[0].Remaining)
		require.Equal(t, 9, take(t, open(t, c, other), "a", charge("x", hourly(10), 1))[0].Remaining)
	})
}

func TestRefill(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		l := open(t, shared(t), redislimit.Config{Lease: lease, Timeout: patient})
		limit := senderauth.Limit{Requests: 20, Per: time.Second, Burst: 2}
		b := take(t, l, "a", charge("x", limit, 2))
		for !b[0].Refused { // until two calls come in less time than the bucket takes to fill
			b = take(t, l, "a", charge("x", limit, 2))
		}
		require.LessOrEqual(t, b[0].RetryAfter, 100*time.Millisecond)
		<-time.After(b[0].RetryAfter)
		require.False(t, take(t, l, "a", charge("x", limit, 2))[0].Refused, "after RetryAfter it passes")
	})
}

func TestForeignKeys(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		c := shared(t)
		l := open(t, c, redislimit.Config{Lease: lease, Timeout: patient})
		require.NoError(t, c.HSet(ctx, "{"+prefix(t)+":v1:a}:hash", "f", 1).Err())
		require.NoError(t, c.Set(ctx, "{"+prefix(t)+":v1:a}:text", "hello", 0).Err())
		for _, name := range []string{"hash", "text"} {
			for range 10 {
				_, err := l.Take(ctx, "a", []senderauth.Charge{charge("x", hourly(1000), 1), charge(name, hourly(1), 1)})
				require.ErrorContains(t, err, "redislimit: ")
			}
		}
		require.Equal(t, 1000, take(t, l, "a", charge("x", hourly(1000), 0))[0].Remaining)
	})
}

func TestOneCommand(t *testing.T) {
	c := startServer(t, "redis-server").client()
	defer c.Close()
	l := open(t, c, redislimit.Config{Timeout: patient})
	take(t, l, "a", charge("x", hourly(1000), 1), charge("y", hourly(1000), 1))
	commands(t, c)
	for range 100 {
		take(t, l, "a", charge("x", hourly(1000), 1), charge("y", hourly(1000), 1))
	}
	m := commands(t, c)
	require.Equal(t, 100, m["evalsha"])
	require.Zero(t, m["eval"])

	// After SCRIPT FLUSH one decision costs one more command.
	require.NoError(t, c.ScriptFlush(ctx).Err())
	for range 10 {
		take(t, l, "a", charge("x", hourly(1000), 1))
	}
	m = commands(t, c)
	require.Equal(t, 10, m["evalsha"])
	require.Equal(t, 1, m["eval"])
}
