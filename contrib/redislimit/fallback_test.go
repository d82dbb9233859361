package redislimit_test

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/stretchr/testify/require"
)

// Redis dies under load, comes back empty, and dies again: every decision is
// made, the sender gets a share of the burst while it is away and one burst
// when it is back empty, and each change is told once.
func TestRedisDies(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		s := startServer(t, "redis-server")
		c := s.client()
		defer c.Close()
		var m modes
		l := open(t, c, redislimit.Config{Lease: lease, Instances: 4, OnMode: m.add})
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
		eventually(t, admitted(110))
		eventually(t, func() error { return m.are(redislimit.Fallback) })
		s.start()
		eventually(t, func() error { return m.are(redislimit.Fallback, redislimit.Shared) })
		eventually(t, admitted(200))
		s.kill()
		eventually(t, func() error { return m.are(redislimit.Fallback, redislimit.Shared, redislimit.Fallback) })
		d.stop()
		require.LessOrEqual(t, d.admitted.Load(), int64(225), "a lost reply costs a token, and none is gained")
		require.Zero(t, d.failed.Load())
		require.Zero(t, d.slow.Load())
		require.NoError(t, l.Close())
		eventually(t, func() error {
			// The client's own: it tries to connect again.
			if n := runtime.NumGoroutine(); n > goroutines+c.Options().PoolSize {
				return fmt.Errorf("%d goroutines, %d before", n, goroutines)
			}
			return nil
		})
	})
}

// Redis hangs: nobody hangs with it, and when it goes on, so does the limiter.
func TestRedisHangs(t *testing.T) {
	s := startServer(t, "redis-server")
	c := s.client()
	defer c.Close()
	var m modes
	l := open(t, c, redislimit.Config{Instances: 2, OnMode: m.add, ProbeEvery: time.Millisecond})
	require.Equal(t, 9, take(t, l, "a", charge("x", hourly(10), 1))[0].Remaining)
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
	b := take(t, l, "a", charge("x", hourly(10), 0))
	// Redis may have done what it had been sent before it hung.
	require.LessOrEqual(t, b[0].Remaining, 9)

	// Close waits for what is under way.
	s.pause()
	for m.are(redislimit.Fallback, redislimit.Shared) == nil {
		take(t, l, "b", charge("x", hourly(10), 0))
	}
	<-time.After(10 * time.Millisecond)
	require.NoError(t, l.Close())
	all := make([]byte, 1<<20)
	require.False(t, contains(string(all[:runtime.Stack(all, true)]), "(*breaker).recover("))
}

// Failures that are not in a row change no mode: each is decided without Redis.
func TestFailuresNowAndThen(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		s := startServer(t, "redis-server")
		c := s.client()
		defer c.Close()
		var m modes
		l := open(t, c, redislimit.Config{Lease: lease, Instances: 2, OnMode: m.add, Failures: 2, Timeout: 500 * time.Millisecond})
		for i := range 3 {
			require.Equal(t, 100-i, take(t, l, "a", charge("x", hourly(100), 0))[0].Remaining)
			s.pause()
			require.Equal(t, 50, take(t, l, "b", charge("x", hourly(100), 0))[0].Remaining, "a half")
			s.resume()
			s.wait()
			require.Equal(t, 99-i, take(t, l, "a", charge("x", hourly(100), 1))[0].Remaining)
		}
		// A key that is none of ours is an answer of a Redis that is well.
		require.NoError(t, c.HSet(ctx, "{"+prefix(t)+":v1:a}:hash", "f", 1).Err())
		for range 3 {
			s.pause()
			require.Equal(t, 50, take(t, l, "b", charge("x", hourly(100), 0))[0].Remaining, "a half")
			s.resume()
			s.wait()
			_, err := l.Take(ctx, "a", []senderauth.Charge{charge("hash", hourly(100), 1)})
			require.ErrorContains(t, err, "WRONGTYPE")
		}
		require.NoError(t, m.are())
	})
}

// A Redis that is full answers, but does not write: it is away until it does.
func TestRedisIsFull(t *testing.T) {
	c := startServer(t, "redis-server").client()
	defer c.Close()
	var m modes
	l := open(t, c, redislimit.Config{Instances: 2, OnMode: m.add, Timeout: time.Second, ProbeEvery: 5 * time.Millisecond})
	// What is tried meanwhile overwrites no bucket, whatever its name.
	require.Equal(t, 97, take(t, l, "a", charge("probe", hourly(100), 3))[0].Remaining)
	require.NoError(t, c.ConfigSet(ctx, "maxmemory", "1").Err())
	for i := range 20 {
		require.Equal(t, 49-i, take(t, l, "a", charge("x", hourly(100), 1))[0].Remaining, "a half")
	}
	<-time.After(50 * time.Millisecond) // that it answers is not enough
	require.NoError(t, m.are(redislimit.Fallback))
	require.NoError(t, c.ConfigSet(ctx, "maxmemory", "0").Err())
	eventually(t, func() error { return m.are(redislimit.Fallback, redislimit.Shared) })
	require.Equal(t, 99, take(t, l, "a", charge("x", hourly(100), 1))[0].Remaining)
	require.Equal(t, 97, take(t, l, "a", charge("probe", hourly(100), 0))[0].Remaining)
}

// A service starts without Redis and finds it when it comes.
func TestStartsWithoutRedis(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		s := startServer(t, "redis-server")
		s.kill()
		c := s.client()
		defer c.Close()
		var m modes
		var instances atomic.Int32
		l := open(t, c, redislimit.Config{Lease: lease, CountInstances: func() int { return int(instances.Load()) }, OnMode: m.add})
		require.Equal(t, 9, take(t, l, "a", charge("x", hourly(10), 1))[0].Remaining, "0 instances are 1")
		instances.Store(3)
		b := take(t, l, "a", charge("x", hourly(10), 5), charge("y", senderauth.Unlimited(), 1), charge("z", senderauth.Blocked(), 0))
		require.True(t, b[0].Refused)
		require.Equal(t, 3, b[0].Remaining, "a third of the burst")
		require.Equal(t, time.Second, b[0].RetryAfter, "more than the share, but not than the burst")
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
		require.Equal(t, 9, take(t, l, "a", charge("x", hourly(10), 1))[0].Remaining)
	})
}

func TestFailClosed(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		s := startServer(t, "redis-server")
		c := s.client()
		defer c.Close()
		l := open(t, c, redislimit.Config{Lease: lease, FailClosed: true})
		take(t, l, "a", charge("x", hourly(10), 1))
		s.kill()
		for range 20 {
			b, err := l.Take(ctx, "a", []senderauth.Charge{charge("x", hourly(10), 1)})
			require.ErrorIs(t, err, redislimit.ErrUnavailable)
			require.Nil(t, b)
		}
		b := take(t, l, "a", charge("x", senderauth.Unlimited(), 1), charge("y", senderauth.Blocked(), 1))
		require.True(t, b[1].Refused, "what needs no bucket needs no Redis")
	})
}
