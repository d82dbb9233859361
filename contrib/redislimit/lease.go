package redislimit

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/senderauth/senderauth"
)

//go:embed lease.lua
var leaseLua string

var leaseScript = newScript(leaseLua)

// In lease mode an instance holds tokens that it took from Redis ahead of
// need. Redis keeps their place in the bucket: what it holds and what is
// leased are never more than the burst together, and flow back no faster than
// the limit says. A lease ends by being spent, given back, or lapsing, by the
// clock of Redis; an instance stops using it earlier, by its own.
//
// Why the fleet never admits more than burst + rate x T in any T seconds: let
// P be the tokens in Redis and those that instances hold and may still use. P
// is at most the burst. Leasing and giving back move tokens and leave P as it
// is, lapsing lowers it, the refill raises it by at most rate x T, and each
// admission lowers it by one.

// leases are the tokens that an instance holds.
type leases struct {
	term   time.Duration // Config.Lease
	start  time.Time     // of the instance's clock
	seed   maphash.Seed
	shards [64]leaseShard
	room   chan struct{} // for calls that nobody waits for
}

type leaseShard struct {
	mu      sync.Mutex
	senders map[string]*holding
	order   []*holding // the same, for the forgetting hand
	hand    int
	holders []*holding // those with tokens to give back
}

// A holding is what an instance holds of one sender's buckets.
type holding struct {
	sender string
	purses []purse
	flight *flight // the call that is under way
	holder bool    // is in leaseShard.holders
}

type flight struct {
	done chan struct{}
	err  error
}

// A purse is what it holds of one bucket.
type purse struct {
	*scale
	name    string
	limit   senderauth.Limit
	lots    [2]lot
	flown   time.Duration // when Redis was last asked
	demand  int           // tokens since then
	used    time.Duration // when there was any
	rate    float64       // of the demand, a second
	batch   int           // held when tokens were last leased
	waiting int           // tokens that callers wait for
	// Redis had not got this many tokens, and is not asked for as many before
	// that time. 0: it had.
	lacking int
	until   time.Duration
	level   uint64        // that it has had
	at      time.Duration // since then
}

// A lot lapses as one.
type lot struct {
	lapse  int64         // microseconds of Redis' clock, by which Redis knows it
	until  time.Duration // of the instance's clock: when to stop using it
	tokens int
	spent  int // and not yet told
}

// term is how long tokens of this limit are leased: no longer than a quarter of
// what fills the bucket, for as long it could have that much less. 0: not at
// all, where a lease would hardly outlast the call.
func (s *scale) term(most time.Duration) time.Duration {
	t := min(most, s.wait(0, s.full, 0)/4)
	if t < 4*time.Millisecond {
		return 0
	}
	return t
}

func newLeases(term time.Duration) *leases {
	s := &leases{term: term, start: time.Now(), seed: maphash.MakeSeed(), room: make(chan struct{}, 64)}
	for i := range s.shards {
		s.shards[i].senders = make(map[string]*holding)
	}
	return s
}

func (s *leases) now() time.Duration { return time.Since(s.start) }

func (s *leases) shard(sender string) *leaseShard {
	return &s.shards[maphash.String(s.seed, sender)%uint64(len(s.shards))]
}

// spend admits what is amply covered by what is held, which on a hot sender is
// nearly all: without the plan that every other decision needs it is twice as
// fast. It reports whether it did, and does nothing where it did not.
func (s *leases) spend(sender string, charges []senderauth.Charge, balances []senderauth.Balance) bool {
	var from [2]*purse
	if len(charges) > len(from) {
		return false
	}
	shard := s.shard(sender)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	h := shard.senders[sender]
	if h == nil {
		return false
	}
	now := s.now() // under the lock: a lease may lapse while waiting for it
	for i := range charges {
		c := &charges[i]
		p := h.known(c)
		if p == nil || c.Cost <= 0 || slices.Contains(from[:i], p) {
			return false
		}
		if left := p.held(now) - c.Cost; left < 0 || left < p.batch/4 && h.flight == nil {
			return false
		}
		from[i] = p
	}
	for i, p := range from[:len(charges)] {
		p.spend(charges[i].Cost, now)
		balances[i] = p.balance(charges[i].Cost, now, true)
	}
	return true
}

