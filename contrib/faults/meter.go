package main

import (
	"bytes"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// A memoryMeter finds the most memory that the process has taken from the system since
// its start. The load generator is in it, too. It also finds how long the process stood
// still at most, because other programs had the processors or it was overloaded itself.
type memoryMeter struct {
	start, most int64
	stalled     time.Duration
	quit        chan struct{}
	ended       chan struct{}
}

func measureMemory() *memoryMeter {
	debug.FreeOSMemory()
	m := &memoryMeter{start: memoryInUse(), quit: make(chan struct{}), ended: make(chan struct{})}
	m.most = m.start
	go func() {
		defer close(m.ended)
		const every = 50 * time.Millisecond
		for {
			m.most = max(m.most, memoryInUse())
			slept := time.Now()
			select {
			case <-m.quit:
				return
			case <-time.After(every):
				m.stalled = max(m.stalled, time.Since(slept)-every)
			}
		}
	}()
	return m
}

// stop returns how many bytes the process took above its start.
func (m *memoryMeter) stop() int64 {
	close(m.quit)
	<-m.ended
	return m.most - m.start
}

// memoryInUse returns the bytes that the runtime has mapped and not given back.
func memoryInUse() int64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return int64(samples[0].Value.Uint64() - samples[1].Value.Uint64())
}

// extraGoroutines waits until no more goroutines run than before, and returns how many
// more there are if that does not happen.
func extraGoroutines(before int) int {
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		extra := runtime.NumGoroutine() - before
		if extra <= 0 {
			return 0
		}
		if time.Now().After(end) {
			return extra
		}
	}
}

// A lockedBuffer is a buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
