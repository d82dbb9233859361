package senderauth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A charger answers the second question: may the sender call this often. It is
// shared by all guards of one New, and immutable but for the buckets.
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
	fields limitFields
}

func newCharger(cfg *Config) *charger {
	c := &charger{limiter: cfg.Limiter, failClosed: cfg.FailClosed, limits: make(map[string]*namedLimit, len(cfg.Limits))}
	if c.limiter == nil {
		c.limiter = NewMemoryLimiter(MemoryLimiterConfig{})
	}
	c.memory, _ = c.limiter.(*MemoryLimiter)
	for name, l := range cfg.Limits {
		c.limits[name] = &namedLimit{name, l, slices.Contains(cfg.DryRun, name), newLimitFields(name, l)}
	}
	return c
}

// A bill is what a request is charged. It is immutable.
type bill struct {
	charger *charger
	charges []Charge      // all or none
	limits  []*namedLimit // of charges
	dry     []Charge      // each by itself, and only observed
}

// bill returns the bill of these limits at cost tokens each.
func (c *charger) bill(names []string, cost int) (*bill, error) {
	if cost < 0 {
		return nil, &faultError{fmt.Errorf("senderauth: the cost %d is below 0", cost)}
	}
	b := &bill{charger: c}
	for i, name := range names {
		l, ok := c.limits[name]
		if !ok {
			return nil, &faultError{fmt.Errorf("senderauth: limit %q is not in Config.Limits", name)}
		}
		if slices.Contains(names[:i], name) {
			return nil, &faultError{fmt.Errorf("senderauth: limit %q is charged twice", name)}
		}
		b.add(l, cost)
	}
	return b, nil
}

func (b *bill) add(l *namedLimit, cost int) {
	charge := Charge{Name: l.name, Limit: l.limit, Cost: cost}
	if l.dryRun {
		b.dry = append(b.dry, charge)
		return
	}
	b.charges, b.limits = append(b.charges, charge), append(b.limits, l)
}

// after returns what is left of b after a guard further out has charged outer: a
// name is charged once for a request. Of what is charged already the bill looks
// at the buckets, so that the rate fields tell of all limits that the request
// met. It returns nil if nothing is left.
func (b *bill) after(outer *bill) *bill {
	left, due := &bill{charger: b.charger}, false
	for i, c := range b.charges {
		if !outer.has(c.Name) {
			left.add(b.limits[i], c.Cost)
			due = true
		}
	}
	for _, c := range b.dry {
		if !outer.has(c.Name) {
			left.dry = append(left.dry, c)
			due = true
		}
	}
	if !due {
		return nil
	}
	for _, l := range outer.limits {
		left.add(l, 0)
	}
	for _, c := range outer.dry {
		c.Cost = 0
		left.dry = append(left.dry, c)
	}
	return left
}

func (b *bill) has(name string) bool {
	named := func(c Charge) bool { return c.Name == name }
	return slices.ContainsFunc(b.charges, named) || slices.ContainsFunc(b.dry, named)
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
	charges := t.override(s.Limits)
	if c.memory != nil {
		t.unix = t.takeFrom(c.memory, s.ID, charges, d.account)
		return nil
	}
	balances, err := c.limiter.Take(ctx, s.ID, slices.Clone(charges))
	if err == nil && len(balances) != len(charges) {
		err = fmt.Errorf("senderauth: the Limiter returned %d balances for %d charges", len(balances), len(charges))
	}
	if err != nil {
		return err
	}
	t.many = slices.Clone(balances) // the limiter may have kept its own
	t.taken, t.unix = true, time.Now().UnixNano()
	return nil
}

// degrade decides without a limiter.
func (c *charger) degrade(ctx context.Context, d *decision, err error) {
	if d.err != nil {
		err = errors.Join(d.err, err) // beside what a stale cache entry covers
	}
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		d.refuse(Canceled, err)
	case ctx.Err() != nil || c.failClosed:
		// A client may choose the deadline of its request, through a layer
		// outside. That must not open a limit.
		d.refuse(Unavailable, err)
	default:
		// Fail open: an outage of the limiter's engine should not take the
		// customers' API with it. Config.FailClosed says otherwise.
		d.err = err
	}
}

// rehearse takes a charge that is only observed. Its failure is one of the limiter
// all the same.
func (c *charger) rehearse(ctx context.Context, d *decision, charge Charge) {
	if l, ok := d.sender.Limits[charge.Name]; ok {
		charge.Limit = l
	}
	balances, err := c.limiter.Take(ctx, d.sender.ID, []Charge{charge})
	if err != nil {
		c.degrade(ctx, d, err)
	} else if len(balances) == 1 && balances[0].Refused && d.dryRun == "" {
		d.dryRun = charge.Name
	}
}

// few is how many limits a request can be charged without memory for it.
const few = 2

// A tally is what taking the charges of a bill came to.
type tally struct {
	bill  *bill
	taken bool
	unix  int64 // when, in nanoseconds

	// The sender's own charges in place of the bill's, and the balances. A slice of
	// the array would have the decision on the heap.
	overridden  bool
	fewCharges  [few]Charge
	fewBalances [few]Balance
	manyCharges []Charge
	many        []Balance
}

// override puts the sender's own limits into the charges and returns them.
func (t *tally) override(limits map[string]Limit) []Charge {
	if len(limits) > 0 {
		t.overridden = true
		if len(t.bill.charges) > few {
			t.manyCharges = make([]Charge, len(t.bill.charges))
		}
		own := t.charges()
		copy(own, t.bill.charges)
		for i := range own {
			if l, ok := limits[own[i].Name]; ok {
				own[i].Limit = l
			}
		}
	}
	return t.charges()
}

func (t *tally) charges() []Charge {
	switch {
	case !t.overridden:
		return t.bill.charges
	case t.manyCharges != nil:
		return t.manyCharges
	}
	return t.fewCharges[:len(t.bill.charges)]
}

// takeFrom is Take of a MemoryLimiter without the interface, which would have
// both slices on the heap.
func (t *tally) takeFrom(m *MemoryLimiter, senderID string, charges []Charge, hint *accountHint) (unix int64) {
	var now int64
	if len(charges) > few {
		t.many, now = m.take(make([]Balance, 0, len(charges)), senderID, charges, hint)
	} else {
		_, now = m.take(t.fewBalances[:0], senderID, charges, hint)
	}
	t.taken = true
	return m.unix(now)
}

// balances returns the balances of the charges; none if the limiter failed.
func (t *tally) balances() []Balance {
	switch {
	case !t.taken:
		return nil
	case t.many != nil:
		return t.many
	}
	return t.fewBalances[:len(t.bill.charges)]
}
