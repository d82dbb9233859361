package senderauth_test

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/senderauth/senderauth"
)

// This file is the model: what a guard remembers, what its buckets hold, and which
// answers that permits. model_world_test.go drives a guard and the model together.

// A verdict is what the store says about a pair.
type verdict struct {
	err    error // nil: sender
	sender senderauth.Sender
}

// endedBy reports that the key has expired.
func (v *verdict) endedBy(at time.Time) bool {
	return v.err == nil && !v.sender.Expires.IsZero() && !at.Before(v.sender.Expires)
}

// A memory is the verdict that the cache should hold for a pair.
type memory struct {
	verdict
	asked  time.Duration // of the cache's clock
	epoch  int           // of the sender
	round  int           // the last one with a refresh
	failed bool          // in that round
}

// A lookup is a call of the store.
type lookup struct {
	verdict
	pair    int
	asked   time.Duration // of the cache's clock
	ahead   time.Duration
	epoch   int
	before  *memory
	failed  bool
	started time.Time
	ended   time.Time // zero while in flight
	done    chan struct{}
}

// An exchange is a request and its answer, with what the model knew at the start.
type exchange struct {
	pair   int
	guard  int
	cost   int
	cancel time.Duration                    // after its start; negative: never
	form   *response                        // the answer if the credentials are malformed
	lines  func(id, key string) http.Header // of such credentials
	start  time.Time

	live    *memory // may answer without a lookup
	before  *memory // stands in if the lookup fails
	lookup  *lookup // started or joined
	stopped bool    // the address may be over its limit of failed attempts
	passed  bool    // and may be within it

	end    time.Time
	status int
	header http.Header
	body   []byte
	event  senderauth.Event
	served int           // calls of the handler
	taken  int           // calls of the Limiter, if it is not a MemoryLimiter
	slept  time.Duration // in the Limiter
	outage error         // of the Limiter
	done   chan struct{}
}

// A level is what a bucket should hold.
type level struct {
	limit  senderauth.Limit
	tokens float64
	at     time.Time
}

// A balance is what charging a bucket should leave.
type balance struct {
	name         string
	limit        senderauth.Limit
	refused      bool
	tokens       float64
	retry, reset float64 // seconds; a negative retry: never
}

// The guard counts in float64, as the model does: within this many tokens, and the
// time in which they flow, either answer is right.
const rounding = 1e-6

type model struct {
	cfg      senderauth.CacheConfig
	exact    bool // nothing is evicted
	closed   bool // Config.FailClosed
	wrapped  bool // the Limiter is no MemoryLimiter
	attempts *level
	start    time.Time
	ahead    time.Duration // of the wall clock
	memories [pairs]*memory
	epochs   [tenants]int
	buckets  map[string]*level
}

// clock returns the age of the cache at an instant, by the wall clock as well.
func (m *model) clock(at time.Time) time.Duration { return at.Sub(m.start) + m.ahead }

func (m *model) round(e *memory, now time.Duration) int {
	due := e.asked + m.cfg.TTL - m.cfg.TTL/2
	if now < due {
		return 0
	}
	return int((now-due)/time.Second) + 1
}

// usable reports whether an accepted pair may be served although it needs a lookup.
func (m *model) usable(pair int, e *memory, at time.Time) bool {
	return e != nil && e.err == nil && e.epoch == m.epochs[named(pair)] && !e.endedBy(at) &&
		m.clock(at) < e.asked+m.cfg.TTL+m.cfg.StaleTTL
}

// live reports whether a request is answered from e without a lookup.
func (m *model) live(pair int, e *memory, at time.Time) bool {
	now := m.clock(at)
	switch {
	case e == nil || e.epoch != m.epochs[named(pair)]:
		return false
	case e.err != nil:
		return now < e.asked+m.cfg.RejectedTTL
	}
	return m.usable(pair, e, at) && (now < e.asked+m.cfg.TTL || e.failed && m.round(e, now) <= e.round+1)
}

func (m *model) fail(e *memory, at time.Time) {
	if e != nil {
		e.failed, e.round = true, m.round(e, m.clock(at))
	}
}

