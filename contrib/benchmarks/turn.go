package main

import (
	"net/http"
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A turn is one contender's part of a round for one scenario: requests of a demand, sent
// by one goroutine for each processor.
type turn struct {
	Scenario   string
	Processors int
	Least      time.Duration
}

// A score is the result of a turn.
type score struct {
	Requests int
	Elapsed  time.Duration
	CPU      time.Duration // processor time of the process
	Bytes    uint64        // allocated for each request
	Objects  uint64        // allocated for each request
	Wrong    int           // responses with an unexpected status
}

// batch is the number of requests that a goroutine sends between two checks of the clock.
const batch = 64

// run takes the turn. The time of a contender includes the collection of its garbage, in
// whole collections: a turn starts after a collection and ends with the first one that
// finishes after t.Least. If none does within three times t.Least, the score ends with
// the last collection before that, or with the turn if there was none.
func (t turn) run(c *contender, h http.Handler, d demand, want int) score {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(t.Processors))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)

	requests := make([]paddedCount, t.Processors)
	var wrong atomic.Int64
	var done atomic.Bool
	var all sync.WaitGroup
	send := func(g int, more func() bool) {
		a := newCaller(c)
		i := g * (d.len() / t.Processors) % d.len()
		other := 0
		for more() {
			for range batch {
				id, secret := d.at(i)
				if a.call(h, id, secret) != want {
					other++
				}
				if i++; i == d.len() {
					i = 0
				}
			}
			requests[g].Add(batch)
		}
		wrong.Add(int64(other))
	}
	watch := newStopwatch(t.Least, func() (n int64) {
		for i := range requests {
			n += requests[i].Load()
		}
		return n
	})
	for g := 1; g < t.Processors; g++ {
		all.Go(func() { send(g, func() bool { return !done.Load() }) })
	}
	send(0, watch.running)
	done.Store(true)
	all.Wait()

	runtime.ReadMemStats(&after)
	total := uint64(watch.count())
	s := score{Requests: int(watch.requests), Elapsed: watch.elapsed, CPU: watch.cpu, Wrong: int(wrong.Load())}
	s.Bytes, s.Objects = (after.TotalAlloc-before.TotalAlloc)/total, (after.Mallocs-before.Mallocs)/total
	return s
}

// A paddedCount fills two cache lines, so that counts do not share one.
type paddedCount struct {
	atomic.Int64
	_ [120]byte
}

// A stopwatch measures requests and time over whole collections.
type stopwatch struct {
	least    time.Duration
	count    func() int64
	start    time.Time
	used     time.Duration // processor time before the start
	sample   []metrics.Sample
	cycles   uint64
	requests int64 // at the end of the last collection
	elapsed  time.Duration
	cpu      time.Duration
}

func newStopwatch(least time.Duration, count func() int64) *stopwatch {
	w := &stopwatch{least: least, count: count, sample: []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}}}
	w.cycles = w.collections()
	w.start, w.used = time.Now(), cpuTime()
	return w
}

// cpuTime returns the processor time that the process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // cannot happen with these arguments
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (w *stopwatch) collections() uint64 {
	metrics.Read(w.sample)
	return w.sample[0].Value.Uint64()
}

// running updates the stopwatch and reports whether the turn goes on.
func (w *stopwatch) running() bool {
	elapsed := time.Since(w.start)
	if w.count() == 0 {
		return true
	}
	if n := w.collections(); n != w.cycles {
		w.cycles = n
		w.stop(elapsed)
		return elapsed < w.least
	}
	if elapsed < 3*w.least {
		return true
	}
	if w.requests == 0 {
		w.stop(elapsed)
	}
	return false
}

func (w *stopwatch) stop(elapsed time.Duration) {
	w.requests, w.elapsed, w.cpu = w.count(), elapsed, cpuTime()-w.used
}
