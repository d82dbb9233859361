package main

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/senderauth/senderauth"
)

var floodScenarios = []scenario{
	{id: "F-43", name: "random keys", run: randomKeys},
	{id: "F-50, F-51", name: "flood of unknown keys that name a good sender", run: unknownKeysFlood},
	{id: "F-52, F-57", name: "huge keys, 200 lines of a header", run: malformedKeysFlood},
	{id: "F-56", name: "keys that a weak hash would put into one place", run: keysCollide},
	{id: "F-58", name: "senders, paths and methods without end", run: labelsAreFew},
}

// random returns the ID of a good sender and a key that nobody was issued.
func random(sender int) senderauth.Credentials {
	a, b := rand.Uint64(), rand.Uint64()
	return senderauth.Credentials{
		SenderID: good(sender).SenderID,
		APIKey:   fmt.Sprintf("%08x-%04x-4%03x-%x%03x-%012x", a>>32, a>>16&0xffff, a&0xfff, 8+b>>62, b>>48&0xfff, b&0xffffffffffff),
	}
}

// Random keys, and good ones with one digit changed, are all refused.
func randomKeys(e *env) {
	const digits = "0123456789abcdef"
	i := e.start(config{Validator: &keyring{senders: 1000}, Entries: 10_000})
	n := pick(e, 20_000, 1_000_000)
	e.held("%d requests without a pause", n)
	var changed atomic.Int64
	f := e.startFlood(i.server.Handler, 1_000_000_000, func(n int) senderauth.Credentials {
		c := good(n % 1000)
		if n%2 == 0 {
			return random(n % 1000)
		}
		changed.Add(1)
		// The last digit stands for the sender. Another one names nobody.
		at := rand.N(8)
		digit := strings.IndexByte(digits, c.APIKey[at])
		c.APIKey = c.APIKey[:at] + string(digits[(digit+1+rand.N(15))%16]) + c.APIKey[at+1:]
		return c
	})
	for f.sent.Load() < int64(n) {
		e.sleep(10 * time.Millisecond)
	}
	answers := f.stop()
	e.injected(answers[401], "%d random keys, and %d that differ from a good one in a digit", answers[401]-int(changed.Load()), changed.Load())
	e.count(answers, 401)
	e.want(i.served.Load() == 0 && i.charged.Load() == 0, "%d requests were charged and %d served", i.charged.Load(), i.served.Load())
}

// A flood of unknown keys names one good sender. The requests of the good senders, that
// one too, are served from the cache as before, and no others are charged.
func unknownKeysFlood(e *env) {
	const senders, lookups = 1000, 64
	var inFlight, most, goodLookups atomic.Int64
	keys := &keyring{senders: senders, fault: func(_ context.Context, c senderauth.Credentials) error {
		if strings.HasPrefix(c.APIKey, "0b9d3c1e-") {
			goodLookups.Add(1)
		}
		now := inFlight.Add(1)
		defer inFlight.Add(-1)
		for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
		}
		time.Sleep(time.Millisecond) // as a store takes
		return nil
	}}
	i := e.start(config{Validator: keys, Entries: 10_000, TTL: time.Hour, MaxLookups: lookups})
	next := func(n int) request { // half of them from the sender that the flood names
		return request{to: i, credentials: good(n % 2 * n % senders), kind: "good"}
	}
	for n := range senders {
		call(i.server.Handler, good(n))
	}
	goodLookups.Store(0)
	perSecond, floodRate := pick(e, 100, 200), pick(e, 3000, 20_000)
	phase := pick(e, 2*time.Second, 60*time.Second)

	calm := e.startLoad(perSecond, next)
	e.sleep(phase / 2)
	baseline := calm.stop()
	charged := i.charged.Load()
	memory := measureMemory()
	f := e.startFlood(i.server.Handler, floodRate, func(int) senderauth.Credentials { return random(0) })
	l := e.startLoad(perSecond, next)
	e.sleep(phase)
	e.held("%d requests/s of %d good pairs, %.0f/s of unknown keys", perSecond, senders, float64(f.sent.Load())/phase.Seconds())
	answers, flooded := l.stop(), f.stop()
	grown := memory.stop()

	e.injected(flooded[401], "%d unknown keys looked up or refused, %d answered 503", flooded[401], flooded[503])
	e.judge(append(baseline, answers...), wants(200))
	e.count(flooded, 401, 503)
	e.want(i.charged.Load()-charged == int64(len(answers)), "%d requests were charged instead of %d", i.charged.Load()-charged, len(answers))
	e.want(goodLookups.Load() <= int64(len(answers)/100), "%d of %d good pairs were looked up again", goodLookups.Load(), len(answers))
	e.want(most.Load() <= lookups, "%d lookups at once, more than %d", most.Load(), lookups)
	e.want(grown <= 64<<20, "%d MiB more memory, more than 64", grown>>20)
	e.within(3*quantile(baseline, 0.99)+jitter, quantile(answers, 0.99), "p99 of good pairs")
	e.lose("%d unknown keys answered 503 instead of 401", flooded[503])
}

