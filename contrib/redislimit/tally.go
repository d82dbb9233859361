package redislimit

import (
	"strings"
	"time"

	"github.com/senderauth/senderauth"
)

// A tally is what an instance knows of one allowance of a sender in case Redis fails. It is
// to an allowance what an entry of the ledger is to a bucket.
type tally struct {
	name      string
	limit     senderauth.Limit
	period    int
	used      int // of the period, as Redis last said
	owed      int // granted without Redis in the period, and not yet reported to it
	instances int // that shared the allowance when something was last granted
	now       time.Time
}

// learnUsage records what Redis said about an allowance.
func (g *ledger) learnUsage(sender string, c *senderauth.Charge, period, used int) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.openTallyLocked(sender, c)
	t.advance(period)
	if period == t.period {
		t.used = used
	}
}

// claimDebt returns the debt to report to Redis, after which the instance owes nothing.
func (g *ledger) claimDebt(sender string, c *senderauth.Charge) debt {
	if g == nil {
		return debt{}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	a, _ := g.senders.Get(sender)
	t := a.tally(c)
	if t == nil {
		return debt{}
	}
	d := debt{period: t.period, tokens: t.owed}
	t.owed = 0
	return d
}

// oweDebt takes back a claim that did not reach Redis.
func (g *ledger) oweDebt(sender string, c *senderauth.Charge, d debt) {
	if g == nil || d.tokens == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	a, _ := g.senders.Get(sender)
	if t := a.tally(c); t != nil && t.period == d.period {
		t.owed += d.tokens
	}
}

// openTallyLocked returns the tally of an allowance. A new one has nothing used.
func (g *ledger) openTallyLocked(sender string, c *senderauth.Charge) *tally {
	a := g.openAccountLocked(sender)
	t := a.tally(c)
	if t == nil {
		t = &tally{name: strings.Clone(c.Name)}
		a.tallies = append(a.tallies, t)
	}
	t.limit = c.Limit
	return t
}

// tally returns the tally of a charge's allowance, or nil.
func (a *account) tally(c *senderauth.Charge) *tally {
	if a == nil {
		return nil
	}
	for _, t := range a.tallies {
		if t.name == c.Name && t.limit.Calendar.Unit() == c.Limit.Calendar.Unit() {
			return t
		}
	}
	return nil
}

// advance begins a later period. It ignores an earlier one.
func (t *tally) advance(period int) {
	if period > t.period {
		t.period, t.used, t.owed = period, 0, 0
	}
}

// left returns the tokens of this instance's share of the allowance that are left.
func (t *tally) left(n int) int { return max(t.limit.Requests-t.used, 0)/n - t.owed }

func (t *tally) covers(share *senderauth.Charge) bool {
	return share.Cost == 0 || share.Cost > share.Limit.EffectiveBurst() || t.left(t.instances) >= share.Cost
}

func (t *tally) admit(cost, _ int) { t.owed += cost }

// limitBalance makes the balance of the local count that of the tally, if that is lower. A
// charge that only this instance has no tokens for may pass as soon as Redis is back.
func (t *tally) limitBalance(b *senderauth.Balance, share *senderauth.Charge, admitted bool) {
	_, end := t.limit.Calendar.Bounds(t.period)
	b.ResetAfter = end.Sub(t.now)
	b.Remaining = max(min(b.Remaining, t.left(t.instances)), 0)
	if !admitted && !t.covers(share) {
		b.Refused = true
	}
	switch {
	case !b.Refused:
	case share.Cost > t.limit.Requests:
		b.RetryAfter = -1
	case share.Cost > t.limit.Requests-t.used-t.owed:
		b.RetryAfter = b.ResetAfter
	default:
		b.RetryAfter = time.Second
	}
}