// leased decides from what is held, and asks Redis where that does not do. One
// call at a time is under way for a sender; who comes meanwhile and cannot be
// served waits for it, and is counted in the next.
func (l *Limiter) leased(ctx context.Context, t *take) error {
	shard := l.leases.shard(t.sender)
	shard.mu.Lock()
	now := l.leases.now() // under the lock: a lease may lapse while waiting for it
	end := now + l.timeout
	for {
		h := shard.holding(t.sender, now)
		switch h.decide(t, now) {
		case here:
			if h.flight == nil && h.low(t, now) {
				l.renew(shard, h, now)
			}
			shard.mu.Unlock()
			return nil
		case direct:
			shard.mu.Unlock()
			return l.exact(ctx, t)
		}
		f := h.flight
		if f == nil {
			return l.fly(ctx, shard, h, t, now)
		}
		h.wait(t, +1)
		shard.mu.Unlock()
		<-f.done // within the timeout
		shard.mu.Lock()
		h.wait(t, -1)
		if now = l.leases.now(); f.err == nil && now > end {
			f = &flight{err: context.DeadlineExceeded}
		}
		if f.err != nil {
			shard.mu.Unlock()
			return f.err
		}
	}
}

// holding returns the sender's, and forgets up to four others that hold
// nothing and were not asked for in a while.
func (s *leaseShard) holding(sender string, now time.Duration) *holding {
	if h := s.senders[sender]; h != nil {
		return h
	}
	for range min(4, len(s.order)) {
		if s.hand >= len(s.order) {
			s.hand = 0
		}
		old := s.order[s.hand]
		if !old.idle(now) {
			s.hand++
			continue
		}
		last := len(s.order) - 1
		s.order[s.hand], s.order[last] = s.order[last], nil
		s.order = s.order[:last]
		delete(s.senders, old.sender)
	}
	h := &holding{sender: strings.Clone(sender)}
	s.senders[h.sender] = h
	s.order = append(s.order, h)
	return h
}

func (h *holding) idle(now time.Duration) bool {
	if h.flight != nil || h.holder {
		return false
	}
	for i := range h.purses {
		p := &h.purses[i]
		if p.waiting > 0 || p.held(now) > 0 || p.flown+time.Second > now || p.until > now {
			return false
		}
	}
	return true
}

// purse returns the purse of a charge. Where its limit has changed, what is held
// goes back with the next call: Redis knows what all instances hold.
func (h *holding) purse(c *senderauth.Charge, a *asked) *purse {
	for i := range h.purses {
		if p := &h.purses[i]; p.name == c.Name {
			if p.limit != c.Limit {
				p.limit, p.scale, p.lacking = c.Limit, a.scale, 0
				p.lots[0].until, p.lots[1].until = 0, 0
			}
			return p
		}
	}
	h.purses = append(h.purses, purse{scale: a.scale, name: strings.Clone(c.Name), limit: c.Limit, flown: -time.Hour})
	return &h.purses[len(h.purses)-1]
}

// known returns the purse of a charge whose limit has not changed, or nil.
func (h *holding) known(c *senderauth.Charge) *purse {
	for i := range h.purses {
		if p := &h.purses[i]; p.name == c.Name && p.limit == c.Limit {
			return p
		}
	}
	return nil
}

// held returns how many tokens can be spent.
func (p *purse) held(now time.Duration) int {
	n := 0
	for i := range p.lots {
		if p.lots[i].until > now {
			n += p.lots[i].tokens
		}
	}
	return n
}

func (p *purse) spend(cost int, now time.Duration) {
	p.demand, p.used = p.demand+cost, now
	for i := range p.lots {
		if o := &p.lots[i]; o.until > now {
			n := min(o.tokens, cost)
			o.tokens, o.spent, cost = o.tokens-n, o.spent+n, cost-n
		}
	}
}

// lacks reports whether it is known that the bucket has not got cost tokens.
func (p *purse) lacks(cost int, now time.Duration) bool {
	return p.lacking > 0 && cost >= p.lacking && p.until > now
}

