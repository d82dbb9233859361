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
	now := time.Now()
	shares := make([]senderauth.Charge, len(q.charges))
	entries := make([]*entry, len(q.charges)) // nil for a charge that no bucket decides
	covered := true
	for i, c := range q.charges {
		shares[i] = senderauth.Charge{Name: c.Name, Limit: share(c.Limit, n), Cost: c.Cost}
		if c.Limit != senderauth.Unlimited() && c.Limit != senderauth.Blocked() {
			entries[i] = g.openLocked(q.sender, c.Name, c.Limit, now)
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
			e.owed += float64(shares[i].Cost)
			e.instances = n
		}
		e.limitBalance(&balances[i], &shares[i], admitted)
	}
	return balances, nil
}

// share returns the limit of one of n instances. Its burst is at least 1.
func share(l senderauth.Limit, n int) senderauth.Limit {
	if n == 1 || l == senderauth.Unlimited() || l == senderauth.Blocked() {
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
