package main

import (
	"context"
	"sync/atomic"
	"time"
)

var postgresScenarios = []scenario{
	{id: "F-10", name: "restart of PostgreSQL", server: true, run: postgresRestarts},
}

// PostgreSQL restarts under load. Cached pairs are served throughout. Others are refused
// with 503 while it is down, never with 401, and are served soon after it is back.
func postgresRestarts(e *env) {
	const connections = 8
	p := e.postgres()
	down, after := pick(e, time.Second, 5*time.Second), pick(e, 2*time.Second, 10*time.Second)
	perSecond := pick(e, 100, 500)
	cached := p.issue(e, 10, 10)
	once := p.issue(e, 1, perSecond/10*int((2*after+down)/time.Second+30))
	i := e.start(config{Postgres: p.url(), Connections: connections, Watch: true})
	e.burst(len(cached), func(n int) request { return request{to: i, credentials: cached[n].Credentials, kind: "cached"} })
	e.held("%d requests/s, 90 %% cached", perSecond)
	opened := sampleMost(e, func() int64 { return int64(i.db.Stats().OpenConnections) })

	var fresh atomic.Int64
	l := e.startLoad(perSecond, func(n int) request {
		if n%10 == 0 {
			return request{to: i, credentials: once[fresh.Add(1)].Credentials, kind: "uncached"}
		}
		return request{to: i, credentials: cached[n%len(cached)].Credentials, kind: "cached"}
	})
	e.sleep(after)
	stopped := time.Now()
	e.check(p.Stop())
	refusedPings := 0
	for time.Since(stopped) < down {
		if !p.accepts(e) {
			refusedPings++
		}
		e.sleep(50 * time.Millisecond)
	}
	e.check(p.Start())
	back := time.Now()
	e.sleep(after)
	answers := l.stop()

	e.injected(refusedPings, "1 fast restart, down for %v", back.Sub(stopped).Round(100*time.Millisecond))
	failed := only(answers, func(a answer) bool { return a.status == 503 })
	e.judge(answers, func(a answer) string {
		switch {
		case a.status == 200:
			return ""
		case a.kind == "cached":
			return "not 200"
		case a.status != 503 || a.retryAfter == "":
			return "neither 200 nor 503 with Retry-After"
		case a.end().Before(stopped):
			return "503 before the fault"
		}
		return ""
	})
	e.want(opened() <= connections, "%d connections, more than %d", opened(), connections)
	e.want(len(failed) > 0, "no lookup failed while PostgreSQL was down")
	if len(failed) > 0 {
		last := failed[len(failed)-1]
		e.within(2*time.Second+4*e.delay, last.at.Sub(back), "last 503 after the return")
		e.lose("%d of %d uncached requests answered 503, the last one sent %v after the return", len(failed), len(only(answers, of("uncached"))),
			max(0, last.at.Sub(back)).Round(time.Millisecond))
	}
	e.until("uncached pairs are served", func() bool {
		return e.ask(request{to: i, credentials: once[fresh.Add(1)].Credentials}).status == 200
	})
}

// sampleMost samples f every few milliseconds until the function that it returns is
// called, which returns the most.
func sampleMost(e *env, f func() int64) func() int64 {
	ctx, cancel := context.WithCancel(e)
	ended := make(chan int64, 1)
	go func() {
		most := f()
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
				most = max(most, f())
			}
		}
		ended <- most
	}()
	return func() int64 {
		cancel()
		most := <-ended
		ended <- most
		return most
	}
}
