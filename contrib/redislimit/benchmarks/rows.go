package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/throttled/throttled/v2"
	throttledredis "github.com/throttled/throttled/v2/store/goredisstore.v9"
	"github.com/ulule/limiter/v3"
	uluredis "github.com/ulule/limiter/v3/drivers/store/redis"
)

// minimal is the least that a bucket must do: read the time, read the state, write
// the state.
var minimal = redis.NewScript(`
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local v = redis.call('GET', KEYS[1])
local level, last = tonumber(ARGV[2]), now
if v then
	level, last = struct.unpack('<dd', v)
	level = math.min(level + (now - last) * ARGV[1], tonumber(ARGV[2]))
end
local ok = 0
if level >= 1 then
	level = level - 1
	ok = 1
end
redis.call('SET', KEYS[1], struct.pack('<dd', level, now), 'PX', 60000)
return {ok, math.floor(level)}`)

const (
	senders = 1000
	// perSecond is the limit of each of many senders. It admits all callers, and is low
	// enough that every decision writes: redis_rate does not write if the bucket is full
	// again at once.
	perSecond = 10_000
	// hotPerSecond is the limit of the one hot sender.
	hotPerSecond = 100_000_000
)

func sender(i int) string { return fmt.Sprintf("0190a6f2-7c1e-7000-8000-%012d", i) }

var (
	ids = func() (ids [senders]string) {
		for i := range ids {
			ids[i] = sender(i)
		}
		return ids
	}()
	hotID = sender(100_000)
)

// A row of the table is one way to decide the i-th request.
type row struct {
	name   string
	decide func(i int) error
}

// newRows returns all rows in the order of the table.
func newRows(client *redis.Client) (rows []row, done func(), err error) {
	if err := minimal.Load(ctx, client).Err(); err != nil {
		return nil, nil, err
	}
	others, err := otherRows(client)
	if err != nil {
		return nil, nil, err
	}
	ours, done, err := ourRows(client)
	if err != nil {
		return nil, nil, err
	}
	rows = []row{
		{"PING", func(int) error { return client.Ping(ctx).Err() }},
		{"EVALSHA, minimal bucket", func(i int) error {
			return minimal.EvalSha(ctx, client, []string{"minimal:" + ids[i%senders]}, 100, perSecond).Err()
		}},
	}
	return append(append(rows, ours...), others...), done, nil
}

func ourRows(client *redis.Client) (rows []row, done func(), err error) {
	exact, err := redislimit.New(client, redislimit.Config{Instances: 1, Timeout: time.Second})
	if err != nil {
		return nil, nil, err
	}
	leasing, err := redislimit.New(client, redislimit.Config{Instances: 1, Timeout: time.Second, Lease: 100 * time.Millisecond})
	if err != nil {
		return nil, nil, errors.Join(err, exact.Close())
	}
	limit := senderauth.PerSecond(perSecond)
	one := []senderauth.Charge{{Name: "default", Limit: limit, Cost: 1}}
	two := []senderauth.Charge{one[0], {Name: "sensitive", Limit: limit, Cost: 1}}
	hot := []senderauth.Charge{{Name: "default", Limit: senderauth.PerSecond(hotPerSecond), Cost: 1}}
	return []row{
		{"redislimit, exact", func(i int) error { return take(exact, ids[i%senders], one) }},
		{"redislimit, exact, two charges", func(i int) error { return take(exact, ids[i%senders], two) }},
		{"redislimit, exact, one hot sender", func(int) error { return take(exact, hotID, hot) }},
		{"redislimit, lease, one hot sender", func(int) error { return take(leasing, hotID, hot) }},
		{"redislimit, lease, 1000 senders", func(i int) error { return take(leasing, ids[i%senders], one) }},
	}, func() { leasing.Close(); exact.Close() }, nil
}

// take makes one decision, which must not be a refusal.
func take(l *redislimit.Limiter, sender string, charges []senderauth.Charge) error {
	b, err := l.Take(ctx, sender, charges)
	if err == nil && b[0].Refused {
		err = fmt.Errorf("refused: %+v", b)
	}
	return err
}

func otherRows(client *redis.Client) ([]row, error) {
	rate := redis_rate.NewLimiter(client)
	store, err := throttledredis.NewCtx(client, "throttled:")
	if err != nil {
		return nil, err
	}
	gcra, err := throttled.NewGCRARateLimiterCtx(store, throttled.RateQuota{MaxRate: throttled.PerSec(perSecond), MaxBurst: perSecond})
	if err != nil {
		return nil, err
	}
	ulustore, err := uluredis.NewStore(client)
	if err != nil {
		return nil, err
	}
	window := limiter.New(ulustore, limiter.Rate{Period: time.Second, Limit: perSecond})
	return []row{
		{"redis_rate", func(i int) error {
			_, err := rate.Allow(ctx, ids[i%senders], redis_rate.PerSecond(perSecond))
			return err
		}},
		{"throttled", func(i int) error {
			_, _, err := gcra.RateLimitCtx(ctx, ids[i%senders], 1)
			return err
		}},
		{"ulule (fixed window)", func(i int) error {
			_, err := window.Get(ctx, ids[i%senders])
			return err
		}},
	}, nil
}
