package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

var revocationScenarios = []scenario{
	{id: "F-33, F-39", name: "keys revoked and senders disabled under load", server: true, run: keysAreRevoked},
	{id: "F-34", name: "keys revoked and nobody told", server: true, run: notificationsAreLost},
	{id: "F-35", name: "keys revoked during their lookup", server: true, run: lookupsAreLate},
	{id: "F-36, F-37", name: "keys that expire or are rotated", server: true, run: keysEnd},
	{id: "F-38", name: "key that was refused before it was created", server: true, run: keyIsProbed},
}

// keyFleet starts three instances that follow the changes in one PostgreSQL.
func (e *env) keyFleet(cfg config) (*postgres, []*instance) {
	p := e.postgres()
	cfg.Postgres, cfg.Watch = p.url(), true
	var fleet []*instance
	for range 3 {
		fleet = append(fleet, e.start(cfg))
	}
	return p, fleet
}

// forgets returns how many changes all instances were told of.
func forgets(fleet []*instance) (n int64) {
	for _, i := range fleet {
		n += i.feed.forgets.Load()
	}
	return n
}

// purges returns how often all instances were told that anything may have changed.
func purges(fleet []*instance) (n int64) {
	for _, i := range fleet {
		n += i.feed.purges.Load()
	}
	return n
}

// An ending is a change after which keys must be refused.
type ending struct {
	keys             []senderauth.Credentials
	end              func() error
	began, committed time.Time // end may set committed
}

// endUnderLoad ends keys while all instances serve them from their caches, one ending after
// the other. A key is served until then, and refused after within. An instance that has
// refused it never serves it again.
func (e *env) endUnderLoad(fleet []*instance, endings []*ending, within time.Duration) {
	perSecond := pick(e, 200, 2000)
	e.held("%d requests/s to %d instances, %d keys or senders", perSecond, len(fleet), len(endings))
	of := map[senderauth.Credentials]*ending{}
	var answers []answer
	for _, g := range endings {
		for _, c := range g.keys {
			of[c] = g
		}
		all := func(n int) request {
			return request{to: fleet[n%len(fleet)], credentials: g.keys[n/len(fleet)%len(g.keys)], kind: "key"}
		}
		e.warm(len(fleet)*len(g.keys), all)
		l := e.startLoad(perSecond, all)
		e.sleep(50 * time.Millisecond)
		g.began = time.Now()
		e.check(g.end())
		if g.committed.IsZero() {
			g.committed = time.Now()
		}
		e.until("all instances refuse the keys", func() bool {
			asked := e.burst(len(fleet)*len(g.keys), all)
			answers = append(answers, asked...)
			return len(only(asked, withStatus(401))) == len(asked)
		})
		e.sleep(50 * time.Millisecond)
		answers = append(answers, l.stop()...)
	}
	e.judgeEndings(answers, of, within)
}

// judgeEndings judges all answers to keys that ended, and how long after their end they
// were served at most.
func (e *env) judgeEndings(answers []answer, of map[senderauth.Credentials]*ending, within time.Duration) {
	type place struct {
		*instance
		key senderauth.Credentials
	}
	refused, late := map[place]time.Time{}, map[place]time.Duration{}
	for _, a := range answers {
		at := place{a.to, a.credentials}
		if first, ok := refused[at]; a.status == 401 && (!ok || a.end().Before(first)) {
			refused[at] = a.end()
		}
		if a.status == 200 {
			late[at] = max(late[at], a.at.Sub(of[a.credentials].committed))
		}
	}
	e.judge(answers, func(a answer) string {
		first, ok := refused[place{a.to, a.credentials}]
		switch {
		case a.status == 200 && ok && a.at.After(first):
			return "200 after a refusal"
		case a.status == 401 && a.end().Before(of[a.credentials].began):
			return "refused before its end"
		case a.status != 200 && a.status != 401:
			return "neither 200 nor 401"
		}
		return ""
	})
	var lags []answer
	for _, d := range late {
		lags = append(lags, answer{took: d})
	}
	e.within(within, slowest(lags), "from the end of a key to its last 200")
	e.lose("keys served after their end for %v in the median, %v at most",
		max(0, quantile(lags, 0.5)).Round(100*time.Microsecond), max(0, slowest(lags)).Round(100*time.Microsecond))
}

