package senderauth

import (
	"errors"
	"sync"
	"time"
)

// A lane is a way for lookups to reach the validator. There are two: one for
// pairs that were accepted before and one for all others. What goes wrong in
// the second, which anybody can fill with bad keys, does not slow down the
// first.
type lane struct {
	seats []chan struct{} // a lookup takes one of each, in this order

	mu      sync.Mutex
	failing map[digest]struct{} // pairs whose lookups have failed since the last answer
	reopens time.Duration       // until then the lane is closed
}

// When failingPairs different pairs have failed and none was answered in
// between, the validator is taken to be down: the lane closes for retryLookup,
// and again after each further probes failures. A key that always fails counts
// once, so that one bad record closes no lane.
const (
	failingPairs = 16
	probes       = 4
)

var errLaneClosed = errors.New("senderauth: the validator was not asked, because its last lookups failed for 16 different keys")

func (l *lane) init(seats ...chan struct{}) {
	l.seats, l.failing = seats, make(map[digest]struct{})
}

func (l *lane) closed(now time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return now < l.reopens
}

// report tells the lane how the lookup of d ended. A rejection is an answer.
func (l *lane) report(d digest, failed bool, now time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !failed:
		clear(l.failing)
		l.reopens = 0
	case now >= l.reopens: // a late failure does not keep the lane closed
		l.failing[d] = struct{}{}
	}
	if len(l.failing) < failingPairs {
		return
	}
	l.reopens = now + retryLookup
	for d := range l.failing {
		if len(l.failing) == failingPairs-probes {
			break
		}
		delete(l.failing, d)
	}
}