// learn remembers what a lookup that has ended says.
func (m *model) learn(l *lookup) {
	current := l.epoch == m.epochs[named(l.pair)]
	fresh := &memory{verdict: l.verdict, asked: l.asked, epoch: l.epoch}
	_, own := l.err.(*senderauth.Problem)
	switch {
	case l.failed:
		m.fail(l.before, l.ended)
	case l.err == nil && !l.endedBy(l.ended):
		if current {
			m.memories[l.pair] = fresh
		}
	case l.err != nil && current && !own && m.cfg.RejectedTTL > 0:
		m.memories[l.pair] = fresh
	default:
		m.memories[l.pair] = nil
	}
}

var (
	errOutOfTime = fmt.Errorf("canceled or out of time: %w", errOutage)
	expired      = verdict{err: senderauth.ErrInvalidKey}
)

// verdict returns what the guard must have gone by. complaint says why nothing
// permits the answer, if so.
func (m *model) verdict(x *exchange) (v verdict, complaint string) {
	at := x.end.Add(-x.slept)
	waited := at.Sub(x.start)
	if x.event.Cached && x.live != nil && waited == 0 {
		return x.live.verdict, ""
	}
	l := x.lookup
	switch {
	case x.live != nil && m.exact:
		return v, fmt.Sprintf("a hit waited %v, Cached is %v", waited, x.event.Cached)
	case waited > m.cfg.LookupTimeout:
		return v, fmt.Sprintf("waited %v", waited)
	case l == nil:
		return v, "answered from a memory that has ended"
	case x.cancel >= 0 && waited == x.cancel && (l.ended.IsZero() || !l.ended.Before(at)):
		return verdict{err: errOutOfTime}, ""
	case l.ended.Equal(at) && !l.failed:
		if l.endedBy(at) {
			return expired, ""
		}
		if x.event.Cached {
			return v, "a lookup's answer is called cached"
		}
		return l.verdict, ""
	case !l.ended.Equal(at) && waited != m.cfg.LookupTimeout:
		return v, fmt.Sprintf("waited %v", waited)
	case m.usable(x.pair, x.before, at) && (m.exact || x.event.Cached):
		m.fail(x.before, at)
		return x.before.verdict, ""
	}
	return verdict{err: errOutage}, ""
}

// check holds the answer to a request against the model, and returns what is wrong.
func (m *model) check(x *exchange) string {
	if x.form != nil {
		return x.is(x.form, "malformed")
	}
	if x.stopped && (!x.passed || x.status == 429 && x.event.Limit == "failed_attempts") {
		return m.checkStopped(x)
	}
	v, complaint := m.verdict(x)
	if complaint != "" {
		return complaint
	}
	if v.err == nil {
		return m.checkCharge(x, &v.sender)
	}
	answer := answers[v.err]
	if answer.Status == 401 && m.attempts != nil {
		m.attempts.settle(m.attempts.limit, x.end)
		m.attempts.tokens -= min(1, math.Floor(m.attempts.tokens+rounding/100))
		m.attempts.tokens = max(m.attempts.tokens, 0)
	}
	if x.taken > 0 {
		return "a failed authentication reached the Limiter"
	}
	return x.is(answer, v.err.Error())
}

func (m *model) checkStopped(x *exchange) string {
	if x.status != 429 || x.header["X-Ratelimit-Limit"] != nil || x.end != x.start {
		return "the address is over its limit of failed attempts"
	}
	m.attempts.settle(m.attempts.limit, x.end)
	return x.isLimited(m.attempts.charge("", 1, 0, false).retry)
}

// is compares a refusal.
func (x *exchange) is(want *response, why string) string {
	if x.status != want.Status || string(x.body) != want.Body || len(x.header) != len(want.Header) {
		return fmt.Sprintf("want %d %s (%s)", want.Status, want.Body, why)
	}
	for name, value := range want.Header {
		if lines := x.header[name]; len(lines) != 1 || lines[0] != value {
			return fmt.Sprintf("%s is %q, want %q", name, lines, value)
		}
	}
	return ""
}