// revocations returns an ending for each key, and one for each sender's keys together.
func revocations(e *env, p *postgres, keys, senders int) (endings []*ending) {
	for _, k := range p.issue(e, keys, 1) {
		endings = append(endings, &ending{keys: []senderauth.Credentials{k.Credentials}, end: func() error { return p.admin.Revoke(e, k.Key.ID) }})
	}
	const each = 10
	for ks := range slices.Chunk(p.issue(e, senders, each), each) {
		g := &ending{end: func() error { return p.admin.DisableSender(e, ks[0].Key.SenderID) }}
		for _, k := range ks {
			g.keys = append(g.keys, k.Credentials)
		}
		endings = append(endings, g)
	}
	return endings
}

// Every instance is told of a change and refuses the keys within a second.
func keysAreRevoked(e *env) {
	p, fleet := e.keyFleet(config{TTL: time.Hour})
	keys, senders := pick(e, 5, 100), pick(e, 2, 10)
	endings := revocations(e, p, keys, senders)
	e.endUnderLoad(fleet, endings, time.Second+2*e.delay)
	e.injected(keys, "%d keys revoked, %d senders of 10 keys disabled", keys, senders)
	e.want(int(forgets(fleet)) >= len(fleet)*len(endings), "%d instances were told of %d changes", forgets(fleet), len(endings))
}

// The database tells nobody of changes. The TTL bounds how long keys live on.
func notificationsAreLost(e *env) {
	ttl := pick(e, time.Second, 10*time.Second)
	p, fleet := e.keyFleet(config{TTL: ttl})
	endings := revocations(e, p, pick(e, 1, 5), 1)
	p.tell(e, fleet...)
	p.fallSilent(e)
	told := forgets(fleet)
	e.endUnderLoad(fleet, endings, ttl+4*e.delay+jitter)
	e.want(forgets(fleet) == told, "the instances were told of %d changes", forgets(fleet)-told)
	e.injected(len(endings), "%d changes without a notification, TTL %v", len(endings), ttl)
}

// fallSilent makes the database tell nobody of changes.
func (p *postgres) fallSilent(e *env) {
	for _, table := range []string{"sqlkeys_keys", "sqlkeys_senders"} {
		_, err := p.db.Exec(`ALTER TABLE ` + table + ` DISABLE TRIGGER sqlkeys_changed`)
		e.check(err)
	}
}

// tell waits until instances have been told of all changes so far.
func (p *postgres) tell(e *env, fleet ...*instance) {
	last, err := p.admin.CreateSender(e, sqlkeys.NewSender{})
	e.check(err)
	for _, i := range fleet {
		e.until("the instance is told of all changes", func() bool { return i.feed.last.Load() == last.ID })
	}
}

// A lookup reads a key and is held up. The key is revoked, and the cache is told, before
// the lookup ends. Its answer is not remembered.
func lookupsAreLate(e *env) {
	const batch = 50
	var read atomic.Int64 // lookups that have read a good key
	var mu sync.Mutex
	answered := map[string]time.Time{} // by key: when a lookup that had read a good one ended
	slow := func(store senderauth.Validator) senderauth.Validator {
		return senderauth.ValidatorFunc(func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			s, err := store.Validate(ctx, c)
			if err == nil {
				read.Add(1)
				time.Sleep(rand.N(200 * time.Millisecond))
				mu.Lock()
				defer mu.Unlock()
				answered[c.APIKey] = time.Now()
			}
			return s, err
		})
	}
	p := e.postgres()
	i := e.start(config{Postgres: p.url(), Watch: true, TTL: time.Hour, MaxLookups: 2 * batch, Timeout: patience, Around: slow})
	rounds, late := pick(e, 4, 200), 0
	e.held("%d lookups of up to 200 ms, %d at once", rounds*batch, batch)
	for range rounds {
		keys := p.issue(e, batch, 1)
		p.tell(e, i)
		ask := func(n int) request { return request{to: i, credentials: keys[n].Credentials, kind: "key"} }
		first := make(chan []answer)
		some := read.Load() + batch/5
		go func() { first <- e.burst(batch, ask) }()
		e.until("some lookups have read their keys", func() bool { return read.Load() >= some })
		committed := map[string]time.Time{}
		for _, k := range keys {
			e.check(p.admin.Revoke(e, k.Key.ID))
			committed[k.Credentials.APIKey] = time.Now()
		}
		p.tell(e, i)
		e.judge(e.burst(batch, ask), wants(401)) // they do not wait for the old lookups
		e.judge(<-first, func(a answer) string {
			if a.status != 200 && a.status != 401 {
				return "neither 200 nor 401"
			}
			return ""
		})
		e.judge(e.burst(batch, ask), wants(401))
		mu.Lock()
		for key, at := range answered {
			if at.After(committed[key]) {
				late++
			}
		}
		clear(answered)
		mu.Unlock()
	}
	e.injected(late, "%d lookups ended with a key that had been revoked", late)
}

