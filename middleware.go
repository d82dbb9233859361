package senderauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// A Guard authenticates requests and charges the sender's limits, in front of
// handlers. It is immutable and safe for concurrent use. [Guard.Charging],
// [Guard.ChargingBy], [Guard.Costing] and [Guard.Requiring] derive guards that share
// the Validator and the buckets of the original.
type Guard struct {
	authenticator *authenticator
	charger       *charger
	responder     *responder
	observe       func(context.Context, Event) // nil: nobody
	stripKey      bool

	scopes []string                     // that a sender must have
	names  []string                     // of the limits that a request is charged
	choose func(*http.Request) []string // the same, for one request; nil: names
	cost   func(*http.Request) int      // of each limit; nil: 1
	fixed  *bill                        // of names, at a cost of 1; nil if choose or cost is set
}

// New returns a guard that authenticates senders with v and charges the limit
// "default". It reports every mistake in cfg at once, each with its field. A nil v is
// a mistake. If there is one, the guard is nil, and its methods panic.
//
// Put a [Cache] in front of a Validator that does I/O. You can wrap a Cache or a
// [MemoryLimiter] in a type of your own. The guard then calls it through its
// interface, which costs a request one or two allocations and about a quarter of the
// guard's time.
func New(v Validator, cfg Config) (*Guard, error) {
	if err := errors.Join(validateValidator(v), cfg.validate()); err != nil {
		return nil, err
	}
	g := &Guard{
		authenticator: newAuthenticator(v, &cfg),
		charger:       newCharger(&cfg),
		responder:     newResponder(&cfg),
		observe:       cfg.Observe,
		stripKey:      cfg.StripKey,
	}
	return g.Charging("default"), nil
}

// mustBeMade panics where the program starts, not where each request would.
func (g *Guard) mustBeMade() {
	if g == nil || g.charger == nil {
		panic("senderauth: the Guard was not made by New, or New returned an error")
	}
}

// Charging returns a guard that charges these limits instead, all of them or
// none. Without names it only authenticates. It panics on a name that is not in
// Config.Limits or is given twice, because such a name is a mistake in the program.
func (g *Guard) Charging(names ...string) *Guard {
	g.mustBeMade()
	b, err := g.charger.bill(names, 1)
	if err != nil {
		panic(err)
	}
	derived := *g
	derived.names, derived.choose, derived.fixed = append([]string(nil), names...), nil, b
	if g.cost != nil {
		derived.fixed = nil
	}
	return &derived
}

// ChargingBy returns a guard that charges the limits that f names for a request, for
// example by the pattern that a router matched. f gets the request of an
// authenticated sender, with the sender in its context, and must not change it. If f
// returns a name that is not in Config.Limits, or a name twice, the answer is 500.
// ChargingBy panics on a nil f.
func (g *Guard) ChargingBy(f func(*http.Request) []string) *Guard {
	g.mustBeMade()
	if f == nil {
		panic("senderauth: ChargingBy: the function is nil")
	}
	derived := *g
	derived.choose, derived.fixed = f, nil
	return &derived
}

// Costing returns a guard that charges f(r) tokens of each of its limits instead
// of one. f gets the request as in [Guard.ChargingBy].
//
//   - A cost of 0 only looks at the buckets.
//   - A cost below 0 is answered with 500.
//   - A cost above a limit's burst can never be paid. It is answered with 429 without
//     Retry-After.
//
// Use [Guard.Charge] for a cost that only the handler knows. Costing panics on a nil f.
func (g *Guard) Costing(f func(*http.Request) int) *Guard {
	g.mustBeMade()
	if f == nil {
		panic("senderauth: Costing: the function is nil")
	}
	derived := *g
	derived.cost, derived.fixed = f, nil
	return &derived
}

// Wrap returns a handler that authenticates each request, checks the scopes that the
// guard requires, charges the sender's limits, and calls next only if all of that
// succeeds. next finds the sender with [SenderFrom], and gets the ResponseWriter
// untouched. Wrap panics on a nil next.
//
// Inside another guard of the same New, a guard does not authenticate again. It
// charges only those of its limits that no guard further out has charged, so that a
// request is charged for each name once. A guard knows from the context of a request
// that it is inside another guard. So if a handler serves further requests with the
// context of its own, as a batch does, guards do not charge these again: charge them
// with [Guard.Charge].
//
// The response carries Cache-Control: private and the rate fields, unless next sets
// those fields itself. A handler that adds fields instead of setting them, as
// httputil.ReverseProxy does, must delete either its own or the guard's.
func (g *Guard) Wrap(next http.Handler) http.Handler {
	g.mustBeMade()
	if isNil(next) {
		panic("senderauth: Wrap: the handler is nil")
	}
	return &handler{guard: g, next: next}
}

type handler struct {
	guard *Guard
	next  http.Handler
}

// ServeHTTP decides first and answers after.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g := h.guard
	d := decision{outcome: Admitted}
	if g.observe == nil {
		g.decide(r, &d)
	} else {
		start := time.Now()
		g.decide(r, &d)
		g.observe(r.Context(), d.event(time.Since(start)))
	}
	switch {
	case d.outcome != Admitted:
		g.responder.refuse(w, r, &d)
	case d.tally.bill == nil:
		h.next.ServeHTTP(w, r) // a guard further out has done it all
	default:
		g.serve(w, r, &d, h.next)
	}
}

