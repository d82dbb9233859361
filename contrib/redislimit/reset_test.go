package redislimit_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/stretchr/testify/require"
)

func TestReset(t *testing.T) {
	// The shards of a Ring are independent servers, between which the client divides the keys.
	ring := redis.NewRing(&redis.RingOptions{
		Addrs:                 map[string]string{"one": startServer(t, "redis-server").Addr(), "two": startServer(t, "redis-server").Addr()},
		ContextTimeoutEnabled: true,
	})
	defer ring.Close()
	for name, c := range map[string]redis.UniversalClient{"single": shared(t), "ring": ring} {
		t.Run(name, func(t *testing.T) {
			inBoth(t, func(t *testing.T, lease time.Duration) {
				l := open(t, c, redislimit.Config{Lease: lease, Timeout: patient})
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

func TestResetFillsTheFallback(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		s := startServer(t, "redis-server")
		c := s.client()
		defer c.Close()
		l := open(t, c, redislimit.Config{Lease: lease})
		s.kill()
		require.Equal(t, 5, take(t, l, "a", charge("x", hourly(9), 4))[0].Remaining)
		require.Error(t, l.Reset(ctx, "a"), "Redis is unreachable")
		require.Equal(t, 9, take(t, l, "a", charge("x", hourly(9), 0))[0].Remaining)
	})
}