// Keys expire, and keys are rotated, while they are cached. Both keys of a rotation are
// served during its grace period, and no key at or after its end.
func keysEnd(e *env) {
	const each = 10
	life := pick(e, 2*time.Second, 20*time.Second)
	p, fleet := e.keyFleet(config{TTL: time.Hour})
	ends := map[senderauth.Credentials]time.Time{} // none for new keys
	var keys []senderauth.Credentials
	for _, k := range p.issue(e, each, 1) {
		made, err := p.admin.Rotate(e, k.Key.ID, sqlkeys.Rotation{Grace: life})
		e.check(err)
		old, err := p.admin.Key(e, k.Key.ID)
		e.check(err)
		expiring, err := p.admin.Issue(e, sqlkeys.NewKey{SenderID: k.Key.SenderID, ExpiresAt: time.Now().Add(life)})
		e.check(err)
		ends[k.Credentials], ends[expiring.Credentials] = old.GraceUntil, expiring.Key.ExpiresAt
		keys = append(keys, k.Credentials, expiring.Credentials, made.Credentials)
	}
	p.tell(e, fleet...)
	perSecond := pick(e, 300, 1000)
	e.held("%d requests/s to %d instances, %d keys", perSecond, len(fleet), len(keys))
	l := e.startLoad(perSecond, func(n int) request {
		return request{to: fleet[n%len(fleet)], credentials: keys[n/len(fleet)%len(keys)], kind: []string{"rotated", "expiring", "new"}[n/len(fleet)%3]}
	})
	e.sleep(life + time.Second)
	answers := l.stop()
	e.judge(answers, func(a answer) string {
		switch end := ends[a.credentials]; {
		case end.IsZero() || a.end().Before(end):
			return wants(200)(a)
		case !a.at.Before(end):
			return wants(401)(a)
		case a.status != 200 && a.status != 401:
			return "neither 200 nor 401"
		}
		return ""
	})
	for _, kind := range []string{"rotated", "expiring"} {
		of := only(answers, of(kind))
		served := len(only(of, withStatus(200)))
		e.want(served > 0, "no %s key was served", kind)
		e.injected(len(of)-served, "%d %s keys ended %v after they were issued", each, kind, life)
	}
	lookups := uint64(0)
	for _, i := range fleet {
		lookups += i.cache.Stats().Lookups
	}
	e.want(lookups < uint64(len(answers)/2), "%d lookups of %d requests: the keys were not cached", lookups, len(answers))
}

// A stranger asks for a key before it is created. An instance that is told of it serves it
// at once, and one that is not serves it when its rejection has been forgotten.
func keyIsProbed(e *env) {
	probes, rejected := pick(e, 100, 1000), pick(e, time.Second, 5*time.Second)
	p := e.postgres()
	told := e.start(config{Postgres: p.url(), Watch: true, RejectedTTL: time.Hour})
	deaf := e.start(config{Postgres: p.url(), RejectedTTL: rejected})
	rounds, refused := pick(e, 1, 5), 0
	e.held("%d probes of each of %d keys at 2 instances", probes, rounds)
	for range rounds {
		c := senderauth.Credentials{SenderID: uuid.NewString(), APIKey: uuid.NewString()}
		ask := func(i *instance) func(int) request {
			return func(int) request { return request{to: i, credentials: c, kind: "probe"} }
		}
		before := told.cache.Stats()
		for _, i := range []*instance{told, deaf} {
			e.judge(append([]answer{e.ask(ask(i)(0))}, e.burst(probes-1, ask(i))...), wants(401))
		}
		after := told.cache.Stats()
		e.want(after.Lookups-before.Lookups == 1, "%d lookups of %d probes", after.Lookups-before.Lookups, probes)
		refused += int(after.RejectedHits - before.RejectedHits)
		_, err := p.admin.Adopt(e, c)
		e.check(err)
		created := time.Now()
		for _, one := range []struct {
			*instance
			within time.Duration
		}{{told, time.Second + 4*e.delay}, {deaf, rejected + 4*e.delay + jitter}} {
			e.until("the new key is served", func() bool {
				a := e.ask(ask(one.instance)(0))
				e.judge([]answer{a}, func(a answer) string {
					if a.status != 200 && a.status != 401 {
						return "neither 200 nor 401"
					}
					return ""
				})
				return a.status == 200
			})
			e.within(one.within, time.Since(created), "from the creation of the key to its first 200")
		}
	}
	e.injected(refused, "%d probes refused by the cache", refused)
}
