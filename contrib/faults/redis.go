package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
)

var redisScenarios = []scenario{
	{id: "F-20", name: "Redis killed", server: true, run: redisIsKilled},
	{id: "F-21", name: "Redis killed, and FailClosed", server: true, run: redisIsKilledFailClosed},
	{id: "F-22", name: "packets to Redis dropped", server: true, run: redisIsCutOff},
	{id: "F-23, F-24", name: "replica promoted, scripts and data flushed", server: true, run: redisFailsOver},
	{id: "F-27", name: "slow Redis", server: true, run: redisIsSlow},
}

// decision is the timeout of a decision: the default, or four round trips of -delay.
func (e *env) decision() time.Duration { return max(50*time.Millisecond, 8*e.delay) }

// waited reports whether the answer may have waited for the timeout of a decision, which
// is up to a tenth shorter than it says.
func (e *env) waited(a answer) bool { return a.took >= e.decision()*9/10 }

// A fleet is three instances that share a Redis. A hundred senders send to all of them.
type fleet struct {
	*env
	redis     *redisServer
	client    *redis.Client // past the link
	instances []*instance
	limit     senderauth.Limit
}

func (e *env) fleet(limit senderauth.Limit, failClosed bool) *fleet {
	const instances = 3
	f := &fleet{env: e, redis: e.redis(), limit: limit}
	f.client = redis.NewClient(&redis.Options{Addr: f.redis.Addr()})
	e.cleanup(f.client.Close)
	for range instances {
		f.instances = append(f.instances, e.start(config{
			Validator: &keyring{senders: 100}, Redis: f.redis.link.addr(), Instances: instances, Limit: limit, FailClosed: failClosed,
			RedisTimeout: e.decision(),
		}))
	}
	e.burst(len(f.instances)*8, f.next) // they open their connections
	e.until("all instances use Redis", func() bool { return f.in(redislimit.Shared) == len(f.instances) })
	return f
}

// next returns the n-th request of a load. Every tenth has a bad key.
func (f *fleet) next(n int) request {
	r := request{to: f.instances[n%len(f.instances)], credentials: good(n % 100), kind: "good"}
	if n%10 == 9 {
		r.credentials, r.kind = bad(n), "bad"
	}
	return r
}

// in returns how many instances are in a mode.
func (f *fleet) in(m redislimit.Mode) (n int) {
	for _, i := range f.instances {
		if i.mode() == m {
			n++
		}
	}
	return n
}

// served returns how often the handlers of all instances were called.
func (f *fleet) served() (n int64) {
	for _, i := range f.instances {
		n += i.served.Load()
	}
	return n
}

func (i *instance) mode() redislimit.Mode {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.modes) == 0 {
		return redislimit.Shared
	}
	return i.modes[len(i.modes)-1].mode
}

// fellBack reports whether the instance did without Redis while a request was on its way.
func (i *instance) fellBack(a answer) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	var since time.Time // zero while it uses Redis
	for _, c := range i.modes {
		switch {
		case c.mode == redislimit.Fallback:
			since = c.at
		case !since.After(a.end()) && !c.at.Before(a.at):
			return true
		default:
			since = time.Time{}
		}
	}
	return !since.IsZero() && !since.After(a.end())
}

// wrong says what is wrong with an answer of a fleet that decides by itself if it has to.
func (f *fleet) wrong(a answer) string {
	switch {
	case a.kind == "bad" && a.status != 401:
		return "not 401"
	case a.kind == "good" && a.status != 200 && a.status != 429:
		return "neither 200 nor 429"
	}
	return ""
}

// atMost judges that no sender got more than the rate and some bursts. During both, Redis
// and the shares of the instances were in use, so both refilled. A single call that times
// out, because another program holds it up, is decided by a share at any time.
func (f *fleet) atMost(bursts int, both time.Duration, answers []answer) {
	late := map[senderauth.Credentials]int{}
	first, last, admitted := map[senderauth.Credentials]time.Time{}, map[senderauth.Credentials]time.Time{}, map[senderauth.Credentials]int{}
	for _, a := range only(answers, withStatus(200)) {
		c := a.credentials
		if admitted[c]++; admitted[c] == 1 {
			first[c] = a.at
		}
		if a.end().After(last[c]) {
			last[c] = a.end()
		}
		if f.waited(a) {
			late[c]++
		}
	}
	rate := float64(f.limit.Requests) / f.limit.Per.Seconds()
	for c, n := range admitted {
		allowed := float64(bursts*f.limit.EffectiveBurst()+late[c]) + rate*(last[c].Sub(first[c])+both).Seconds()
		f.want(float64(n) <= allowed, "sender %s: %d admitted, more than %d bursts and the rate allow: %.1f", c.SenderID, n, bursts, allowed)
	}
}

// An outage is what a load saw of a Redis that was away.
type outage struct {
	began, known, ended, over time.Time // known and over: all instances know
	answers                   []answer
	served                    int64 // calls of handlers
}

