package main

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

var postgresScenarios = []scenario{
	{id: "F-10", name: "restart of PostgreSQL", server: true, run: postgresRestarts},
	{id: "F-11", name: "feed of changes killed while keys are revoked", server: true, run: feedIsKilled},
	{id: "F-12", name: "PostgreSQL a second away, pool of 4", server: true, run: poolIsExhausted},
	{id: "F-14", name: "key table locked by a migration", server: true, run: tableIsLocked},
	{id: "F-15", name: "schema missing, too new, and lost while running", server: true, run: schemaIsMissing},
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
	e.warm(len(cached), func(n int) request { return request{to: i, credentials: cached[n].Credentials, kind: "cached"} })
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
	e.judgeRestart(answers, stopped, back, len(cached)/connections)
	e.want(opened() <= connections, "%d connections, more than %d", opened(), connections)
	e.untilServed(request{to: i, credentials: once[fresh.Add(1)].Credentials})
}

// judgeRestart judges the answers of a load during which PostgreSQL was away, and so many
// pairs were cached for each connection.
func (e *env) judgeRestart(answers []answer, stopped, back time.Time, cached int) {
	failed := only(answers, withStatus(503))
	// When the feed is back it purges the cache, and all cached pairs are looked up at once.
	// A round trip for each of them on few new connections may take longer than the half of
	// LookupTimeout for which lookups queue.
	lookups := 2 * e.delay * time.Duration(6+cached)
	crowded := lookups > time.Second
	e.judge(answers, func(a answer) string {
		switch {
		case a.status == 200:
			return ""
		case a.kind == "cached" && !(crowded && a.at.After(back) && a.status == 503):
			return "not 200"
		case a.status != 503 || a.retryAfter == "":
			return "neither 200 nor 503 with Retry-After"
		case a.end().Before(stopped):
			return "503 before the fault"
		}
		return ""
	})
	e.want(len(failed) > 0, "no lookup failed while PostgreSQL was down")
	if len(failed) > 0 {
		last := failed[len(failed)-1]
		e.within(2*time.Second+lookups, last.at.Sub(back), "last 503 after the return")
		if n := len(only(failed, of("cached"))); n > 0 {
			e.lose("%d requests with pairs that were cached before the return", n)
		}
		e.lose("%d of %d uncached requests answered 503, the last one sent %v after the return", len(only(failed, of("uncached"))), len(only(answers, of("uncached"))),
			max(0, last.at.Sub(back)).Round(time.Millisecond))
	}
}

// The connections that listen for changes are killed, and a key is revoked before they are
// back. The instances then refuse it although nobody told them.
func feedIsKilled(e *env) {
	p, fleet := e.keyFleet(config{TTL: time.Hour})
	killed, missed := 0, int64(0)
	var gaps []answer
	var endings []*ending
	for _, k := range p.issue(e, pick(e, 3, 30), 1) {
		g := &ending{keys: []senderauth.Credentials{k.Credentials}}
		endings = append(endings, g)
		g.end = func() error {
			told, back := forgets(fleet), purges(fleet)+int64(len(fleet))
			began := time.Now()
			var n int
			// The last query of a feed is its first one, or the ping that follows every 5 seconds.
			err := p.db.QueryRow(`SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' OR query = '-- ping'`).Scan(&n)
			killed += n
			err = errors.Join(err, p.admin.Revoke(e, k.Key.ID))
			g.committed = time.Now()
			e.until("the instances listen again", func() bool { return purges(fleet) >= back })
			gaps = append(gaps, answer{took: time.Since(began)})
			missed += int64(len(fleet)) - (forgets(fleet) - told)
			return err
		}
	}
	e.endUnderLoad(fleet, endings, 2*time.Second+8*e.delay)
	e.within(2*time.Second+8*e.delay, slowest(gaps), "until the instances listen again")
	e.injected(killed, "%d connections killed", killed)
	e.injected(int(missed), "%d notifications missed", missed)
}

// PostgreSQL is half a second away, each way, and 400 requests miss the cache at once. All
// get an answer in time, most of them 503, and cached pairs are served as before.
func poolIsExhausted(e *env) {
	const connections, lookups, timeout, misses = 4, 64, 2 * time.Second, 400
	p := e.postgres()
	keys := p.issue(e, misses+10, 1)
	cached, uncached := keys[misses:], keys[:misses]
	i := e.start(config{Postgres: p.url(), Connections: connections, Watch: true, Timeout: timeout, MaxLookups: lookups})
	next := func(n int) request {
		return request{to: i, credentials: cached[n%len(cached)].Credentials, kind: "cached"}
	}
	e.warm(len(cached), next)
	calm := measureMemory()
	e.judge(e.burst(misses, next), wants(200))
	baseline := calm.stop()
	inFlight := sampleMost(e, func() int64 { return int64(i.cache.Stats().InFlight) })
	opened := sampleMost(e, func() int64 { return int64(i.db.Stats().OpenConnections) })
	p.link.delay.Add(int64(500 * time.Millisecond))
	waits := i.db.Stats().WaitCount
	memory := measureMemory()
	e.held("%d misses at once, %d cached requests/s", misses, pick(e, 100, 500))
	l := e.startLoad(pick(e, 100, 500), next)
	answers := e.burst(misses, func(n int) request { return request{to: i, credentials: uncached[n].Credentials, kind: "uncached"} })
	grown := memory.stop()
	during := l.stop()
	e.injected(int(i.db.Stats().WaitCount-waits), "%d lookups waited for one of %d connections", i.db.Stats().WaitCount-waits, connections)
	e.judge(during, wants(200))
	e.judge(answers, servedOr503)
	e.within(timeout+100*time.Millisecond+jitter, slowest(answers), "slowest answer")
	e.want(grown <= baseline+32<<20, "%d MiB more memory than without the fault, more than 32", (grown-baseline)>>20)
	e.want(inFlight() <= lookups, "%d lookups in flight, more than %d", inFlight(), lookups)
	e.want(opened() <= connections, "%d connections, more than %d", opened(), connections)
	e.lose("%d of %d misses answered 503", len(only(answers, withStatus(503))), misses)
	p.link.delay.Store(int64(e.delay))
	e.untilServed(request{to: i, credentials: uncached[0].Credentials})
}

