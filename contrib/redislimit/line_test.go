package redislimit_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/stretchr/testify/require"
)

// hanging is a hook of a client whose Redis hangs.
type hanging struct{ hook }

func (*hanging) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		<-ctx.Done()
		cmd.SetErr(ctx.Err())
		return ctx.Err()
	}
}

func (*hanging) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		<-ctx.Done()
		for _, cmd := range cmds {
			cmd.SetErr(ctx.Err())
		}
		return ctx.Err()
	}
}

// While Redis hangs, decisions that come one after another all wait for Timeout, or up to a
// tenth less, whether they share a call or wait for one.
func TestDecisionsThatShareACallWaitForTheirTimeout(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			c := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", ContextTimeoutEnabled: true})
			defer c.Close()
			c.AddHook(&hanging{})
			const timeout = 50 * time.Millisecond
			l := open(t, c, redislimit.Config{Lease: lease, FailClosed: true, Timeout: timeout, Failures: 1 << 20})
			defer l.Close()
			waited := make(chan time.Duration, 200)
			for range cap(waited) {
				go func() {
					start := time.Now()
					// This limit is never leased: the bucket fills too fast.
					limit := senderauth.Limit{Requests: 1, Per: time.Microsecond, Burst: 10}
					_, err := l.Take(ctx, "a", []senderauth.Charge{charge("x", limit, 1)})
					if err == nil {
						t.Error("a Redis that hangs decided")
					}
					waited <- time.Since(start)
				}()
				time.Sleep(700 * time.Microsecond)
			}
			for range cap(waited) {
				w := <-waited
				require.GreaterOrEqual(t, w, timeout*9/10)
				require.LessOrEqual(t, w, timeout)
			}
		})
	})
}
