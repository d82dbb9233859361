package senderauth

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"
)

// retryLookup is how long after a failure the next lookup is tried.
const retryLookup = time.Second

var (
	errLookupTimeout = errors.New("senderauth: the validator did not answer within CacheConfig.LookupTimeout")
	errLookupTurn    = errors.New("senderauth: the lookup queued for half of CacheConfig.LookupTimeout: CacheConfig.MaxLookups are in flight")
	errExpired       = fmt.Errorf("senderauth: Sender.Expires passed during the lookup: %w", ErrInvalidKey)
)

// lookup is Validate for a caller that has the digest already. cached reports
// that the answer was remembered. An error beside an entry is the failure that
// a stale entry covers.
func (c *Cache) lookup(ctx context.Context, d digest, cr Credentials) (e *entry, cached bool, err error) {
	s := &c.shards[d[0]&uint64(len(c.shards)-1)]
	now := c.clock.now()
	e = s.index.Load().find(d)
	if e == nil {
		var r *rejection
		if e, r = s.get(d); r != nil && now < r.until && c.since(r.place) <= r.born {
			s.rejectedHits.Add(1)
			return nil, true, r.err
		}
	}
	if e != nil && c.serves(e, now) {
		s.hits.Add(1)
		if e.hit(c.round(e, now)) {
			c.newFlight(s, d, cr, e).start(ctx)
		}
		return e, true, nil
	}
	c.misses.Add(1)
	return c.newFlight(s, d, cr, e).wait(ctx)
}

// knows reports whether d stands for a pair that was accepted before.
func (c *Cache) knows(d digest) bool {
	s := &c.shards[d[0]&uint64(len(c.shards)-1)]
	e := s.index.Load().find(d)
	if e == nil {
		e, _ = s.get(d)
	}
	return e != nil
}

// serves reports whether a request is answered with e without waiting.
func (c *Cache) serves(e *entry, now time.Duration) bool {
	return c.usable(e, now) && (now < e.until || e.failing(c.round(e, now)))
}

// usable reports whether e may be served, if need be because the validator
// fails.
func (c *Cache) usable(e *entry, now time.Duration) bool {
	if now >= e.until+c.cfg.StaleTTL {
		return false
	}
	// Most of the time nobody was forgotten, and the table is left alone.
	if c.seq.Load() > e.born && c.since(uint32(e.place)) > e.born {
		return false
	}
	return !e.sender.expired()
}

// round numbers the seconds of an entry's life in which it may be refreshed,
// from 1 at half of TTL. It is 0 before.
func (c *Cache) round(e *entry, now time.Duration) uint32 {
	due := e.until - c.cfg.TTL/2
	if now < due {
		return 0
	}
	return uint32((now-due)/retryLookup) + 1
}

// expired goes by the wall clock, because a key ends when the calendar says so.
func (s *Sender) expired() bool { return !s.Expires.IsZero() && !time.Now().Before(s.Expires) }

// A flight is a lookup, from the request that started it to its answer.
type flight struct {
	cache  *Cache
	shard  *shard
	digest digest
	cr     Credentials
	before *entry // the entry of a pair that was accepted before, or nil
	place  uint32 // of the sender named in cr
	born   uint64 // Cache.seq at the start
}

func (c *Cache) newFlight(s *shard, d digest, cr Credentials, before *entry) *flight {
	f := &flight{cache: c, shard: s, digest: d, cr: cr, before: before, place: nowhere, born: c.seq.Load()}
	if cr.SenderID != "" {
		f.place = c.place(cr.SenderID)
	}
	return f
}

// wait starts or joins the lookup and returns what lookup does.
func (f *flight) wait(ctx context.Context) (e *entry, cached bool, err error) {
	c := f.cache
	timer := time.NewTimer(c.cfg.LookupTimeout)
	defer timer.Stop()
	select {
	case res := <-f.start(ctx):
		if res.Err == nil {
			return res.Val.(*entry), false, nil
		}
		err = res.Err
	case <-ctx.Done():
		return nil, false, ctx.Err()
	case <-timer.C:
		err = errLookupTimeout
	}
	// The key may have expired or been forgotten during the lookup.
	now := c.clock.now()
	if e = f.before; e != nil && isFailure(err) && c.usable(e, now) {
		e.fail(c.round(e, now))
		return e, true, err
	}
	return nil, false, err
}

// start begins the lookup in a goroutine of its own, or joins one that is in
// flight, unless that one began before its sender was forgotten or before the
// wall clock was set forward.
func (f *flight) start(ctx context.Context) <-chan singleflight.Result {
	c := f.cache
	var key []byte
	// f.born was read before. If the sender is forgotten in between, the lookup
	// is joined by later requests but not remembered.
	for _, n := range [...]uint64{f.digest[0], f.digest[1], c.since(f.place), uint64(c.clock.ahead.Load())} {
		key = binary.LittleEndian.AppendUint64(key, n)
	}
	values := context.Background()
	if choose := c.cfg.LookupContext; choose != nil {
		if chosen := choose(ctx); chosen != nil {
			values = context.WithoutCancel(chosen)
		}
	}
	return c.flights.DoChan(string(key), func() (any, error) { return f.run(values) })
}

