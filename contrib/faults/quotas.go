package main

import (
	"context"
	"net/http"
	"runtime"
	"syscall"
	"time"

	"github.com/senderauth/senderauth"
)

var quotaScenarios = []scenario{
	{id: "F-53, F-54, F-55", name: "more senders than the limiter is meant for", run: sendersFlood},
	{id: "F-59, F-60", name: "load at a limit, and fifty times above it", run: limitIsHeld},
}

// More senders come than the limiter is to remember. All new ones are served, no bucket
// that owes is forgotten, and the memory comes back when the buckets are full again.
func sendersFlood(e *env) {
	senders, mark := pick(e, 20_000, 1_000_000), pick(e, 5_000, 100_000)
	slow := []senderauth.Charge{{Name: "default", Limit: senderauth.Limit{Requests: 1, Per: time.Hour, Burst: 1}, Cost: 1}}
	fast := []senderauth.Charge{{Name: "default", Limit: senderauth.Limit{Requests: 1, Per: time.Second, Burst: 1}, Cost: 1}}
	e.held("%d senders, one request each, then a tenth of them again", senders)
	var ids []string
	for n := range senders + senders/2 {
		ids = append(ids, good(n).SenderID)
	}
	l := senderauth.NewMemoryLimiter(senderauth.MemoryLimiterConfig{Buckets: mark})
	// take counts the answers 200 and 429, and judges how long the calls took: all but a
	// few, which another program may have held up.
	take := func(ids []string, charges []senderauth.Charge) map[int]int {
		status := map[int]int{}
		calls := make([]answer, len(ids))
		for n, id := range ids {
			start := time.Now()
			b, err := l.Take(context.Background(), id, charges)
			calls[n].took = time.Since(start)
			e.check(err)
			if b[0].Refused {
				status[http.StatusTooManyRequests]++
			} else {
				status[http.StatusOK]++
			}
		}
		e.within(5*time.Millisecond, quantile(calls, 0.9999), "longest of 9,999 calls in 10,000")
		return status
	}
	before := liveBytes()
	e.count(take(ids[:senders], slow), http.StatusOK)
	full := liveBytes()
	e.count(take(ids[:senders/10], slow), http.StatusTooManyRequests)
	e.injected(l.Len()-mark, "%d buckets that owe, and room for %d", l.Len(), mark)
	perSender := (full - before) / int64(senders)
	e.want(perSender <= 240, "%d bytes a sender, more than 240", perSender)

	// The same senders change to a limit whose buckets are full a second later. The limiter
	// then forgets the full ones, some with each call.
	take(ids[:senders], fast)
	e.sleep(1100 * time.Millisecond)
	e.count(take(ids[senders:], fast), http.StatusOK)
	e.sleep(1100 * time.Millisecond)
	for range 4 * senders / mark {
		take(ids[senders:senders+mark/2], fast)
	}
	after := liveBytes()
	e.logf("%d bytes a sender; %d buckets and %d KiB left", perSender, l.Len(), (after-before)>>10)
	e.want(l.Len() <= mark, "%d buckets left, more than %d", l.Len(), mark)
	e.want(after-before <= (full-before)/10+240*int64(mark), "%d KiB left of %d", (after-before)>>10, (full-before)>>10)
	e.lose("%d bytes a sender", perSender)
	runtime.KeepAlive(l)
}

// liveBytes returns the size of all objects in use.
func liveBytes() int64 {
	runtime.GC()
	runtime.GC() // pools empty at the second collection
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A sender that keeps to its limit is never refused. One that sends fifty times as much
// gets its limit, no more and no less.
func limitIsHeld(e *env) {
	const rate = 100
	length := pick(e, 2*time.Second, time.Minute)
	// The burst makes up for the time in which another program holds up this one.
	kept := senderauth.Limit{Requests: rate, Per: time.Second, Burst: pick(e, 20*rate, rate)}
	i := e.start(config{Validator: &keyring{senders: 1}, Limit: kept})
	l := e.startLoad(rate, func(int) request { return request{to: i, credentials: good(0), kind: "at the limit"} })
	e.sleep(length)
	e.judge(l.stop(), wants(200))

	exceeded := senderauth.Limit{Requests: rate, Per: time.Second}
	j := e.start(config{Validator: &keyring{senders: 1}, Limit: exceeded})
	began := time.Now()
	f := e.startFlood(j.server.Handler, 50*rate, func(int) senderauth.Credentials { return good(0) })
	e.sleep(length)
	held := time.Since(began)
	answers := f.stop()
	allowed := float64(exceeded.EffectiveBurst()) + rate*time.Since(began).Seconds() + 1
	e.held("%d requests/s against a limit of %d, then %d", rate, rate, 50*rate)
	e.injected(answers[429], "%d requests above the limit", answers[429])
	e.count(answers, 200, 429)
	e.want(float64(answers[200]) <= allowed, "%d admitted, more than %.0f", answers[200], allowed)
	if e.long {
		least := 0.999 * (float64(exceeded.EffectiveBurst()) + rate*held.Seconds())
		e.want(float64(answers[200]) >= least, "%d admitted, fewer than %.0f", answers[200], least)
	}
	e.within(3*time.Microsecond, e.refusalCost(), "processor time of a refusal")
}

// refusalCost returns the processor time of a 429, without a network and an observer.
func (e *env) refusalCost() time.Duration {
	cache, err := senderauth.NewCache(&keyring{senders: 1}, senderauth.CacheConfig{})
	e.check(err)
	guard, err := senderauth.New(cache, senderauth.Config{Limits: map[string]senderauth.Limit{"default": {Requests: 1, Per: time.Hour}}})
	e.check(err)
	h, r := guard.Wrap(http.NotFoundHandler()), newRequest(good(0))
	serve(h, r)
	refusals := pick(e, 5_000, 50_000)
	best := time.Hour
	for range 5 {
		statuses := map[int]int{}
		start := cpuTime()
		for range refusals {
			statuses[serve(h, r)]++
		}
		best = min(best, (cpuTime()-start)/time.Duration(refusals))
		e.count(statuses, http.StatusTooManyRequests)
	}
	return best
}

// cpuTime returns the processor time of this process.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
