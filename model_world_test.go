package senderauth_test

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

var onlySeed = flag.Uint64("seed", 0, "run TestGuardFollowsTheModel with this seed alone")

// Whatever the order of requests, changes of the store, steps of both clocks,
// evictions, and faults of the store and of the Limiter: each answer is one that the
// model permits.
func TestGuardFollowsTheModel(t *testing.T) {
	steps := 100_000
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		steps = 10_000
	}
	seeds := []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, rand.Uint64()}
	if *onlySeed != 0 {
		seeds = []uint64{*onlySeed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, seed)
				for w.step = range steps {
					w.act()
				}
				require.Zero(t, w.cache.Stats().InFlight)
			})
		})
	}
}

// A tenant has two keys. The store is asked for few enough pairs that no lane
// closes: every key with its owner and with another tenant, and two unknown keys.
const (
	tenants = 3
	keys    = 2 * tenants
	pairs   = 2*keys + 2
)

// named returns the tenant that a pair names.
func named(pair int) int {
	switch {
	case pair < keys:
		return pair / 2
	case pair < 2*keys:
		return (pair/2 + 1) % tenants
	}
	return pair % tenants
}

func credentialsOf(pair int) senderauth.Credentials {
	key := pair % keys
	if pair >= 2*keys {
		key = pair
	}
	return senderauth.Credentials{SenderID: senderID(named(pair)), APIKey: apiKey(key)}
}

var pairOf = func() map[senderauth.Credentials]int {
	of := map[senderauth.Credentials]int{}
	for pair := range pairs {
		of[credentialsOf(pair)] = pair
	}
	return of
}()

var (
	base    = map[string]senderauth.Limit{"default": three, "messages": {Requests: 4, Per: time.Minute, Burst: 5}}
	charged = [][]string{{"default"}, {"default", "messages"}, {"messages"}, {}, {"messages", "default"}}
	plans   = []map[string]senderauth.Limit{
		nil, {"default": {Requests: 10, Per: time.Second, Burst: 10}},
		{"messages": {Requests: 1, Per: 10 * time.Second, Burst: 1}}, {"default": senderauth.Blocked()},
	}
	suspended = &senderauth.Problem{Status: 403, Detail: "Suspended."}

	answers = func() map[error]*response {
		at := func(status int, detail string) *response { r := refused(status, detail); return &r }
		return map[error]*response{
			senderauth.ErrInvalidKey:    at(401, "Invalid API credentials!"),
			senderauth.ErrKeyMismatch:   at(401, "API key does not match sender ID"),
			senderauth.ErrInvalidSender: at(401, "Invalid x-sender-id"),
			suspended:                   at(403, "Suspended."),
			errOutage:                   &unavailable,
			errOutOfTime:                &unavailable,
		}
	}()
)

// A fault is what a store or a Limiter does instead of answering at once.
type fault struct {
	fails bool
	deaf  bool // to its context
	takes time.Duration
}

func (f fault) String() string {
	return fmt.Sprintf("fails %v, deaf %v, takes %v", f.fails, f.deaf, f.takes)
}