// phases returns the answers before the outage, those of its first second, and those of
// its rest.
func (o *outage) phases() (baseline, first, rest []answer) {
	baseline = only(o.answers, func(a answer) bool { return a.end().Before(o.began) })
	first = only(o.answers, func(a answer) bool { return !a.at.Before(o.began) && a.at.Before(o.began.Add(time.Second)) })
	rest = only(o.answers, func(a answer) bool {
		return a.at.After(o.began.Add(time.Second)) && a.at.After(o.known) && a.end().Before(o.ended)
	})
	return baseline, first, rest
}

// outage takes Redis away and brings it back under load.
func (f *fleet) outage(perSecond int, away time.Duration, begin, end func() error) *outage {
	f.held("%d requests/s to 3 instances, a tenth with bad keys", perSecond)
	served := f.served()
	l := f.startLoad(perSecond, f.next)
	f.sleep(away)
	o := &outage{began: time.Now()}
	f.check(begin())
	f.until("all instances decide by themselves", func() bool { return f.in(redislimit.Fallback) == len(f.instances) })
	o.known = time.Now()
	f.sleep(away)
	o.ended = time.Now()
	f.check(end())
	f.until("all instances use Redis again", func() bool { return f.in(redislimit.Shared) == len(f.instances) })
	o.over = time.Now()
	f.sleep(away)
	o.answers = l.stop()
	o.served = f.served() - served
	f.logf("all instances knew of the outage after %v, and of its end after %v", o.known.Sub(o.began), o.over.Sub(o.ended))
	return o
}

// Redis is killed under load. Nobody gets a 5xx, and no sender more than its share of
// another burst. Only the first requests wait, at most for the timeout of a decision.
func redisIsKilled(e *env) {
	f := e.fleet(senderauth.Limit{Requests: 5, Per: time.Second, Burst: 30}, false)
	o := f.outage(pick(e, 150, 1000), pick(e, time.Second, 10*time.Second), f.redis.Kill, f.redis.Start)
	e.injected(1, "1 kill, away for %v", o.ended.Sub(o.began).Round(100*time.Millisecond))
	e.judge(o.answers, f.wrong)
	f.atMost(3, o.known.Sub(o.began)+o.over.Sub(o.ended), o.answers)
	during := only(o.answers, func(a answer) bool { return a.at.After(o.known) && a.end().Before(o.ended) })
	f.atMost(1, 0, during)
	e.judgeDelays(o)
}

// judgeDelays judges that decisions wait only until the instances know of the outage.
func (e *env) judgeDelays(o *outage) {
	baseline, first, rest := o.phases()
	e.within(e.decision()+jitter, quantile(first, 0.99), "p99 of the first second")
	e.within(quantile(baseline, 0.99)+time.Millisecond+jitter, quantile(rest, 0.99), "p99 of the rest of the outage")
	e.within(time.Second+e.decision(), o.known.Sub(o.began), "until no decision waits")
	paid := len(only(first, e.waited))
	e.lose("%d of %d requests waited for the timeout", paid, len(o.answers))
}

// The same with FailClosed: until Redis is back, every good request is refused with 503
// and reaches no handler. Bad keys get 401 as always.
func redisIsKilledFailClosed(e *env) {
	f := e.fleet(senderauth.Limit{Requests: 1000, Per: time.Second}, true)
	o := f.outage(pick(e, 150, 1000), pick(e, time.Second, 10*time.Second), f.redis.Kill, f.redis.Start)
	refused := only(o.answers, withStatus(503))
	e.injected(len(refused), "1 kill, away for %v", o.ended.Sub(o.began).Round(100*time.Millisecond))
	down := func(a answer) bool { return a.at.After(o.known) && a.end().Before(o.ended) }
	late := only(o.answers, e.waited)
	// A decision shares the deadline of those that go to Redis together with it.
	timedOut := func(a answer) bool {
		return slices.ContainsFunc(late, func(b answer) bool { return !a.at.After(b.end()) && !a.end().Before(b.at) })
	}
	up := func(a answer) bool { return a.end().Before(o.began) || a.at.After(o.over) }
	e.judge(o.answers, func(a answer) string {
		switch {
		case a.kind == "bad" && a.status != 401:
			return "not 401"
		case a.kind == "good" && a.status == 503 && a.retryAfter == "":
			return "503 without Retry-After"
		case a.kind == "good" && a.status == 503 && up(a) && !timedOut(a) && !a.to.fellBack(a):
			return "503 although Redis is up, and not because of a timeout"
		case a.kind == "good" && a.status != 503 && down(a):
			return "not 503"
		case a.kind == "good" && a.status != 503 && a.status != 200:
			return "neither 200 nor 503"
		}
		return ""
	})
	if n := len(only(refused, up)); n > 0 {
		e.want(len(only(late, up)) > 0, "%d requests answered 503 although Redis was up and no decision timed out", n)
		e.lose("%d requests answered 503 while Redis was up, because decisions timed out", n)
	}
	e.want(o.served == int64(len(only(o.answers, withStatus(200)))), "a request that was refused reached the handler")
	e.within(200*time.Millisecond+2*e.delay, slowest(refused), "slowest 503")
	e.lose("%d requests answered 503 within %v", len(refused), slowest(refused).Round(time.Millisecond))
}

