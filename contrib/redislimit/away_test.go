package redislimit_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/stretchr/testify/require"
)

// modes records what OnMode was told.
type modes struct {
	mu  sync.Mutex
	all []redislimit.Mode
}

func (m *modes) add(mode redislimit.Mode, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if (mode == redislimit.Away) != (err != nil) {
		mode = redislimit.Mode(fmt.Sprintf("%s with %v", mode, err))
	}
	m.all = append(m.all, mode)
}

func (m *modes) are(want ...redislimit.Mode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Equal(m.all, want) {
		return fmt.Errorf("modes: %v", m.all)
	}
	return nil
}

// load takes from many goroutines until stopped.
type load struct {
	admitted, refused, failed atomic.Int64
	slow                      atomic.Int64 // decisions that took ten seconds
	stop                      func()
}

func startLoad(l *redislimit.Limiter, goroutines int, c ...senderauth.Charge) *load {
	d := &load{}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(time.Millisecond):
				}
				start := time.Now()
				b, err := l.Take(ctx, "a", c)
				if time.Since(start) > 10*time.Second {
					d.slow.Add(1)
				}
				switch {
				case err != nil:
					d.failed.Add(1)
				case b[0].Refused:
					d.refused.Add(1)
				default:
					d.admitted.Add(1)
				}
			}
		})
	}
	d.stop = func() { close(done); wg.Wait() }
	return d
}

// Redis dies under load, comes back empty, and dies again: every decision is
// made, the sender gets a share of the burst while it is away and one burst
// when it is back empty, and each change is told once.
func TestPitfall11RedisDies(t *testing.T) {
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
		eventually(t, func() error { return m.are(redislimit.Away) })
		s.start()
		eventually(t, func() error { return m.are(redislimit.Away, redislimit.Shared) })
		eventually(t, admitted(200))
		s.kill()
		eventually(t, func() error { return m.are(redislimit.Away, redislimit.Shared, redislimit.Away) })
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
func TestPitfall11RedisHangs(t *testing.T) {
	s := startServer(t, "redis-server")
	c := s.client()
	defer c.Close()
	var m modes
	l := open(t, c, redislimit.Config{Instances: 2, OnMode: m.add, ProbeEvery: time.Millisecond})
	require.Equal(t, 9, take(t, l, "a", charge("x", hourly(10), 1))[0].Remaining)
	s.pause()
	d := startLoad(l, 50, charge("x", hourly(10), 1))
	eventually(t, func() error { return m.are(redislimit.Away) })
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
	eventually(t, func() error { return m.are(redislimit.Away, redislimit.Shared) })
	b := take(t, l, "a", charge("x", hourly(10), 0))
	// Redis may have done what it had been sent before it hung.
	require.LessOrEqual(t, b[0].Remaining, 9)

	// Close waits for what is under way.
	s.pause()
	for m.are(redislimit.Away, redislimit.Shared) == nil {
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
	require.NoError(t, m.are(redislimit.Away))
	require.NoError(t, c.ConfigSet(ctx, "maxmemory", "0").Err())
	eventually(t, func() error { return m.are(redislimit.Away, redislimit.Shared) })
	require.Equal(t, 99, take(t, l, "a", charge("x", hourly(100), 1))[0].Remaining)
	require.Equal(t, 97, take(t, l, "a", charge("probe", hourly(100), 0))[0].Remaining)
}

// An ended context is an error of the one call, and no failure of Redis. What
// hooks of the client find in a context, they find in a call's.
func TestContexts(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		c := startServer(t, "redis-server").client()
		defer c.Close()
		var seen hook
		c.AddHook(&seen)
		l := open(t, c, redislimit.Config{Lease: lease, Failures: 1, Timeout: time.Second})
		ended, cancel := context.WithCancel(ctx)
		cancel()
		for range 3 {
			_, err := l.Take(ended, "a", []senderauth.Charge{charge("x", hourly(9), 1)})
			require.ErrorIs(t, err, context.Canceled)
		}
		b, err := l.Take(context.WithValue(ctx, hookKey{}, "trace"), "a", []senderauth.Charge{charge("x", hourly(9), 1)})
		require.NoError(t, err)
		require.Equal(t, 8, b[0].Remaining)
		require.Equal(t, "trace", seen.value.Load())
	})
}

type hookKey struct{}

// A hook notes what it finds in the context of a command.
type hook struct{ value atomic.Value }

