package redislimit_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/stretchr/testify/require"
)

// breakable returns a client of a new Redis that answers scripts with an error while broken
// is set.
func breakable(t *testing.T, broken *atomic.Bool) *redis.Client {
	c := redis.NewClient(&redis.Options{ContextTimeoutEnabled: true, Addr: relay(t, startServer(t, "redis-server").Addr(), func(piece []byte) []byte {
		if isNumbers(piece) && broken.Load() {
			return []byte("-ERR broken\r\n")
		}
		return piece
	})})
	t.Cleanup(func() { c.Close() })
	return c
}

// While Redis fails, a sender gets no more than its share of what Redis last said was left.
// When Redis is back, the bucket goes on from what the local buckets left.
func TestBucketGoesOnThroughOutages(t *testing.T) {
	var broken atomic.Bool
	var m modes
	l := open(t, breakable(t, &broken), redislimit.Config{Instances: 2, OnMode: m.add, Failures: 1, Timeout: patient, ProbeEvery: 5 * time.Millisecond})
	h := hourly(100)
	require.Equal(t, 60, take(t, l, "a", charge("x", h, 40))[0].Remaining)
	want := []redislimit.Mode{}
	for _, left := range []int{60, 40, 20} {
		broken.Store(true)
		require.Equal(t, left/2, take(t, l, "a", charge("x", h, 0))[0].Remaining, "the share is a half")
		require.Equal(t, left/2-10, take(t, l, "a", charge("x", h, 10))[0].Remaining)
		b := take(t, l, "a", charge("x", h, left/2-9), charge("y", h, 1))
		require.True(t, b[0].Refused)
		require.Equal(t, left/2-10, b[0].Remaining)
		require.InDelta(t, 2*time.Hour, b[0].RetryAfter, float64(time.Minute))
		require.Equal(t, 50, b[1].Remaining, "nothing was taken, and Redis has not been asked for it")
		broken.Store(false)
		want = append(want, redislimit.Fallback, redislimit.Shared)
		eventually(t, func() error { return m.are(want...) })
		require.Equal(t, left-20, take(t, l, "a", charge("x", h, 10))[0].Remaining, "10 locally and 10 now")
	}
}

// However often Redis fails, a sender gets no more than its limit.
func TestOutagesDoNotAddUp(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		var broken atomic.Bool
		var m modes
		l := open(t, breakable(t, &broken), redislimit.Config{Lease: lease, Instances: 2, OnMode: m.add, Failures: 1, Timeout: patient, ProbeEvery: 5 * time.Millisecond})
		admitted := 0
		try := func(n int) {
			for range n {
				if !take(t, l, "a", charge("x", hourly(100), 1))[0].Refused {
					admitted++
				}
			}
		}
		want := []redislimit.Mode{}
		for range 10 {
			try(1)
			broken.Store(true)
			take(t, l, "b", charge("x", hourly(1), 0)) // opens the breaker
			try(10)
			broken.Store(false)
			want = append(want, redislimit.Fallback, redislimit.Shared)
			eventually(t, func() error { return m.are(want...) })
		}
		try(100)
		t.Logf("%d admitted", admitted)
		require.LessOrEqual(t, admitted, 100)
		require.Greater(t, admitted, 50)
	})
}

// wire replaces Redis: answer returns the reply to a call of a script that is not a probe.
type wire struct {
	hook
	answer func() ([]int64, error)
}

func (w *wire) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "info" {
			return errors.New("no INFO")
		}
		reply, err := []int64{1, 0, 0}, error(nil)
		if !strings.HasSuffix(cmd.Args()[3].(string), "}probe") {
			reply, err = w.answer()
		}
		cmd.SetErr(err)
		cmd.(interface{ SetVal([]int64) }).SetVal(reply)
		return err
	}
}

// A deadline that fires late shows that this process was suspended, so Redis is asked again.
// Only if that fails, too, does it count as a failure.
func TestOwnPauseIsNoOutage(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			late := 0 // number of calls whose deadline fires late
			c := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", ContextTimeoutEnabled: true})
			defer c.Close()
			c.AddHook(&wire{answer: func() ([]int64, error) {
				if late == 0 {
					return []int64{1, 0, 0}, nil
				}
				late--
				time.Sleep(60 * time.Millisecond)
				return nil, os.ErrDeadlineExceeded
			}})
			var m modes
			l := open(t, c, redislimit.Config{Instances: 2, OnMode: m.add, Failures: 1, Lease: lease})
			defer l.Close()
			// This limit is never leased: the bucket fills too fast.
			limit := senderauth.Limit{Requests: 1, Per: time.Microsecond, Burst: 10}
			for range 10 {
				late = 1
				take(t, l, "a", charge("x", limit, 1))
			}
			require.NoError(t, m.are())
			late = 2
			take(t, l, "a", charge("x", limit, 1))
			require.NoError(t, m.are(redislimit.Fallback))
		})
	})
}

// A deadline that fires in time is a failure of Redis.
func TestTimelyDeadlineIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", ContextTimeoutEnabled: true})
		defer c.Close()
		c.AddHook(&wire{answer: func() ([]int64, error) {
			time.Sleep(50 * time.Millisecond)
			return nil, os.ErrDeadlineExceeded
		}})
		var m modes
		l := open(t, c, redislimit.Config{Instances: 2, OnMode: m.add, Failures: 1})
		defer l.Close()
		take(t, l, "a", charge("x", hourly(10), 1))
		require.NoError(t, m.are(redislimit.Fallback))
	})
}