// A verdict is where a request is decided.
type verdict int

const (
	here   verdict = iota // from what is held
	fly                   // by a call that also brings more
	direct                // by one that does not: no more will come for now
)

// decide decides without Redis where that can be done truly, and then fills in
// the balances. What remains is what is held: others may have taken the rest.
func (h *holding) decide(t *take, now time.Duration) verdict {
	short, lacking := 0, 0
	for i := range t.asked {
		a := &t.asked[i]
		c := &t.charges[a.i]
		if p := h.purse(c, a); p.held(now) < c.Cost {
			short++
			if p.lacks(c.Cost, now) {
				lacking++
			}
		}
	}
	switch {
	case t.refused, !t.costs(), short > 0 && lacking == 0:
		return fly
	case short > lacking:
		return direct
	}
	for i := range t.asked {
		a := &t.asked[i]
		c := &t.charges[a.i]
		p := h.purse(c, a)
		if short == 0 {
			p.spend(c.Cost, now)
		}
		t.balances[a.i] = p.balance(c.Cost, now, short == 0)
	}
	return here
}

// balance is what can be said without Redis.
func (p *purse) balance(cost int, now time.Duration, covered bool) senderauth.Balance {
	held := p.held(now)
	b := senderauth.Balance{Remaining: held, ResetAfter: p.wait(min(uint64(held)*p.perToken, p.full), p.full, 0)}
	if !covered && held < cost {
		p.demand += cost
		b.Refused = true
		b.RetryAfter = max(p.wait(p.level, uint64(cost)*p.perToken, now-p.at), p.until-now, time.Microsecond)
	}
	return b
}

// wait counts the tokens that a caller waits for.
func (h *holding) wait(t *take, sign int) {
	if t.refused {
		return
	}
	for i := range t.asked {
		a := &t.asked[i]
		h.purse(&t.charges[a.i], a).waiting += sign * t.charges[a.i].Cost
	}
}

// low reports whether a charge that was just taken leaves so little that more
// should be fetched before it is gone.
func (h *holding) low(t *take, now time.Duration) bool {
	for i := range t.asked {
		a := &t.asked[i]
		p := h.purse(&t.charges[a.i], a)
		if p.batch >= worthwhile && p.held(now) < p.batch/4 && !p.lacks(1, now) {
			return true
		}
	}
	return false
}

// want returns how many tokens to hold: what the sender takes in the time for
// which a lease is sure to last. The rate follows that of the demand as slowly
// as that time passes, so that two requests in a row do not look like a
// thousand.
func (p *purse) want(now, term time.Duration) int {
	ahead, since := (term * 2 / 5).Seconds(), (now - p.flown).Seconds()
	if since > 0 {
		p.rate += (float64(p.demand)/since - p.rate) * since / (since + ahead)
	}
	n := min(p.rate*ahead, float64(p.burst))
	if n < worthwhile || p.demand == 0 {
		n = 0
	}
	return max(int(n), p.waiting)
}

// Below this many tokens a sender is better off with the exact numbers of
// Redis than with a call saved now and then.
const worthwhile = 8

// An errand is what a call to Redis is to do for a purse.
type errand struct {
	name string
	*scale
	need int  // tokens
	look bool // lease nothing
}

// pack takes out of the purse what the call tells and gives back, and returns
// the words of it.
func (p *purse) pack(e *errand, now, most time.Duration) string {
	term := p.term(most)
	if e.need > 0 {
		p.demand, p.used = p.demand+e.need, now
	}
	extra := 0
	if !e.look {
		extra = p.want(now, term)
	}
	var back, spent [2]int
	for i := range p.lots {
		o := &p.lots[i]
		// Tokens that are idle go back, and those that were not enough: Redis
		// then decides with all there are.
		if e.need > 0 || p.idle(o, now, term) {
			back[i], o.tokens = o.tokens, 0
		}
		spent[i], o.spent = o.spent, 0
		extra -= o.tokens
	}
	p.flown, p.demand = now, 0
	b := append(make([]byte, 0, 28+9*8), e.packed...)
	b = appendDouble(b, uint64(e.need))
	b = appendDouble(b, uint64(max(extra, 0)))
	b = appendDouble(b, uint64(term/time.Microsecond))
	for i := range p.lots {
		b = appendDouble(b, uint64(p.lots[i].lapse))
		b = appendDouble(b, uint64(spent[i]))
		b = appendDouble(b, uint64(back[i]))
	}
	return string(b)
}