func (h *hook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if v := ctx.Value(hookKey{}); v != nil {
			h.value.Store(v)
		}
		return next(ctx, cmd)
	}
}

func (h *hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// A hook that panics is a matter of the one call: those that come after it are
// decided.
type panicking struct {
	hook
	commands int
}

func (h *panicking) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if h.commands++; h.commands == 1 {
			panic("hook")
		}
		return next(ctx, cmd)
	}
}

func TestHookPanics(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		c := startServer(t, "redis-server").client()
		defer c.Close()
		c.AddHook(&panicking{})
		l := open(t, c, redislimit.Config{Lease: lease, Timeout: time.Second})
		require.Panics(t, func() { take(t, l, "a", charge("x", hourly(10), 1)) })
		require.Equal(t, 9, take(t, l, "a", charge("x", hourly(10), 1))[0].Remaining)
	})
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
		require.NoError(t, m.are(redislimit.Away))
		s.start()
		eventually(t, func() error { return m.are(redislimit.Away, redislimit.Shared) })
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

func TestClose(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		l := open(t, shared(t), redislimit.Config{Lease: lease, Timeout: 10 * time.Second})
		d := startLoad(l, 8, charge("x", hourly(1000), 1))
		eventually(t, func() error {
			if d.admitted.Load() < 20 {
				return errors.New("not yet")
			}
			return nil
		})
		require.Zero(t, d.failed.Load())
		require.NoError(t, l.Close())
		require.NoError(t, l.Close())
		d.stop()
		_, err := l.Take(ctx, "a", []senderauth.Charge{charge("x", hourly(10), 1)})
		require.EqualError(t, err, "redislimit: the Limiter is closed")
	})
}

// A replica is promoted: what it says before (READONLY) is retried once, then
// decided without it, and the bucket goes on where it was.
func TestFailover(t *testing.T) {
	master := startServer(t, "redis-server", "--repl-diskless-sync-delay", "0")
	replica := startServer(t, "redis-server", "--replicaof", "127.0.0.1 "+fmt.Sprint(master.Port()))
	c := replica.client()
	defer c.Close()
	mc := master.client()
	defer mc.Close()
	var m modes
	l := open(t, c, redislimit.Config{Instances: 1, OnMode: m.add, Failures: 3, Timeout: time.Second})
	atMaster := open(t, mc, redislimit.Config{Timeout: time.Second})
	require.Equal(t, 6, take(t, atMaster, "a", charge("x", hourly(10), 4))[0].Remaining)
	eventually(t, func() error {
		if info := c.Info(ctx, "replication").Val(); !contains(info, "master_link_status:up") || c.DBSize(ctx).Val() == 0 {
			return errors.New(info)
		}
		return nil
	})
	commands(t, c)
	for range 10 {
		take(t, l, "a", charge("x", hourly(1000), 1))
	}
	require.NoError(t, m.are(redislimit.Away))
	stats := commands(t, c)
	require.LessOrEqual(t, stats["evalsha"]+stats["eval"], 6, "3 decisions, each tried twice")
	require.NoError(t, c.Do(ctx, "replicaof", "no", "one").Err())
	eventually(t, func() error { return m.are(redislimit.Away, redislimit.Shared) })
	require.Equal(t, 5, take(t, l, "a", charge("x", hourly(10), 1))[0].Remaining)
}

// A slow Redis adds one round trip, and the size of the pool does not bound
// how many decisions are made.
func TestSlowRedis(t *testing.T) {
	s := startServer(t, "redis-server")
	var pieces atomic.Int64
	c := redis.NewClient(&redis.Options{ContextTimeoutEnabled: true, PoolSize: 10, Addr: relay(t, s.Addr(), func(piece []byte) []byte {
		<-time.After(20 * time.Millisecond)
		pieces.Add(1)
		return piece
	})})
	defer c.Close()
	var m modes
	l := open(t, c, redislimit.Config{OnMode: m.add, Timeout: 5 * time.Second})
	take(t, l, "a", charge("x", hourly(1), 0))
	pieces.Store(0)
	var wg sync.WaitGroup
	for range 500 {
		wg.Go(func() { take(t, l, "a", charge("x", hourly(1000), 1)) })
	}
	wg.Wait()
	require.Less(t, pieces.Load(), int64(100), "500 round trips on 10 connections would be 50 in a row")
	require.Equal(t, 500, take(t, l, "a", charge("x", hourly(1000), 0))[0].Remaining)
	require.NoError(t, m.are())
}

