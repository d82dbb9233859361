package redislimit

import (
	"context"
	"sync/atomic"
	"time"
)

// deadlines are contexts that several calls share: one of its own costs a call
// a microsecond, most of it for a timer that never fires. A call's ends after
// its timeout at the latest, and after a tenth less at the earliest.
type deadlines struct {
	timeout time.Duration
	last    atomic.Pointer[deadline]
}

type deadline struct {
	context.Context
	fresh time.Time // until when it is long enough for a call
}

// of returns a context with a deadline and the values of ctx.
func (d *deadlines) of(ctx context.Context) context.Context {
	now := time.Now()
	last := d.last.Load()
	if last == nil || now.After(last.fresh) {
		shared, cancel := context.WithDeadline(context.Background(), now.Add(d.timeout))
		context.AfterFunc(shared, cancel) // nobody knows earlier that it may end
		last = &deadline{shared, now.Add(d.timeout / 10)}
		d.last.Store(last)
	}
	return &timed{last, ctx}
}

// A timed context takes its end from the one and its values from the other.
type timed struct {
	*deadline
	values context.Context
}

func (t *timed) Value(key any) any { return t.values.Value(key) }
