package redislimit_test

import (
	"errors"
	"fmt"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/stretchr/testify/require"
)

// wantShared waits until Redis decides for a limiter of two instances.
func wantShared(t *testing.T, l *redislimit.Limiter) {
	t.Helper()
	began := time.Now()
	eventually(t, func() error {
		b := take(t, l, "a", charge("x", hourly(10), 0))
		if b[0].Remaining != 10 {
			return fmt.Errorf("decided locally: %+v", b[0])
		}
		return nil
	})
	t.Logf("decided by Redis after %v", time.Since(began).Round(time.Millisecond))
}

// The handshake of a distant Redis takes longer than a decision may. The limiter connects
// nevertheless, and loads its scripts, whether one request comes at a time or many.
func TestConnectsToADistantRedis(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		for _, callers := range []int{1, 20} {
			t.Run(fmt.Sprint(callers), func(t *testing.T) {
				t.Parallel()
				s := startServer(t, "redis-server")
				admin := s.client()
				defer admin.Close()
				require.NoError(t, admin.ConfigSet(ctx, "requirepass", "secret").Err())
				var half atomic.Int64
				half.Store(int64(12500 * time.Microsecond))
				c := redis.NewClient(&redis.Options{Addr: distant(t, s.Addr(), &half), Password: "secret", ContextTimeoutEnabled: true})
				defer c.Close()
				l := open(t, c, redislimit.Config{Lease: lease, Instances: 2})
				var wg sync.WaitGroup
				for range callers {
					wg.Go(func() { take(t, l, "a", charge("x", hourly(10), 0)) })
				}
				wg.Wait()
				wantShared(t, l)
			})
		}
	})
}

// After every connection to a distant Redis has ended, the limiter opens new ones.
func TestReconnectsToADistantRedis(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		for _, trip := range []time.Duration{16 * time.Millisecond, 30 * time.Millisecond} {
			t.Run(trip.String(), func(t *testing.T) {
				t.Parallel()
				s := startServer(t, "redis-server")
				admin := s.client()
				defer admin.Close()
				var half atomic.Int64
				c := redis.NewClient(&redis.Options{Addr: distant(t, s.Addr(), &half), ContextTimeoutEnabled: true})
				defer c.Close()
				l := open(t, c, redislimit.Config{Lease: lease, Instances: 2})
				wantShared(t, l)
				half.Store(int64(trip / 2))
				wantShared(t, l)
				require.NoError(t, admin.ClientKillByFilter(ctx, "TYPE", "normal", "SKIPME", "yes").Err())
				wantShared(t, l)
			})
		}
	})
}

// If the user of Redis may not run scripts, the limiter decides locally and reports why
// once. After the user gets the right, the limiter uses Redis.
func TestMissingRightIsReportedOnce(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		s := startServer(t, "redis-server")
		admin := s.client()
		defer admin.Close()
		require.NoError(t, admin.Do(ctx, "acl", "setuser", "limiter", "on", ">secret", "~*", "+@all", "-@scripting").Err())
		c := redis.NewClient(&redis.Options{Addr: s.Addr(), Username: "limiter", Password: "secret", ContextTimeoutEnabled: true})
		defer c.Close()
		var m modes
		var why atomic.Value
		l := open(t, c, redislimit.Config{Lease: lease, Instances: 2, ProbeEvery: 5 * time.Millisecond, Timeout: patient, OnMode: func(mode redislimit.Mode, err error) {
			m.add(mode, err)
			if err != nil {
				why.Store(err.Error())
			}
		}})
		d := startLoad(l, 4, charge("x", hourly(10), 0))
		eventually(t, func() error { // several probes, all of which Redis rejects
			if info := admin.Info(ctx, "errorstats").Val(); !regexp.MustCompile(`NOPERM:count=\d{3}`).MatchString(info) {
				return errors.New(info)
			}
			return nil
		})
		d.stop()
		require.NoError(t, m.are(redislimit.Fallback))
		require.Contains(t, why.Load(), "NOPERM")

		require.NoError(t, admin.Do(ctx, "acl", "setuser", "limiter", "+@scripting").Err())
		eventually(t, func() error { return m.are(redislimit.Fallback, redislimit.Shared) })
		wantShared(t, l)
	})
}
