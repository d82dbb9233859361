package redislimit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/senderauth/senderauth"
)

// isAllowance reports whether l is an allowance, which is not leased: an instance that holds
// a part of it until a lease lapses would keep others from the last of it.
func isAllowance(l senderauth.Limit) bool { return l.Calendar != senderauth.Calendar{} }

// An allowanceCharge is a charge that an allowance decides.
type allowanceCharge struct {
	*senderauth.Charge
	balance *senderauth.Balance
	period  int // by the clock that the call goes by
	debt    debt
}

// A debt is what an instance granted of an allowance without Redis, in one period.
type debt struct{ period, tokens int }

// errClocks means that Redis did not find its own time in the period that it was asked for.
var errClocks = errors.New("redislimit: the clock of Redis is in none of the periods that it was asked for")

// counted lets Redis decide a request with allowances. Redis decides which period it is. An
// instance whose clock is in another one calls once more.
func (l *Limiter) counted(ctx context.Context, q *request) error {
	now := time.Now()
	for range 3 { // two clocks that differ, and a period that ends between the calls
		reply, err := l.count(ctx, q, now)
		if err != nil {
			return err
		}
		if reply != nil {
			l.answer(q, reply)
			return nil
		}
		now = q.clock
	}
	return errClocks
}

// count calls Redis for the periods of a time. If these are not the present ones, it returns
// no reply and sets the clock of the request.
func (l *Limiter) count(ctx context.Context, q *request, now time.Time) (countReply, error) {
	n := len(q.asked)
	keys, args := make([]string, n+len(q.allowances)), make([]string, 1+n+len(q.allowances))
	look := uint64(0)
	if q.refused {
		look = 1
	}
	args[0] = string(appendDoubles(nil, uint64(n), look))
	for i := range q.asked {
		keys[i] = l.key(q.sender, q.asked[i].Name)
	}
	for i := range q.allowances {
		c := &q.allowances[i]
		keys[n+i] = l.allowanceKey(q.sender, c.Limit.Calendar.Unit(), c.Name)
		c.period = c.Limit.Calendar.Period(now)
	}
	numbers, err := l.ask(ctx, q.sender, q.again, func(ctx context.Context, line *line) ([]int64, error) {
		for i := range q.asked {
			c := &q.asked[i]
			c.owed = l.ledger.claim(q.sender, c.Name, c.scale)
			args[1+i] = packTake(c.scale, c.need, c.owed)
		}
		for i := range q.allowances {
			c := &q.allowances[i]
			c.debt = l.ledger.claimDebt(q.sender, c.Charge)
			args[1+n+i] = packCount(c)
		}
		return countScript.run(ctx, line, keys, args, true)
	})
	elsewhere := err == nil && len(numbers) == 2 && numbers[0] == -1
	if unsent(err) || elsewhere {
		l.owe(q)
	}
	switch {
	case err != nil:
		return nil, err
	case elsewhere:
		q.clock = time.UnixMicro(numbers[1])
		return nil, nil
	case len(numbers) != 2+2*len(keys):
		return nil, fmt.Errorf("redislimit: the script's reply has %d numbers", len(numbers))
	}
	return numbers, nil
}

// owe takes back what a call that changed nothing has claimed.
func (l *Limiter) owe(q *request) {
	for i := range q.asked {
		c := &q.asked[i]
		l.ledger.owe(q.sender, c.Name, c.scale, c.owed)
	}
	for i := range q.allowances {
		c := &q.allowances[i]
		l.ledger.oweDebt(q.sender, c.Charge, c.debt)
	}
}

// answer fills in the balances of a request that Redis has decided.
func (l *Limiter) answer(q *request, reply countReply) {
	for i := range q.asked {
		c := &q.asked[i]
		level, unchanged := reply.bucket(i)
		*c.balance = c.balanceAt(level, c.need, unchanged, reply.taken())
		l.ledger.learn(q.sender, c.Name, c.scale, level)
	}
	for i := range q.allowances {
		c := &q.allowances[i]
		period, used := reply.allowance(len(q.asked) + i)
		*c.balance = c.balanceAt(period, used, reply.taken(), reply.clock())
		l.ledger.learnUsage(q.sender, c.Charge, period, used)
	}
}

// balanceAt returns the balance of an allowance of which some was used in a period, before
// the charge was refused or after it was taken.
func (c *allowanceCharge) balanceAt(period, used int, taken bool, now time.Time) senderauth.Balance {
	_, end := c.Limit.Calendar.Bounds(period)
	b := senderauth.Balance{Remaining: max(c.Limit.Requests-used, 0), ResetAfter: end.Sub(now)}
	if !taken && c.Cost > b.Remaining {
		b.Refused, b.RetryAfter = true, b.ResetAfter
		if c.Cost > c.Limit.Requests {
			b.RetryAfter = -1
		}
	}
	return b
}

// packCount returns an argument of allowance.lua, '<ddddddd'.
func packCount(c *allowanceCharge) string {
	start, end := c.Limit.Calendar.Bounds(c.period)
	var b []byte
	for _, n := range []int64{
		start.UnixMicro(), end.UnixMicro(), int64(c.period), int64(c.Limit.Requests), int64(min(c.Cost, c.Limit.Requests+1)),
		int64(c.debt.tokens), int64(c.debt.period),
	} {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(n)))
	}
	return string(b)
}

// A countReply is the reply of allowance.lua: whether the tokens were taken, the time in
// microseconds, and two numbers for each key.
type countReply []int64

func (z countReply) taken() bool      { return z[0] == 1 }
func (z countReply) clock() time.Time { return time.UnixMicro(z[1]) }

func (z countReply) bucket(i int) (level uint64, unchanged time.Duration) {
	return uint64(z[2+2*i]), microseconds(z[3+2*i])
}

func (z countReply) allowance(i int) (period, used int) { return int(z[2+2*i]), int(z[3+2*i]) }
