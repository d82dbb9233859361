package redislimit

import (
	"sync/atomic"
	"time"
)

// A breaker stops calls to a Redis that failed a few times in a row. While it is
// open, one goroutine probes Redis, and closes the breaker when a probe
// succeeds.
type breaker struct {
	after    int32 // failures in a row that open it
	every    time.Duration
	stop     <-chan struct{}
	spawn    func(func()) bool
	change   func(open bool, err error)
	failures atomic.Int32 // number of failures in a row, or opened
}

const opened = -1

func (b *breaker) open() bool { return b.failures.Load() == opened }

func (b *breaker) succeeded() {
	// A load is cheap. A store would move the cache line from core to core.
	if n := b.failures.Load(); n > 0 {
		b.failures.CompareAndSwap(n, 0)
	}
}

func (b *breaker) failed(err error, probe func() error) {
	for {
		n := b.failures.Load()
		switch {
		case n == opened:
			return
		case n+1 < b.after:
			if b.failures.CompareAndSwap(n, n+1) {
				return
			}
		case b.failures.CompareAndSwap(n, opened):
			b.change(true, err)
			b.spawn(func() { b.recover(probe) })
			return
		}
	}
}

func (b *breaker) recover(probe func() error) {
	t := time.NewTicker(b.every)
	defer t.Stop()
	for {
		select {
		case <-b.stop:
			return
		case <-t.C:
		}
		if probe() == nil {
			b.failures.Store(0)
			b.change(false, nil)
			return
		}
	}
}

// change counts the parts whose breaker is open. The mode changes with the first
// and with the last of them.
func (l *Limiter) change(open bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock() // after OnMode, so that its calls come in order
	was := l.open
	if open {
		l.open++
	} else {
		l.open--
	}
	switch {
	case l.onMode == nil:
	case was == 0:
		l.onMode(Fallback, err)
	case l.open == 0:
		l.onMode(Shared, nil)
	}
}