// Packets are dropped without a word, so that calls end with their timeout only.
func redisIsCutOff(e *env) {
	f := e.fleet(senderauth.Limit{Requests: 5, Per: time.Second, Burst: 30}, false)
	do := func(change func()) func() error { return func() error { change(); return nil } }
	o := f.outage(pick(e, 150, 1000), pick(e, time.Second, 30*time.Second), do(f.redis.link.hold), do(f.redis.link.resume))
	e.injected(int(f.redis.link.stalled.Load()), "%d bytes held up, for %v", f.redis.link.stalled.Load(), o.ended.Sub(o.began).Round(100*time.Millisecond))
	e.judge(o.answers, f.wrong)
	f.atMost(3, o.known.Sub(o.began)+o.over.Sub(o.ended), o.answers)
	e.judgeDelays(o)
	during := only(o.answers, func(a answer) bool { return !a.at.Before(o.began) && a.at.Before(o.ended) })
	paid := only(during, e.waited)
	e.within(2*e.decision()*9/10, slowest(paid), "slowest request of the outage, which waits for one timeout")
	if e.long {
		e.want(len(paid) <= len(during)/100, "%d of %d requests waited for the timeout, more than 1 %%", len(paid), len(during))
	}
}

// A replica answers READONLY until it is promoted. A flush of the scripts is not noticed,
// and one of the data gives each sender one more burst at most.
func redisFailsOver(e *env) {
	f := e.fleet(senderauth.Limit{Requests: 5, Per: time.Second, Burst: 30}, false)
	master := e.redis()
	perSecond, phase := pick(e, 150, 1000), pick(e, time.Second, 5*time.Second)
	o := f.outage(perSecond, phase,
		func() error { return f.client.ReplicaOf(e, "127.0.0.1", fmt.Sprint(master.Port())).Err() },
		func() error { return f.client.ReplicaOf(e, "no", "one").Err() })
	e.injected(1, "1 replica, promoted after %v", o.ended.Sub(o.began).Round(100*time.Millisecond))
	e.judge(o.answers, f.wrong)
	f.atMost(3, o.known.Sub(o.began)+o.over.Sub(o.ended), o.answers)
	e.within(2*time.Second+8*e.delay, o.over.Sub(o.ended), "from the promotion until all instances use Redis")

	l := f.startLoad(perSecond, f.next)
	e.sleep(phase)
	calls := f.scriptLoads()
	e.check(f.client.ScriptFlush(e).Err())
	e.sleep(phase)
	e.injected(f.scriptLoads()-calls, "1 SCRIPT FLUSH")
	keys := f.client.DBSize(e).Val()
	e.check(f.client.FlushAll(e).Err())
	e.injected(int(keys), "1 FLUSHALL of %d keys", keys)
	e.sleep(phase)
	answers := l.stop()
	e.judge(answers, f.wrong)
	f.atMost(2, 0, answers)
	e.want(f.in(redislimit.Shared) == len(f.instances), "an instance stopped using Redis")
}

// scriptLoads returns how often Redis has got the text of a script.
func (f *fleet) scriptLoads() int {
	info, err := f.client.InfoMap(f, "commandstats").Result()
	f.check(err)
	n := 0
	fmt.Sscanf(info["Commandstats"]["cmdstat_eval"], "calls=%d", &n)
	return n
}

// Redis is 10 ms away, each way. A decision takes one round trip longer, and the
// connections suffice for all of them.
func redisIsSlow(e *env) {
	const away = 20 * time.Millisecond
	f := e.fleet(senderauth.Limit{Requests: 1000, Per: time.Second}, false)
	perSecond, phase := pick(e, 150, 500), pick(e, time.Second, 20*time.Second)
	one := func(n int) request { return request{to: f.instances[0], credentials: good(n % 100), kind: "good"} }
	e.held("%d requests/s to 1 instance", perSecond)
	calm := e.startLoad(perSecond, one)
	e.sleep(phase)
	baseline := calm.stop()
	f.redis.link.delay.Add(int64(away / 2))
	l := e.startLoad(perSecond, one)
	e.sleep(phase)
	answers := l.stop()
	delayed := only(answers, func(a answer) bool { return a.took >= away })
	e.injected(len(delayed), "%d answers %v later", len(delayed), away)
	e.judge(append(baseline, answers...), wants(200))
	e.within(quantile(baseline, 0.5)+away+5*time.Millisecond, quantile(answers, 0.5), "median")
	e.within(e.decision()+jitter, quantile(answers, 0.99), "p99")
	if e.long {
		e.want(f.instances[0].mode() == redislimit.Shared, "the instance stopped using Redis")
	}
}