// add puts leased tokens into the purse.
func (p *purse) add(tokens int, lapse int64, until time.Duration) {
	o := &p.lots[0]
	for i := range p.lots {
		switch other := &p.lots[i]; {
		case other.lapse == lapse:
			other.tokens, other.until = other.tokens+tokens, until
			return
		case other.lapse < o.lapse:
			o = other
		}
	}
	*o = lot{lapse: lapse, until: until, tokens: tokens}
}

// learn notes what Redis said about the bucket.
func (p *purse) learn(level uint64, since time.Duration, needed int, taken bool, now, term time.Duration) {
	p.level, p.at, p.lacking = level, now-since, 0
	switch {
	case !taken && level < uint64(needed)*p.perToken:
		p.lacking = needed
	case level < p.perToken:
		p.lacking = 1
	default:
		return
	}
	// A pause lets tokens gather, so that the next call brings more than one;
	// and not for long, for another instance may give some back.
	p.until = now + max(term/4, min(p.wait(level, uint64(p.lacking)*p.perToken, since), time.Second))
}

// A call carries the errands of one sender to Redis.
type call struct {
	h       *holding
	errands []errand
	keys    []string
	args    []string
	flight  *flight
	sent    time.Duration
}

// prepare begins a call. The shard is locked.
func (l *Limiter) prepare(h *holding, errands []errand, now time.Duration) *call {
	c := &call{h: h, errands: errands, flight: &flight{done: make(chan struct{})}, sent: now}
	for i := range errands {
		e := &errands[i]
		c.keys = append(c.keys, l.key(h.sender, e.name))
		c.args = append(c.args, h.named(e.name).pack(e, now, l.leases.term))
	}
	h.flight = c.flight
	return c
}

// do makes the call and puts away what it brought. The shard is not locked
// before, and is after. A call that failed is not made again: what it told
// could count twice. What it gave back or would have brought then lapses.
func (l *Limiter) do(ctx context.Context, shard *leaseShard, c *call) (reply []int64, err error) {
	err = errNoReply
	defer func() { // also where a hook of the client panics
		shard.mu.Lock()
		if err == nil && c.land(reply, l.leases.now(), l.leases.term) && !c.h.holder {
			c.h.holder = true
			shard.holders = append(shard.holders, c.h)
		}
		c.h.flight, c.flight.err = nil, err
		close(c.flight.done)
	}()
	reply, err = l.ask(ctx, c.h.sender, func(ctx context.Context, n *line) ([]int64, error) {
		return leaseScript.run(ctx, n, c.keys, c.args, false)
	})
	if err == nil && len(reply) != 2+4*len(c.errands) {
		err = fmt.Errorf("redislimit: the script's reply has %d numbers", len(reply))
	}
	return reply, err
}

var errNoReply = errors.New("redislimit: Redis was not asked")

// land puts away what a call brought, and reports whether it brought tokens.
func (c *call) land(reply []int64, now, most time.Duration) (brought bool) {
	for i := range c.errands {
		e, p := &c.errands[i], c.h.named(c.errands[i].name)
		level, since, leased, lapse := uint64(reply[2+4*i]), microseconds(reply[3+4*i]), int(reply[4+4*i]), reply[5+4*i]
		same := p.packed == e.packed // the limit has not changed meanwhile
		if leased > 0 {
			brought = true
			until := time.Duration(0)
			if same {
				// From before the call was sent, and earlier by more than two
				// clocks drift apart.
				left := microseconds(lapse - reply[1])
				until = c.sent + left - left/8
			}
			p.add(leased, lapse, until)
			p.batch = p.held(now)
		}
		if same {
			p.learn(level, since, e.need, reply[0] == 1, now, p.term(most))
		}
	}
	return brought
}