// Somebody changes the table of the keys in a transaction that stays open. Cached pairs
// are served; others get 503 in time, and no lookups pile up.
func tableIsLocked(e *env) {
	const lookups, misses = 16, 200
	timeout := 500*time.Millisecond + 10*e.delay
	p := e.postgres()
	keys := p.issue(e, misses+10, 1)
	cached, uncached := keys[misses:], keys[:misses]
	i := e.start(config{Postgres: p.url(), Watch: true, Timeout: timeout, MaxLookups: lookups})
	next := func(n int) request {
		return request{to: i, credentials: cached[n%len(cached)].Credentials, kind: "cached"}
	}
	e.warm(len(cached), next)
	tx, err := p.db.Begin()
	e.check(err)
	defer tx.Rollback()
	_, err = tx.Exec(`ALTER TABLE sqlkeys_keys ADD COLUMN later int`)
	e.check(err)
	locked := time.Now()
	waiting := sampleMost(e, func() (n int64) {
		e.want(p.db.QueryRow(`SELECT count(*) FROM pg_locks WHERE NOT granted`).Scan(&n) == nil, "cannot read the locks")
		return n
	})
	inFlight := sampleMost(e, func() int64 { return int64(i.cache.Stats().InFlight) })
	e.held("%d misses at once, %d cached requests/s", misses, pick(e, 100, 500))
	l := e.startLoad(pick(e, 100, 500), next)
	answers := e.burst(misses, func(n int) request { return request{to: i, credentials: uncached[n].Credentials, kind: "uncached"} })
	e.sleep(pick(e, 0, 10*time.Second-time.Since(locked)))
	during := l.stop()
	e.injected(int(waiting()), "table locked for %v, up to %d lookups waited for it", time.Since(locked).Round(100*time.Millisecond), waiting())
	e.judge(during, wants(200))
	e.judge(answers, func(a answer) string {
		if a.retryAfter == "" {
			return "no Retry-After"
		}
		return wants(503)(a)
	})
	e.within(timeout+200*time.Millisecond, slowest(answers), "slowest 503")
	e.want(inFlight() <= lookups, "%d lookups in flight, more than %d", inFlight(), lookups)
	e.lose("%d misses answered 503 within %v", misses, slowest(answers).Round(time.Millisecond))
	e.check(tx.Commit())
	committed := time.Now()
	e.untilServed(request{to: i, credentials: uncached[0].Credentials})
	e.within(2*time.Second+4*e.delay, time.Since(committed), "from the end of the lock to the first 200")
}

// No instance starts on a schema that it does not know. One that runs when the table is
// lost authenticates nobody, and says that it cannot, until the table is back.
func schemaIsMissing(e *env) {
	p := e.postgres()
	keys := p.issue(e, 20, 1)
	i := e.start(config{Postgres: p.url(), TTL: time.Hour})
	e.held("40 requests")
	cannotStart := func(change, undo string, want error) {
		_, err := p.db.Exec(change)
		e.check(err)
		began := time.Now()
		_, err = newInstance(e, config{Postgres: p.url()})
		e.want(errors.Is(err, want), "%v instead of %v", err, want)
		e.within(5*time.Second, time.Since(began), "until an instance reports the schema")
		_, err = p.db.Exec(undo)
		e.check(err)
		e.injected(1, "%s", change)
	}
	cannotStart(`ALTER TABLE sqlkeys_schema RENAME TO elsewhere`, `ALTER TABLE elsewhere RENAME TO sqlkeys_schema`, sqlkeys.ErrSchemaMissing)
	cannotStart(`INSERT INTO sqlkeys_schema (version_id, is_applied) VALUES (99, true)`, `DELETE FROM sqlkeys_schema WHERE version_id = 99`, sqlkeys.ErrSchemaNewer)

	_, err := p.db.Exec(`ALTER TABLE sqlkeys_keys RENAME TO elsewhere`)
	e.check(err)
	answers := e.burst(2*len(keys), func(n int) request {
		c := keys[n/2].Credentials
		if n%2 > 0 {
			c.APIKey = uuid.NewString()
		}
		return request{to: i, credentials: c, kind: "without the table"}
	})
	e.judge(answers, wants(503))
	e.injected(len(only(answers, withStatus(503))), "table of the keys renamed")
	_, err = p.db.Exec(`ALTER TABLE elsewhere RENAME TO sqlkeys_keys`)
	e.check(err)
	e.untilServed(request{to: i, credentials: keys[0].Credentials})
	e.lose("%d requests answered 503", len(answers))
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
