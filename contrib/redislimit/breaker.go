package redislimit

import (
	"sync/atomic"
	"time"
)

// A breaker stops asking a Redis that has failed a few times in a row. While
// it is open, one goroutine probes, and closes it again.
type breaker struct {
	after    int32 // failures in a row that open it
	every    time.Duration
	stop     <-chan struct{}
	spawn    func(func()) bool
	change   func(open bool, err error)
	failures atomic.Int32 // in a row; or opened
}

const opened = -1

func (b *breaker) open() bool { return b.failures.Load() == opened }

func (b *breaker) succeeded() {
	// A load is cheap where a store would pass the cache line around.
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
