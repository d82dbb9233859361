package redislimit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/senderauth/senderauth"
)

var (
	errClosed      = errors.New("redislimit: the Limiter is closed")
	errUnreachable = errors.New("redislimit: Redis is unreachable")
	errSuspended   = errors.New("redislimit: this process was suspended during the call")
)

// Take implements [senderauth.Limiter]. Cancelling ctx does not abort a call in
// flight, because callers share it. Config.Timeout bounds the call instead.
//
// Take returns an error if the caller made a mistake, a bucket's key in Redis holds
// something else, ctx had ended before the call, or the limiter is closed. With
// Config.FailClosed it returns [ErrUnavailable] if Redis could not decide.
func (l *Limiter) Take(ctx context.Context, senderID string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
	select {
	case <-l.stop:
		return nil, errClosed
	default:
	}
	balances := make([]senderauth.Balance, len(charges))
	if l.leases != nil && ctx.Err() == nil && l.spend(senderID, charges, balances) {
		return balances, nil
	}
	q := request{sender: senderID, charges: charges, balances: balances}
	if !q.plan(&l.scales) {
		return nil, l.mistakes(&q)
	}
	if len(q.asked)+len(q.allowances) == 0 {
		return q.balances, nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("redislimit: %w", context.Cause(ctx))
	}
	exact := l.exact
	if len(q.allowances) > 0 {
		exact = l.counted
	}
	decide := exact
	if l.leases != nil && q.leasable() {
		decide = l.leased
	}
	err := decide(ctx, &q)
	if errors.Is(err, errSuspended) {
		q.again = true
		err = exact(ctx, &q)
	}
	if err != nil {
		return l.fallBack(ctx, &q, err)
	}
	return q.balances, nil
}

// A request is the state of one call of Take.
type request struct {
	sender   string
	charges  []senderauth.Charge
	balances []senderauth.Balance
	asked    []bucketCharge // the charges that a bucket decides
	refused  bool           // refused whatever the buckets hold
	again    bool           // Redis is asked again because this process was suspended
	room     [2]bucketCharge

	allowances []allowanceCharge // the charges that an allowance decides
	clock      time.Time         // of Redis, if it differs from this instance's
}

// A bucketCharge is a charge that a bucket decides.
type bucketCharge struct {
	*senderauth.Charge
	*scale
	balance *senderauth.Balance
	need    uint64 // parts
	owed    uint64 // parts that were admitted without Redis
}

// plan decides the charges that need neither a bucket nor an allowance. It reports false for a mistake
// of the caller.
func (q *request) plan(k *scales) bool {
	q.asked = q.room[:0]
	for i := range q.charges {
		c, balance := &q.charges[i], &q.balances[i]
		if c.Cost < 0 || slices.ContainsFunc(q.charges[:i], func(d senderauth.Charge) bool { return d.Name == c.Name }) {
			return false
		}
		switch c.Limit {
		case senderauth.Unlimited():
			balance.Remaining = math.MaxInt
			continue
		case senderauth.Blocked():
			if c.Cost > 0 {
				*balance = senderauth.Balance{Refused: true, RetryAfter: -1}
				q.refused = true
			}
			continue
		}
		if isAllowance(c.Limit) {
			if c.Limit.Validate() != nil {
				return false
			}
			q.refused = q.refused || c.Cost > c.Limit.Requests
			q.allowances = append(q.allowances, allowanceCharge{Charge: c, balance: balance})
			continue
		}
		s := k.of(c.Limit)
		if s == nil {
			return false
		}
		need := s.parts(c.Cost)
		if need > s.full {
			q.refused = true
		}
		q.asked = append(q.asked, bucketCharge{Charge: c, scale: s, balance: balance, need: need})
	}
	return true
}

// costs reports whether the request takes tokens of any bucket.
func (q *request) costs() bool {
	return slices.ContainsFunc(q.asked, func(c bucketCharge) bool { return c.Cost > 0 })
}

// leasable reports whether tokens of every bucket can be leased, and there is no allowance:
// charges are taken together or not at all.
func (q *request) leasable() bool {
	return len(q.allowances) == 0 && !slices.ContainsFunc(q.asked, func(c bucketCharge) bool { return c.term == 0 })
}

// mistakes returns the error of the limiter in memory, which knows what is wrong
// with the charges and takes nothing.
func (l *Limiter) mistakes(q *request) error {
	_, err := l.local.Take(context.Background(), q.sender, q.charges)
	return err
}

// exact lets Redis decide.
func (l *Limiter) exact(ctx context.Context, q *request) error {
	keys, args := make([]string, len(q.asked)), make([]string, len(q.asked), len(q.asked)+1)
	for i := range q.asked {
		c := &q.asked[i]
		keys[i] = l.key(q.sender, c.Name)
	}
	if q.refused {
		args = append(args, "look")
	}
	numbers, err := l.ask(ctx, q.sender, q.again, func(ctx context.Context, n *line) ([]int64, error) {
		for i := range q.asked {
			c := &q.asked[i]
			c.owed = l.ledger.claim(q.sender, c.Name, c.scale)
			args[i] = packTake(c.scale, c.need, c.owed)
		}
		return takeScript.run(ctx, n, keys, args, true)
	})
	if unsent(err) {
		for i := range q.asked {
			c := &q.asked[i]
			l.ledger.owe(q.sender, c.Name, c.scale, c.owed)
		}
	}
	if err != nil {
		return err
	}
	reply, err := parseTakeReply(numbers, len(q.asked))
	if err != nil {
		return err
	}
	for i := range q.asked {
		c := &q.asked[i]
		level, unchanged := reply.bucket(i)
		*c.balance = c.balanceAt(level, c.need, unchanged, reply.taken())
		l.ledger.learn(q.sender, c.Name, c.scale, level)
	}
	return nil
}

// ask calls Redis with the deadline of a decision, unless the breaker is open. A call during
// which this process was suspended does not count as a failure of Redis, unless the call is
// made again because of that.
func (l *Limiter) ask(ctx context.Context, sender string, again bool, call func(context.Context, *line) ([]int64, error)) ([]int64, error) {
	part := l.part(sender)
	if part.open() {
		return nil, errUnreachable
	}
	ctx = l.deadlines.of(ctx)
	reply, err := call(ctx, &part.line)
	if err == nil || misused(err) {
		part.succeeded()
		l.inspect()
		return reply, err
	}
	if timedOut(err) {
		suspended := firedLate(ctx)
		part.reconnect(func() { _ = l.connect(sender) }) // the next call meets the same error
		if suspended && !again {
			return nil, fmt.Errorf("%w: %w", errSuspended, err)
		}
	}
	part.failed(err, func() error { return l.probe(sender) })
	return nil, err
}
