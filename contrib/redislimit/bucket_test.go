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

// A key expires about a second after its bucket is full, and a full bucket has no key.
func TestKeyExpiresSoonAfterTheRefill(t *testing.T) {
	c := shared(t)
	l := open(t, c, redislimit.Config{Timeout: patient})
	limit := senderauth.Limit{Requests: 1, Per: 10 * time.Second, Burst: 3}
	take(t, l, "a", charge("x", limit, 2))
	keys, err := c.Keys(ctx, "{"+prefix(t)+":*").Result()
	require.NoError(t, err)
	require.Equal(t, []string{"{" + prefix(t) + ":v1:a}:x"}, keys)
	ttl, err := c.PTTL(ctx, keys[0]).Result()
	require.NoError(t, err)
	require.Greater(t, ttl, take(t, l, "a", charge("x", limit, 0))[0].ResetAfter)
	require.LessOrEqual(t, ttl, 21*time.Second)
	size, err := c.StrLen(ctx, keys[0]).Result()
	require.NoError(t, err)
	require.EqualValues(t, 44, size, "up to 44 bytes Redis stores a string in one allocation with its header")

	take(t, l, "b", charge("x", hourly(2), 0))
	take(t, l, "b", charge("x", hourly(2), 3))
	require.Zero(t, c.Exists(ctx, "{"+prefix(t)+":v1:b}:x").Val(), "neither a look nor a refusal creates a key")

	// A sender's ID cannot be chosen so that its keys are those of another sender.
	take(t, l, "a}:x", charge("y", hourly(2), 2))
	require.Equal(t, 2, take(t, l, "a", charge("x}:y", hourly(2), 0))[0].Remaining)
}

// setAhead changes a bucket of sender "a" as if the clock of Redis had been ahead when the
// bucket was stored.
func setAhead(t *testing.T, c redis.UniversalClient, name string, by time.Duration) {
	t.Helper()
	require.NoError(t, redis.NewScript(`
		local v, by = redis.call('GET', KEYS[1]), tonumber(ARGV[1])
		local level, last = struct.unpack('<dd', v, 29)
		local leases = ''
		if #v == 76 then
			local t1, n1, t2, n2 = struct.unpack('<dddd', v, 45)
			leases = struct.pack('<dddd', t1 + by, n1, t2 + by, n2)
		end
		return redis.call('SET', KEYS[1], string.sub(v, 1, 28) .. struct.pack('<dd', level, last + by) .. leases, 'PX', ARGV[1])`).
		Run(ctx, c, []string{"{" + prefix(t) + ":v1:a}:" + name}, by.Microseconds()).Err())
}

// If the clock of Redis steps back by less than the time that fills a bucket, the bucket keeps
// its time and gains no tokens.
func TestClockStepsBackALittle(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		c := shared(t)
		l := open(t, c, redislimit.Config{Lease: lease, Timeout: patient})
		limit := senderauth.Limit{Requests: 1, Per: 10 * time.Minute, Burst: 10}
		take(t, l, "a", charge("x", limit, 4))
		setAhead(t, c, "x", 99*time.Minute)
		for want := 5; want >= 0; want-- {
			require.Equal(t, want, take(t, l, "a", charge("x", limit, 1))[0].Remaining)
		}
		b := take(t, l, "a", charge("x", limit, 1))[0]
		require.True(t, b.Refused)
		require.InDelta(t, 109*time.Minute, b.RetryAfter, float64(time.Minute))
	})
}

// If the clock steps back by more, the bucket keeps its tokens and refills from then on,
// whether calls take anything or not.
func TestClockStepsBackFar(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		c := shared(t)
		l := open(t, c, redislimit.Config{Lease: lease, Timeout: patient})
		slow := senderauth.Limit{Requests: 1, Per: 10 * time.Minute, Burst: 10}
		take(t, l, "a", charge("slow", slow, 10))
		setAhead(t, c, "slow", 3*time.Hour)
		b := take(t, l, "a", charge("slow", slow, 1))[0]
		require.True(t, b.Refused)
		require.Zero(t, b.Remaining)
		require.InDelta(t, 10*time.Minute, b.RetryAfter, float64(time.Minute))

		fast := senderauth.Limit{Requests: 1, Per: 100 * time.Millisecond, Burst: 10}
		take(t, l, "a", charge("fast", fast, 10))
		setAhead(t, c, "fast", time.Hour)
		began := time.Now()
		eventually(t, func() error {
			b := take(t, l, "a", charge("fast", fast, 0))[0]
			require.LessOrEqual(t, b.Remaining, int(time.Since(began)/fast.Per))
			if b.Remaining < 10 {
				return fmt.Errorf("%+v", b)
			}
			return nil
		})
	})
}

// Leased tokens get their place in the bucket back after a term, not only when the clock has
// caught up.
func TestLeasesLapseAfterTheClockStepsBack(t *testing.T) {
	c := shared(t)
	limit := senderauth.Limit{Requests: 1000, Per: time.Second, Burst: 4000}
	holder := open(t, c, redislimit.Config{Lease: time.Minute, Timeout: patient})
	for range 400 {
		take(t, holder, "a", charge("x", limit, 1))
	}
	require.NoError(t, holder.Close()) // which gives nothing back
	require.EqualValues(t, 76, c.StrLen(ctx, "{"+prefix(t)+":v1:a}:x").Val(), "tokens are leased")
	setAhead(t, c, "x", time.Hour)
	l := open(t, c, redislimit.Config{Timeout: patient})
	require.Less(t, take(t, l, "a", charge("x", limit, 0))[0].Remaining, 4000)
	eventually(t, func() error {
		if b := take(t, l, "a", charge("x", limit, 0))[0]; b.Remaining < 4000 {
			return fmt.Errorf("%+v", b)
		}
		return nil
	})
}