// isLimited compares a 429 apart from the rate fields.
func (x *exchange) isLimited(retry float64) string {
	want := refused(429, "Rate limit exceeded.")
	if retry >= 0 {
		n := x.integer("Retry-After")
		if !ceils(n, retry) || n < 1 {
			return fmt.Sprintf("Retry-After is %v, want %v, rounded up", x.header["Retry-After"], retry)
		}
		want = limited(strconv.Itoa(n))
	} else if x.header["Retry-After"] != nil {
		return "Retry-After of a charge that can never pass"
	}
	if x.status != 429 || string(x.body) != want.Body {
		return "want 429 " + want.Body
	}
	return ""
}

// ceils reports whether n is d, rounded up, within what rounding allows.
func ceils(n int, d float64) bool {
	const slack = 20e-6 // the slowest tokens take 15 seconds
	return n >= int(math.Ceil(d-slack)) && n <= int(math.Ceil(d+slack))
}

func (x *exchange) integer(field string) int {
	n, err := strconv.Atoi(strings.Join(x.header[field], ","))
	if err != nil {
		return math.MinInt
	}
	return n
}

// checkCharge holds the answer to an authenticated request against the buckets.
func (m *model) checkCharge(x *exchange, s *senderauth.Sender) string {
	names := charged[x.guard]
	if want := min(len(names), 1); m.wrapped && x.taken != want {
		return fmt.Sprintf("the Limiter was asked %d times, not %d", x.taken, want)
	}
	if x.outage != nil {
		if m.closed || x.cancel >= 0 && !x.end.Before(x.start.Add(x.cancel)) {
			return x.is(&unavailable, "the Limiter failed")
		}
		return x.isServed(s, nil)
	}
	levels := make([]*level, len(names))
	for i, name := range names {
		limit, ok := s.Limits[name]
		if !ok {
			limit = base[name]
		}
		key := s.ID + name
		if m.buckets[key] == nil {
			m.buckets[key] = &level{limit: limit, tokens: float64(limit.EffectiveBurst()), at: x.end}
			defer m.dropUntouched(key)
		}
		levels[i] = m.buckets[key]
		if limit == senderauth.Blocked() { // asks no bucket
			levels[i] = &level{limit: limit, at: x.end}
		}
		levels[i].settle(limit, x.end)
	}
	first := ""
	for _, shift := range [...][2]float64{{0, 0}, {-1, 0}, {1, 0}, {0, -1}, {0, 1}, {-1, -1}, {1, 1}, {-1, 1}, {1, -1}} {
		bs, refused := decide(levels, names, x.cost, shift)
		complaint := ""
		if refused {
			complaint = x.isRefused(bs)
		} else {
			complaint = x.isServed(s, bs)
		}
		if complaint == "" {
			if !refused {
				for i := range bs {
					levels[i].tokens = max(levels[i].tokens-float64(x.cost), 0)
				}
			}
			return ""
		}
		if first == "" {
			first = complaint
		}
	}
	return first
}

// dropUntouched forgets a full bucket: the guard makes one when tokens are taken.
func (m *model) dropUntouched(key string) {
	if b := m.buckets[key]; b.tokens == float64(b.limit.EffectiveBurst()) {
		delete(m.buckets, key)
	}
}

// settle adds what has flowed back, and goes on with another limit.
func (b *level) settle(limit senderauth.Limit, at time.Time) {
	if b.limit != senderauth.Blocked() {
		b.tokens += at.Sub(b.at).Seconds() * float64(b.limit.Requests) / b.limit.Per.Seconds()
	}
	b.tokens = min(b.tokens, float64(b.limit.EffectiveBurst()), float64(limit.EffectiveBurst()))
	b.limit, b.at = limit, at
}

// charge returns what cost leaves. look: a bucket beside it refuses.
func (b *level) charge(name string, cost int, shift float64, look bool) balance {
	burst, rate := float64(b.limit.EffectiveBurst()), b.limit.Per.Seconds()/float64(b.limit.Requests)
	n := balance{name: name, limit: b.limit, tokens: min(max(b.tokens+shift*rounding, 0), burst)}
	switch need := float64(cost); {
	case b.limit == senderauth.Blocked():
		n.refused, n.retry = cost > 0, -1
		return n
	case need > burst:
		n.refused, n.retry = true, -1
	case n.tokens < need:
		n.refused, n.retry = true, (need-n.tokens)*rate
	case !look:
		n.tokens -= need
	}
	n.reset = (burst - n.tokens) * rate
	return n
}

