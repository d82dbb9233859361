package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/senderauth/senderauth"
)

var storeScenarios = []scenario{
	{id: "F-1, F-2", name: "validator that hangs", run: validatorHangs},
	{id: "F-3", name: "validator that fails at random", run: validatorFails},
	{id: "F-4", name: "validator that panics", run: validatorPanics},
	{id: "F-5", name: "clients that leave", run: clientsLeave},
	{id: "F-6", name: "PostgreSQL down from the start", server: true, run: storeIsDownFirst},
	{id: "F-7", name: "outage of the validator for new keys", run: validatorIsDown},
	{id: "F-8", name: "thousand requests with one new key", run: thunderingHerd},
	{id: "F-9", name: "one hot key", run: hotKey},
}

// A keyring is a validator that knows the credentials of the first senders, and whose
// lookups pass through a function.
type keyring struct {
	senders int
	asked   atomic.Int64
	// fault runs before each lookup. It returns the error of the lookup, or nil.
	fault func(ctx context.Context, c senderauth.Credentials) error
}

// good returns the n-th pair of credentials.
func good(n int) senderauth.Credentials {
	return senderauth.Credentials{SenderID: fmt.Sprintf("7a1de7b4-3a0e-4d6e-9c2b-%012x", n+1), APIKey: fmt.Sprintf("0b9d3c1e-6f52-4c8a-b1d7-%012x", n+1)}
}

// bad returns the n-th pair of a good sender and a key that nobody was issued.
func bad(n int) senderauth.Credentials {
	c := good(n)
	c.APIKey = fmt.Sprintf("badc0ffe-6f52-4c8a-b1d7-%012x", n+1)
	return c
}

func (k *keyring) Validate(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
	k.asked.Add(1)
	if k.fault != nil {
		if err := k.fault(ctx, c); err != nil {
			return senderauth.Sender{}, err
		}
	}
	var n int
	if _, err := fmt.Sscanf(c.APIKey, "0b9d3c1e-6f52-4c8a-b1d7-%012x", &n); err != nil || n < 1 || n > k.senders {
		return senderauth.Sender{}, senderauth.ErrInvalidKey
	}
	if c.SenderID != good(n-1).SenderID {
		return senderauth.Sender{}, senderauth.ErrKeyMismatch
	}
	return senderauth.Sender{ID: c.SenderID, KeyID: fmt.Sprint("key-", n)}, nil
}

// The validator hangs. Cached pairs are served as before. All others get 503 when the
// timeout of the lookup has passed: they reach no handler and cost nothing.
func validatorHangs(e *env) {
	const senders, timeout = 50, 500 * time.Millisecond
	var hangs atomic.Bool
	var timeouts atomic.Int64
	keys := &keyring{senders: 10_000, fault: func(ctx context.Context, _ senderauth.Credentials) error {
		if !hangs.Load() {
			return nil
		}
		select {
		case <-ctx.Done():
			timeouts.Add(1)
			return ctx.Err()
		case <-time.After(10 * time.Second):
			return errors.New("the validator was not interrupted")
		}
	}}
	i := e.start(config{Validator: keys, TTL: time.Hour, Timeout: timeout})
	cached := func(n int) request { return request{to: i, credentials: good(n % senders), kind: "cached"} }
	e.burst(senders, cached)
	perSecond := pick(e, 100, 500)
	e.held("%d requests/s of cached pairs, 200 uncached at once", perSecond)

	calm := e.startLoad(perSecond, cached)
	e.sleep(pick(e, time.Second, 10*time.Second))
	baseline := calm.stop()

	hangs.Store(true)
	served, charged, asked := i.served.Load(), i.charged.Load(), keys.asked.Load()
	hanging := e.startLoad(perSecond, cached)
	uncached := e.burst(200, func(n int) request { return request{to: i, credentials: good(senders + n), kind: "uncached"} })
	e.sleep(pick(e, 500*time.Millisecond, 9*time.Second))
	during := hanging.stop()

	e.injected(int(timeouts.Load()), "%d lookups hung until their timeout of %v", timeouts.Load(), timeout)
	e.judge(append(baseline, during...), wants(200))
	e.judge(uncached, func(a answer) string {
		if a.status != 503 || a.retryAfter == "" {
			return "not 503 with Retry-After"
		}
		return ""
	})
	e.want(i.served.Load()-served == int64(len(during)), "an uncached request reached the handler")
	e.want(i.charged.Load()-charged == int64(len(during)), "an uncached request was charged")
	e.want(keys.asked.Load()-asked == timeouts.Load(), "a cached pair was looked up")
	e.within(timeout+200*time.Millisecond, slowest(uncached), "slowest 503")
	e.within(2*quantile(baseline, 0.99)+jitter, quantile(during, 0.99), "p99 of cached pairs")
	e.lose("200 uncached requests answered 503 within %v", slowest(uncached).Round(time.Millisecond))
}