// A world is a guard with all that it depends on, and the model of it.
type world struct {
	model
	t       *testing.T
	random  *rand.Rand
	seed    uint64
	step    int
	history []string

	cache   *senderauth.Cache
	limiter *senderauth.MemoryLimiter
	guards  []http.Handler
	plans   bool // senders have limits of their own

	records [keys]struct {
		active  bool
		expires time.Time
	}
	states                   [tenants]error
	planOf                   [tenants]int
	version                  int
	storeFault, limiterFault fault
	exchanges                []*exchange // not checked yet

	mu      sync.Mutex
	lookups []*lookup // not learned yet
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 0)), storeFault: fault{takes: 1}}
	w.cfg = senderauth.CacheConfig{
		Entries: 100, TTL: time.Second + w.upTo(20*time.Second), RejectedTTL: w.upTo(10*time.Second) - 1,
		StaleTTL: w.upTo(20*time.Second) * time.Duration(w.random.IntN(2)), LookupTimeout: time.Second + w.upTo(3*time.Second),
	}
	if w.cfg.RejectedTTL == 0 {
		w.cfg.RejectedTTL = -1
	}
	if w.exact = w.one(2); !w.exact {
		w.cfg.Entries = 1 + w.random.IntN(5)
	}
	w.closed, w.wrapped, w.plans = w.one(2), w.one(2), w.one(2)
	w.start, w.buckets = time.Now(), map[string]*level{}
	// A full bucket that was reclaimed and one that was not differ under a larger plan.
	mark := 1
	if w.plans {
		mark = 0
	}
	w.limiter = senderauth.NewMemoryLimiter(senderauth.MemoryLimiterConfig{Buckets: mark})
	w.cache = newCache(t, w, w.cfg)
	for w.cache.SharePlace(senderID(0), senderID(1)) || w.cache.SharePlace(senderID(1), senderID(2)) || w.cache.SharePlace(senderID(0), senderID(2)) {
		w.cache = newCache(t, w, w.cfg)
	}
	cfg := senderauth.Config{Limits: base, Limiter: w.limiter, FailClosed: w.closed, Observe: func(ctx context.Context, e senderauth.Event) {
		requestIn(ctx).event = e
	}}
	if w.wrapped {
		cfg.Limiter = faultyLimiter{w}
	}
	if w.one(3) {
		cfg.FailedAttempts = senderauth.Limit{Requests: 2, Per: time.Second, Burst: 5}
		w.attempts = &level{limit: cfg.FailedAttempts, tokens: 5, at: w.start}
	}
	guard, err := senderauth.New(w.cache, cfg)
	require.NoError(t, err)
	costing := guard.Costing(func(r *http.Request) int { return requestIn(r.Context()).cost })
	for i, names := range charged {
		g := guard.Charging(names...)
		if i == len(charged)-1 {
			g = costing.Charging(names...)
		}
		w.guards = append(w.guards, g.Wrap(http.HandlerFunc(hello200)))
	}
	w.note("%+v, fail closed %v, wrapped %v, plans %v, failed attempts %v", w.cfg, w.closed, w.wrapped, w.plans, w.attempts != nil)
	return w
}

func hello200(w http.ResponseWriter, r *http.Request) {
	requestIn(r.Context()).served++
	s, _ := senderauth.SenderFrom(r.Context())
	fmt.Fprint(w, s.ID, " ", s.Detail)
}

func (w *world) upTo(d time.Duration) time.Duration {
	return time.Duration(w.random.Int64N(int64(d) + 1))
}

// one is true once in n times.
func (w *world) one(n int) bool { return w.random.IntN(n) == 0 }

func (w *world) note(format string, args ...any) {
	w.history = append(w.history, fmt.Sprintf("%d at %v: ", w.step, time.Since(epoch))+fmt.Sprintf(format, args...))
	if len(w.history) > 60 {
		w.history = append(w.history[:1], w.history[30:]...)
	}
}

func (w *world) diverged(format string, args ...any) {
	w.t.Helper()
	last := w.history[max(1, len(w.history)-30):]
	w.t.Fatalf("step %d: %s\n%s\n%s\nreplay with: go test -run TestGuardFollowsTheModel -seed %d", w.step, fmt.Sprintf(format, args...),
		w.history[0], strings.Join(last, "\n"), w.seed)
}

