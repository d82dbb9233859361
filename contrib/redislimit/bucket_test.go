package redislimit_test

import (
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

// If the clock of Redis steps back, a bucket keeps its time and gains no tokens.
func TestClockOfRedisStepsBack(t *testing.T) {
	c := shared(t)
	l := open(t, c, redislimit.Config{Timeout: patient})
	limit := senderauth.Limit{Requests: 1, Per: time.Second, Burst: 10}
	take(t, l, "a", charge("x", limit, 4))
	key := "{" + prefix(t) + ":v1:a}:x"
	// Pretend that the clock was an hour ahead when the bucket was written.
	ahead := redis.NewScript(`
		local v = redis.call('GET', KEYS[1])
		local level, last = struct.unpack('<dd', v, 29)
		redis.call('SET', KEYS[1], string.sub(v, 1, 28) .. struct.pack('<dd', level, last + 3600e6), 'KEEPTTL')
		return string.format('%.0f', last + 3600e6)`)
	last, err := ahead.Run(ctx, c, []string{key}).Text()
	require.NoError(t, err)
	for want := 5; want >= 0; want-- {
		require.Equal(t, want, take(t, l, "a", charge("x", limit, 1))[0].Remaining)
	}
	require.True(t, take(t, l, "a", charge("x", limit, 1))[0].Refused)
	after, err := redis.NewScript(`
		local level, last = struct.unpack('<dd', redis.call('GET', KEYS[1]), 29)
		return string.format('%.0f', last)`).Run(ctx, c, []string{key}).Text()
	require.NoError(t, err)
	require.Equal(t, last, after)
	// The key still expires when the bucket would be full by the new clock.
	require.LessOrEqual(t, c.PTTL(ctx, key).Val(), 11*time.Second)
}