// A Sentinel promotes the replica of a master that died: the limiter finds it by
// itself, and the bucket goes on where it was.
func TestSentinel(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		t.Parallel()
		master := startServer(t, "redis-server")
		replica := startServer(t, "redis-server", "--replicaof", "127.0.0.1 "+fmt.Sprint(master.Port()))
		sentinel := startSentinel(t, master)
		s := redis.NewSentinelClient(&redis.Options{Addr: sentinel})
		defer s.Close()
		eventually(t, func() error {
			replicas, err := s.Replicas(ctx, "limits").Result()
			if err == nil && (len(replicas) != 1 || replicas[0]["master-link-status"] != "ok") {
				err = fmt.Errorf("%v", replicas)
			}
			return err
		})
		c := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "limits", SentinelAddrs: []string{sentinel}, ContextTimeoutEnabled: true})
		defer c.Close()
		var m modes
		l := open(t, c, redislimit.Config{Lease: lease, OnMode: m.add, Instances: 2, Timeout: time.Second, Failures: 1})
		require.Equal(t, 6, take(t, l, "a", charge("x", hourly(10), 4))[0].Remaining)
		rc := replica.client()
		defer rc.Close()
		eventually(t, func() error {
			if rc.DBSize(ctx).Val() == 0 {
				return errors.New("not replicated")
			}
			return nil
		})
		master.kill()
		d := startLoad(l, 4, charge("y", hourly(1000), 1))
		eventually(t, func() error { return m.are(redislimit.Away) })
		eventually(t, func() error {
			if !contains(rc.Info(ctx, "replication").Val(), "role:master") {
				return errors.New("not promoted")
			}
			return nil
		})
		promoted := time.Now()
		eventually(t, func() error { return m.are(redislimit.Away, redislimit.Shared) })
		t.Logf("shared again %v after the promotion", time.Since(promoted).Round(time.Millisecond))
		d.stop()
		require.Zero(t, d.failed.Load())
		require.Equal(t, 5, take(t, l, "a", charge("x", hourly(10), 1))[0].Remaining)
	})
}

// relay is a way to a server on which what it answers, piece by piece, can be
// held back, changed, or, with nil, cut off.
func relay(t *testing.T, to string, answer func(piece []byte) []byte) (addr string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { ln.Close() })
	pass := func(from, to net.Conn, change func([]byte) []byte) {
		defer from.Close()
		defer to.Close()
		buf := make([]byte, 1<<16)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			piece := change(buf[:n])
			if piece == nil {
				return
			}
			if _, err := to.Write(piece); err != nil {
				return
			}
		}
	}
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			go pass(in, out, func(piece []byte) []byte { return piece })
			go pass(out, in, answer)
		}
	}()
	return ln.Addr().String()
}

// isNumbers reports whether a piece is what our scripts answer.
func isNumbers(piece []byte) bool {
	return regexp.MustCompile(`^\*\d+\r\n:`).Match(piece)
}

// What Redis says that it did not do is asked for once more, and what may have
// been done too, where that can do no harm.
func TestRetries(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		s := startServer(t, "redis-server")
		direct := s.client()
		defer direct.Close()
		var wrong atomic.Int32 // answers that are left
		var with atomic.Pointer[string]
		c := redis.NewClient(&redis.Options{ContextTimeoutEnabled: true, Addr: relay(t, s.Addr(), func(piece []byte) []byte {
			if !isNumbers(piece) || wrong.Load() <= 0 {
				return piece
			}
			wrong.Add(-1)
			if e := *with.Load(); e != "" {
				return []byte("-" + e + "\r\n")
			}
			return nil
		})})
		defer c.Close()
		l := open(t, c, redislimit.Config{Lease: lease, FailClosed: true, Timeout: 10 * time.Second, Failures: 100})
		take(t, l, "a", charge("x", hourly(100), 1))
		commands(t, direct)
		for _, e := range []struct {
			text string
			asks int // in both modes; -1: 2 in exact mode alone
		}{
			{"NOSCRIPT No matching script. Please use EVAL.", 2},
			{"READONLY You can't write against a read only replica.", 2},
			{"LOADING Redis is loading the dataset in memory", 2},
			{"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", 2},
			{"CLUSTERDOWN The cluster is down", 2},
			{"TRYAGAIN Multiple keys request during rehashing of slot", 2},
			{"", -1}, // the connection breaks
			{"BUSY Redis is busy running a script.", 1},
			{"ERR something else", 1},
		} {
			asks := e.asks
			if asks < 0 {
				asks = 2
				if lease > 0 {
					asks = 1
				}
			}
			for _, n := range []int32{1, 2} {
				with.Store(&e.text)
				wrong.Store(n)
				// A sender of its own is not hot: nothing is leased for it.
				_, err := l.Take(ctx, fmt.Sprint(n, e.text), []senderauth.Charge{charge("x", hourly(100), 1)})
				wrong.Store(0)
				if int(n) < asks {
					require.NoError(t, err, e.text)
				} else {
					require.ErrorIs(t, err, redislimit.ErrUnavailable, e.text)
				}
				stats := commands(t, direct)
				require.Equal(t, asks, stats["evalsha"]+stats["eval"], e.text)
			}
		}
	})
}

