package redislimit

import (
	"context"
	"fmt"
	"math"
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
	n := max(l.instances(), 1)
	shares := make([]senderauth.Charge, len(q.charges))
	for i, c := range q.charges {
		shares[i] = senderauth.Charge{Name: c.Name, Limit: share(c.Limit, n), Cost: c.Cost}
	}
	balances, err := l.local.Take(ctx, q.sender, shares)
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
