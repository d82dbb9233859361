package main

import (
	"cmp"
	"slices"
	"time"
)

// A ledger checks what the senders were charged. It is not safe for concurrent use.
type ledger struct {
	buckets map[account]*bucket
	checked time.Time

	charges []charge // not checked yet
	trouble []span   // during which an instance may have decided without Redis
	losses  []time.Time
}

type account struct{ sender, limit string }

// A charge is an answer that depended on limits.
type charge struct {
	answer
	sender string
	limits []string
}

func newLedger(start time.Time, senders []string) *ledger {
	l := &ledger{buckets: map[account]*bucket{}, checked: start}
	for _, sender := range senders {
		for name, limit := range limits {
			l.buckets[account{sender, name}] = newBucket(limit, start)
		}
	}
	return l
}

// An event is something that changes buckets.
type event struct {
	at    time.Time
	apply func()
}

// check checks the charges that were answered until a time. The trouble and the losses
// until then must be known, and the trouble must be in order and not overlap.
func (l *ledger) check(until time.Time, wrong func(a answer, why string)) {
	events := l.events(until)
	var later []charge
	for _, c := range l.charges {
		if c.got.After(until) {
			later = append(later, c)
			continue
		}
		if c.status == 200 {
			events = append(events, event{c.sent, func() { l.spend(c) }})
		}
		events = append(events, event{c.got, func() {
			if why := l.decide(c); why != "" {
				wrong(c.answer, why)
			}
		}})
	}
	slices.SortStableFunc(events, func(a, b event) int { return a.at.Compare(b.at) })
	for _, e := range events {
		e.apply()
	}
	l.charges, l.checked = later, until
}

// events returns the beginnings and ends of trouble and the losses that were not applied
// yet.
func (l *ledger) events(until time.Time) []event {
	var events []event
	all := func(at time.Time, f func(b *bucket, at time.Time)) {
		if at.After(l.checked) && !at.After(until) {
			events = append(events, event{at, func() {
				for _, b := range l.buckets {
					f(b, at)
				}
			}})
		}
	}
	for _, s := range l.trouble {
		all(s.From, (*bucket).begin)
		all(s.To, (*bucket).settle)
	}
	for _, at := range l.losses {
		all(at, (*bucket).lose)
	}
	return events
}

// spend takes the tokens of an admitted request at the earliest time.
func (l *ledger) spend(c charge) {
	for _, limit := range c.limits {
		l.buckets[account{c.sender, limit}].spend(c.sent, c.got)
	}
}

// decide says why a request may not have been decided like this, or returns "".
func (l *ledger) decide(c charge) (why string) {
	troubled := slices.ContainsFunc(l.trouble, func(s span) bool { return s.touches(c.sent, c.got) })
	enough := !troubled
	for _, limit := range c.limits {
		b := l.buckets[account{c.sender, limit}]
		enough = enough && b.hasOne(c.sent)
		// A request that was sent during a trouble and answered after it may have been
		// charged to a share.
		if c.status == 200 && troubled == b.troubled {
			why = cmp.Or(why, b.charge(c.sent, c.got))
		}
	}
	if c.status == 429 && enough {
		return "there were tokens of every limit"
	}
	return why
}

// union returns the spans in order, joined where they overlap.
func union(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return a.From.Compare(b.From) })
	var joined []span
	for _, s := range spans {
		if n := len(joined); n > 0 && !s.From.After(joined[n-1].To) {
			joined[n-1].To = latest(joined[n-1].To, s.To)
		} else {
			joined = append(joined, s)
		}
	}
	return joined
}
