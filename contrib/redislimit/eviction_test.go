package redislimit_test

import (
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/stretchr/testify/require"
)

// warned returns what OnMode gets from a limiter that decides once and is closed.
func warned(t *testing.T, c redis.UniversalClient, lease time.Duration) []error {
	t.Helper()
	var m modes
	l := open(t, c, redislimit.Config{Lease: lease, Timeout: patient, OnMode: m.add})
	take(t, l, "a", charge("x", hourly(10), 1))
	require.NoError(t, l.Close()) // waits for what runs in the background
	return m.why
}

func evict(t *testing.T, c *redis.Client, maxmemory, policy string) {
	t.Helper()
	require.NoError(t, c.ConfigSet(ctx, "maxmemory", maxmemory).Err())
	require.NoError(t, c.ConfigSet(ctx, "maxmemory-policy", policy).Err())
}

// If Redis may evict buckets, OnMode gets one warning, which names the policy.
func TestEvictingRedisIsReported(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		c := startServer(t, "redis-server").client()
		defer c.Close()
		for _, policy := range []string{"volatile-lru", "volatile-ttl", "allkeys-lfu", "allkeys-random"} {
			evict(t, c, "100mb", policy)
			why := warned(t, c, lease)
			require.Len(t, why, 1)
			require.ErrorIs(t, why[0], redislimit.ErrEvicts)
			require.ErrorContains(t, why[0], policy)
			require.ErrorContains(t, why[0], "noeviction")

			evict(t, c, "0", policy) // no limit that could be reached
			require.Empty(t, warned(t, c, lease))
		}
		evict(t, c, "100mb", "noeviction")
		require.Empty(t, warned(t, c, lease))
	})
}

// Each master of a Cluster has its own policy.
func TestEvictingMasterIsReported(t *testing.T) {
	cluster, nodes := startCluster(t)
	require.Empty(t, warned(t, cluster, 0))
	for _, n := range nodes {
		c := n.client()
		defer c.Close()
		evict(t, c, "100mb", "allkeys-lru")
		why := warned(t, cluster, 0)
		require.Len(t, why, 1)
		require.ErrorIs(t, why[0], redislimit.ErrEvicts)
		evict(t, c, "0", "noeviction")
	}
}

// The limiter looks at the policy again after an outage, and reports it if it changed.
func TestEvictionIsReportedAfterAnOutage(t *testing.T) {
	s := startServer(t, "redis-server")
	admin := s.client()
	defer admin.Close()
	rights := append([]string{"+info"}, rights...)
	restrict(t, s, rights...)
	c := restricted(s)
	defer c.Close()
	var m modes
	l := open(t, c, redislimit.Config{Timeout: patient, Failures: 1, ProbeEvery: 5 * time.Millisecond, OnMode: m.add})
	outage := func() {
		restrict(t, s)
		for range 2 {
			take(t, l, "a", charge("x", hourly(10), 0))
		}
	}
	recovered := func() error {
		take(t, l, "a", charge("x", hourly(10), 0))
		m.mu.Lock()
		defer m.mu.Unlock()
		if n := len(m.all); n > 0 && m.all[n-1] == redislimit.Fallback {
			return errors.New("decides locally")
		}
		return nil
	}
	evictions := func() (n int) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, err := range m.why {
			if errors.Is(err, redislimit.ErrEvicts) {
				n++
			}
		}
		return n
	}
	take(t, l, "a", charge("x", hourly(10), 0))
	outage()
	evict(t, admin, "100mb", "allkeys-lru")
	restrict(t, s, rights...)
	eventually(t, func() error {
		if err := recovered(); err != nil || evictions() == 0 {
			return errors.Join(err, errors.New("no warning"))
		}
		return nil
	})
	outage() // the policy is as before
	restrict(t, s, rights...)
	eventually(t, recovered)
	take(t, l, "a", charge("x", hourly(10), 0))
	require.NoError(t, l.Close())
	require.Equal(t, 1, evictions())
}

// A user without the right to run INFO gets no warning, and decisions as ever.
func TestPolicyThatCannotBeReadIsNoOutage(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		s := startServer(t, "redis-server", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
		restrict(t, s, rights...)
		c := restricted(s)
		defer c.Close()
		require.Empty(t, warned(t, c, lease))
		restrict(t, s, append([]string{"+info"}, rights...)...)
		require.Len(t, warned(t, c, lease), 1)
	})
}

// A managed Redis has no CONFIG. Decisions, Reset and the warning need none.
func TestRedisWithoutConfig(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		s := startServer(t, "redis-server", "--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru", "--rename-command", "CONFIG", "")
		c := s.client()
		defer c.Close()
		require.Error(t, c.ConfigGet(ctx, "maxmemory").Err())
		var m modes
		l := open(t, c, redislimit.Config{Lease: lease, FailClosed: true, Timeout: patient, OnMode: m.add})
		for range 1000 { // enough for leases
			take(t, l, "a", charge("x", hourly(1_000_000), 1))
		}
		take(t, l, "b", charge("x", hourly(10), 10))
		require.True(t, take(t, l, "b", charge("x", hourly(10), 1))[0].Refused)
		require.NoError(t, l.Reset(ctx, "b"))
		require.Equal(t, 10, take(t, l, "b", charge("x", hourly(10), 0))[0].Remaining)
		require.NoError(t, l.Close())
		require.Len(t, m.why, 1)
		require.ErrorIs(t, m.why[0], redislimit.ErrEvicts)
	})
}
