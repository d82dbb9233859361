package redislimit

import (
	"slices"
	"time"

	"github.com/senderauth/senderauth"
)

// A holding is what an instance holds of one sender's buckets.
type holding struct {
	sender   string
	reserves []reserve
	fetch    *fetch // in flight; at most one for each sender
	listed   bool   // in leaseTable.holders
}

// A fetch is one call of lease.lua for a sender.
type fetch struct {
	sender string
	orders []order
	sent   time.Duration
	done   chan struct{} // closed when the fetch has landed
	err    error         // valid once done is closed
}

// An order says what a fetch does for one bucket. After the fetch it also has the tokens
// that are held.
type order struct {
	*scale
	name    string
	need    int           // tokens that the caller takes
	owed    uint64        // parts that were admitted without Redis
	extra   int           // tokens to lease on top of need
	settled [2]settlement // what became of the leases since the last fetch

	held  int           // tokens held after the fetch
	retry time.Duration // how long Redis is not called again at least
}

// A settlement is what became of a lease's tokens.
type settlement struct {
	lapse       int64 // the lease's ID in Redis
	spent, back int
}

// A verdict says who decides a request in lease mode.
type verdict int

const (
	decided verdict = iota // the instance has decided
	join                   // wait for the fetch in flight, then decide again
	send                   // Redis decides with a new fetch, which also leases more tokens
	direct                 // Redis decides with take.lua, because it has no tokens to lease
)

// A decision is what becomes of a request. The fetch is the one to join or to
// send; with decided it is one to send in the background, or nil.
type decision struct {
	verdict verdict
	fetch   *fetch
}

// spend admits charges that the held tokens cover amply, as they do nearly all charges of a
// hot sender. It reports whether it did, and otherwise changes nothing. It needs no request,
// with which [holding.decide] takes 2.4 times as long (benchmarks, "lease, one hot
// sender").
func (h *holding) spend(charges []senderauth.Charge, balances []senderauth.Balance, now time.Duration) bool {
	var from [2]*reserve
	if len(charges) > len(from) {
		return false
	}
	for i := range charges {
		c := &charges[i]
		r := h.reserve(c.Name)
		if r == nil || r.limit != c.Limit || c.Cost <= 0 || slices.Contains(from[:i], r) {
			return false
		}
		if left := r.held(now) - c.Cost; left < 0 || left < r.batch/4 && h.fetch == nil {
			return false
		}
		from[i] = r
	}
	for i, r := range from[:len(charges)] {
		r.spend(charges[i].Cost, now)
		balances[i] = r.balance(now)
	}
	return true
}

// decide decides a request from the held tokens, if it can do so correctly, and fills in the
// balances. Otherwise the verdict says who decides. The tokens of a request that joins are
// counted as waiting until [holding.leave].
func (h *holding) decide(q *request, now time.Duration) decision {
	h.open(q)
	short, lacking := h.short(q, now)
	switch {
	case q.refused || !q.costs() || short > 0 && lacking == 0:
		if h.fetch == nil {
			return decision{verdict: send, fetch: h.begin(h.ordersFor(q, now), now)}
		}
		h.count(q, +1)
		return decision{verdict: join, fetch: h.fetch}
	case short > lacking:
		return decision{verdict: direct}
	case short > 0:
		h.refuse(q, now)
	default:
		h.admit(q, now)
	}
	return decision{verdict: decided}
}

// leave ends the wait of a request that joined.
func (h *holding) leave(q *request) {
	h.open(q)
	h.count(q, -1)
}

// reserve returns the reserve of a bucket, or nil.
func (h *holding) reserve(name string) *reserve {
	for i := range h.reserves {
		if r := &h.reserves[i]; r.name == name {
			return r
		}
	}
	return nil
}

// open makes sure that each charge has a reserve of its limit.
func (h *holding) open(q *request) {
	for i := range q.asked {
		c := &q.asked[i]
		switch r := h.reserve(c.Name); {
		case r == nil:
			h.reserves = append(h.reserves, newReserve(c.Charge, c.scale))
		case r.limit != c.Limit:
			r.adopt(c.Limit, c.scale)
		}
	}
}

// short returns how many charges the held tokens do not cover, and for how many of those
// Redis is known to lack the tokens as well.
func (h *holding) short(q *request, now time.Duration) (short, lacking int) {
	for i := range q.asked {
		c := &q.asked[i]
		if r := h.reserve(c.Name); r.held(now) < c.Cost {
			short++
			if r.lacks(c.Cost, now) {
				lacking++
			}
		}
	}
	return short, lacking
}

