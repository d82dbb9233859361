package redislimit_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/stretchr/testify/require"
)

// An ended context fails its own call and does not count as a failure of Redis. Hooks of
// the client see the values of the caller's context.
func TestContextEndsItsCallAndReachesHooks(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		c := startServer(t, "redis-server").client()
		defer c.Close()
		var seen hook
		c.AddHook(&seen)
		l := open(t, c, redislimit.Config{Lease: lease, Failures: 1, Timeout: patient})
		ended, cancel := context.WithCancel(ctx)
		cancel()
		for range 3 {
			_, err := l.Take(ended, "a", []senderauth.Charge{charge("x", hourly(9), 1)})
			require.ErrorIs(t, err, context.Canceled)
		}
		b, err := l.Take(context.WithValue(ctx, hookKey{}, "trace"), "a", []senderauth.Charge{charge("x", hourly(9), 1)})
		require.NoError(t, err)
		require.Equal(t, 8, b[0].Remaining)
		require.Equal(t, "trace", seen.value.Load())
	})
}

type hookKey struct{}

// A hook records the value that it finds in the context of a command.
type hook struct{ value atomic.Value }

func (h *hook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if v := ctx.Value(hookKey{}); v != nil {
			h.value.Store(v)
		}
		return next(ctx, cmd)
	}
}

func (h *hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// panicking is a hook that panics at the first command.
type panicking struct {
	hook
	commands int
}

func (h *panicking) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if h.commands++; h.commands == 1 {
			panic("hook")
		}
		return next(ctx, cmd)
	}
}

// A panic of a hook affects only its own call. Later calls are decided.
func TestPanicOfAHookEndsItsCallOnly(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		c := startServer(t, "redis-server").client()
		defer c.Close()
		c.AddHook(&panicking{})
		l := open(t, c, redislimit.Config{Lease: lease, Timeout: patient})
		require.Panics(t, func() { take(t, l, "a", charge("x", hourly(10), 1)) })
		require.Equal(t, 9, take(t, l, "a", charge("x", hourly(10), 1))[0].Remaining)
	})
}

// Redis gets the sender, the name of the limit and numbers, but no API key. Two calls send
// the same words, so no number comes from the instance's clock.
func TestRedisSeesNoClockAndNoKey(t *testing.T) {
	c := startServer(t, "redis-server").client()
	defer c.Close()
	var r recorder
	c.AddHook(&r)
	l := open(t, c, redislimit.Config{Timeout: patient, Prefix: "p"})
	take(t, l, "sender", charge("x", hourly(10), 1))
	require.Equal(t, []string{"{p:v1:sender}:x"}, c.Keys(ctx, "*").Val())
	r.words = nil
	for range 2 {
		<-time.After(2 * time.Millisecond)
		take(t, l, "sender", charge("x", hourly(10), 1))
	}
	require.Len(t, r.words, 2)
	require.Equal(t, r.words[0], r.words[1])
}

// decisions counts the calls of scripts that are not part of a probe.
type decisions struct {
	hook
	atomic.Int64
}

func (d *decisions) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if a := cmd.Args(); strings.HasPrefix(cmd.Name(), "eval") && !strings.HasSuffix(a[3].(string), "}probe") {
			d.Add(1)
		}
		return next(ctx, cmd)
	}
}

// A recorder records the words of each call of a script.
type recorder struct {
	hook
	words [][]any
}

func (r *recorder) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if strings.HasPrefix(cmd.Name(), "eval") {
			r.words = append(r.words, cmd.Args())
		}
		return next(ctx, cmd)
	}
}
