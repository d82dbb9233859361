package redislimit

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
)

// Opening a connection takes about seven round trips, with TLS, a password and the script
// to load. Within a decision's timeout that would never succeed on a slow network, because
// go-redis drops a connection whose handshake timed out. The functions of this file open
// connections and load scripts with a timeout of their own.

// probe reports why Redis does not decide in time, or nil. It first opens the connections
// that are missing.
func (l *Limiter) probe(sender string) error {
	if err := l.connect(sender); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.timeout)
	defer cancel()
	return l.tryTake(ctx, sender)
}

// connect opens as many connections as a line uses, and loads the scripts. One call comes
// first, because a Redis that is down needs no more. Then come as many at once as a line has
// in flight, because each takes an idle connection or opens one.
func (l *Limiter) connect(sender string) error {
	if err := l.try(sender); err != nil {
		return err
	}
	var calls sync.WaitGroup
	for range maxInFlight {
		calls.Go(func() { _ = l.try(sender) }) // a pool may be smaller
	}
	calls.Wait()
	l.inspected.Store(false) // a failover may have led to another server
	return nil
}

// try runs the scripts that decisions use, and leaves time to open a connection and to load
// them.
func (l *Limiter) try(sender string) error {
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout(l.timeout))
	defer cancel()
	if err := l.tryTake(ctx, sender); err != nil || l.leases == nil {
		return err
	}
	return l.tryLease(ctx, sender)
}

// connectTimeout returns how long opening a connection may take: ten round trips that each
// last a decision's timeout, but not many seconds, because Close waits for them.
func connectTimeout(decision time.Duration) time.Duration {
	return min(10*decision, max(decision, 5*time.Second))
}

// tryTake runs take.lua on a bucket of its own. It takes a token, because looking at a
// bucket would succeed on a replica and on a Redis that is out of memory.
func (l *Limiter) tryTake(ctx context.Context, sender string) error {
	arg := packTake(probeScale, probeScale.perToken, 0)
	_, err := takeScript.run(ctx, unbatched{l.client}, []string{l.probeKey(sender)}, []string{arg}, true)
	return err
}

func (l *Limiter) tryLease(ctx context.Context, sender string) error {
	arg := packOrder(&order{scale: probeScale, need: 1})
	_, err := leaseScript.run(ctx, unbatched{l.client}, []string{l.probeKey(sender)}, []string{arg}, true)
	return err
}

// probeScale is that of a bucket that no number of instances empties, so that each probe
// writes.
var probeScale = measure(senderauth.PerSecond(1_000_000))

// unbatched sends each command as a call of its own.
type unbatched struct{ redis.UniversalClient }

func (u unbatched) send(ctx context.Context, cmd redis.Cmder) error { return u.Process(ctx, cmd) }

// timedOut reports an error of a call that had too little time, perhaps because it had to
// open a connection.
func timedOut(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}
