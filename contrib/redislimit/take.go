package redislimit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/senderauth/senderauth"
)

var errClosed = errors.New("redislimit: the Limiter is closed")

// Take is [senderauth.Limiter]'s. Its errors are mistakes of the caller, a key
// of ours in Redis that holds something else, a context that ended, a closed
// limiter, and with FailClosed ErrUnavailable. Once Redis is asked the end of ctx
// ends nothing, for a call can carry the decisions of others: Config.Timeout does.
func (l *Limiter) Take(ctx context.Context, senderID string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
	select {
	case <-l.stop:
		return nil, errClosed
	default:
	}
	balances := make([]senderauth.Balance, len(charges))
	if l.leases != nil && ctx.Err() == nil && l.leases.spend(senderID, charges, balances) {
		return balances, nil
	}
	t := take{sender: senderID, charges: charges, balances: balances}
	if err := l.plan(&t); err != nil {
		return nil, err
	}
	if len(t.asked) == 0 {
		return t.balances, nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("redislimit: %w", context.Cause(ctx))
	}
	decide := l.exact
	if l.leases != nil && !slices.ContainsFunc(t.asked, func(a asked) bool { return a.term(l.leases.term) == 0 }) {
		decide = l.leased
	}
	if err := decide(ctx, &t); err != nil {
		return l.without(ctx, &t, err)
	}
	return t.balances, nil
}

// A take is one call of Take.
type take struct {
	sender   string
	charges  []senderauth.Charge
	balances []senderauth.Balance
	asked    []asked // the charges that have a bucket
	refused  bool    // whatever the buckets hold
	room     [2]asked
}

type asked struct {
	*scale
	i    int    // of the charge
	need uint64 // parts
}

// plan finds the mistakes of the caller and decides what needs no bucket.
func (l *Limiter) plan(t *take) error {
	t.asked = t.room[:0]
	for i := range t.charges {
		c, b := &t.charges[i], &t.balances[i]
		if c.Cost < 0 || slices.ContainsFunc(t.charges[:i], func(d senderauth.Charge) bool { return d.Name == c.Name }) {
			return l.mistakes(t)
		}
		switch c.Limit {
		case senderauth.Unlimited():
			b.Remaining = math.MaxInt
			continue
		case senderauth.Blocked():
			if c.Cost > 0 {
				*b = senderauth.Balance{Refused: true, RetryAfter: -1}
				t.refused = true
			}
			continue
		}
		s := l.scales.of(c.Limit)
		if s == nil {
			return l.mistakes(t)
		}
		// A cost above the burst is a part more than the bucket can hold, so
		// that it is refused and fits a double.
		need := s.full + 1
		if c.Cost <= s.burst {
			need = uint64(c.Cost) * s.perToken
		}
		if need > s.full {
			t.refused = true
		}
		t.asked = append(t.asked, asked{scale: s, i: i, need: need})
	}
	return nil
}

// mistakes returns what the limiter of a single process says about the charges:
// it knows what is wrong with them, and then takes nothing.
func (l *Limiter) mistakes(t *take) error {
	_, err := l.local.Take(context.Background(), t.sender, t.charges)
	return err
}

// exact asks the buckets in Redis.
func (l *Limiter) exact(ctx context.Context, t *take) error {
	keys, args := make([]string, len(t.asked)), make([]string, len(t.asked), len(t.asked)+1)
	for i, a := range t.asked {
		keys[i] = l.key(t.sender, t.charges[a.i].Name)
		args[i] = a.pack(a.need)
	}
	if t.refused {
		args = append(args, "look")
	}
	reply, err := l.ask(ctx, t.sender, func(ctx context.Context, n *line) ([]int64, error) {
		return takeScript.run(ctx, n, keys, args, true)
	})
	if err != nil {
		return err
	}
	if len(reply) != 1+2*len(t.asked) {
		return fmt.Errorf("redislimit: the script's reply has %d numbers", len(reply))
	}
	taken := reply[0] == 1
	for i, a := range t.asked {
		t.balances[a.i] = a.balance(uint64(reply[1+2*i]), a.need, microseconds(reply[2+2*i]), taken)
	}
	return nil
}

func microseconds(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

// balance is the state of a bucket that has had a level for some time: before
// its need was refused, or after it was taken.
func (s *scale) balance(level, need uint64, since time.Duration, taken bool) senderauth.Balance {
	b := senderauth.Balance{Remaining: s.tokens(level), ResetAfter: s.wait(level, s.full, since)}
	if !taken && level < need {
		b.Refused = true
		b.RetryAfter = -1
		if need <= s.full {
			b.RetryAfter = s.wait(level, need, since)
		}
	}
	return b
}

// ask calls Redis unless that is away, within the time that a decision has.
func (l *Limiter) ask(ctx context.Context, sender string, call func(context.Context, *line) ([]int64, error)) ([]int64, error) {
	part := l.part(sender)
	if part.open() {
		return nil, errAway
	}
	// A call carries others' decisions, too: it does not end with one client.
	reply, err := call(l.deadlines.of(ctx), &part.line)
	if err == nil || misused(err) {
		part.succeeded()
		return reply, err
	}
	part.failed(err, func() error { return l.probe(sender) })
	return nil, err
}

var errAway = errors.New("redislimit: Redis is away")

// probe writes: a replica, or a Redis that is out of memory, would read. No
// bucket has that name, for theirs go on with a colon.
func (l *Limiter) probe(sender string) error {
	ctx, cancel := context.WithTimeout(context.Background(), l.timeout)
	defer cancel()
	return l.client.Set(ctx, l.head+escaped(sender)+"}probe", 1, time.Second).Err()
}

// key is the name of a bucket in Redis. The hash tag puts all buckets of a
// sender into one slot of a Cluster.
func (l *Limiter) key(sender, name string) string { return l.head + escaped(sender) + "}:" + name }

func escaped(sender string) string {
	if strings.IndexByte(sender, '}') >= 0 || strings.IndexByte(sender, '%') >= 0 {
		return strings.NewReplacer("%", "%25", "}", "%7D").Replace(sender)
	}
	return sender
}

// without decides where Redis could not be asked.
func (l *Limiter) without(ctx context.Context, t *take, err error) ([]senderauth.Balance, error) {
	if misused(err) {
		return nil, fmt.Errorf("redislimit: %w", err)
	}
	if l.failClosed {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	n := max(l.instances(), 1)
	share := make([]senderauth.Charge, len(t.charges))
	for i, c := range t.charges {
		share[i] = senderauth.Charge{Name: c.Name, Limit: divide(c.Limit, n), Cost: c.Cost}
	}
	balances, err := l.local.Take(ctx, t.sender, share)
	for _, a := range t.asked {
		// What is above the share may still pass when Redis is back.
		if b := &balances[a.i]; b.RetryAfter < 0 && a.need <= a.full {
			b.RetryAfter = time.Second
		}
	}
	return balances, err
}

// divide returns the limit of one of n instances. Its burst is at least 1.
func divide(l senderauth.Limit, n int) senderauth.Limit {
	if n == 1 || l == senderauth.Unlimited() || l == senderauth.Blocked() {
		return l
	}
	if l.Burst == 0 {
		l.Burst = l.Requests
	}
	l.Burst = max(l.Burst/n, 1)
	if l.Per > math.MaxInt64/time.Duration(n) {
		l.Per = math.MaxInt64
	} else {
		l.Per *= time.Duration(n)
	}
	return l
}
