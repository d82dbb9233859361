package redislimit

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers/redistest"
	"github.com/stretchr/testify/require"
)

// A tick of coarse is 2,161 microseconds and brings two tokens.
var coarse = senderauth.Limit{Requests: 3_333_333, Per: time.Hour + 7, Burst: 9_000_000_000_000}

// A bucket that is nearly full when a part of a tick has passed is never ahead
// of one that fills evenly, and behind it by less than a microsecond.
func TestCoarseTicksMintNothing(t *testing.T) {
	s := measure(coarse)
	b := &modelBucket{scale: [4]float64{float64(s.perToken), float64(s.perTick), float64(s.full), float64(s.tick)}, level: float64(s.full)}
	random := rand.New(rand.NewPCG(1, 2))
	lacks := 0 // of the even one, in parts of parts
	for now := 0; now < 1_000_000; {
		step := random.IntN(3000)
		now += step
		lacks = max(lacks-step*int(s.perTick), 0) + int(s.perToken*s.tick)
		b.refill(float64(now), b.cap())
		b.level -= float64(s.perToken)
		behind := int(b.cap()-b.level)*int(s.tick) - (now-int(b.last))*int(s.perTick) - lacks
		require.GreaterOrEqual(t, behind, 0)
		require.Less(t, behind, int(s.perTick))
		lacks += behind
	}
}

// What the simulation takes for the script of lease mode answers what the
// script does, to any questions, in any order, true or not.
func TestModel(t *testing.T) {
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: redistest.New(t).Addr()})
	defer client.Close()
	random := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		limit senderauth.Limit
		every int // of so many questions one asks for tokens
	}{
		{senderauth.Limit{Requests: 1000, Per: time.Second, Burst: 50}, 1},
		{senderauth.Limit{Requests: 3, Per: 7*time.Hour + 1, Burst: 999_999_999_999_999}, 1}, // whose tick is coarse
		{coarse, 30}, // so that the bucket is full again and again
	} {
		scale := measure(c.limit)
		var lapses []int64
		s := &simulation{buckets: map[string]*modelBucket{}}
		key := scale.packed
		for step := range 3000 {
			need, extra := random.IntN(4), random.IntN(20)
			if random.IntN(c.every) > 0 {
				need, extra = 0, 0
			}
			arg := appendDouble([]byte(scale.packed), uint64(need))
			arg = appendDouble(arg, uint64(extra))
			arg = appendDouble(arg, uint64(1000+random.IntN(10_000)))
			for range 2 {
				lapse := int64(0)
				if n := len(lapses); n > 0 {
					lapse = lapses[max(0, n-1-random.IntN(6))]
				}
				arg = appendDouble(arg, uint64(lapse))
				arg = appendDouble(arg, uint64(random.IntN(4)))
				arg = appendDouble(arg, uint64(random.IntN(4)))
			}
			reply, err := client.Eval(ctx, leaseScript.text, []string{key}, arg).Int64Slice()
			require.NoError(t, err)
			s.now = microseconds(reply[1])
			want := s.leaseScript(key, string(arg))
			require.Equal(t, want, reply, step)
			if n := len(lapses); reply[5] > 0 && (n == 0 || lapses[n-1] != reply[5]) {
				lapses = append(lapses, reply[5])
			}
			if random.IntN(10) == 0 {
				<-time.After(time.Duration(random.IntN(int(3 * time.Millisecond))))
			}
		}
		require.Greater(t, len(lapses), 10)
	}
}
