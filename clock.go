package senderauth

import (
	"sync"
	"sync/atomic"
	"time"
)

// A clock measures how long entries have lived. It follows the monotonic
// clock, which nobody can set but which stands still while the machine sleeps,
// and adds every step forward of the wall clock. So no entry outlives its TTL
// by either of the two.
type clock struct {
	start  time.Time
	next   atomic.Int64 // monotonic time of the next comparison with the wall clock
	ahead  atomic.Int64 // sum of the steps forward
	mu     sync.Mutex
	offset int64 // of the wall clock from the monotonic clock, less what it was at start
}

const (
	// compareEvery bounds how long a step goes unnoticed. Reading the wall clock
	// for every hit would cost more than finding the entry does.
	compareEvery = 100 * time.Millisecond
	// smallestStep keeps the time between the two readings from counting as one.
	smallestStep = 10 * time.Millisecond
)

// now returns the time since start, which never decreases.
func (k *clock) now() time.Duration {
	monotonic := time.Since(k.start)
	if int64(monotonic) >= k.next.Load() {
		k.compare()
	}
	return monotonic + time.Duration(k.ahead.Load())
}

func (k *clock) compare() {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := time.Now()
	monotonic := t.Sub(k.start)
	step := t.UnixNano() - k.start.UnixNano() - int64(monotonic) - k.offset
	if step >= int64(smallestStep) || step <= -int64(smallestStep) {
		k.offset += step
		k.ahead.Add(max(step, 0))
	}
	k.next.Store(int64(monotonic + compareEvery))
}
