package main

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// A result is what one row measured with a number of callers.
type result struct {
	perSecond, commands float64
	p50, p99            time.Duration
}

// measure calls f from many callers for about d, after a warm-up of a tenth of d.
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
