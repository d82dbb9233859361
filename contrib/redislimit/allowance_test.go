package redislimit_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/stretchr/testify/require"
)

// noon is a zone in which it is about noon when the tests start, so that no day ends during
// a test.
var noon = time.FixedZone("noon", int(12*time.Hour/time.Second)-int(time.Now().Unix()%86400))

func daily(n int) senderauth.Limit { return senderauth.PerDay(n, noon) }

// One call decides about all charges, whatever their kinds, in lease mode too.
func TestAllowanceIsOneCommand(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		c := startServer(t, "redis-server").client()
		defer c.Close()
		l := open(t, c, redislimit.Config{Timeout: patient, Lease: 100 * lease})
		charges := []senderauth.Charge{charge("x", hourly(1000), 1), charge("d", daily(1000), 2), charge("m", senderauth.PerMonth(1000, noon), 3)}
		take(t, l, "a", charges...)
		commands(t, c)
		for range 100 {
			take(t, l, "a", charges...)
		}
		m := commands(t, c)
		require.Equal(t, 100, m["evalsha"])
		require.Zero(t, m["eval"])
		b := take(t, l, "a", charge("d", daily(1000), 0), charge("x", hourly(1000), 0), charge("m", senderauth.PerMonth(1000, noon), 0))
		require.Equal(t, []int{798, 899, 697}, []int{b[0].Remaining, b[1].Remaining, b[2].Remaining})
	})
}

// The key is there until two days after the end of the period, when no zone can ask for it.
func TestAllowanceOutlivesItsPeriod(t *testing.T) {
	c := shared(t)
	l := open(t, c, redislimit.Config{Timeout: patient})
	for _, limit := range []senderauth.Limit{daily(10), senderauth.PerMonth(10, noon)} {
		b := take(t, l, "a", charge("x", limit, 4))
		key := "{" + prefix(t) + ":v1:a}" + limit.Calendar.Unit() + ":x"
		ttl, err := c.PTTL(ctx, key).Result()
		require.NoError(t, err)
		require.InDelta(t, b[0].ResetAfter+50*time.Hour, ttl, float64(30*time.Second))
		require.EqualValues(t, 16, c.StrLen(ctx, key).Val())
		take(t, l, "b", charge("x", limit, 0), charge("x2", limit, 0))
		take(t, l, "b", charge("x", limit, 5), charge("x2", limit, 11))
		require.Zero(t, c.Exists(ctx, "{"+prefix(t)+":v1:b}"+limit.Calendar.Unit()+":x").Val(), "nothing was taken")
	}
}

// A clock of Redis that was set back finds a later period there. It counts, and its
// expiry stays.
func TestLaterPeriodStays(t *testing.T) {
	c := shared(t)
	l := open(t, c, redislimit.Config{Timeout: patient})
	limit := daily(10)
	period := limit.Calendar.Period(time.Now())
	key := "{" + prefix(t) + ":v1:a}day:x"
	for by, left := range map[int]int{-1: 10, 0: 3, 1: 3, 40: 3} {
		set(t, c, key, float64(period+by), 7)
		b := take(t, l, "a", charge("x", limit, 0))[0]
		require.Equal(t, left, b.Remaining, "%d days later", by)
		_, end := limit.Calendar.Bounds(period + max(by, 0))
		require.InDelta(t, time.Until(end), b.ResetAfter, float64(30*time.Second))
		b = take(t, l, "a", charge("x", limit, 4))[0]
		require.Equal(t, left < 4, b.Refused, "%d days later", by)
		if b.Refused {
			require.Equal(t, b.ResetAfter, b.RetryAfter)
			take(t, l, "a", charge("x", limit, 3))
		}
		if by > 0 {
			require.InDelta(t, 100*time.Hour, c.PTTL(ctx, key).Val(), float64(time.Minute))
		}
	}
}

// set stores an allowance with 100 hours to live.
func set(t *testing.T, c redis.UniversalClient, key string, numbers ...float64) {
	t.Helper()
	args := make([]any, len(numbers))
	for i, n := range numbers {
		args[i] = n
	}
	require.NoError(t, c.Eval(ctx, `redis.call('SET', KEYS[1], struct.pack('<dd', ARGV[1], ARGV[2]), 'EX', 360000) return 1`, []string{key}, args...).Err())
}

