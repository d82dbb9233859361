package redislimit

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/senderauth/senderauth"
)

// fallBack decides a request locally after Redis could not, by this instance's
// share of each limit. err says why Redis could not decide.
func (l *Limiter) fallBack(ctx context.Context, q *request, err error) ([]senderauth.Balance, error) {
	if misused(err) {
		return nil, fmt.Errorf("redislimit: %w", err)
	}
	if l.failClosed {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	balances, err := l.decideLocally(ctx, q, max(l.instances(), 1))
	if err != nil {
		return nil, err
	}
	copy(q.balances, balances)
	for _, c := range q.asked {
		// A cost above the share may pass when Redis is back.
		if c.balance.RetryAfter < 0 && c.need <= c.full {
			c.balance.RetryAfter = time.Second
		}
	}
	return q.balances, nil
}

// decideLocally admits a request that both the ledger and the local buckets cover. The local
// buckets alone would start full. The ledger alone would let a sender start again whose
// account it has dropped.
func (l *Limiter) decideLocally(ctx context.Context, q *request, n int) ([]senderauth.Balance, error) {
	g := l.ledger
	g.mu.Lock()
	defer g.mu.Unlock()
	shares := make([]senderauth.Charge, len(q.charges))
	entries := make([]localEntry, len(q.charges)) // nil for Unlimited and Blocked
	covered := true
	for i, c := range q.charges {
		shares[i] = senderauth.Charge{Name: c.Name, Limit: share(c.Limit, n), Cost: c.Cost}
		if c.Limit != senderauth.Unlimited() && c.Limit != senderauth.Blocked() {
			entries[i] = g.localLocked(q.sender, &c, n)
			covered = covered && entries[i].covers(&shares[i])
		}
	}
	asked := slices.Clone(shares)
	if !covered { // only look
		for i := range asked {
			if entries[i] != nil && asked[i].Cost <= asked[i].Limit.EffectiveBurst() {
				asked[i].Cost = 0
			}
		}
	}
	balances, err := l.local.Take(ctx, q.sender, asked)
	if err != nil {
		return nil, err
	}
	admitted := covered && !slices.ContainsFunc(balances, func(b senderauth.Balance) bool { return b.Refused })
	for i, e := range entries {
		if e == nil {
			continue
		}
		if admitted {
			e.admit(shares[i].Cost, n)
		}
		e.limitBalance(&balances[i], &shares[i], admitted)
	}
	return balances, nil
}

// A localEntry is what the ledger knows of a bucket or an allowance.
type localEntry interface {
	covers(share *senderauth.Charge) bool
	admit(cost, n int)
	limitBalance(b *senderauth.Balance, share *senderauth.Charge, admitted bool)
}

// localLocked returns the entry or the tally of a charge, as it is now.
func (g *ledger) localLocked(sender string, c *senderauth.Charge, n int) localEntry {
	now := time.Now()
	if !isAllowance(c.Limit) {
		return g.openLocked(sender, c.Name, c.Limit, now)
	}
	t := g.openTallyLocked(sender, c)
	t.advance(c.Limit.Calendar.Period(now))
	t.now, t.instances = now, n
	return t
}

// share returns the limit of one of n instances. Its burst is at least 1. The shares of an
// allowance are never more than the allowance together, so one of less than a request is none.
func share(l senderauth.Limit, n int) senderauth.Limit {
	if n == 1 || l == senderauth.Unlimited() || l == senderauth.Blocked() {
		return l
	}
	if isAllowance(l) {
		if l.Requests /= n; l.Requests == 0 {
			return senderauth.Blocked()
		}
		return l
	}
	l.Burst = max(l.EffectiveBurst()/n, 1)
	if l.Per > math.MaxInt64/time.Duration(n) {
		l.Per = math.MaxInt64
	} else {
		l.Per *= time.Duration(n)
	}
	return l
}