// decide answers the first two questions: who is calling, and may they.
func (g *Guard) decide(r *http.Request, d *decision) {
	outer := admissionBy(r.Context(), g.charger)
	if outer != nil {
		d.inner, d.cached, d.sender = true, true, outer.sender
	} else if g.authenticator.authenticate(r, d); d.outcome != Admitted {
		return
	}
	if scope, lacks := g.lacks(d.sender); lacks {
		d.refuse(OutOfScope, fmt.Errorf("%w: %s", errScope, scope))
		return
	}
	b, err := g.bill(r, outer, d)
	switch {
	case err != nil:
		d.refuse(Failed, err)
	case b != nil:
		g.charger.charge(r.Context(), d, b)
	case outer != admissionFrom(r.Context()):
		d.tally.bill = outer.charged // next must not find the sender of WithSender or of another New
	}
}

// bill returns what the request is charged by this guard; nil if a guard further
// out has charged all of it.
func (g *Guard) bill(r *http.Request, outer *admission, d *decision) (*bill, error) {
	b := g.fixed
	if b == nil {
		seen := r
		if outer == nil {
			d.next = g.admit(r, d.sender)
			defer d.next.handBack(r) // of a refusal, too
			seen = &d.next.request
		}
		names, cost := g.names, 1
		if g.choose != nil {
			names = g.choose(seen)
		}
		if g.cost != nil {
			cost = g.cost(seen)
		}
		var err error
		if b, err = g.charger.bill(names, cost); err != nil {
			return nil, err
		}
	}
	if outer != nil {
		return b.after(outer.charged), nil
	}
	return b, nil
}

// admit makes the request that next gets.
func (g *Guard) admit(r *http.Request, s *Sender) *admission {
	a := &admission{Context: r.Context(), sender: s}
	a.request = *r.WithContext(a)
	if key := g.authenticator.keyHeader; g.stripKey && len(r.Header[key]) > 0 {
		a.request.Header = r.Header.Clone()
		delete(a.request.Header, key)
	}
	return a
}

// serve hands an admitted request to next.
func (g *Guard) serve(w http.ResponseWriter, r *http.Request, d *decision, next http.Handler) {
	a := d.next
	if a == nil {
		a = g.admit(r, d.sender)
	}
	a.charged = d.tally.bill
	h := w.Header()
	canonicalize(h)
	g.responder.setRateFields(h, d)
	g.responder.setExpiry(h, d.sender)
	keepPrivate(h, a)
	defer a.handBack(r) // to a layer that recovers, too
	next.ServeHTTP(w, &a.request)
}

// canonicalize gives the fields that a guard sets their canonical names, if an outer
// layer wrote them another way: else both would be on the wire.
func canonicalize(h http.Header) {
	for name, lines := range h {
		canonical := http.CanonicalHeaderKey(name)
		if canonical != name && (canonical == "Cache-Control" || isOwnField(canonical)) {
			h[canonical] = append(h[canonical], lines...)
			delete(h, name)
		}
	}
}

// keepPrivate keeps the response out of shared caches: only Authorization does
// that by itself (RFC 9111 section 3.5).
func keepPrivate(h http.Header, a *admission) {
	for _, v := range h["Cache-Control"] {
		for d := range strings.SplitSeq(v, ",") {
			// private="…" is about the fields that it names.
			if d = strings.Trim(d, " \t"); strings.EqualFold(d, "no-store") || strings.EqualFold(d, "private") {
				return
			}
		}
	}
	a.cacheControl[0] = "private"
	h["Cache-Control"] = a.cacheControl[:]
}

// Charge takes cost tokens of the limit name from the sender in ctx. It is for a
// handler behind the guard that learns late what a request costs, such as a message to
// 1,000 recipients. The tokens come on top of what the guards have charged. Charge
// takes all of them or none, and returns the state of the bucket, which is zero if the
// Limiter failed.
//
// If the handler may go on, the problem is nil. Otherwise serve it. Its status is
//
//   - 429 if the tokens are not there, without Retry-After if they never will be;
//   - 503 if the Limiter failed, and Config.FailClosed is set or ctx has ended;
//   - 500, with the cause in Err, if the name is not in Config.Limits, the cost is
//     below 0, or ctx did not pass a guard of the same New.
//
// A limit of Config.DryRun never refuses: the problem is nil even if Balance.Refused is
// set. Charge does not change the rate fields of the response. Config.Observe gets an
// event with Inner set. Charge is safe for concurrent use.
func (g *Guard) Charge(ctx context.Context, name string, cost int) (Balance, *Problem) {
	g.mustBeMade()
	start := time.Now()
	d := decision{outcome: Admitted, inner: true, cached: true}
	a := admissionBy(ctx, g.charger)
	if a != nil {
		d.sender = a.sender
	}
	switch b, err := g.charger.bill([]string{name}, cost); {
	case err != nil:
		d.refuse(Failed, err)
	case a == nil:
		d.refuse(Failed, errNotBehind)
	default:
		g.charger.charge(ctx, &d, b)
	}
	if g.observe != nil {
		g.observe(ctx, d.event(time.Since(start)))
	}
	balance := d.tally.rehearsed
	if balances := d.tally.balances(); len(balances) > 0 {
		balance = balances[0]
	}
	if d.outcome == Admitted {
		return balance, nil
	}
	p := g.responder.problem(&d)
	return balance, &p
}

var errNotBehind = errors.New("senderauth: Guard.Charge: the context has passed no guard of the same New")
