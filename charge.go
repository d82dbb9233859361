package senderauth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// A charger answers the second question: may the sender call this often. It is
// shared by all guards of one New, and immutable apart from the buckets.
type charger struct {
	limiter    Limiter
	memory     *MemoryLimiter // the limiter, if it is one
	failClosed bool
	limits     map[string]*namedLimit
}

// A namedLimit is a limit of Config.Limits.
type namedLimit struct {
	name   string
	limit  Limit
	dryRun bool

	// The parts of the rate fields that are the same for every sender without limits
	// of its own.
	quoted string // the name
	burst  string
	policy string // "" for an allowance, whose periods differ in length
}

func newCharger(cfg *Config) *charger {
	c := &charger{limiter: cfg.Limiter, failClosed: cfg.FailClosed, limits: make(map[string]*namedLimit, len(cfg.Limits))}
	if c.limiter == nil {
		c.limiter = NewMemoryLimiter(MemoryLimiterConfig{})
	}
	c.memory, _ = c.limiter.(*MemoryLimiter)
	for name, l := range cfg.Limits {
		n := &namedLimit{
			name: name, limit: l, dryRun: slices.Contains(cfg.DryRun, name),
			quoted: quote(name), burst: strconv.Itoa(l.EffectiveBurst()),
		}
		if !l.isAllowance() {
			n.policy = string((&rateItem{of: n, limit: l}).appendPolicy(nil, 0))
		}
		c.limits[name] = n
	}
	return c
}

// A bill is what one guard charges a request. It is immutable.
type bill struct {
	charger *charger
	outer   *bill         // of the guard further out; nil if there is none
	cost    int           // of each limit in named
	named   []*namedLimit // what this guard charges

	charges []Charge      // all or none; then looks at what the guards further out charged
	limits  []*namedLimit // of charges
	dry     []Charge      // each by itself, and only observed
}

// bill returns the bill of these limits at cost tokens each.
func (c *charger) bill(names []string, cost int) (*bill, error) {
	if cost < 0 {
		return nil, &faultError{fmt.Errorf("senderauth: the cost %d is below 0", cost)}
	}
	b := c.newBill(cost, len(names), nil)
	for _, name := range names {
		l, ok := c.limits[name]
		if !ok {
			return nil, &faultError{fmt.Errorf("senderauth: limit %q is not in Config.Limits", name)}
		}
		if b.has(l) {
			return nil, &faultError{fmt.Errorf("senderauth: limit %q is charged twice", name)}
		}
		b.add(l)
	}
	return b, nil
}

// newBill returns an empty bill with room for n limits, and for looks at those of
// the guards further out: ChargingBy and Costing make a bill for each request.
func (c *charger) newBill(cost, n int, outer *bill) *bill {
	looks := 0
	for o := outer; o != nil; o = o.outer {
		looks += len(o.named)
	}
	room := make([]*namedLimit, 2*n+looks)
	return &bill{
		charger: c, outer: outer, cost: cost, named: room[:0:n],
		charges: make([]Charge, 0, n+looks), limits: room[n:n],
	}
}

func (b *bill) add(l *namedLimit) {
	b.named = append(b.named, l)
	if l.dryRun {
		b.dry = append(b.dry, Charge{l.name, l.limit, b.cost})
	} else {
		b.charges, b.limits = append(b.charges, Charge{l.name, l.limit, b.cost}), append(b.limits, l)
	}
}

// has reports whether b, or a bill further out, charges l.
func (b *bill) has(l *namedLimit) bool {
	return b != nil && (slices.Contains(b.named, l) || b.outer.has(l))
}

// after returns what is left of b inside a guard that charged outer: a name is
// charged once for a request. If tokens are taken, the bill also looks at what is
// charged already, so that the rate fields tell of all limits that the request met.
// It returns nil if nothing is left.
func (b *bill) after(outer *bill) *bill {
	if !slices.ContainsFunc(b.named, func(l *namedLimit) bool { return !outer.has(l) }) {
		return nil
	}
	left := b.charger.newBill(b.cost, len(b.named), outer)
	for _, l := range b.named {
		if !outer.has(l) {
			left.add(l)
		}
	}
	for ; outer != nil && len(left.charges) > 0; outer = outer.outer {
		for _, l := range outer.named {
			if !l.dryRun {
				left.charges, left.limits = append(left.charges, Charge{Name: l.name, Limit: l.limit}), append(left.limits, l)
			}
		}
	}
	return left
}

