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

// What the simulation takes for the script of lease mode answers what the
// script does, to any questions, in any order, true or not.
func TestModel(t *testing.T) {
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: redistest.New(t).Addr()})
	defer client.Close()
	random := rand.New(rand.NewPCG(1, 2))
	for _, limit := range []senderauth.Limit{
		{Requests: 1000, Per: time.Second, Burst: 50},
		{Requests: 3, Per: 7*time.Hour + 1, Burst: 999_999_999_999_999}, // whose tick is coarse
	} {
		scale := measure(limit)
		var lapses []int64
		s := &simulation{buckets: map[string]*modelBucket{}}
		key := scale.packed
		for step := range 3000 {
			arg := append([]byte(scale.packed), appendDouble(nil, uint64(random.IntN(4)))...)
			arg = appendDouble(arg, uint64(random.IntN(20)))
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
