package redislimit_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/stretchr/testify/require"
)

// Each call for a slow sender takes one token and returns the exact balance. A call for a
// fast sender leases many tokens.
func TestLeasesFollowTheSender(t *testing.T) {
	c := startServer(t, "redis-server").client()
	defer c.Close()
	l := open(t, c, redislimit.Config{Lease: 100 * time.Millisecond, Timeout: patient})
	commands(t, c)
	for i := range 10 {
		require.Equal(t, 99-i, take(t, l, "slow", charge("x", hourly(100), 1))[0].Remaining)
		<-time.After(20 * time.Millisecond)
	}
	m := commands(t, c)
	require.Equal(t, 10, m["evalsha"]+m["eval"]-1, "not counting the call that found no script")

	limit := senderauth.Limit{Requests: 100_000_000, Per: time.Second}
	const n = 300_000
	for range n {
		b := take(t, l, "fast", charge("x", limit, 1), charge("y", limit, 1))
		require.False(t, b[0].Refused || b[1].Refused)
	}
	require.LessOrEqual(t, commands(t, c)["evalsha"], n/50)
	_, err := l.Take(ctx, "fast", []senderauth.Charge{charge("x", limit, 1), charge("x", limit, 1)})
	require.ErrorContains(t, err, "given twice")
}

// A key outlives its leases and the refill after they have lapsed.
func TestKeyOutlivesItsLeases(t *testing.T) {
	c := startServer(t, "redis-server").client()
	defer c.Close()
	l := open(t, c, redislimit.Config{Lease: 20 * time.Second, Timeout: patient, Prefix: "p"})
	limit := senderauth.Limit{Requests: 25, Per: time.Second, Burst: 2000}
	for range 400 {
		take(t, l, "a", charge("x", limit, 1))
	}
	left, err := redis.NewScript(`
		local time = redis.call('TIME')
		local t1, n1, t2, n2 = struct.unpack('<dddd', redis.call('GET', KEYS[1]), 45)
		return {redis.call('PTTL', KEYS[1]), (t2 - time[1] * 1e6 - time[2]) / 1000, n1 + n2}`).
		Run(ctx, c, []string{"{p:v1:a}:x"}).Int64Slice()
	require.NoError(t, err)
	ttl, lapse, leased := left[0], left[1], left[2]
	require.Positive(t, leased)
	require.Positive(t, lapse)
	require.GreaterOrEqual(t, ttl, lapse+leased*1000/25)
}

// A charge of a limit that cannot be leased and one of a leased limit are taken together
// or not at all.
func TestLeasedAndUnleased(t *testing.T) {
	c := startServer(t, "redis-server").client()
	defer c.Close()
	l := open(t, c, redislimit.Config{Lease: time.Second, Timeout: patient})
	slow, fast := hourly(5000), senderauth.Limit{Requests: 1, Per: 15 * time.Millisecond}
	for range 400 {
		require.False(t, take(t, l, "a", charge("x", slow, 1))[0].Refused)
	}
	admitted, refused := 400, 0
	for range 200 {
		if b := take(t, l, "a", charge("x", slow, 1), charge("y", fast, 1)); b[0].Refused || b[1].Refused {
			refused++
		} else {
			admitted++
		}
	}
	require.Positive(t, refused)
	eventually(t, func() error {
		if b := take(t, l, "a", charge("x", slow, 0)); b[0].Remaining != 5000-admitted {
			return fmt.Errorf("%d admitted, %d left", admitted, b[0].Remaining)
		}
		return nil
	})
}

// Tokens leased under a large limit are not spent under a small one, by any instance.
func TestLimitChangesUnderLeases(t *testing.T) {
	c := startServer(t, "redis-server").client()
	defer c.Close()
	var limiters []*redislimit.Limiter
	for range 3 {
		limiters = append(limiters, open(t, c, redislimit.Config{Lease: 2 * time.Second, Timeout: patient}))
	}
	for range 400 {
		for _, l := range limiters {
			require.False(t, take(t, l, "a", charge("x", hourly(5000), 1))[0].Refused)
		}
	}
	admitted := 0
	for range 40 {
		for _, l := range limiters {
			if !take(t, l, "a", charge("x", hourly(10), 1))[0].Refused {
				admitted++
			}
		}
	}
	require.LessOrEqual(t, admitted, 10)
	eventually(t, func() error {
		if b := take(t, limiters[0], "a", charge("x", hourly(10), 0)); b[0].Remaining != 10-admitted {
			return fmt.Errorf("%d admitted, %d left", admitted, b[0].Remaining)
		}
		return nil
	})
}

// After a refusal an instance refuses from memory, as long as the bucket is known to lack
// the tokens.
func TestLeaseRemembersRefusals(t *testing.T) {
	c := startServer(t, "redis-server").client()
	defer c.Close()
	l := open(t, c, redislimit.Config{Lease: 100 * time.Millisecond, Timeout: patient})
	other := open(t, c, redislimit.Config{Timeout: patient})
	limit := hourly(5)
	take(t, l, "a", charge("x", limit, 5))
	require.True(t, take(t, l, "a", charge("x", limit, 1))[0].Refused)
	commands(t, c)
	var first, last time.Duration
	for i := range 1000 {
		b := take(t, l, "a", charge("x", limit, 1))
		require.True(t, b[0].Refused)
		require.Zero(t, b[0].Remaining)
		if last = b[0].RetryAfter; i == 0 {
			first = last
		}
	}
	require.LessOrEqual(t, last, first)
	require.Less(t, commands(t, c)["evalsha"], 100)

	// Reset ends the refusals, on this instance and on another.
	require.NoError(t, l.Reset(ctx, "a"))
	require.False(t, take(t, l, "a", charge("x", limit, 5))[0].Refused)
	require.True(t, take(t, l, "a", charge("x", limit, 1))[0].Refused)
	require.NoError(t, other.Reset(ctx, "a"))
	eventually(t, func() error {
		b := take(t, l, "a", charge("x", limit, 1))
		if b[0].Refused {
			return redislimit.ErrUnavailable
		}
		return nil
	})
}
