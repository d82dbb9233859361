package main

import (
	"slices"
	"sync"
	"time"
)

// A span is a time during which a server or a connection did not work.
type span struct{ From, To time.Time }

// touches reports whether the span has a time in common with from..to.
func (s span) touches(from, to time.Time) bool { return !s.From.After(to) && !s.To.Before(from) }

// outages are the spans during which a server did not work. Its methods are safe for
// concurrent use.
type outages struct {
	mu    sync.Mutex
	spans []span
}

// add adds an outage that is over.
func (o *outages) add(s span) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.spans = append(o.spans, s)
}

// never is the end of an outage that is not over.
var never = time.Unix(1<<40, 0)

// begin starts an outage. The result ends it.
func (o *outages) begin() (end func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(o.spans)
	o.spans = append(o.spans, span{From: time.Now(), To: never})
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.spans[n].To = time.Now()
	}
}

// touching returns the outages that have a time in common with from..to.
func (o *outages) touching(from, to time.Time) []span {
	o.mu.Lock()
	defer o.mu.Unlock()
	var some []span
	for _, s := range slices.Backward(o.spans) {
		if s.To.Before(from) {
			break
		}
		if s.touches(from, to) {
			some = append(some, s)
		}
	}
	slices.Reverse(some)
	return some
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