// decide charges all buckets or none.
func decide(levels []*level, names []string, cost int, shift [2]float64) (bs []balance, refused bool) {
	for _, look := range [...]bool{false, true} {
		bs = bs[:0]
		for i, b := range levels {
			bs = append(bs, b.charge(names[i], cost, shift[i], look))
			refused = refused || bs[i].refused
		}
		if !refused {
			break
		}
	}
	return bs, refused
}

func (x *exchange) isServed(s *senderauth.Sender, bs []balance) string {
	if want := fmt.Sprint(s.ID, " ", s.Detail); x.status != 200 || string(x.body) != want || x.served != 1 {
		return "want 200 " + want
	}
	return x.tells(bs)
}

func (x *exchange) isRefused(bs []balance) string {
	retry := 0.0
	for _, b := range bs {
		if b.refused && retry >= 0 && (b.retry < 0 || b.retry > retry) {
			retry = b.retry
		}
	}
	if complaint := x.isLimited(retry); complaint != "" {
		return complaint
	}
	return x.tells(bs)
}

// tells compares the rate fields.
func (x *exchange) tells(bs []balance) string {
	if len(bs) == 0 {
		if x.header["X-Ratelimit-Limit"] != nil || x.header["Ratelimit"] != nil {
			return "rate fields although nothing was charged"
		}
		return ""
	}
	tight := &bs[0]
	for i := range bs {
		b := &bs[i]
		if left := int(b.tokens) - int(tight.tokens); left < 0 || left == 0 && b.refused && !tight.refused {
			tight = b
		}
	}
	if n := x.integer("X-Ratelimit-Limit"); n != tight.limit.EffectiveBurst() {
		return fmt.Sprintf("X-RateLimit-Limit is %d, want %+v", n, *tight)
	}
	if n := x.integer("X-Ratelimit-Remaining"); n != int(tight.tokens) {
		return fmt.Sprintf("X-RateLimit-Remaining is %d, want %+v", n, *tight)
	}
	fraction := float64(x.end.Nanosecond()) / 1e9
	if n := x.integer("X-Ratelimit-Reset") - int(x.end.Unix()); !ceils(n, fraction+tight.reset) {
		return fmt.Sprintf("X-RateLimit-Reset is in %d s, want %v", n, fraction+tight.reset)
	}
	states := strings.Split(strings.Join(x.header["Ratelimit"], ","), ", ")
	policies := strings.Split(strings.Join(x.header["Ratelimit-Policy"], ","), ", ")
	for i := range bs {
		if len(states) != len(bs) || !bs[i].isState(states[i]) {
			return fmt.Sprintf("RateLimit is %q, want %+v", states, bs)
		}
		if len(policies) != len(bs) || policies[i] != policyOf(bs[i].name, bs[i].limit) {
			return fmt.Sprintf("RateLimit-Policy is %q, want %+v", policies, bs)
		}
	}
	return ""
}

// isState compares an item of RateLimit.
func (b *balance) isState(item string) bool {
	rest, ok := strings.CutPrefix(item, `"`+b.name+`";r=`+strconv.Itoa(int(b.tokens)))
	switch next := math.Floor(b.tokens) + 1 - b.tokens; {
	case !ok:
		return false
	case b.limit == senderauth.Blocked() || int(b.tokens) == b.limit.EffectiveBurst():
		return rest == ""
	default:
		wait := next * b.limit.Per.Seconds() / float64(b.limit.Requests)
		if b.refused && b.retry > 0 {
			wait = b.retry
		}
		after, ok := strings.CutPrefix(rest, ";t=")
		n, err := strconv.Atoi(after)
		return ok && err == nil && n >= 1 && ceils(n, wait)
	}
}

func policyOf(name string, l senderauth.Limit) string {
	if l == senderauth.Blocked() {
		return fmt.Sprintf("%q;q=0", name)
	}
	window := math.Ceil(float64(l.EffectiveBurst()) * l.Per.Seconds() / float64(l.Requests))
	return fmt.Sprintf("%q;q=%d;w=%d", name, l.EffectiveBurst(), int(window))
}
