package redislimit_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/stretchr/testify/require"
)

var ctx = context.Background()

func contains(s string, all ...string) bool {
	for _, part := range all {
		if !strings.Contains(s, part) {
			return false
		}
	}
	return true
}

// shared is the server of the tests that do it no harm.
func shared(t testing.TB) redis.UniversalClient {
	t.Helper()
	if url := os.Getenv("SENDERAUTH_TEST_REDIS"); url != "" {
		o, err := redis.ParseURL(url)
		require.NoError(t, err)
		o.ContextTimeoutEnabled = true
		c := redis.NewClient(o)
		t.Cleanup(func() {
			for keys := c.Scan(ctx, 0, "{"+t.Name()+"*", 1000).Iterator(); keys.Next(ctx); {
				require.NoError(t, c.Del(ctx, keys.Val()).Err())
			}
			c.Close()
		})
		return c
	}
	c := startServer(t, "redis-server").client()
	t.Cleanup(func() { c.Close() })
	return c
}

func open(t testing.TB, c redis.UniversalClient, cfg redislimit.Config) *redislimit.Limiter {
	t.Helper()
	if cfg.Instances == 0 && !cfg.FailClosed && cfg.CountInstances == nil {
		cfg.Instances = 1
	}
	if cfg.Prefix == "" {
		cfg.Prefix = prefix(t)
	}
	l, err := redislimit.New(c, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

var prefixes sync.Map

// prefix is the same for all limiters of a test, and another each time that it
// runs.
func prefix(t testing.TB) string {
	p, _ := prefixes.LoadOrStore(t, fmt.Sprintf("%s-%x", t.Name(), rand.Uint64()))
	return p.(string)
}

// inBoth runs a test in exact and in lease mode.
func inBoth(t *testing.T, f func(t *testing.T, lease time.Duration)) {
	t.Run("exact", func(t *testing.T) { f(t, 0) })
	t.Run("lease", func(t *testing.T) { f(t, 100*time.Millisecond) })
}

func charge(name string, l senderauth.Limit, cost int) senderauth.Charge {
	return senderauth.Charge{Name: name, Limit: l, Cost: cost}
}

// hourly refills so slowly that no test sees it.
func hourly(burst int) senderauth.Limit {
	return senderauth.Limit{Requests: 1, Per: time.Hour, Burst: burst}
}

func take(t testing.TB, l *redislimit.Limiter, sender string, c ...senderauth.Charge) []senderauth.Balance {
	t.Helper()
	b, err := l.Take(ctx, sender, c)
	require.NoError(t, err)
	return b
}

func TestTake(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		l := open(t, shared(t), redislimit.Config{Lease: lease, Timeout: time.Second})
		h := hourly(3)
		b := take(t, l, "a", charge("x", h, 2))
		require.Equal(t, 1, b[0].Remaining)
		require.False(t, b[0].Refused)
		require.InDelta(t, 2*time.Hour, b[0].ResetAfter, float64(time.Second))

		b = take(t, l, "a", charge("x", h, 2), charge("y", h, 1))
		require.True(t, b[0].Refused)
		require.InDelta(t, time.Hour, b[0].RetryAfter, float64(time.Second))
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

// What a limiter of a single process says about a call is said here, too.
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

// All of one limiter's tokens are admitted, and no more, by many at once on
// many instances.
func TestExactlyTheBurst(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		c := shared(t)
		var limiters []*redislimit.Limiter
		for range 3 {
			limiters = append(limiters, open(t, c, redislimit.Config{Lease: 10 * lease, Timeout: 10 * time.Second}))
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
		// What the others have leased for nothing they give back.
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
		l := open(t, shared(t), redislimit.Config{Lease: lease, Timeout: time.Second})
		remaining := func(limit senderauth.Limit, cost int) int {
			b := take(t, l, "a", charge("x", limit, cost))
			require.False(t, b[0].Refused)
			return b[0].Remaining
		}
		require.Equal(t, 6, remaining(hourly(10), 4))
		require.Equal(t, 6, remaining(hourly(100), 0), "a larger burst is not handed out")
		require.Equal(t, 4, remaining(hourly(4), 0), "a smaller one is enforced")
		require.Equal(t, 4, remaining(hourly(10), 0))
		odd := senderauth.Limit{Requests: 999_999_989, Per: time.Second + 1, Burst: 1_000_000_000}
		require.GreaterOrEqual(t, remaining(odd, 0), 4)
		require.Equal(t, 10, remaining(hourly(10), 0))

		// A tick of the one limit is not counted by the rate of the other.
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
		l := open(t, shared(t), redislimit.Config{Lease: lease, Timeout: time.Second})
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

// The state outlives the refill, by little, and a full bucket leaves none.
func TestPitfall06StateOutlivesTheRefill(t *testing.T) {
	c := shared(t)
	l := open(t, c, redislimit.Config{Timeout: time.Second})
	limit := senderauth.Limit{Requests: 1, Per: 10 * time.Second, Burst: 3}
	take(t, l, "a", charge("x", limit, 2))
	keys, err := c.Keys(ctx, "{"+prefix(t)+":*").Result()
	require.NoError(t, err)
	require.Equal(t, []string{"{" + prefix(t) + ":v1:a}:x"}, keys)
	ttl, err := c.PTTL(ctx, keys[0]).Result()
	require.NoError(t, err)
	require.Greater(t, ttl, take(t, l, "a", charge("x", limit, 0))[0].ResetAfter)
	require.LessOrEqual(t, ttl, 21*time.Second)
	size, err := c.StrLen(ctx, keys[0]).Result()
	require.NoError(t, err)
	require.EqualValues(t, 44, size, "which Redis allocates together with its header")

	take(t, l, "b", charge("x", hourly(2), 0))
	take(t, l, "b", charge("x", hourly(2), 3))
	require.Zero(t, c.Exists(ctx, "{"+prefix(t)+":v1:b}:x").Val(), "neither a look nor a refusal makes a bucket")

	// No sender reaches another's buckets by its name.
	take(t, l, "a}:x", charge("y", hourly(2), 2))
	require.Equal(t, 2, take(t, l, "a", charge("x}:y", hourly(2), 0))[0].Remaining)
}

func TestRefill(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		l := open(t, shared(t), redislimit.Config{Lease: lease, Timeout: time.Second})
		limit := senderauth.Limit{Requests: 20, Per: time.Second, Burst: 2}
		take(t, l, "a", charge("x", limit, 2))
		b := take(t, l, "a", charge("x", limit, 2))
		require.True(t, b[0].Refused)
		require.LessOrEqual(t, b[0].RetryAfter, 100*time.Millisecond)
		<-time.After(b[0].RetryAfter)
		require.False(t, take(t, l, "a", charge("x", limit, 2))[0].Refused, "after RetryAfter it passes")
	})
}

// An older time is never written, and mints nothing.
func TestPitfall05ClockOfRedisStepsBack(t *testing.T) {
	c := shared(t)
	l := open(t, c, redislimit.Config{Timeout: time.Second})
	limit := senderauth.Limit{Requests: 1, Per: time.Second, Burst: 10}
	take(t, l, "a", charge("x", limit, 4))
	key := "{" + prefix(t) + ":v1:a}:x"
	// As if the clock had been an hour ahead when the bucket was written.
	ahead := redis.NewScript(`
		local v = redis.call('GET', KEYS[1])
		local level, last = struct.unpack('<dd', v, 29)
		redis.call('SET', KEYS[1], string.sub(v, 1, 28) .. struct.pack('<dd', level, last + 3600e6), 'KEEPTTL')
		return string.format('%.0f', last + 3600e6)`)
	last, err := ahead.Run(ctx, c, []string{key}).Text()
	require.NoError(t, err)
	for want := 5; want >= 0; want-- {
		require.Equal(t, want, take(t, l, "a", charge("x", limit, 1))[0].Remaining)
	}
	require.True(t, take(t, l, "a", charge("x", limit, 1))[0].Refused)
	after, err := redis.NewScript(`
		local level, last = struct.unpack('<dd', redis.call('GET', KEYS[1]), 29)
		return string.format('%.0f', last)`).Run(ctx, c, []string{key}).Text()
	require.NoError(t, err)
	require.Equal(t, last, after)
	// The state still ends when the bucket would be full by the new clock.
	require.LessOrEqual(t, c.PTTL(ctx, key).Val(), 11*time.Second)
}

func TestForeignKeys(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		c := shared(t)
		l := open(t, c, redislimit.Config{Lease: lease, Timeout: time.Second})
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

// commands returns how often Redis ran each command since it was last asked.
func commands(t testing.TB, c *redis.Client) map[string]int {
	t.Helper()
	info, err := c.Info(ctx, "commandstats").Result()
	require.NoError(t, err)
	m := map[string]int{}
	for line := range strings.Lines(info) {
		if name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls="); ok {
			n, _, _ := strings.Cut(rest, ",")
			var calls int
			fmt.Sscan(n, &calls)
			m[name] = calls
		}
	}
	require.NoError(t, c.ConfigResetStat(ctx).Err())
	return m
}

func TestOneCommand(t *testing.T) {
	c := startServer(t, "redis-server").client()
	defer c.Close()
	l := open(t, c, redislimit.Config{Timeout: time.Second})
	take(t, l, "a", charge("x", hourly(1000), 1), charge("y", hourly(1000), 1))
	commands(t, c)
	for range 100 {
		take(t, l, "a", charge("x", hourly(1000), 1), charge("y", hourly(1000), 1))
	}
	m := commands(t, c)
	require.Equal(t, 100, m["evalsha"])
	require.Zero(t, m["eval"])

	// A flushed script costs one command more, once.
	require.NoError(t, c.ScriptFlush(ctx).Err())
	for range 10 {
		take(t, l, "a", charge("x", hourly(1000), 1))
	}
	m = commands(t, c)
	require.Equal(t, 10, m["evalsha"])
	require.Equal(t, 1, m["eval"])
}

func TestNew(t *testing.T) {
	good := redis.NewClient(&redis.Options{ContextTimeoutEnabled: true})
	defer good.Close()
	for _, c := range []struct {
		client redis.UniversalClient
		cfg    redislimit.Config
		want   []string
	}{
		{nil, redislimit.Config{}, []string{"the client is nil", "Config.Instances is 0"}},
		{(*redis.Client)(nil), redislimit.Config{Instances: -1}, []string{"nil *redis.Client", "Config.Instances is -1"}},
		{(*redis.ClusterClient)(nil), redislimit.Config{Instances: 1}, []string{"nil *redis.ClusterClient"}},
		{(*redis.Ring)(nil), redislimit.Config{Instances: 1}, []string{"nil *redis.Ring"}},
		{redis.NewClient(&redis.Options{}), redislimit.Config{Instances: 1}, []string{"ContextTimeoutEnabled"}},
		{redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "m", SentinelAddrs: []string{"localhost:1"}}), redislimit.Config{Instances: 1}, []string{"ContextTimeoutEnabled"}},
		{redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"localhost:1"}}), redislimit.Config{Instances: 1}, []string{"ContextTimeoutEnabled"}},
		{redis.NewRing(&redis.RingOptions{}), redislimit.Config{Instances: 1}, []string{"ContextTimeoutEnabled"}},
		{good, redislimit.Config{Instances: 1, CountInstances: func() int { return 1 }}, []string{"both set"}},
		{good, redislimit.Config{FailClosed: true, Timeout: -1, ProbeEvery: -1, Failures: -1, Prefix: "a}"}, []string{
			"Config.Timeout -1ns", "Config.ProbeEvery -1ns", "Config.Failures -1", `Config.Prefix "a}"`}},
	} {
		l, err := redislimit.New(c.client, c.cfg)
		require.Nil(t, l)
		for _, want := range c.want {
			require.ErrorContains(t, err, want)
		}
		require.Len(t, strings.Split(err.Error(), "\n"), len(c.want))
	}
}

