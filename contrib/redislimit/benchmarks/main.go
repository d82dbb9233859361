// Command benchmarks measures decisions on a Redis, side by side with what else
// limits on one: decisions per second, p50 and p99, and commands per decision.
//
//	go run . -redis redis://localhost:6379 -for 3s
//
// It writes keys that expire.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
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

// minimal is what a bucket costs at the least: the time, one read, one write.
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

var ctx = context.Background()

const (
	// Of each of many senders: enough for all callers, and so little that every
	// decision writes. redis_rate does not where the bucket is full again at once.
	senders   = 1000
	perSecond = 10_000
	// Of one hot sender.
	hotPerSecond = 100_000_000
)

func main() {
	url := flag.String("redis", "redis://localhost:6379", "the Redis to measure with")
	each := flag.Duration("for", 3*time.Second, "time for each row and number of callers")
	rounds := flag.Int("rounds", 1, "how often; the best round of each row is printed")
	only := flag.String("only", "", "rows whose name matches this regular expression")
	flag.Parse()
	rowsOnly, err := regexp.Compile(*only)
	if err != nil {
		log.Fatal(err)
	}
	o, err := redis.ParseURL(*url)
	if err != nil {
		log.Fatal(err)
	}
	o.ContextTimeoutEnabled = true
	o.PoolSize = 64
	client := redis.NewClient(o)
	defer client.Close()
	var sent counter
	client.AddHook(&sent)
	if err := client.Ping(ctx).Err(); err != nil {
		log.Fatal(err)
	}

	ids := make([]string, senders)
	for i := range ids {
		ids[i] = fmt.Sprintf("0190a6f2-7c1e-7000-8000-%012d", i)
	}
	limit := senderauth.PerSecond(perSecond)
	one := []senderauth.Charge{{Name: "default", Limit: limit, Cost: 1}}
	two := []senderauth.Charge{one[0], {Name: "sensitive", Limit: limit, Cost: 1}}
	much := []senderauth.Charge{{Name: "default", Limit: senderauth.PerSecond(hotPerSecond), Cost: 1}}
	exact, err := redislimit.New(client, redislimit.Config{Instances: 1, Timeout: time.Second})
	if err != nil {
		log.Fatal(err)
	}
	defer exact.Close()
	leasing, err := redislimit.New(client, redislimit.Config{Instances: 1, Timeout: time.Second, Lease: 100 * time.Millisecond})
	if err != nil {
		log.Fatal(err)
	}
	defer leasing.Close()
	take := func(l *redislimit.Limiter, c []senderauth.Charge) func(int) error {
		return func(i int) error {
			b, err := l.Take(ctx, ids[i%senders], c)
			if err == nil && b[0].Refused {
				err = fmt.Errorf("refused: %+v", b)
			}
			return err
		}
	}
	hot := func(l *redislimit.Limiter, c []senderauth.Charge) func(int) error {
		return func(int) error {
			b, err := l.Take(ctx, "0190a6f2-7c1e-7000-8000-000000100000", c)
			if err == nil && b[0].Refused {
				err = fmt.Errorf("refused: %+v", b)
			}
			return err
		}
	}
	rate := redis_rate.NewLimiter(client)
	store, err := throttledredis.NewCtx(client, "throttled:")
	if err != nil {
		log.Fatal(err)
	}
	gcra, err := throttled.NewGCRARateLimiterCtx(store, throttled.RateQuota{MaxRate: throttled.PerSec(perSecond), MaxBurst: perSecond})
	if err != nil {
		log.Fatal(err)
	}
	ulustore, err := uluredis.NewStore(client)
	if err != nil {
		log.Fatal(err)
	}
	window := limiter.New(ulustore, limiter.Rate{Period: time.Second, Limit: perSecond})

	rows := []struct {
		name string
		f    func(i int) error
	}{
		{"PING", func(int) error { return client.Ping(ctx).Err() }},
		{"EVALSHA, minimal bucket", func(i int) error {
			return minimal.EvalSha(ctx, client, []string{"minimal:" + ids[i%senders]}, 100, perSecond).Err()
		}},
		{"redislimit, exact", take(exact, one)},
		{"redislimit, exact, two charges", take(exact, two)},
		{"redislimit, exact, one hot sender", hot(exact, much)},
		{"redislimit, lease, one hot sender", hot(leasing, much)},
		{"redislimit, lease, 1000 senders", take(leasing, one)},
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
	}
	if err := minimal.Load(ctx, client).Err(); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%-36s %8s %12s %10s %10s %12s\n", "", "callers", "decisions/s", "p50", "p99", "commands/dec")
	for _, callers := range []int{1, 16, 64} {
		best := make([]result, len(rows))
		for range *rounds {
			for i, row := range rows {
				if !rowsOnly.MatchString(row.name) {
					continue
				}
				r, err := measure(&sent, callers, *each, row.f)
				if err != nil {
					log.Printf("%s: %v", row.name, err)
					os.Exit(1)
				}
				if r.perSecond > best[i].perSecond {
					best[i] = r
				}
			}
		}
		for i, row := range rows {
			if r := best[i]; r.perSecond > 0 {
				fmt.Printf("%-36s %8d %12.0f %10v %10v %12.4f\n", row.name, callers, r.perSecond, r.p50, r.p99, r.commands)
			}
		}
	}
}

type result struct {
	perSecond, commands float64
	p50, p99            time.Duration
}

func measure(commands *counter, callers int, d time.Duration, f func(i int) error) (result, error) {
	var wg sync.WaitGroup
	run := func(d time.Duration, times [][]time.Duration) error {
		errs := make([]error, callers)
		end := time.Now().Add(d)
		for c := range callers {
			wg.Go(func() {
				last := time.Now()
				for i := c * 7919; last.Before(end) && errs[c] == nil; i++ {
					errs[c] = f(i)
					now := time.Now()
					times[c] = append(times[c], now.Sub(last))
					last = now
				}
			})
		}
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		return nil
	}
	if err := run(d/10, make([][]time.Duration, callers)); err != nil {
		return result{}, err
	}
	times := make([][]time.Duration, callers)
	for i := range times {
		times[i] = make([]time.Duration, 0, 1<<16)
	}
	start, before := time.Now(), commands.n.Load()
	if err := run(d, times); err != nil {
		return result{}, err
	}
	took := time.Since(start)
	sent := commands.n.Load() - before
	all := slices.Concat(times...)
	slices.Sort(all)
	return result{
		perSecond: float64(len(all)) / took.Seconds(),
		commands:  float64(sent) / float64(len(all)),
		p50:       all[len(all)/2].Round(100 * time.Nanosecond),
		p99:       all[len(all)*99/100].Round(100 * time.Nanosecond),
	}, nil
}

// A counter counts the commands that a client sends.
type counter struct{ n atomic.Int64 }

func (c *counter) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *counter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.n.Add(1)
		return next(ctx, cmd)
	}
}

func (c *counter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.n.Add(int64(len(cmds)))
		return next(ctx, cmds)
	}
}
