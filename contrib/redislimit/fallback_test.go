package redislimit_test

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/stretchr/testify/require"
)

// Redis dies under load, comes back empty, and dies again. Every decision succeeds. During an
// outage the sender gets no more than was left, and from the empty Redis one burst. OnMode is
// called once for each change.
func TestRedisDies(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		s := startServer(t, "redis-server")
		c := s.client()
		defer c.Close()
		var m modes
		l := open(t, c, redislimit.Config{Lease: lease, Instances: 4, OnMode: m.add, Timeout: patient})
		goroutines := runtime.NumGoroutine()
		d := startLoad(l, 8, charge("x", hourly(100), 1))
		admitted := func(n int64) func() error {
			return func() error {
				if got := d.admitted.Load(); got < n {
					return fmt.Errorf("%d admitted", got)
				}
				return nil
			}
		}
		eventually(t, admitted(90))
		require.NoError(t, m.are())
		s.kill()
		eventually(t, func() error { return m.are(redislimit.Fallback) })
		s.start()
		eventually(t, func() error { return m.are(redislimit.Fallback, redislimit.Shared) })
		eventually(t, admitted(150))
		s.kill()
		eventually(t, func() error { return m.are(redislimit.Fallback, redislimit.Shared, redislimit.Fallback) })
		d.stop()
		require.LessOrEqual(t, d.admitted.Load(), int64(200), "two bursts, one of them from the empty Redis")
		require.Zero(t, d.failed.Load())
		require.Zero(t, d.slow.Load())
		require.NoError(t, l.Close())
		eventually(t, func() error {
			// The client may have goroutines that try to reconnect.
			if n := runtime.NumGoroutine(); n > goroutines+c.Options().PoolSize {
				return fmt.Errorf("%d goroutines, %d before", n, goroutines)
			}
			return nil
		})
	})
}

// While Redis hangs, decisions do not. When it resumes, the limiter uses it again.
func TestRedisHangs(t *testing.T) {
	s := startServer(t, "redis-server")
	c := s.client()
	defer c.Close()
	var m modes
	l := open(t, c, redislimit.Config{Instances: 2, OnMode: m.add, ProbeEvery: time.Millisecond, Failures: 1, Timeout: 2 * time.Second})
	require.Equal(t, 10, take(t, l, "a", charge("x", hourly(10), 0))[0].Remaining)
	s.pause()
	d := startLoad(l, 50, charge("x", hourly(10), 1))
	eventually(t, func() error { return m.are(redislimit.Fallback) })
	eventually(t, func() error {
		if d.admitted.Load() < 5 || d.refused.Load() < 100 {
			return errors.New("not yet")
		}
		return nil
	})
	d.stop()
	require.EqualValues(t, 5, d.admitted.Load(), "half of the burst")
	require.Zero(t, d.failed.Load())
	require.Zero(t, d.slow.Load())
	s.resume()
	eventually(t, func() error { return m.are(redislimit.Fallback, redislimit.Shared) })
	// Redis may also have run the calls that were sent before it hung.
	require.LessOrEqual(t, take(t, l, "a", charge("x", hourly(10), 0))[0].Remaining, 5)

	// Close waits for the probe in flight.
	s.pause()
	take(t, l, "b", charge("x", hourly(10), 0))
	require.NoError(t, m.are(redislimit.Fallback, redislimit.Shared, redislimit.Fallback))
	eventually(t, func() error {
		if !contains(stacks(), "(*breaker).recover(", "(*Limiter).probe(") {
			return errors.New("no probe is in flight")
		}
		return nil
	})
	require.NoError(t, l.Close())
	require.NotContains(t, stacks(), "(*breaker).recover(")
}

// stacks returns the stack of every goroutine.
func stacks() string {
	all := make([]byte, 1<<22)
	return string(all[:runtime.Stack(all, true)])
}

// A failed call that is not followed by another one falls back on its own and changes no
// mode.
func TestIsolatedFailuresChangeNoMode(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		var fails atomic.Bool // the next call
		c := redis.NewClient(&redis.Options{ContextTimeoutEnabled: true, Addr: relay(t, startServer(t, "redis-server").Addr(), func(piece []byte) []byte {
			if isNumbers(piece) && fails.Swap(false) {
				return []byte("-ERR broken\r\n")
			}
			return piece
		})})
		defer c.Close()
		var m modes
		l := open(t, c, redislimit.Config{Lease: lease, Instances: 2, OnMode: m.add, Failures: 2, Timeout: patient})
		for i := range 3 {
			require.Equal(t, 100-i, take(t, l, "a", charge("x", hourly(100), 0))[0].Remaining)
			fails.Store(true)
			require.Equal(t, 50, take(t, l, "b", charge("x", hourly(100), 0))[0].Remaining, "the share is a half")
			require.Equal(t, 99-i, take(t, l, "a", charge("x", hourly(100), 1))[0].Remaining)
		}
		// WRONGTYPE is the answer of a healthy Redis, so it ends a row of failures.
		require.NoError(t, c.HSet(ctx, "{"+prefix(t)+":v1:a}:hash", "f", 1).Err())
		for range 3 {
			fails.Store(true)
			require.Equal(t, 50, take(t, l, "b", charge("x", hourly(100), 0))[0].Remaining, "the share is a half")
			_, err := l.Take(ctx, "a", []senderauth.Charge{charge("hash", hourly(100), 1)})
			require.ErrorContains(t, err, "WRONGTYPE")
		}
		require.NoError(t, m.are())
	})
}

