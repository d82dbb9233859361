package redislimit

import (
	"context"
	"sync/atomic"
	"time"
)

// deadlines hands out contexts that share a deadline, because a context of its own costs a
// call a microsecond, most of it for a timer that never fires. A call gets at least nine
// tenths of the timeout and at most all of it.
type deadlines struct {
	timeout time.Duration
	last    atomic.Pointer[deadline]
}

type deadline struct {
	context.Context
	fresh time.Time // until when a new call may use it
}

// lateness is how late a deadline fires on a machine that has a processor for this process,
// and more.
const lateness = 2 * time.Millisecond

// firedLate reports that the deadline of ctx fired late, right now. Then this process did not
// run when the deadline passed. The reply of Redis may have come in the meantime, but the
// deadline is noticed first.
func firedLate(ctx context.Context) bool {
	end, _ := ctx.Deadline()
	return time.Since(end) > lateness
}

// of returns a context with a deadline and the values of ctx.
func (d *deadlines) of(ctx context.Context) context.Context {
	now := time.Now()
	last := d.last.Load()
	if last == nil || now.After(last.fresh) {
		shared, cancel := context.WithDeadline(context.Background(), now.Add(d.timeout))
		context.AfterFunc(shared, cancel) // calls may use it until then
		last = &deadline{shared, now.Add(d.timeout / 10)}
		d.last.Store(last)
	}
	return &callContext{last, ctx}
}

// A callContext has the end of a deadline and the values of another context.
type callContext struct {
	*deadline
	values context.Context
}

func (c *callContext) Value(key any) any { return c.values.Value(key) }
