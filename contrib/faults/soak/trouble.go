package main

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth/contrib/redislimit"
)

// A trouble notes when an instance may have decided without Redis: while its breaker is
// open, and around each call that failed. It is a hook of the Redis client.
type trouble struct {
	mu       sync.Mutex
	spans    []span
	fallback bool
}

// around is how long before and after a failed call another decision of the instance may
// have failed without a call of its own.
const around = 500 * time.Millisecond

func (t *trouble) read() (spans []span, fallback bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	spans = slices.Clone(t.spans)
	if t.fallback {
		spans[len(spans)-1].To = time.Now().Add(around)
	}
	return spans, t.fallback
}

func (t *trouble) mode(m redislimit.Mode, _ error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.noteLocked(time.Now()) // before a change back, because the span lasts until then
	t.fallback = m == redislimit.Fallback
}

func (t *trouble) failed(began time.Time, err error) {
	var reply redis.Error
	if err == nil || errors.As(err, &reply) {
		return // Redis has answered
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.noteLocked(began)
	t.noteLocked(time.Now())
}

// noteLocked extends the last span to a time, or begins a new one.
func (t *trouble) noteLocked(at time.Time) {
	if n := len(t.spans); n > 0 && (t.fallback || !at.Add(-around).After(t.spans[n-1].To)) {
		t.spans[n-1].To = latest(t.spans[n-1].To, at.Add(around))
		return
	}
	t.spans = append(t.spans, span{From: at.Add(-around), To: at.Add(around)})
}

func (t *trouble) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		return next(ctx, network, addr)
	}
}

func (t *trouble) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		began := time.Now()
		err := next(ctx, cmd)
		t.failed(began, err)
		return err
	}
}

func (t *trouble) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		began := time.Now()
		err := next(ctx, cmds)
		t.failed(began, err)
		return err
	}
}