// fly asks Redis for what a caller needs, and unlocks the shard.
func (l *Limiter) fly(ctx context.Context, shard *leaseShard, h *holding, t *take, now time.Duration) error {
	c := l.prepare(h, t.errands(), now)
	shard.mu.Unlock()
	defer shard.mu.Unlock()
	reply, err := l.do(ctx, shard, c)
	if err != nil {
		return err
	}
	now = l.leases.now()
	for i := range t.asked {
		a := &t.asked[i]
		p := h.named(t.charges[a.i].Name)
		level := min(uint64(reply[2+4*i])+uint64(p.held(now))*a.perToken, a.full)
		b := a.balance(level, a.need, microseconds(reply[3+4*i]), reply[0] == 1 && !t.refused)
		if b.Refused && b.RetryAfter >= 0 {
			b.RetryAfter = max(b.RetryAfter, p.until-now)
		}
		t.balances[a.i] = b
	}
	return nil
}

// errands is what a take needs.
func (t *take) errands() []errand {
	errands := make([]errand, len(t.asked))
	look := t.refused || !t.costs()
	for i := range t.asked {
		a := &t.asked[i]
		errands[i] = errand{name: t.charges[a.i].Name, scale: a.scale, look: look}
		if !t.refused {
			errands[i].need = t.charges[a.i].Cost
		}
	}
	return errands
}

func (t *take) costs() bool {
	return slices.ContainsFunc(t.asked, func(a asked) bool { return t.charges[a.i].Cost > 0 })
}

// renew fetches more tokens of all that is held, and gives back those that are
// idle, without anybody waiting for it. The shard is locked.
func (l *Limiter) renew(shard *leaseShard, h *holding, now time.Duration) {
	if l.part(h.sender).open() {
		return
	}
	select {
	case l.leases.room <- struct{}{}:
	default:
		return
	}
	c := l.prepare(h, h.errands(l.leases.term), now)
	if !l.spawn(func() {
		_, _ = l.do(context.Background(), shard, c)
		shard.mu.Unlock()
		<-l.leases.room
	}) {
		h.flight = nil
		c.flight.err = errClosed
		close(c.flight.done)
		<-l.leases.room
	}
}

// errands is what a holding needs by itself.
func (h *holding) errands(most time.Duration) []errand {
	errands := make([]errand, len(h.purses))
	for i := range h.purses {
		p := &h.purses[i]
		errands[i] = errand{name: p.name, scale: p.scale, look: p.term(most) == 0}
	}
	return errands
}

// tend gives back tokens that are not used.
func (l *Limiter) tend() {
	t := time.NewTicker(max(l.leases.term/10, 2*time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-t.C:
		}
		for i := range l.leases.shards {
			shard := &l.leases.shards[i]
			shard.mu.Lock()
			now := l.leases.now()
			shard.holders = slices.DeleteFunc(shard.holders, func(h *holding) bool {
				held, idle := h.idling(now, l.leases.term)
				if idle && h.flight == nil {
					l.renew(shard, h, now)
				}
				h.holder = held || h.flight != nil
				return !h.holder
			})
			shard.mu.Unlock()
		}
	}
}

// idle reports whether a lot is to go back: nobody takes of it, or it will soon
// lapse.
func (p *purse) idle(o *lot, now, term time.Duration) bool {
	return o.tokens > 0 && (p.used+term/5 < now || o.until < now+term/6)
}

// idling reports whether any tokens are held, and whether some are to go back.
func (h *holding) idling(now, most time.Duration) (held, idle bool) {
	for i := range h.purses {
		p := &h.purses[i]
		for j := range p.lots {
			o := &p.lots[j]
			held = held || o.tokens > 0
			idle = idle || p.idle(o, now, p.term(most))
		}
	}
	return held, idle
}

func (h *holding) named(name string) *purse {
	return &h.purses[slices.IndexFunc(h.purses, func(p purse) bool { return p.name == name })]
}

// drop forgets what is held of a sender.
func (s *leases) drop(sender string) {
	shard := s.shard(sender)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if h := shard.senders[sender]; h != nil {
		for i := range h.purses {
			p := &h.purses[i]
			p.lots, p.lacking = [2]lot{}, 0
		}
	}
}