// A Redis out of memory answers but does not write. It counts as unreachable until it can
// write again.
func TestRedisIsFull(t *testing.T) {
	c := startServer(t, "redis-server").client()
	defer c.Close()
	var m modes
	l := open(t, c, redislimit.Config{Instances: 2, OnMode: m.add, Timeout: patient, ProbeEvery: 5 * time.Millisecond})
	// The probes must not overwrite a bucket called "probe".
	require.Equal(t, 97, take(t, l, "a", charge("probe", hourly(100), 3))[0].Remaining)
	require.NoError(t, c.ConfigSet(ctx, "maxmemory", "1").Err())
	for i := range 20 {
		require.Equal(t, 49-i, take(t, l, "a", charge("x", hourly(100), 1))[0].Remaining, "the share is a half")
	}
	<-time.After(50 * time.Millisecond) // several probes, all of which Redis answers with an error
	require.NoError(t, m.are(redislimit.Fallback))
	require.NoError(t, c.ConfigSet(ctx, "maxmemory", "0").Err())
	eventually(t, func() error { return m.are(redislimit.Fallback, redislimit.Shared) })
	require.Equal(t, 79, take(t, l, "a", charge("x", hourly(100), 1))[0].Remaining, "20 were admitted locally")
	require.Equal(t, 97, take(t, l, "a", charge("probe", hourly(100), 0))[0].Remaining)
}

// A service starts while Redis is down, and uses it once it is up.
func TestStartsWithoutRedis(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		s := startServer(t, "redis-server")
		s.kill()
		c := s.client()
		defer c.Close()
		var m modes
		var instances atomic.Int32
		l := open(t, c, redislimit.Config{Lease: lease, CountInstances: func() int { return int(instances.Load()) }, OnMode: m.add, Timeout: patient})
		require.Equal(t, 9, take(t, l, "b", charge("x", hourly(10), 1))[0].Remaining, "0 instances are 1")
		instances.Store(3)
		b := take(t, l, "a", charge("x", hourly(10), 5), charge("y", senderauth.Unlimited(), 1), charge("z", senderauth.Blocked(), 0))
		require.True(t, b[0].Refused)
		require.Equal(t, 3, b[0].Remaining, "a third of the burst")
		require.Equal(t, time.Second, b[0].RetryAfter, "the cost is above the share, but not above the burst")
		b = take(t, l, "a", charge("x", hourly(10), 11))
		require.Negative(t, b[0].RetryAfter)
		require.False(t, take(t, l, "a", charge("x", hourly(10), 3))[0].Refused)
		b = take(t, l, "a", charge("x", hourly(10), 1))
		require.InDelta(t, 3*time.Hour, b[0].RetryAfter, float64(time.Minute), "a third of the rate")
		for range 5 {
			take(t, l, "a", charge("x", hourly(10), 0))
		}
		require.NoError(t, m.are(redislimit.Fallback))
		s.start()
		eventually(t, func() error { return m.are(redislimit.Fallback, redislimit.Shared) })
		require.Equal(t, 6, take(t, l, "a", charge("x", hourly(10), 1))[0].Remaining, "3 were admitted locally")
	})
}

func TestFailClosed(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		s := startServer(t, "redis-server")
		c := s.client()
		defer c.Close()
		l := open(t, c, redislimit.Config{Lease: lease, FailClosed: true, Timeout: patient})
		take(t, l, "a", charge("x", hourly(10), 1))
		s.kill()
		for range 20 {
			b, err := l.Take(ctx, "a", []senderauth.Charge{charge("x", hourly(10), 1)})
			require.ErrorIs(t, err, redislimit.ErrUnavailable)
			require.Nil(t, b)
		}
		b := take(t, l, "a", charge("x", senderauth.Unlimited(), 1), charge("y", senderauth.Blocked(), 1))
		require.True(t, b[1].Refused, "Unlimited and Blocked need no Redis")
	})
}