// charge takes b from the sender's buckets: its charges all or nothing, then its
// dry runs.
func (c *charger) charge(ctx context.Context, d *decision, b *bill) {
	d.tally.bill = b
	if len(b.charges) > 0 {
		d.limit = b.charges[0].Name
		if err := c.take(ctx, d); err != nil {
			c.degrade(ctx, d, err)
			return
		}
		for i, balance := range d.tally.balances() {
			if balance.Refused {
				d.limited(b.charges[i].Name, balance.RetryAfter)
			}
		}
	}
	for _, charge := range b.dry {
		if d.outcome == Admitted {
			c.rehearse(ctx, d, charge)
		}
	}
}

// take asks the limiter for the charges of the bill, at the sender's own limits.
func (c *charger) take(ctx context.Context, d *decision) error {
	t, s := &d.tally, d.sender
	t.override(s.Limits)
	charges := t.charges()
	if c.memory != nil {
		// Without the interface neither slice is on the heap.
		_, t.unix = c.memory.take(t.room.slice(len(charges))[:0], s.ID, charges, d.account)
		t.taken = len(charges)
		return nil
	}
	balances, err := c.limiter.Take(ctx, s.ID, slices.Clone(charges))
	if err == nil && len(balances) != len(charges) {
		err = fmt.Errorf("senderauth: the Limiter returned %d balances for %d charges", len(balances), len(charges))
	}
	if err != nil {
		return err
	}
	copy(t.room.slice(len(charges)), balances)
	t.taken, t.unix = len(charges), time.Now().UnixNano()
	return nil
}

// degrade decides without a limiter.
func (c *charger) degrade(ctx context.Context, d *decision, err error) {
	err = errors.Join(d.err, err) // beside what a stale cache entry covers
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		d.refuse(Canceled, err)
		return
	case c.failClosed || ctx.Err() != nil || overdue(ctx):
		// A client may choose the deadline of its request, through a layer
		// outside. That must not open a limit.
		d.refuse(Unavailable, err)
	default:
		// Fail open: an outage of the limiter's engine should not take the
		// customers' API with it. Config.FailClosed says otherwise.
		d.err = err
	}
	d.limiterFailed = true
}

// overdue reports that the deadline of ctx has passed. Err may not say so yet: a
// connection with the same deadline can fail before the timer of ctx fires.
func overdue(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ok && !time.Now().Before(deadline)
}

// rehearse takes a charge that is only observed: it never refuses, not even by an
// outage.
func (c *charger) rehearse(ctx context.Context, d *decision, charge Charge) {
	if l, ok := d.sender.Limits[charge.Name]; ok {
		charge.Limit = l
	}
	balances, err := c.limiter.Take(ctx, d.sender.ID, []Charge{charge})
	if err != nil {
		d.err = errors.Join(d.err, err)
		d.limiterFailed = d.limiterFailed || !errors.Is(ctx.Err(), context.Canceled)
	} else if len(balances) == 1 {
		d.tally.rehearsed = balances[0]
		if balances[0].Refused && d.dryRun == "" {
			d.dryRun = charge.Name
		}
	}
}

// A tally is the result of taking the charges of a bill.
type tally struct {
	bill  *bill
	own   list[Charge]  // the bill's charges at the sender's own limits; unused if it has none
	room  list[Balance] // of the charges
	taken int           // balances in room; 0 if the limiter failed
	unix  int64         // when, in nanoseconds

	overridden bool
	rehearsed  Balance // of the last dry run
}

// override puts the sender's own limits in place of the bill's.
func (t *tally) override(limits map[string]Limit) {
	if t.overridden = len(limits) > 0; !t.overridden {
		return
	}
	own := t.own.slice(len(t.bill.charges))
	for i, c := range t.bill.charges {
		if l, ok := limits[c.Name]; ok {
			c.Limit = l
		}
		own[i] = c
	}
}

func (t *tally) charges() []Charge {
	if t.overridden {
		return t.own.slice(len(t.bill.charges))
	}
	return t.bill.charges
}

func (t *tally) balances() []Balance { return t.room.slice(t.taken) }

// A list is a slice that has room for two elements in itself, so that a request
// with up to two limits needs no memory for its tally.
type list[T any] struct {
	few  [2]T
	many []T
}

// slice returns the first n elements.
func (l *list[T]) slice(n int) []T {
	if n <= len(l.few) {
		return l.few[:n]
	}
	if len(l.many) < n {
		l.many = make([]T, n)
	}
	return l.many[:n]
}
