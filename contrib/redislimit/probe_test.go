package redislimit_test

import (
	"fmt"
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
