package redislimit

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers/redistest"
	"github.com/stretchr/testify/require"
)

// coarse takes 317 years to fill. Its tick is 4 microseconds, and a token of
// 10 seconds and a nanosecond has 2,500,001 parts.
var coarse = senderauth.Limit{Requests: 1, Per: 10*time.Second + 1, Burst: 1_000_000_000}

func modelOf(s *scale) modelBucket {
	return modelBucket{
		scale: [4]float64{float64(s.perToken), float64(s.perTick), float64(s.full), float64(s.tick)},
		level: float64(s.full),
	}
}

// A bucket with coarse ticks is never ahead of one that fills evenly, and less than a tick
// behind it.
func TestCoarseTicksMintNothing(t *testing.T) {
	s := measure(coarse)
	require.EqualValues(t, 4, s.tick)
	b := modelOf(s)
	random := rand.New(rand.NewPCG(1, 2))
	missing := 0 // microseconds until the evenly filling bucket is full
	for now := 0; now < 1_000_000_000_000; {
		step := random.IntN(30_000_000)
		now += step
		missing = max(missing-step, 0) + int(s.perToken*s.tick)
		b.refill(float64(now), b.cap())
		b.level -= float64(s.perToken)
		behind := int(b.cap()-b.level)*int(s.tick) - (now - int(b.last)) - missing
		require.GreaterOrEqual(t, behind, 0)
		require.Less(t, behind, int(s.tick))
	}
}

// The simulation's model of lease.lua gives the same replies as the script to any orders,
// even impossible ones.
func TestModelAnswersLikeTheScript(t *testing.T) {
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: redistest.New(t).Addr()})
	defer client.Close()
	random := rand.New(rand.NewPCG(1, 2))
	for _, limit := range []senderauth.Limit{
		{Requests: 1000, Per: time.Second, Burst: 50},
		{Requests: 999_999_937, Per: time.Hour, Burst: 999_999_937}, // its scale is rounded
		coarse,
	} {
		s := &simulation{buckets: map[string]*modelBucket{}}
		o := order{scale: measure(limit)}
		key := o.packed
		lapses := []int64{0}
		for step := range 3000 {
			o.need, o.extra = random.IntN(4), random.IntN(20)
			o.owed = uint64(max(random.IntN(20)-16, 0)) * o.perToken / 2
			scale := *o.scale
			scale.term = time.Duration(1000+random.IntN(10_000)) * time.Microsecond
			o.scale = &scale
			for i := range o.settled {
				o.settled[i] = settlement{
					lapse: lapses[max(0, len(lapses)-1-random.IntN(6))],
					spent: random.IntN(4),
					back:  random.IntN(4),
				}
			}
			if step%100 == 99 {
				setAhead(t, client, key, s.buckets[key], time.Duration(random.IntN(int(2*time.Hour))))
			}
			arg := packOrder(&o)
			reply, err := client.Eval(ctx, leaseScript.text, []string{key}, arg).Int64Slice()
			require.NoError(t, err)
			s.now = microseconds(reply[1])
			require.Equal(t, s.leaseScript(key, arg), reply, step)
			if reply[5] > 0 && lapses[len(lapses)-1] != reply[5] {
				lapses = append(lapses, reply[5])
			}
			if random.IntN(10) == 0 {
				<-time.After(time.Duration(random.IntN(int(3 * time.Millisecond))))
			}
		}
		require.Greater(t, len(lapses), 10)
	}
}

// setAhead changes a bucket, if there is one, as if the clock had been ahead when the bucket
// was stored.
func setAhead(t *testing.T, c *redis.Client, key string, b *modelBucket, by time.Duration) {
	err := redis.NewScript(`
		local v, by = redis.call('GET', KEYS[1]), tonumber(ARGV[1])
		if not v then
			return false
		end
		local level, last = struct.unpack('<dd', v, 29)
		local leases = ''
		if #v == 76 then
			local t1, n1, t2, n2 = struct.unpack('<dddd', v, 45)
			leases = struct.pack('<dddd', t1 + by, n1, t2 + by, n2)
		end
		return redis.call('SET', KEYS[1], string.sub(v, 1, 28) .. struct.pack('<dd', level, last + by) .. leases)`).
		Run(context.Background(), c, []string{key}, by.Microseconds()).Err()
	if errors.Is(err, redis.Nil) {
		return
	}
	require.NoError(t, err)
	us := float64(by.Microseconds())
	b.last, b.t1, b.t2 = b.last+us, b.t1+us, b.t2+us
}