// Replies that are lost cost tokens, and never make any.
func TestLostReplies(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		s := startServer(t, "redis-server")
		var pieces atomic.Int64
		addr := relay(t, s.Addr(), func(piece []byte) []byte {
			if isNumbers(piece) && pieces.Add(1)%5 == 0 {
				return nil
			}
			return piece
		})
		var limiters []*redislimit.Limiter
		for range 3 {
			c := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true})
			defer c.Close()
			limiters = append(limiters, open(t, c, redislimit.Config{Lease: lease, FailClosed: true, Timeout: 10 * time.Second, Failures: 1 << 20}))
		}
		var admitted, failed atomic.Int64
		var wg sync.WaitGroup
		for _, l := range limiters {
			for range 4 {
				wg.Go(func() {
					for i := range 400 {
						b, err := l.Take(ctx, "a", []senderauth.Charge{charge("x", hourly(1000), 1)})
						switch {
						case err != nil:
							failed.Add(1)
						case !b[0].Refused:
							admitted.Add(1)
						}
						if i%40 == 0 {
							<-time.After(30 * time.Millisecond) // leases go back
						}
					}
				})
			}
		}
		wg.Wait()
		t.Logf("%d admitted, %d failed", admitted.Load(), failed.Load())
		require.LessOrEqual(t, admitted.Load(), int64(1000))
		require.Positive(t, failed.Load())
	})
}

// Calls whose answers do not come hold nobody up who comes after them.
func TestLateAnswers(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		s := startServer(t, "redis-server")
		var answers atomic.Int32
		late := make(chan struct{})
		c := redis.NewClient(&redis.Options{ContextTimeoutEnabled: true, Addr: relay(t, s.Addr(), func(piece []byte) []byte {
			if isNumbers(piece) && answers.Add(1) <= 2 {
				<-late
			}
			return piece
		})})
		defer c.Close()
		l := open(t, c, redislimit.Config{Lease: lease, FailClosed: true, Timeout: 10 * time.Second})
		var wg sync.WaitGroup
		for i := range 2 {
			wg.Go(func() { take(t, l, fmt.Sprint(i), charge("x", hourly(10), 1)) })
		}
		eventually(t, func() error {
			if answers.Load() < 2 {
				return errors.New("not asked")
			}
			return nil
		})
		require.Equal(t, 9, take(t, l, "a", charge("x", hourly(10), 1))[0].Remaining)
		close(late)
		wg.Wait()
	})
}

// A caller that leaves during its call is no failure of Redis, and takes nobody
// along.
func TestCallerLeaves(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		s := startServer(t, "redis-server")
		c := redis.NewClient(&redis.Options{ContextTimeoutEnabled: true, Addr: relay(t, s.Addr(), func(piece []byte) []byte {
			<-time.After(20 * time.Millisecond)
			return piece
		})})
		defer c.Close()
		var m modes
		l := open(t, c, redislimit.Config{Lease: lease, OnMode: m.add, Failures: 1, Timeout: 10 * time.Second})
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				if i%2 == 0 {
					require.False(t, take(t, l, "a", charge("x", hourly(100), 1))[0].Refused)
					return
				}
				leaving, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
				defer cancel()
				_, _ = l.Take(leaving, "a", []senderauth.Charge{charge("x", hourly(100), 1)})
			})
		}
		wg.Wait()
		require.NoError(t, m.are())
	})
}