var errOutage = errors.New("outage")

// A tenth of the lookups fail. Exactly their requests get 503, and nothing remembers it.
func validatorFails(e *env) {
	var failed atomic.Int64
	i := someLookupsFail(e, 503, func(senderauth.Credentials) error {
		if rand.IntN(10) > 0 {
			return nil
		}
		failed.Add(1)
		return errOutage
	}, &failed)
	e.injected(int(failed.Load()), "%d lookups failed", failed.Load())
	e.want(i.cache.Stats().Failures == uint64(failed.Load()), "the cache counts %d failures of %d", i.cache.Stats().Failures, failed.Load())
}

// Every 100th lookup panics with the key. Exactly their requests get 500, and no log shows
// the key.
func validatorPanics(e *env) {
	var asked, panicked atomic.Int64
	i := someLookupsFail(e, 500, func(c senderauth.Credentials) error {
		if asked.Add(1)%100 > 0 {
			return nil
		}
		panicked.Add(1)
		panic(c.APIKey)
	}, &panicked)
	e.injected(int(panicked.Load()), "%d lookups panicked", panicked.Load())
	e.want(i.outcomes(senderauth.Failed) == int(panicked.Load()), "%d events of %d panics", i.outcomes(senderauth.Failed), panicked.Load())
}

// someLookupsFail asks for one new pair after the other, good and bad ones, and repeats
// each until it is not answered with status. It judges all answers: those of a failed
// lookup have that status, and no others do.
func someLookupsFail(e *env, status int, fault func(senderauth.Credentials) error, failed *atomic.Int64) *instance {
	var log lockedBuffer
	keys := &keyring{senders: 1 << 30, fault: func(_ context.Context, c senderauth.Credentials) error { return fault(c) }}
	i := e.start(config{Validator: keys, TTL: time.Hour, RejectedTTL: time.Hour, Entries: 1 << 20, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	var pairs atomic.Int64
	answers := e.repeat(8, pick(e, time.Second, 60*time.Second), func(ask func(request) answer) {
		n := int(pairs.Add(1))
		r := request{to: i, credentials: good(n), kind: "good"}
		if n%4 == 0 {
			r = request{to: i, credentials: bad(n), kind: "bad"}
		}
		for range 20 {
			if ask(r).status != status {
				break
			}
		}
	})
	e.held("8 clients, %d pairs that were not cached, a quarter of them bad", pairs.Load())
	e.judge(answers, func(a answer) string {
		switch {
		case a.status == status && (status != 503 || a.retryAfter != ""):
			return ""
		case a.kind == "good" && a.status != 200:
			return "not 200"
		case a.kind == "bad" && a.status != 401:
			return "not 401"
		}
		return ""
	})
	unanswered := len(only(answers, withStatus(status)))
	e.want(unanswered == int(failed.Load()), "%d answers %d of %d failed lookups", unanswered, status, failed.Load())
	e.want(keys.asked.Load() == int64(len(answers)), "%d lookups of %d requests", keys.asked.Load(), len(answers))
	e.want(i.charged.Load() == int64(len(only(answers, withStatus(200)))), "a failed request was charged")
	text := log.String()
	e.want(text != "" && !strings.Contains(text, "6f52-4c8a-b1d7"), "the log is empty or shows a part of a key")
	e.lose("%d requests answered %d", unanswered, status)
	return i
}

// PostgreSQL goes away before the first request. Requests with two well-formed values get
// 503, others 401, and another instance does not start. When it is back, all are served.
func storeIsDownFirst(e *env) {
	p := e.postgres()
	keys := p.issue(e, 20, 1)
	i := e.start(config{Postgres: p.url(), Watch: true})
	e.check(p.Stop())
	e.injected(1, "1 stop before the first request")
	e.held("60 requests at once")
	malformed := senderauth.Credentials{SenderID: good(0).SenderID, APIKey: "key"}
	answers := e.burst(3*len(keys), func(n int) request {
		switch n % 3 {
		case 0:
			return request{to: i, credentials: keys[n/3].Credentials, kind: "good"}
		case 1:
			return request{to: i, credentials: malformed, kind: "malformed"}
		}
		return request{to: i, kind: "missing"}
	})
	e.judge(answers, func(a answer) string {
		if a.kind != "good" {
			return wants(401)(a)
		}
		if a.retryAfter == "" {
			return "no Retry-After"
		}
		return wants(503)(a)
	})
	e.want(i.served.Load() == 0, "%d requests reached the handler", i.served.Load())
	began := time.Now()
	_, err := newInstance(e, config{Postgres: p.url()})
	e.want(err != nil, "an instance starts without PostgreSQL")
	e.within(5*time.Second, time.Since(began), "until an instance reports that it cannot start")
	e.lose("%d requests answered 503", len(only(answers, withStatus(503))))

	e.check(p.Start())
	for _, k := range keys {
		e.untilServed(request{to: i, credentials: k.Credentials})
	}
}

// All lookups fail. Soon the validator is asked only now and then, and its first answer
// ends that.
func validatorIsDown(e *env) {
	var down atomic.Bool
	var failed atomic.Int64
	keys := &keyring{senders: 1 << 20, fault: func(context.Context, senderauth.Credentials) error {
		if !down.Load() {
			return nil
		}
		failed.Add(1)
		return errOutage
	}}
	i := e.start(config{Validator: keys})
	down.Store(true)
	pairs := 0
	next := func(int) request {
		pairs++
		return request{to: i, credentials: good(pairs), kind: "new"}
	}
	e.held("100 requests with new keys, twice, and one every 50 ms until the end")
	e.judge(e.burst(100, next), wants(503))
	first, began := failed.Load(), time.Now()
	e.judge(e.burst(100, next), wants(503))
	seconds := int64(time.Since(began)/time.Second) + 1
	more := failed.Load() - first
	e.injected(int(first), "%d lookups failed of 100, and %d of 100 more", first, more)
	e.want(first < 100, "the validator was asked for each of 100 keys")
	// Four probes a second, and as many again that were on their way.
	e.want(more <= 8*seconds, "the validator was asked %d times more in %d s", more, seconds)
	e.sleep(pick(e, 1500*time.Millisecond, 10*time.Second))

	down.Store(false)
	repaired := time.Now()
	e.until("new keys are served", func() bool {
		e.sleep(50 * time.Millisecond)
		return e.ask(next(0)).status == 200
	})
	e.within(5*time.Second, time.Since(repaired), "from the repair to the first 200")
	e.judge(e.burst(100, next), wants(200))
	e.lose("200 requests answered 503, and those of %v after the repair", time.Since(repaired).Round(10*time.Millisecond))
}

// A thousand requests come at once with a key that is not cached. One of them asks.
func thunderingHerd(e *env) {
	n := pick(e, 200, 1000)
	ask := make(chan struct{})
	keys := &keyring{senders: 1, fault: func(ctx context.Context, _ senderauth.Credentials) error {
		select {
		case <-ask:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	i := e.start(config{Validator: keys, Timeout: patience})
	e.held("%d requests at once", n)
	ended := make(chan []answer)
	go func() { ended <- e.burst(n, func(int) request { return request{to: i, credentials: good(0)} }) }()
	e.until("all requests wait", func() bool { return i.cache.Stats().Misses == uint64(n) })
	close(ask)
	e.judge(<-ended, wants(200))
	e.injected(int(i.cache.Stats().Misses), "%d requests waited for 1 lookup", i.cache.Stats().Misses)
	e.want(keys.asked.Load() == 1, "%d lookups", keys.asked.Load())
}

// hotKey is asked for all the time. It is looked up behind its hits, and nobody waits.
func hotKey(e *env) {
	const ttl = time.Second
	seconds, perSecond := pick(e, 3, 60), pick(e, 200, 2000)
	keys := &keyring{senders: 1, fault: func(ctx context.Context, _ senderauth.Credentials) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
			return nil
		}
	}}
	i := e.start(config{Validator: keys, TTL: ttl})
	hot := func(int) request { return request{to: i, credentials: good(0)} }
	e.ask(hot(0))
	calm := e.start(config{Validator: &keyring{senders: 1}, TTL: time.Hour})
	e.ask(request{to: calm, credentials: good(0)})

	e.held("%d requests/s of one key for %d s, TTL %v", perSecond, seconds, ttl)
	reference := e.startLoad(perSecond, func(int) request { return request{to: calm, credentials: good(0)} })
	e.sleep(time.Duration(seconds) * time.Second / 6)
	baseline := reference.stop()
	l := e.startLoad(perSecond, hot)
	e.sleep(time.Duration(seconds) * time.Second)
	answers := l.stop()
	e.judge(answers, wants(200))
	asked := keys.asked.Load()
	e.injected(int(asked)-1, "the entry ended %d times", asked)
	// At most one lookup for each half of the TTL. If the machine stands still, there are fewer.
	e.want(asked <= int64(2*seconds+10), "%d lookups in %d s", asked, seconds)
	if e.long {
		e.want(asked >= 55, "%d lookups in %d s", asked, seconds)
	}
	e.within(2*quantile(baseline, 0.999)+jitter, quantile(answers, 0.999), "p99.9")
}

// wants judges that an answer has this status.
func wants(status int) func(answer) string {
	return func(a answer) string {
		if a.status != status {
			return fmt.Sprintf("not %d", status)
		}
		return ""
	}
}