func (h *holding) admit(q *request, now time.Duration) {
	for i := range q.asked {
		c := &q.asked[i]
		r := h.reserve(c.Name)
		r.spend(c.Cost, now)
		*c.balance = r.balance(now)
	}
}

// refuse refuses the charges that the held tokens do not cover, and counts them as demand.
func (h *holding) refuse(q *request, now time.Duration) {
	for i := range q.asked {
		c := &q.asked[i]
		r := h.reserve(c.Name)
		*c.balance = r.balance(now)
		if r.held(now) < c.Cost {
			r.demand += c.Cost
			c.balance.Refused = true
			c.balance.RetryAfter = r.retryAfter(c.Cost, now)
		}
	}
}

// count adds the tokens of a request to those that callers wait for, or subtracts them. A
// request that is refused in any case waits for an answer but for no tokens.
func (h *holding) count(q *request, sign int) {
	if q.refused {
		return
	}
	for i := range q.asked {
		c := &q.asked[i]
		h.reserve(c.Name).waiting += sign * c.Cost
	}
}

// low reports whether a request that was just admitted leaves so little that
// more should be fetched in the background. One fetch at a time is in flight.
func (h *holding) low(q *request, now time.Duration) bool {
	return h.fetch == nil && slices.ContainsFunc(q.asked, func(c bucketCharge) bool { return h.reserve(c.Name).low(now) })
}

// idle reports whether there are tokens to give back.
func (h *holding) idle(now time.Duration) bool {
	return h.fetch == nil && slices.ContainsFunc(h.reserves, func(r reserve) bool { return r.anyIdle(now) })
}

// holds reports whether there are tokens, or a fetch may bring some.
func (h *holding) holds() bool {
	return h.fetch != nil || slices.ContainsFunc(h.reserves, func(r reserve) bool { return r.holds() })
}

// forgettable reports whether the holding knows nothing that Redis does not.
func (h *holding) forgettable(now time.Duration) bool {
	return h.fetch == nil && !h.listed &&
		!slices.ContainsFunc(h.reserves, func(r reserve) bool { return !r.forgettable(now) })
}

// ordersFor returns the orders of a request's fetch. A request that takes nothing leases
// nothing either.
func (h *holding) ordersFor(q *request, now time.Duration) []order {
	orders := make([]order, len(q.asked))
	takes := !q.refused && q.costs()
	for i := range q.asked {
		c, need := &q.asked[i], 0
		if takes {
			need = c.Cost
		}
		orders[i] = h.reserve(c.Name).prepare(need, takes, now)
	}
	return orders
}

// refill begins a fetch in the background. It leases more tokens for every reserve of the
// sender and gives idle ones back.
func (h *holding) refill(now time.Duration) *fetch {
	orders := make([]order, len(h.reserves))
	for i := range h.reserves {
		orders[i] = h.reserves[i].prepare(0, true, now)
	}
	return h.begin(orders, now)
}

func (h *holding) begin(orders []order, now time.Duration) *fetch {
	h.fetch = &fetch{sender: h.sender, orders: orders, sent: now, done: make(chan struct{})}
	return h.fetch
}

// land ends the fetch in flight and adds the tokens that it leased. A nil reply means that
// the fetch failed. It is not retried, because what it reported could count twice. Tokens
// that it gave back or leased lapse.
func (h *holding) land(f *fetch, reply leaseReply, now time.Duration) {
	h.fetch = nil
	if reply == nil {
		return
	}
	for i := range f.orders {
		o, got := &f.orders[i], reply.bucket(i)
		r := h.reserve(o.name)
		same := r.packed == o.packed // the limit has not changed since
		if got.leased > 0 {
			until := time.Duration(0)
			if same {
				// Count from before the fetch was sent, and stop early by more than two
				// clocks can drift apart.
				left := microseconds(got.lapse - reply.clock())
				until = f.sent + left - left/8
			}
			r.add(got.leased, got.lapse, until, now)
		}
		if same {
			r.learn(got.level, got.unchanged, o.need, reply.taken(), now)
		}
		o.held, o.retry = r.held(now), r.shortage.until-now
	}
}

// settle fills in the balances of a request that a fetch decided.
func (f *fetch) settle(q *request, reply leaseReply) {
	for i := range q.asked {
		c, o, got := &q.asked[i], &f.orders[i], reply.bucket(i)
		level := min(got.level+uint64(o.held)*c.perToken, c.full)
		*c.balance = c.balanceAt(level, c.need, got.unchanged, reply.taken() && !q.refused)
		if c.balance.Refused && c.balance.RetryAfter >= 0 {
			c.balance.RetryAfter = max(c.balance.RetryAfter, o.retry)
		}
	}
}