// The instance's clock is 26 years slow. Redis says which day it is, and the second call asks
// for that.
func TestClockOfRedisCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		utc := senderauth.PerDay(10, nil)
		there := time.Date(2026, 5, 31, 21, 0, 0, 0, time.UTC)
		period := int64(utc.Calendar.Period(there))
		replies := [][]int64{{-1, there.UnixMicro()}, {1, there.UnixMicro(), period, 4}}
		c := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", ContextTimeoutEnabled: true})
		defer c.Close()
		var days []time.Time // that the calls ask for
		c.AddHook(&starts{days: &days})
		c.AddHook(&wire{answer: func() (reply []int64, err error) {
			reply, replies = replies[0], replies[1:]
			return reply, nil
		}})
		l := open(t, c, redislimit.Config{})
		defer l.Close()
		require.Equal(t, senderauth.Balance{Remaining: 6, ResetAfter: 3 * time.Hour}, take(t, l, "a", charge("x", utc, 4))[0])
		require.Equal(t, []time.Time{time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 5, 31, 0, 0, 0, 0, time.UTC)}, days)
		// A clock that jumps each time decides nothing, so the instance does.
		replies = [][]int64{{-1, 0}, {-1, there.UnixMicro()}, {-1, 0}}
		require.Equal(t, 4, take(t, l, "a", charge("x", utc, 2))[0].Remaining)
		require.Empty(t, replies)
	})
}

// starts is a hook that notes when the period of each call's only charge starts.
type starts struct {
	hook
	days *[]time.Time
}

func (s *starts) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if args := cmd.Args(); len(args) == 6 && len(args[5].(string)) == 56 {
			us := math.Float64frombits(binary.LittleEndian.Uint64([]byte(args[5].(string))))
			*s.days = append(*s.days, time.UnixMicro(int64(us)).UTC())
		}
		return next(ctx, cmd)
	}
}

func TestForeignAllowanceKeys(t *testing.T) {
	c := shared(t)
	l := open(t, c, redislimit.Config{Timeout: patient})
	require.NoError(t, c.HSet(ctx, "{"+prefix(t)+":v1:a}day:hash", "f", 1).Err())
	require.NoError(t, c.Set(ctx, "{"+prefix(t)+":v1:a}day:text", "hello", 0).Err())
	for _, name := range []string{"hash", "text"} {
		_, err := l.Take(ctx, "a", []senderauth.Charge{charge("x", hourly(1000), 1), charge("y", daily(9), 1), charge(name, daily(1), 1)})
		require.ErrorContains(t, err, "redislimit: ")
	}
	require.Equal(t, 1000, take(t, l, "a", charge("x", hourly(1000), 0))[0].Remaining)
	require.Equal(t, 9, take(t, l, "a", charge("y", daily(9), 0))[0].Remaining)
}

func TestResetGrantsAllowancesAnew(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		l := open(t, shared(t), redislimit.Config{Lease: lease, Timeout: patient})
		month := senderauth.PerMonth(9, noon)
		for _, sender := range []string{"a", "ab"} {
			take(t, l, sender, charge("x", hourly(9), 4), charge("d", daily(9), 9), charge("m", month, 5))
		}
		require.NoError(t, l.Reset(ctx, "a"))
		for sender, want := range map[string][]int{"a": {9, 9, 9}, "ab": {5, 0, 4}} {
			b := take(t, l, sender, charge("x", hourly(9), 0), charge("d", daily(9), 0), charge("m", month, 0))
			require.Equal(t, want, []int{b[0].Remaining, b[1].Remaining, b[2].Remaining}, sender)
		}
	})
}

