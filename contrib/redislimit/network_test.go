package redislimit_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/stretchr/testify/require"
)

// relay forwards connections to a server. answer gets each piece that the server sends: it
// may delay or change the piece, or return nil to cut the connection.
func relay(t *testing.T, to string, answer func(piece []byte) []byte) (addr string) {
	return relayBoth(t, to, func(piece []byte) []byte { return piece }, answer)
}

// distant forwards connections to a server that is half a round trip away.
func distant(t *testing.T, to string, half *atomic.Int64) (addr string) {
	delay := func(piece []byte) []byte {
		<-time.After(time.Duration(half.Load()))
		return piece
	}
	return relayBoth(t, to, delay, delay)
}

// relayBoth is relay with a function for what the client sends, too.
func relayBoth(t *testing.T, to string, ask, answer func(piece []byte) []byte) (addr string) {
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
			go pass(in, out, ask)
			go pass(out, in, answer)
		}
	}()
	return ln.Addr().String()
}

// isNumbers reports whether a piece is a reply of one of our scripts.
func isNumbers(piece []byte) bool {
	return regexp.MustCompile(`^\*\d+\r\n:`).Match(piece)
}

// A slow Redis adds about one round trip to a decision, and decisions do not queue for
// connections of the pool.
func TestSlowRedis(t *testing.T) {
	s := startServer(t, "redis-server")
	var pieces atomic.Int64
	c := redis.NewClient(&redis.Options{ContextTimeoutEnabled: true, PoolSize: 10, Addr: relay(t, s.Addr(), func(piece []byte) []byte {
		<-time.After(200 * time.Millisecond)
		pieces.Add(1)
		return piece
	})})
	defer c.Close()
	var m modes
	l := open(t, c, redislimit.Config{OnMode: m.add, Timeout: patient})
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

// A command that Redis did not execute is retried once. One that may have run is retried
// only in exact mode.
func TestRetries(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		s := startServer(t, "redis-server")
		direct := s.client()
		defer direct.Close()
		var wrong atomic.Int32 // number of answers still to replace
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
		l := open(t, c, redislimit.Config{Lease: lease, FailClosed: true, Timeout: patient, Failures: 100})
		take(t, l, "a", charge("x", hourly(100), 1))
		commands(t, direct)
		for _, e := range []struct {
			text string
			asks int // number of calls; -1 means 2 in exact mode and 1 in lease mode
		}{
			{"NOSCRIPT No matching script. Please use EVAL.", 2},
			{"READONLY You can't write against a read only replica.", 2},
			{"LOADING Redis is loading the dataset in memory", 2},
			{"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", 2},
			{"CLUSTERDOWN The cluster is down", 2},
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
				// A new sender is not hot, so nothing is leased for it.
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

// While a slot of a Cluster moves, the masters may redirect a command to each other for a
// while, each of them may hold one of its keys, and its new master may not know the script.
// Redis decides nevertheless.
func TestMovingSlotIsFollowed(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		s := startServer(t, "redis-server")
		answers := make(chan string, 10) // still to replace the server's
		c := redis.NewClient(&redis.Options{ContextTimeoutEnabled: true, Addr: relay(t, s.Addr(), func(piece []byte) []byte {
			if !isNumbers(piece) {
				return piece
			}
			select {
			case e := <-answers:
				return []byte("-" + e + "\r\n")
			default:
				return piece
			}
		})})
		defer c.Close()
		l := open(t, c, redislimit.Config{Lease: lease, FailClosed: true, Timeout: patient, Failures: 1})
		take(t, l, "a", charge("x", hourly(10), 0))
		const (
			moved    = "MOVED 1 127.0.0.1:1"
			ask      = "ASK 1 127.0.0.1:1"
			tryAgain = "TRYAGAIN Multiple keys request during rehashing of slot"
			unknown  = "NOSCRIPT No matching script. Please use EVAL."
		)
		for _, all := range [][]string{
			{moved, moved, ask, moved, ask},
			{tryAgain, tryAgain, tryAgain, moved, tryAgain},
			{tryAgain, moved, unknown, tryAgain, ask},
		} {
			for _, e := range all {
				answers <- e
			}
			take(t, l, "b", charge("x", hourly(10), 0))
			require.Empty(t, answers)
		}
	})
}

// Lost replies cost tokens and never create any.
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
			limiters = append(limiters, open(t, c, redislimit.Config{Lease: lease, FailClosed: true, Timeout: patient, Failures: 1 << 20}))
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
							<-time.After(30 * time.Millisecond) // lets leases go back
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

// Calls that get no answer do not delay later calls.
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
		l := open(t, c, redislimit.Config{Lease: lease, FailClosed: true, Timeout: patient})
		var wg sync.WaitGroup
		for i := range 2 {
			wg.Go(func() { take(t, l, fmt.Sprint(i), charge("x", hourly(10), 1)) })
		}
		eventually(t, func() error {
			if answers.Load() < 2 {
				return errors.New("Redis has not answered both calls")
			}
			return nil
		})
		require.Equal(t, 9, take(t, l, "a", charge("x", hourly(10), 1))[0].Remaining)
		close(late)
		wg.Wait()
	})
}

// A context that ends during a call does not count as a failure of Redis, and other calls
// are not affected.
func TestCallerLeavesDuringItsCall(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		s := startServer(t, "redis-server")
		c := redis.NewClient(&redis.Options{ContextTimeoutEnabled: true, Addr: relay(t, s.Addr(), func(piece []byte) []byte {
			<-time.After(20 * time.Millisecond)
			return piece
		})})
		defer c.Close()
		var m modes
		l := open(t, c, redislimit.Config{Lease: lease, OnMode: m.add, Failures: 1, Timeout: patient})
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
