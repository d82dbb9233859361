package redislimit

import (
	"context"
	"errors"
	"time"

	"github.com/senderauth/senderauth"
)

var errNoReply = errors.New("redislimit: no reply from Redis")

// spend is [holding.spend].
func (l *Limiter) spend(sender string, charges []senderauth.Charge, balances []senderauth.Balance) (spent bool) {
	l.leases.locked(l.leases.shard(sender), func(t *leaseTable, now time.Duration) {
		h := t.senders[sender]
		spent = h != nil && h.spend(charges, balances, now)
	})
	return spent
}

// leased decides from the tokens that this instance holds, and calls Redis if they do not
// suffice. One fetch at a time is in flight for a sender. A request that comes during a
// fetch waits for it, and its tokens are counted in the next one.
func (l *Limiter) leased(ctx context.Context, q *request) error {
	shard := l.leases.shard(q.sender)
	end := l.leases.now() + l.timeout
	var joined *fetch
	for {
		var d decision
		late := false
		l.leases.locked(shard, func(t *leaseTable, now time.Duration) {
			h := t.open(q.sender, now)
			if joined != nil {
				h.leave(q)
				if late = joined.err != nil || now > end; late {
					return
				}
			}
			d = h.decide(q, now)
			if d.verdict == decided && h.low(q, now) && l.place(q.sender) {
				d.fetch = h.refill(now)
			}
		})
		if late {
			if joined.err != nil {
				return joined.err
			}
			return context.DeadlineExceeded
		}
		switch d.verdict {
		case decided:
			if d.fetch != nil {
				l.background(d.fetch)
			}
			return nil
		case direct:
			return l.exact(ctx, q)
		case send:
			reply, err := l.send(ctx, d.fetch)
			if err == nil {
				d.fetch.settle(q, reply)
			}
			return err
		case join:
			joined = d.fetch
			<-joined.done // within the timeout
		}
	}
}

// send sends a fetch and adds its tokens to the sender's holding.
func (l *Limiter) send(ctx context.Context, f *fetch) (reply leaseReply, err error) {
	err = errNoReply
	defer func() { l.land(f, reply, err) }() // also if a hook of the client panics
	keys, args := make([]string, len(f.orders)), make([]string, len(f.orders))
	for i := range f.orders {
		keys[i] = l.key(f.sender, f.orders[i].name)
	}
	numbers, err := l.ask(ctx, f.sender, false, func(ctx context.Context, n *line) ([]int64, error) {
		for i := range f.orders {
			o := &f.orders[i]
			o.owed = l.ledger.claim(f.sender, o.name, o.scale)
			args[i] = packOrder(o)
		}
		return leaseScript.run(ctx, n, keys, args, false)
	})
	if unsent(err) {
		for i := range f.orders {
			o := &f.orders[i]
			l.ledger.owe(f.sender, o.name, o.scale, o.owed)
		}
	}
	if err != nil {
		return nil, err
	}
	if reply, err = parseLeaseReply(numbers, len(f.orders)); err != nil {
		return nil, err
	}
	for i := range f.orders {
		o := &f.orders[i]
		l.ledger.learn(f.sender, o.name, o.scale, reply.bucket(i).level)
	}
	return reply, nil
}

// land ends a fetch and wakes the requests that wait for it.
func (l *Limiter) land(f *fetch, reply leaseReply, err error) {
	l.leases.locked(l.leases.shard(f.sender), func(t *leaseTable, now time.Duration) { t.land(f, reply, now) })
	f.err = err
	close(f.done)
}

// place takes a place for a fetch in the background. It reports false if there is none or
// the breaker is open.
func (l *Limiter) place(sender string) bool {
	if l.part(sender).open() {
		return false
	}
	select {
	case l.leases.places <- struct{}{}:
		return true
	default:
		return false
	}
}

// background sends a fetch in the background. The fetch must have a place.
func (l *Limiter) background(f *fetch) {
	ran := l.spawn(func() {
		defer func() { <-l.leases.places }()
		_, _ = l.send(context.Background(), f)
	})
	if !ran {
		<-l.leases.places
		l.land(f, nil, errClosed)
	}
}

// tend gives idle tokens back until the limiter is closed.
func (l *Limiter) tend(every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-ticker.C:
		}
		for shard := range l.leases.shards {
			var fetches []*fetch
			l.leases.locked(shard, func(t *leaseTable, now time.Duration) { fetches = t.tend(now, l.place) })
			for _, f := range fetches {
				l.background(f)
			}
		}
	}
}