// run queues in the pair's lane, calls the validator and remembers its answer.
func (f *flight) run(ctx context.Context) (*entry, error) {
	c, lane := f.cache, &f.cache.unknown
	if f.before != nil {
		lane = &c.known
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.LookupTimeout)
	defer cancel()
	// A lookup that spent its whole timeout queueing would have no time left to
	// run, so under overload none would succeed. Queue for half of it at most.
	turn := time.NewTimer(c.cfg.LookupTimeout / 2)
	defer turn.Stop()
	for _, seat := range lane.seats {
		select {
		case seat <- struct{}{}:
			defer func() { <-seat }()
		case <-turn.C:
			return nil, f.fail(errLookupTurn)
		}
	}
	asked := c.clock.now() // what is revoked from here on may be missed
	if lane.closed(asked) {
		return nil, f.fail(errLaneClosed)
	}
	c.lookups.Add(1)
	sender, err := call(ctx, c.validator, f.cr)
	failed := err != nil && isFailure(err)
	lane.report(f.digest, failed, c.clock.now())
	switch {
	case err == nil:
		return f.accept(sender, asked)
	case failed:
		return nil, f.fail(err)
	}
	return nil, f.reject(err, asked)
}

// fail counts a lookup that got no answer.
func (f *flight) fail(err error) error {
	c := f.cache
	c.failures.Add(1)
	if e := f.before; e != nil {
		e.fail(c.round(e, c.clock.now()))
	}
	return err
}

// accept remembers the sender, unless it was forgotten during the lookup. It
// rejects one whose Expires has passed since the validator was asked.
func (f *flight) accept(sender Sender, asked time.Duration) (*entry, error) {
	c := f.cache
	// Without its monotonic part an instant is compared by the calendar.
	sender.Expires = sender.Expires.Round(0)
	took := c.clock.now() - asked
	if sender.expired() && time.Now().Add(-took).Before(sender.Expires) {
		f.shard.reject(f.digest, nil)
		return nil, errExpired
	}
	e := &entry{digest: f.digest, until: asked + c.cfg.TTL, born: f.born, place: uint16(c.place(sender.ID)), sender: sender}
	if c.since(uint32(e.place)) <= f.born {
		f.shard.accept(e)
	}
	return e, nil
}

// reject remembers the rejection in the same way. A Problem only ends the entry
// of the pair.
func (f *flight) reject(err error, asked time.Duration) error {
	c := f.cache
	var r *rejection
	var p *Problem
	if c.cfg.RejectedTTL > 0 && !errors.As(err, &p) && c.since(f.place) <= f.born {
		r = &rejection{err: err, until: asked + c.cfg.RejectedTTL, born: f.born, place: f.place}
	}
	// The entry ends even if somebody was forgotten during the lookup. At worst
	// the pair is looked up once more.
	f.shard.reject(f.digest, r)
	return err
}

// isFailure reports whether err says nothing about the credentials: an outage,
// a fault, or a problem of the server's.
func isFailure(err error) bool {
	var p *Problem
	if errors.As(err, &p) {
		return p.status() >= 500
	}
	return !errors.Is(err, ErrInvalidKey) && !errors.Is(err, ErrKeyMismatch) && !errors.Is(err, ErrInvalidSender)
}

// call calls the validator. It turns a panic into an error, and so a sender that
// no guard may act on.
func call(ctx context.Context, v Validator, cr Credentials) (s Sender, err error) {
	defer func() {
		if p := recover(); p != nil {
			s, err = Sender{}, panicError("the validator", p)
		}
	}()
	s, err = v.Validate(ctx, cr)
	if err == nil {
		return s, s.validate(cr)
	}
	var p *Problem
	if errors.As(err, &p) && p == nil {
		err = errNilProblem
	}
	// Methods of the error may panic, if it is a nil pointer for example. Here
	// that is recovered; in the goroutine of a lookup it would end the process,
	// and in Config.Observe the request.
	isFailure(err)
	_ = err.Error()
	return s, err
}

var errNilProblem = &faultError{errors.New("senderauth: the validator returned a nil *Problem as its error")}

// panicError says who panicked and where. It leaves out the value of the panic,
// which may hold a key, unless the runtime made it.
func panicError(who string, value any) error {
	what := fmt.Sprintf("a %T", value)
	if e, ok := value.(runtime.Error); ok {
		what = e.Error()
	}
	where := "an unknown place"
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for panicking, more := false, true; more; {
		var f runtime.Frame
		f, more = frames.Next()
		inRuntime := strings.HasPrefix(f.Function, "runtime.")
		if panicking && !inRuntime {
			where = fmt.Sprintf("%s:%d", f.Function, f.Line)
			break
		}
		panicking = panicking || f.Function == "runtime.gopanic"
	}
	return &faultError{fmt.Errorf("senderauth: %s panicked at %s with %s", who, where, what)}
}
