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

func (n *lane) init(seats ...chan struct{}) {
	n.seats, n.failing = seats, make(map[digest]struct{})
}

func (n *lane) closed(now time.Duration) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return now < n.reopens
}

// report tells the lane how the lookup of d ended. A rejection is an answer.
func (n *lane) report(d digest, failed bool, now time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case !failed:
		clear(n.failing)
		n.reopens = 0
	case now >= n.reopens: // a late failure does not keep the lane closed
		n.failing[d] = struct{}{}
	}
	if len(n.failing) < failingPairs {
		return
	}
	n.reopens = now + retryLookup
	for d := range n.failing {
		if len(n.failing) == failingPairs-probes {
			break
		}
		delete(n.failing, d)
	}
}