func TestReset(t *testing.T) {
	// Servers that share the senders without knowing of one another.
	ring := redis.NewRing(&redis.RingOptions{
		Addrs:                 map[string]string{"one": startServer(t, "redis-server").Addr(), "two": startServer(t, "redis-server").Addr()},
		ContextTimeoutEnabled: true,
	})
	defer ring.Close()
	for name, c := range map[string]redis.UniversalClient{"single": shared(t), "ring": ring} {
		t.Run(name, func(t *testing.T) {
			inBoth(t, func(t *testing.T, lease time.Duration) {
				l := open(t, c, redislimit.Config{Lease: lease, Timeout: time.Second})
				senders := []string{"a", "ab", "a*", "[a]", "a}", "%"}
				for _, sender := range senders {
					take(t, l, sender, charge("x", hourly(9), 4), charge("y", hourly(9), 4))
				}
				for i, reset := range senders {
					require.NoError(t, l.Reset(ctx, reset))
					for j, sender := range senders {
						want := 5
						if j <= i {
							want = 9
						}
						b := take(t, l, sender, charge("x", hourly(9), 0), charge("y", hourly(9), 0))
						require.Equal(t, want, b[0].Remaining, sender)
						require.Equal(t, want, b[1].Remaining, sender)
					}
				}
				done, cancel := context.WithCancel(ctx)
				cancel()
				require.ErrorIs(t, l.Reset(done, "a"), context.Canceled)
			})
		})
	}
}
