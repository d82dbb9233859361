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

	// The parts of the rate fields that are the same for every sender without limits
	// of its own.
	quoted string // the name
	burst  string
	policy string
}

func newCharger(cfg *Config) *charger {
	c := &charger{limiter: cfg.Limiter, failClosed: cfg.FailClosed, limits: make(map[string]*namedLimit, len(cfg.Limits))}
	if c.limiter == nil {
		c.limiter = NewMemoryLimiter(MemoryLimiterConfig{})
	}
	c.memory, _ = c.limiter.(*MemoryLimiter)
	for name, l := range cfg.Limits {
		quoted := quote(name)
		c.limits[name] = &namedLimit{
			name: name, limit: l, dryRun: slices.Contains(cfg.DryRun, name),
			quoted: quoted, burst: strconv.Itoa(l.EffectiveBurst()), policy: string(l.appendPolicy(nil, quoted)),
		}
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
	err = joined(d.err, err) // beside what a stale cache entry covers
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

// joined is errors.Join without a wrapper around a single error.
func joined(err, other error) error {
	if err == nil {
		return other
	}
	return errors.Join(err, other)
}

// rehearse takes a charge that is only observed: it never refuses, not even by an
// outage.
func (c *charger) rehearse(ctx context.Context, d *decision, charge Charge) {
	if l, ok := d.sender.Limits[charge.Name]; ok {
		charge.Limit = l
	}
	balances, err := c.limiter.Take(ctx, d.sender.ID, []Charge{charge})
	if err != nil {
		d.err = joined(d.err, err)
	} else if len(balances) == 1 && balances[0].Refused && d.dryRun == "" {
		d.dryRun = charge.Name
	}
}

// A tally is what taking the charges of a bill came to.
type tally struct {
	bill  *bill
	own   list[Charge]  // the bill's charges at the sender's own limits; unused if it has none
	room  list[Balance] // of the charges
	taken int           // balances in room; 0 if the limiter failed
	unix  int64         // when, in nanoseconds

	overridden bool
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