// Validate is the store. It decides at the beginning of a call.
func (w *world) Validate(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
	w.mu.Lock()
	l := &lookup{pair: -1, started: time.Now(), done: make(chan struct{})}
	if pair, ok := pairOf[c]; ok {
		l.pair, l.verdict = pair, w.decide(pair)
	}
	w.lookups = append(w.lookups, l)
	f := w.storeFault
	w.mu.Unlock()
	late := f.wait(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	l.failed, l.ended = f.fails || late, time.Now()
	close(l.done)
	if l.failed {
		return senderauth.Sender{}, errOutage
	}
	return l.sender, l.err
}

// wait reports whether the context ended first.
func (f fault) wait(ctx context.Context) (late bool) {
	if f.deaf {
		time.Sleep(f.takes)
		return false
	}
	timer := time.NewTimer(f.takes)
	defer timer.Stop()
	select {
	case <-timer.C:
		return false
	case <-ctx.Done():
		return true
	}
}

func (w *world) decide(pair int) verdict {
	key, tenant := pair%keys, named(pair)
	r := w.records[key]
	switch {
	case pair >= 2*keys || !r.active || !r.expires.IsZero() && !time.Now().Before(r.expires):
		return verdict{err: senderauth.ErrInvalidKey}
	case pair >= keys:
		return verdict{err: senderauth.ErrKeyMismatch}
	case w.states[tenant] != nil:
		return verdict{err: w.states[tenant]}
	}
	return verdict{sender: senderauth.Sender{ID: senderID(tenant), Limits: plans[w.planOf[tenant]], Expires: r.expires, Detail: w.version}}
}

type faultyLimiter struct{ *world }

func (l faultyLimiter) Take(ctx context.Context, id string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
	r, f, start := requestIn(ctx), l.limiterFault, time.Now()
	r.taken++
	if f.takes > 0 {
		f.wait(ctx)
		r.slept = time.Since(start)
	}
	if f.fails {
		r.outage = errOutage
		return nil, errOutage
	}
	return l.world.limiter.Take(ctx, id, charges)
}

// act is one step.
func (w *world) act() {
	switch n := w.random.IntN(100); {
	case n < 60:
		w.ask()
	case n < 80:
		time.Sleep(w.pause())
	case n < 87:
		w.change()
	case n < 91:
		w.forget(w.random.IntN(tenants + 1))
	case n < 93:
		w.stepWallClock()
	case n < 95:
		w.breakStore()
	case n < 97:
		w.breakLimiter()
	case n < 98:
		w.fillBuckets()
	default:
		w.askTwice()
	}
	w.finish()
}

// pause is random, or ends where something else does.
func (w *world) pause() time.Duration {
	now := time.Now()
	if e := w.memories[w.random.IntN(pairs)]; e != nil && w.one(2) {
		ends := e.asked + [...]time.Duration{w.cfg.RejectedTTL, w.cfg.TTL - w.cfg.TTL/2, w.cfg.TTL, w.cfg.TTL + w.cfg.StaleTTL}[w.random.IntN(4)]
		d := ends - w.clock(now)
		if w.one(3) && !e.sender.Expires.IsZero() {
			d = e.sender.Expires.Sub(now)
		}
		if d += time.Duration(w.random.IntN(3) - 1); d > 0 && d < time.Minute {
			w.note("sleep %v to an end", d)
			return d
		}
	}
	d := w.upTo(1 << w.random.IntN(34))
	w.note("sleep %v", d)
	return d
}

// change issues, rotates, revokes or expires a key, or changes its tenant.
func (w *world) change() {
	key := w.random.IntN(keys)
	tenant := key / 2
	r, sibling := &w.records[key], &w.records[key^1]
	w.version++
	kind := w.random.IntN(8)
	switch kind {
	case 0, 1:
		r.active, r.expires = true, time.Time{}
	case 2:
		r.active, r.expires = true, time.Now().Add(w.upTo(20*time.Second))
	case 3: // rotate, with a grace period
		r.expires = time.Now().Add(w.upTo(10 * time.Second))
		sibling.active, sibling.expires = true, time.Time{}
	case 4:
		r.active = false
	case 5:
		w.states[tenant] = [...]error{senderauth.ErrInvalidSender, suspended}[w.random.IntN(2)]
	case 6:
		w.states[tenant] = nil
	case 7:
		if w.plans {
			w.planOf[tenant] = w.random.IntN(len(plans))
		}
	}
	w.note("change %d of key %d: %+v, sibling %+v, tenant %v, plan %d", kind, key, *r, *sibling, w.states[tenant], w.planOf[tenant])
	if w.one(2) {
		w.forget(tenant)
	}
}

// forget forgets a tenant, or all of them.
func (w *world) forget(tenant int) {
	w.note("forget %d", tenant)
	if tenant < tenants {
		w.epochs[tenant]++
		w.cache.Forget(senderID(tenant))
		return
	}
	for i := range w.epochs {
		w.epochs[i]++
	}
	w.cache.Purge()
}

// stepWallClock waits for as long as the cache may take to notice the step. Nobody
// could tell a step forward from its end if the next one, back, came before a lookup.
func (w *world) stepWallClock() {
	const smallest = 10 * time.Millisecond // that the cache takes for a step
	d := smallest * time.Duration(w.random.IntN(4001)-2000)
	w.note("the wall clock steps by %v", d)
	w.cache.StepWallClock(d)
	time.Sleep(100 * time.Millisecond)
	w.ahead += max(d, 0)
	if got, want := w.cache.Now(), w.clock(time.Now()); got != want {
		w.diverged("the cache's clock shows %v, want %v", got, want)
	}
}

func (w *world) breakStore() {
	w.storeFault = fault{takes: 1}
	switch w.random.IntN(8) {
	case 0, 1:
		w.storeFault.fails = true
	case 2:
		w.storeFault.takes = 1 + w.upTo(w.cfg.LookupTimeout)
	case 3:
		w.storeFault.takes = time.Hour
	case 4:
		w.storeFault = fault{fails: w.one(2), deaf: true, takes: 1 + w.upTo(2*w.cfg.LookupTimeout)}
	}
	w.note("store: %v", w.storeFault)
}

func (w *world) breakLimiter() {
	w.limiterFault = fault{}
	switch w.random.IntN(6) {
	case 0:
		w.limiterFault.fails = true
	case 1:
		w.limiterFault = fault{deaf: true, takes: w.upTo(100 * time.Millisecond)}
	case 2:
		w.limiterFault = fault{fails: true, takes: w.upTo(time.Second)}
	}
	w.note("limiter: %v", w.limiterFault)
}

// fillBuckets resets a tenant's buckets, or makes the MemoryLimiter reclaim full ones.
func (w *world) fillBuckets() {
	tenant := w.random.IntN(tenants)
	if w.plans || w.one(2) {
		w.note("reset %d", tenant)
		w.limiter.Reset(senderID(tenant))
		for name := range base {
			delete(w.buckets, senderID(tenant)+name)
		}
		return
	}
	w.note("a crowd takes tokens")
	for i := range 200 {
		w.limiter.Take(context.Background(), strconv.Itoa(i), []senderauth.Charge{{Name: "default", Limit: senderauth.PerSecond(1), Cost: 1}})
	}
}

// newRequest returns a request of any kind with its header.
func (w *world) newRequest() *exchange {
	r := &exchange{pair: w.random.IntN(keys), guard: w.random.IntN(len(charged)), cost: 1, cancel: -1}
	if w.one(3) {
		r.pair = w.random.IntN(pairs)
	}
	if r.guard == len(charged)-1 {
		r.cost = w.random.IntN(7)
	}
	switch w.random.IntN(20) {
	case 0:
		r.cancel = 0
	case 1:
		r.cancel = 2 + w.upTo(w.cfg.LookupTimeout)
	}
	return r
}

// ask sends a request, several at once, or a malformed one.
func (w *world) ask() {
	r := w.newRequest()
	if w.one(10) {
		w.malform(r)
	}
	rs := []*exchange{r}
	// Failed attempts of one instant could stop each other, in any order.
	if w.one(12) && r.cancel < 0 && r.form == nil && w.attempts == nil {
		for range 1 + w.random.IntN(4) {
			twin := *r
			rs = append(rs, &twin)
		}
	}
	w.launch(rs...)
}

// askTwice sends a request, and after a change perhaps one with the same pair while
// the first one is in flight.
func (w *world) askTwice() {
	r := w.newRequest()
	r.cancel = -1
	second := *r
	before := w.storeFault
	w.storeFault = fault{fails: w.one(4), deaf: w.one(4), takes: time.Second + w.upTo(w.cfg.LookupTimeout)}
	w.note("store: %v", w.storeFault)
	w.launch(r)
	time.Sleep(w.upTo(500 * time.Millisecond))
	switch w.random.IntN(4) {
	case 0:
		w.change()
	case 1:
		w.forget(named(r.pair))
	case 2: // what is in flight does not end before the step is noticed
		w.settle()
		w.stepWallClock()
	}
	if w.one(2) {
		w.launch(&second)
	}
	w.finish()
	w.storeFault = before
}

var malformed = []struct {
	detail string
	lines  func(id, key string) http.Header
}{
	{"Header x-api-key not found", func(id, _ string) http.Header { return http.Header{"X-Sender-Id": {id}} }},
	{"Header x-api-key not found", func(string, string) http.Header { return http.Header{"X-Api-Key": {""}} }},
	{"Header x-sender-id not found", func(_, key string) http.Header { return http.Header{"X-Api-Key": {key}} }},
	{"Invalid x-sender-id", func(id, key string) http.Header { return headerOf(id[1:], key) }},
	{"Invalid x-sender-id", func(id, key string) http.Header { return http.Header{"X-Sender-Id": {id, id}, "X-Api-Key": {key}} }},
	{"Invalid x-sender-id", func(_, key string) http.Header { return headerOf("00000000-0000-0000-0000-000000000000", key) }},
	{"Invalid API credentials!", func(id, key string) http.Header { return headerOf(id, key+"0") }},
	{"Invalid API credentials!", func(id, key string) http.Header { return headerOf(id, "g"+key[1:]) }},
	{"Invalid API credentials!", func(id, key string) http.Header { return http.Header{"X-Sender-Id": {id}, "X-Api-Key": {key, key}} }},
}

func headerOf(id, key string) http.Header {
	return http.Header{"X-Sender-Id": {id}, "X-Api-Key": {key}}
}

func (w *world) malform(r *exchange) {
	kind := &malformed[w.random.IntN(len(malformed))]
	answer := refused(401, kind.detail)
	r.form, r.lines = &answer, kind.lines
}

// launch sends requests with the same pair, at this instant, and compares the
// lookups that they start.
func (w *world) launch(rs ...*exchange) {
	w.settle()
	r := rs[0]
	w.foresee(r)
	inFlight := w.joinable(r.pair)
	known := len(w.lookups)
	for _, twin := range rs[1:] {
		*twin = *r
	}
	w.note("%d x pair %d, guard %d, cost %d, malformed %v, cancel %v, hit %v, stopped %v", len(rs), r.pair, r.guard, r.cost, r.lines != nil, r.cancel, r.live != nil, r.stopped)
	for _, twin := range rs {
		twin.done = make(chan struct{})
		w.exchanges = append(w.exchanges, twin)
		c := credentialsOf(twin.pair)
		if w.one(4) {
			c = senderauth.Credentials{SenderID: strings.ToUpper(c.SenderID), APIKey: strings.ToUpper(c.APIKey)}
		}
		h := headerOf(c.SenderID, c.APIKey)
		if twin.lines != nil {
			h = twin.lines(c.SenderID, c.APIKey)
		}
		go w.serve(twin, h, w.one(2))
	}
	synctest.Wait()
	w.match(rs, inFlight, w.lookups[known:])
}

// foresee notes what the model knows at the start of a request.
func (w *world) foresee(r *exchange) {
	r.start = time.Now()
	if r.form != nil {
		return
	}
	e := w.memories[r.pair]
	if w.live(r.pair, e, r.start) {
		r.live = e
	}
	if accepted := e != nil && e.err == nil; accepted {
		r.before = e
	}
	if a := w.attempts; a != nil && (r.before == nil || !w.exact) {
		a.settle(a.limit, r.start)
		r.stopped = a.tokens-rounding < 1
		r.passed = a.tokens+rounding >= 1 || r.before != nil
	}
}

// joinable returns the lookup that a request with the pair would join.
func (w *world) joinable(pair int) *lookup {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.lookups {
		if l.pair == pair && l.ended.IsZero() && l.epoch == w.epochs[named(pair)] && l.ahead == w.ahead {
			return l
		}
	}
	return nil
}

// match compares the lookups that requests have started with those that they need.
func (w *world) match(rs []*exchange, joined *lookup, started []*lookup) {
	r, least, most := rs[0], 0, 0
	refresh := false
	if r.form == nil && (!r.stopped || r.passed) {
		if r.live != nil && r.live.err == nil {
			round := w.round(r.live, w.clock(r.start))
			if refresh = round > r.live.round; refresh {
				r.live.round = round
			}
		}
		if joined == nil && (r.live == nil || refresh) {
			least, most = 1, 1
		}
		if joined == nil && !w.exact {
			most = 1
		}
		if r.stopped {
			least = 0
		}
	}
	if n := len(started); n < least || n > most {
		w.diverged("%d lookups, want %d to %d", n, least, most)
	}
	for _, l := range started {
		if l.pair != r.pair {
			w.diverged("the store was asked for a malformed or another pair")
		}
		l.asked, l.ahead, l.epoch, l.before = w.clock(r.start), w.ahead, w.epochs[named(l.pair)], r.before
		joined = l
	}
	for _, twin := range rs {
		if twin.live == nil || !w.exact {
			twin.lookup = joined
		}
	}
}

type requestKey struct{}

func requestIn(ctx context.Context) *exchange { return ctx.Value(requestKey{}).(*exchange) }

func (w *world) serve(r *exchange, h http.Header, deadline bool) {
	ctx := context.WithValue(context.Background(), requestKey{}, r)
	if r.cancel >= 0 {
		var cancel context.CancelFunc
		if deadline && r.cancel > 0 {
			ctx, cancel = context.WithTimeout(ctx, r.cancel)
		} else {
			ctx, cancel = context.WithCancel(ctx)
		}
		defer cancel()
		if r.cancel == 0 {
			cancel()
		} else if !deadline {
			defer time.AfterFunc(r.cancel, cancel).Stop()
		}
	}
	in := &http.Request{Method: http.MethodGet, Header: h, ProtoMajor: 1, RemoteAddr: "192.0.2.1:1234"}
	w.guards[r.guard].ServeHTTP(r, in.WithContext(ctx))
	r.end = time.Now()
	close(r.done)
}

// A request is its own http.ResponseWriter.
func (r *exchange) Header() http.Header {
	if r.header == nil {
		r.header = http.Header{}
	}
	return r.header
}

func (r *exchange) WriteHeader(status int) { r.status = status }

func (r *exchange) Write(b []byte) (int, error) {
	r.status = cmp.Or(r.status, 200)
	r.body = append(r.body, b...)
	return len(b), nil
}

// finish waits for all that is in flight.
func (w *world) finish() {
	for _, r := range w.exchanges {
		<-r.done
	}
	synctest.Wait()
	for _, l := range w.lookups {
		<-l.done
	}
	w.settle()
}

// settle checks the requests and learns from the lookups that have ended.
func (w *world) settle() {
	synctest.Wait()
	var ended []*exchange
	w.exchanges = slices.DeleteFunc(w.exchanges, func(r *exchange) bool {
		select {
		case <-r.done:
			ended = append(ended, r)
			return true
		default:
			return false
		}
	})
	// At one instant those that took tokens came first, and in the order of what they left.
	slices.SortStableFunc(ended, func(a, b *exchange) int {
		return cmp.Or(a.end.Compare(b.end), cmp.Compare(a.status, b.status), -cmp.Compare(a.integer("X-Ratelimit-Remaining"), b.integer("X-Ratelimit-Remaining")))
	})
	for _, r := range ended {
		if complaint := w.check(r); complaint != "" {
			w.diverged("pair %d, started at %v, ended at %v with %d %s %v: %s", r.pair, r.start.Sub(epoch), r.end.Sub(epoch), r.status, r.body, r.header, complaint)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lookups = slices.DeleteFunc(w.lookups, func(l *lookup) bool {
		if l.ended.IsZero() {
			return false
		}
		w.learn(l)
		return true
	})
}
