package redislimit

import (
	"strings"
	"time"

	"github.com/senderauth/senderauth"
)

// A reserve holds an instance's tokens of one bucket and what it knows about the bucket.
type reserve struct {
	*scale
	name   string
	limit  senderauth.Limit
	leases [2]lease

	asked   time.Duration // when the last fetch was prepared
	demand  int           // tokens requested since then
	used    time.Duration // when a token was last requested
	rate    float64       // average demand in tokens a second
	batch   int           // tokens held when the last lease began
	waiting int           // tokens that callers wait for

	level    uint64        // level that Redis last reported
	since    time.Duration // since when the bucket has had that level
	shortage shortage
}

// A shortage says that Redis does not have so many tokens until some time. Until then they
// are not requested. The zero shortage means none.
type shortage struct {
	tokens int
	until  time.Duration
}

// worthwhile is the least number of tokens to lease. With fewer, exact balances are worth
// more than the few calls that a lease would save.
const worthwhile = 8

func newReserve(c *senderauth.Charge, s *scale) reserve {
	return reserve{scale: s, name: strings.Clone(c.Name), limit: c.Limit, asked: -time.Hour}
}

// adopt moves the reserve to another limit. The tokens it holds become unusable
// and go back with the next fetch, because only Redis knows what all instances
// hold.
func (r *reserve) adopt(l senderauth.Limit, s *scale) {
	r.limit, r.scale, r.shortage.tokens = l, s, 0
	for i := range r.leases {
		r.leases[i].until = 0
	}
}

// held returns how many tokens can be spent.
func (r *reserve) held(now time.Duration) int {
	n := 0
	for i := range r.leases {
		if e := &r.leases[i]; e.usable(now) {
			n += e.tokens
		}
	}
	return n
}

// holds reports whether there are any tokens, usable or not.
func (r *reserve) holds() bool { return r.leases[0].tokens > 0 || r.leases[1].tokens > 0 }

// lacks reports whether the bucket in Redis is known to lack cost tokens.
func (r *reserve) lacks(cost int, now time.Duration) bool {
	return r.shortage.tokens > 0 && cost >= r.shortage.tokens && r.shortage.until > now
}

// low reports whether more tokens should be fetched before these are gone.
func (r *reserve) low(now time.Duration) bool {
	return r.batch >= worthwhile && r.held(now) < r.batch/4 && !r.lacks(1, now)
}

// idle reports whether to give a lease back, because it is not used or is about to lapse.
func (r *reserve) idle(e *lease, now time.Duration) bool {
	return e.tokens > 0 && (r.used+r.term/5 < now || e.until < now+r.term/6)
}

// anyIdle reports whether there is a lease to give back.
func (r *reserve) anyIdle(now time.Duration) bool {
	return r.idle(&r.leases[0], now) || r.idle(&r.leases[1], now)
}

// forgettable reports whether the reserve knows nothing that Redis does not.
func (r *reserve) forgettable(now time.Duration) bool {
	return r.waiting == 0 && r.held(now) == 0 && r.asked+time.Second <= now && r.shortage.until <= now
}

// spend takes tokens that are held.
func (r *reserve) spend(cost int, now time.Duration) {
	r.demand, r.used = r.demand+cost, now
	for i := range r.leases {
		if e := &r.leases[i]; e.usable(now) {
			n := min(e.tokens, cost)
			e.tokens, e.spent, cost = e.tokens-n, e.spent+n, cost-n
		}
	}
}

// balance returns the bucket's balance as far as this instance knows it. It counts only the
// held tokens, because others may have taken all the rest.
func (r *reserve) balance(now time.Duration) senderauth.Balance {
	held := r.held(now)
	return senderauth.Balance{
		Remaining:  held,
		ResetAfter: r.wait(min(uint64(held)*r.perToken, r.full), r.full, 0),
	}
}

// retryAfter returns how long it takes until Redis may have cost tokens.
func (r *reserve) retryAfter(cost int, now time.Duration) time.Duration {
	return max(r.wait(r.level, uint64(cost)*r.perToken, now-r.since), r.shortage.until-now, time.Microsecond)
}

// followDemand moves the rate towards that of the demand since the last fetch. It averages
// over the horizon, so that two requests in a row do not look like a thousand a second.
func (r *reserve) followDemand(now time.Duration) {
	if since := (now - r.asked).Seconds(); since > 0 {
		r.rate += (float64(r.demand)/since - r.rate) * since / (since + r.horizon())
	}
}

// horizon returns how many seconds a lease is sure to last.
func (r *reserve) horizon() float64 { return (r.term * 2 / 5).Seconds() }

// want returns how many tokens to hold: what the sender takes within the horizon, and at
// least what callers wait for.
func (r *reserve) want() int {
	n := min(r.rate*r.horizon(), float64(r.burst))
	if n < worthwhile || r.demand == 0 {
		n = 0
	}
	return max(int(n), r.waiting)
}

// prepare makes the order of a fetch and removes what the fetch reports and gives back. need
// is what the caller takes. If more is set, the fetch leases tokens on top.
func (r *reserve) prepare(need int, more bool, now time.Duration) order {
	o := order{name: r.name, scale: r.scale, need: need}
	if need > 0 {
		r.demand, r.used = r.demand+need, now
	}
	if more {
		r.followDemand(now)
		o.extra = r.want()
	}
	for i := range r.leases {
		e, settled := &r.leases[i], &o.settled[i]
		settled.lapse, settled.spent, e.spent = e.lapse, e.spent, 0
		// A need means that the held tokens do not suffice. They go back, so that Redis
		// decides with every token there is.
		if need > 0 || r.idle(e, now) {
			settled.back, e.tokens = e.tokens, 0
		}
		o.extra -= e.tokens
	}
	o.extra = max(o.extra, 0)
	r.asked, r.demand = now, 0
	return o
}

// add adds tokens to the lease that lapses at the same time, or replaces the lease that
// lapses first.
func (r *reserve) add(tokens int, lapse int64, until, now time.Duration) {
	e := &r.leases[0]
	for i := range r.leases {
		other := &r.leases[i]
		if other.lapse == lapse {
			other.tokens, other.until = other.tokens+tokens, until
			r.batch = r.held(now)
			return
		}
		if other.lapse < e.lapse {
			e = other
		}
	}
	*e = lease{lapse: lapse, until: until, tokens: tokens}
	r.batch = r.held(now)
}

// learn records what Redis reported about the bucket after it took or refused need tokens:
// its level, and for how long it has had that level.
func (r *reserve) learn(level uint64, unchanged time.Duration, need int, taken bool, now time.Duration) {
	r.level, r.since, r.shortage.tokens = level, now-unchanged, 0
	switch {
	case !taken && level < uint64(need)*r.perToken:
		r.shortage.tokens = need
	case level < r.perToken:
		r.shortage.tokens = 1
	default:
		return
	}
	// A pause lets tokens gather, so that the next call brings more than one. It
	// is short, because another instance may give some back.
	refill := r.wait(level, uint64(r.shortage.tokens)*r.perToken, unchanged)
	r.shortage.until = now + max(r.term/4, min(refill, time.Second))
}

// empty drops all tokens, for a bucket that was reset.
func (r *reserve) empty() {
	r.leases, r.shortage.tokens = [2]lease{}, 0
}