func TestCluster(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		c, nodes := startCluster(t)
		var m modes
		l := open(t, c, redislimit.Config{Lease: lease, Instances: 2, OnMode: m.add, Timeout: time.Second, Failures: 1})
		sender := func(i int) string { return fmt.Sprintf("sender-%d", i) }
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() {
				b := take(t, l, sender(i), charge("x", hourly(10), 1), charge("y", hourly(5), 2))
				require.Equal(t, 9, b[0].Remaining)
				require.Equal(t, 3, b[1].Remaining)
			})
		}
		wg.Wait()
		require.NoError(t, m.are())

		require.NoError(t, l.Reset(ctx, sender(0)))
		b := take(t, l, sender(0), charge("x", hourly(10), 0), charge("y", hourly(5), 0))
		require.Equal(t, []senderauth.Balance{{Remaining: 10}, {Remaining: 5}}, b)
		require.Equal(t, 3, take(t, l, sender(1), charge("y", hourly(5), 0))[0].Remaining)
		require.Equal(t, 9, take(t, l, sender(0), charge("x", hourly(10), 1))[0].Remaining)

		// A slot moves to another master: MOVED is followed.
		tag := prefix(t) + ":v1:" + sender(0)
		slot := c.ClusterKeySlot(ctx, "{"+tag+"}").Val()
		var from, to *redis.Client
		for i, n := range nodes {
			nc := n.client()
			defer nc.Close()
			if slot >= int64(i*16384/3) && slot < int64((i+1)*16384/3) {
				from = nc
			} else {
				to = nc
			}
		}
		toID, fromID := to.Do(ctx, "cluster", "myid").Val(), from.Do(ctx, "cluster", "myid").Val()
		require.NoError(t, to.Do(ctx, "cluster", "setslot", slot, "importing", fromID).Err())
		require.NoError(t, from.Do(ctx, "cluster", "setslot", slot, "migrating", toID).Err())
		_, port, err := net.SplitHostPort(to.Options().Addr)
		require.NoError(t, err)
		for _, key := range from.ClusterGetKeysInSlot(ctx, int(slot), 100).Val() {
			require.NoError(t, from.Migrate(ctx, "127.0.0.1", port, key, 0, time.Second).Err())
		}
		require.NoError(t, to.Do(ctx, "cluster", "setslot", slot, "node", toID).Err())
		require.NoError(t, from.Do(ctx, "cluster", "setslot", slot, "node", toID).Err())
		require.Equal(t, 8, take(t, l, sender(0), charge("x", hourly(10), 1))[0].Remaining)
		require.NoError(t, m.are())

		// One master hangs: its senders are decided without it, the others' by
		// theirs. It goes on before the Cluster gives it up.
		nodes[2].pause()
		var shared, away atomic.Int64
		for i := range 60 {
			wg.Go(func() {
				switch b := take(t, l, sender(i), charge("z", hourly(100), 0)); b[0].Remaining {
				case 100:
					shared.Add(1)
				case 50:
					away.Add(1)
				}
			})
		}
		wg.Wait()
		nodes[2].resume()
		require.EqualValues(t, 60, shared.Load()+away.Load())
		require.Positive(t, shared.Load())
		require.Positive(t, away.Load())
		eventually(t, func() error { return m.are(redislimit.Away, redislimit.Shared) })
		require.Equal(t, 100, take(t, l, sender(1), charge("z", hourly(100), 0))[0].Remaining)
	})
}

// No key and no part of one is in what is written to Redis: only the sender,
// the name, and numbers. None of them is of the instance's clock.
func TestPitfall05RedisSeesNoClockAndNoKey(t *testing.T) {
	c := startServer(t, "redis-server").client()
	defer c.Close()
	var r recorder
	c.AddHook(&r)
	l := open(t, c, redislimit.Config{Timeout: time.Second, Prefix: "p"})
	take(t, l, "sender", charge("x", hourly(10), 1))
	require.Equal(t, []string{"{p:v1:sender}:x"}, c.Keys(ctx, "*").Val())
	r.words = nil
	for range 2 {
		<-time.After(2 * time.Millisecond)
		take(t, l, "sender", charge("x", hourly(10), 1))
	}
	require.Len(t, r.words, 2)
	require.Equal(t, r.words[0], r.words[1])
}

// A recorder notes the words of each command.
type recorder struct {
	hook
	words [][]any
}

func (r *recorder) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		r.words = append(r.words, cmd.Args())
		return next(ctx, cmd)
	}
}