// Three instances and everybody at once: exactly the allowance, also if the bucket beside it
// is leased at the same time.
func TestExactlyTheAllowance(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		c := shared(t)
		var limiters []*redislimit.Limiter
		for range 3 {
			limiters = append(limiters, open(t, c, redislimit.Config{Lease: 10 * lease, Timeout: patient}))
		}
		var admitted, beside atomic.Int64
		var wg sync.WaitGroup
		for g := range 30 {
			wg.Go(func() {
				for range 20 {
					charges := []senderauth.Charge{charge("x", hourly(1000), 1), charge("d", daily(200), 2)}
					alone := g%5 == 0
					if alone {
						charges = charges[:1]
					}
					b, err := limiters[g%3].Take(ctx, "a", charges)
					switch {
					case err != nil:
						t.Error(err)
					case alone && !b[0].Refused:
						beside.Add(1)
					case !alone && !b[0].Refused && !b[1].Refused:
						admitted.Add(1)
					}
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 100, admitted.Load())
		eventually(t, func() error {
			if b := take(t, limiters[0], "a", charge("x", hourly(1000), 0)); int64(b[0].Remaining) != 900-beside.Load() {
				return fmt.Errorf("%d remain", b[0].Remaining)
			}
			return nil
		})
	})
}

// While Redis fails, an instance grants no more than its share of what Redis last said was
// left. When Redis is back, the allowance goes on from there.
func TestAllowanceGoesOnThroughOutages(t *testing.T) {
	var broken atomic.Bool
	var m modes
	l := open(t, breakable(t, &broken), redislimit.Config{Instances: 2, OnMode: m.add, Failures: 1, Timeout: patient, ProbeEvery: 5 * time.Millisecond})
	d := daily(100)
	require.Equal(t, 60, take(t, l, "a", charge("x", d, 40))[0].Remaining)
	want := []redislimit.Mode{}
	for _, left := range []int{60, 40, 20} {
		broken.Store(true)
		require.Equal(t, left/2, take(t, l, "a", charge("x", d, 0))[0].Remaining, "the share is a half")
		require.Equal(t, left/2-10, take(t, l, "a", charge("x", d, 10))[0].Remaining)
		b := take(t, l, "a", charge("x", d, left/2-9), charge("y", d, 1), charge("b", hourly(100), 1))
		require.Equal(t, left/2-10, b[0].Remaining)
		require.True(t, b[0].Refused)
		require.Equal(t, time.Second, b[0].RetryAfter, "the other half may be there as soon as Redis is")
		require.InDelta(t, 12*time.Hour, b[0].ResetAfter, float64(time.Hour))
		require.Equal(t, []int{50, 50}, []int{b[1].Remaining, b[2].Remaining}, "nothing was taken, and Redis has not been asked for it")
		b = take(t, l, "a", charge("x", d, left-9))
		require.True(t, b[0].Refused)
		require.Equal(t, b[0].ResetAfter, b[0].RetryAfter, "Redis has not got so many either")
		b = take(t, l, "a", charge("x", d, 101))
		require.Negative(t, b[0].RetryAfter)
		broken.Store(false)
		want = append(want, redislimit.Fallback, redislimit.Shared)
		eventually(t, func() error { return m.are(want...) })
		require.Equal(t, left-20, take(t, l, "a", charge("x", d, 10))[0].Remaining, "10 locally and 10 now")
	}
	require.True(t, take(t, l, "a", charge("x", d, 1))[0].Refused)
}

// Instances that know what Redis last said grant no more than the allowance together, however
// often Redis fails. With less than one for each, none is granted without Redis.
func TestOutagesGrantNoMoreThanTheAllowance(t *testing.T) {
	for _, allowance := range []int{2, 100} {
		t.Run(fmt.Sprint(allowance), func(t *testing.T) {
			var broken atomic.Bool
			c := breakable(t, &broken)
			var limiters []*redislimit.Limiter
			var all [3]modes
			for i := range all {
				limiters = append(limiters, open(t, c, redislimit.Config{Instances: 3, OnMode: all[i].add, Failures: 1, Timeout: patient, ProbeEvery: 5 * time.Millisecond}))
			}
			random := rand.New(rand.NewPCG(rand.Uint64(), 0))
			granted, want := 0, []redislimit.Mode{}
			try := func(l *redislimit.Limiter, cost int) bool {
				if take(t, l, "a", charge("x", daily(allowance), cost), charge("b", hourly(10_000), 1))[0].Refused {
					return false
				}
				granted += cost
				return true
			}
			for range 5 {
				try(limiters[random.IntN(3)], 1+random.IntN(5))
				for _, l := range limiters {
					take(t, l, "a", charge("x", daily(allowance), 0))
				}
				broken.Store(true)
				for _, l := range limiters {
					take(t, l, "b", charge("x", hourly(1), 0)) // opens the breaker
					for range 20 {
						locally := try(l, 1+random.IntN(5))
						require.False(t, locally && allowance < 3, "a third of 2")
					}
				}
				require.LessOrEqual(t, granted, allowance)
				broken.Store(false)
				want = append(want, redislimit.Fallback, redislimit.Shared)
				for i, l := range limiters {
					eventually(t, func() error { return all[i].are(want...) })
					take(t, l, "a", charge("x", daily(allowance), 0))
				}
			}
			for range allowance {
				try(limiters[0], 1)
			}
			require.Equal(t, allowance, granted, "Redis knows what was granted without it")
		})
	}
}

// Of a period that is over, Redis takes no debts.
func TestDebtEndsWithItsPeriod(t *testing.T) {
	var broken atomic.Bool
	var m modes
	l := open(t, breakable(t, &broken), redislimit.Config{Instances: 1, OnMode: m.add, Failures: 1, Timeout: patient, ProbeEvery: 5 * time.Millisecond})
	end := time.Now().Truncate(time.Second).Add(3 * time.Second) // of the day
	limit := senderauth.PerDay(10, time.FixedZone("", int(86400-end.Unix()%86400)))
	take(t, l, "a", charge("x", limit, 1))
	broken.Store(true)
	require.Equal(t, 4, take(t, l, "a", charge("x", limit, 5))[0].Remaining)
	b := take(t, l, "a", charge("x", limit, 5))
	require.True(t, b[0].Refused)
	time.Sleep(b[0].RetryAfter)
	require.Equal(t, 7, take(t, l, "a", charge("x", limit, 3))[0].Remaining, "a new day, still without Redis")
	broken.Store(false)
	eventually(t, func() error { return m.are(redislimit.Fallback, redislimit.Shared) })
	require.Equal(t, 7, take(t, l, "a", charge("x", limit, 0))[0].Remaining)
	require.Equal(t, 6, take(t, l, "a", charge("x", limit, 1))[0].Remaining)
}

// Random charges, through two instances of a Cluster and of a single server, agree with plain
// counters.
func TestAllowancesAgreeWithCounters(t *testing.T) {
	cluster, _ := startCluster(t)
	for name, c := range map[string]redis.UniversalClient{"single": shared(t), "cluster": cluster} {
		t.Run(name, func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			random := rand.New(rand.NewPCG(seed, 0))
			limiters := []*redislimit.Limiter{
				open(t, c, redislimit.Config{Timeout: patient}), open(t, c, redislimit.Config{Timeout: patient}),
			}
			plans := map[string][]senderauth.Limit{ // the limit of a name changes its size and zone
				"d": {daily(60), daily(90), senderauth.PerDay(70, time.FixedZone("", noonOffset()-3600))},
				"m": {senderauth.PerMonth(80, noon), senderauth.PerMonth(50, noon)}, "b": {hourly(70)},
			}
			used := map[string]int{}
			for range 600 {
				sender := fmt.Sprint(random.IntN(4))
				var charges []senderauth.Charge
				refused := false
				for _, name := range []string{"d", "m", "b"} {
					if random.IntN(3) == 0 {
						continue
					}
					limit, cost := plans[name][random.IntN(len(plans[name]))], random.IntN(6)
					charges = append(charges, charge(name, limit, cost))
					refused = refused || cost > 0 && used[sender+name]+cost > limit.EffectiveBurst()
				}
				b := take(t, limiters[random.IntN(2)], sender, charges...)
				any := false
				for i, x := range charges {
					if !refused {
						used[sender+x.Name] += x.Cost
					}
					any = any || b[i].Refused
					require.Equal(t, max(x.Limit.EffectiveBurst()-used[sender+x.Name], 0), b[i].Remaining)
				}
				require.Equal(t, refused, any, "%v: %v", charges, b)
			}
		})
	}
}

func noonOffset() int {
	_, offset := time.Now().In(noon).Zone()
	return offset
}