// Malformed keys cost no lookup, nothing in the cache, and little memory.
func malformedKeysFlood(e *env) {
	keys := &keyring{senders: 1}
	i := e.start(config{Validator: keys})
	n := pick(e, 20, 500)
	huge := senderauth.Credentials{SenderID: good(0).SenderID, APIKey: strings.Repeat("0b9d3c1e", 900_000/8)}
	e.held("%d requests over HTTP, and %d of each kind without", n, 50*n)
	answers := e.burst(n, func(int) request { return request{to: i, credentials: huge, kind: "huge"} })
	e.judge(answers, wants(401))

	lines := make([]string, 200)
	for n := range lines {
		lines[n] = good(0).APIKey
	}
	missing, _ := http.NewRequest(http.MethodGet, "/", nil)
	missing.Header["X-Sender-Id"] = []string{good(0).SenderID}
	duplicate := missing.Clone(e)
	duplicate.Header["X-Api-Key"] = lines
	wide := missing.Clone(e)
	wide.Header["X-Api-Key"] = []string{huge.APIKey}
	refuse := func(r *http.Request) (took time.Duration, bytes uint64) {
		var before, after runtime.MemStats
		statuses := map[int]int{}
		runtime.ReadMemStats(&before)
		start := time.Now()
		for range 50 * n {
			statuses[serve(i.server.Handler, r)]++
		}
		took = time.Since(start)
		runtime.ReadMemStats(&after)
		e.count(statuses, 401)
		return took / time.Duration(50*n), (after.TotalAlloc - before.TotalAlloc) / uint64(50*n)
	}
	plain, few, many := time.Hour, time.Hour, time.Hour // the best of three rounds
	for range 3 {
		took, _ := refuse(missing)
		plain = min(plain, took)
		took, bytes := refuse(duplicate)
		many = min(many, took)
		e.want(bytes <= 4<<10, "%d bytes allocated for 200 lines", bytes)
		took, bytes = refuse(wide)
		few = min(few, took)
		e.want(bytes <= 4<<10, "%d bytes allocated for a huge key", bytes)
	}
	e.injected(len(answers), "%d keys of 900 kB, and %d requests with 200 lines of a key", len(answers)+150*n, 150*n)
	e.want(keys.asked.Load() == 0, "%d lookups", keys.asked.Load())
	s := i.cache.Stats()
	e.want(s.Entries == 0 && s.RejectedEntries == 0, "%d entries in the cache", s.Entries+s.RejectedEntries)
	e.within(2*plain+time.Microsecond, many, "refusal of 200 lines")
	e.within(2*plain+time.Microsecond, few, "refusal of a huge key")
}

// An attacker chooses keys that FNV-1a, without a seed, puts into one of 4,096 places.
// They cost as much as others.
func keysCollide(e *env) {
	n := pick(e, 30, 1000)
	i := e.start(config{Validator: &keyring{senders: 0}, RejectedTTL: time.Hour})
	var usual, colliding []senderauth.Credentials
	for len(colliding) < n {
		c := random(0)
		hash := fnv.New64a()
		hash.Write([]byte(c.APIKey))
		if hash.Sum64()%4096 == 0 {
			colliding = append(colliding, c)
		} else if len(usual) < n {
			usual = append(usual, c)
		}
	}
	e.held("%d rounds of both", pick(e, 10, 200))
	took := map[bool][]answer{}
	statuses := map[int]int{}
	for range pick(e, 10, 200) {
		for _, chosen := range []bool{false, true} {
			keys := usual
			if chosen {
				keys = colliding
			}
			for _, c := range keys {
				start := time.Now()
				statuses[call(i.server.Handler, c)]++
				took[chosen] = append(took[chosen], answer{took: time.Since(start)})
			}
		}
	}
	e.injected(len(colliding), "%d keys with the same FNV-1a hash modulo 4,096", len(colliding))
	e.count(statuses, 401)
	e.want(i.cache.Stats().Lookups == uint64(2*n), "%d lookups of %d keys", i.cache.Stats().Lookups, 2*n)
	for _, q := range []float64{0.5, 0.99} {
		e.within(quantile(took[false], q)*3/2+time.Microsecond, quantile(took[true], q), fmt.Sprintf("p%g of a refusal", 100*q))
	}
}

// What events carry as labels is a small set, whatever clients send.
func labelsAreFew(e *env) {
	type label struct {
		outcome senderauth.Outcome
		limit   string
	}
	var mu sync.Mutex
	labels := map[label]int{}
	keys := &keyring{senders: 1 << 40}
	guard, err := senderauth.New(keys, senderauth.Config{
		Limits: map[string]senderauth.Limit{"default": {Requests: 1, Per: time.Hour, Burst: 2}},
		Observe: func(_ context.Context, ev senderauth.Event) {
			mu.Lock()
			defer mu.Unlock()
			labels[label{ev.Outcome, ev.Limit}]++
		},
	})
	e.check(err)
	h := guard.Wrap(http.NotFoundHandler())
	n := pick(e, 20_000, 1_000_000)
	e.held("%d requests without a pause", n)
	statuses := map[int]int{}
	for n := range n {
		r, err := http.NewRequest(fmt.Sprintf("METHOD%d", n%1000), fmt.Sprintf("/path-%d", n%100_000), nil)
		e.check(err)
		c := []senderauth.Credentials{good(n), good(n % 100), bad(n), {}}[n%4]
		r.Header["X-Sender-Id"], r.Header["X-Api-Key"] = []string{c.SenderID}, []string{c.APIKey}
		statuses[serve(h, r)]++
	}
	e.injected(n, "%d senders, %d paths and 1,000 methods", n/4, min(n, 100_000))
	e.count(statuses, 401, 404, 429)
	sets := make([]string, 0, len(labels))
	for l := range labels {
		sets = append(sets, fmt.Sprintf("%s %s", l.outcome, l.limit))
	}
	slices.Sort(sets)
	e.logf("labels: %q", sets)
	e.want(len(labels) <= 200, "%d sets of labels", len(labels))
	e.want(len(labels) >= 4, "only %d sets of labels", len(labels))
}
