package senderauth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/senderauth/senderauth/internal/uuid"
	"golang.org/x/sync/singleflight"
)

// CacheConfig configures [NewCache]; its zero value is good. It is read once.
type CacheConfig struct {
	_ [0]func()

	// Entries is how many accepted pairs of sender and key are remembered; the
	// least recently used goes first. Rejections have a segment of their own,
	// of the same size, so that no flood of bad keys evicts a good one. 0:
	// 100,000. The entries are spread over shards by a hash; a shard is given
	// some slack, so that Entries different keys do fit.
	Entries int
	// TTL is how long an accepted pair is remembered, counted from the call of
	// the validator: the worst-case life of a revoked key where nobody calls
	// Forget. A hit past half of it is answered at once and looked up again
	// behind it. 0: 1 minute.
	TTL time.Duration
	// RejectedTTL is how long a rejection is remembered, counted in the same
	// way. 0: 5 seconds; negative: rejections are not remembered.
	RejectedTTL time.Duration
	// StaleTTL is how long past TTL an accepted pair may serve while the
	// validator fails; never past Sender.Expires, and never after Forget. 0:
	// not at all.
	StaleTTL time.Duration
	// LookupTimeout is the deadline of a look-up, the wait for its turn
	// included. 0: 2 seconds.
	LookupTimeout time.Duration
	// MaxLookups is how many look-ups may be in flight at once. Past it a miss
	// waits for its turn, no longer than half of LookupTimeout, and then fails.
	// A quarter of them is for pairs that were accepted before, so that a flood
	// of bad keys does not keep the good ones from being looked up again. 0: 64.
	MaxLookups int
}

// CacheStats are counters since [NewCache], and three levels.
type CacheStats struct {
	Hits         uint64 // answered from an accepted pair, a stale one included
	RejectedHits uint64 // answered from a remembered rejection
	Misses       uint64 // waited for a look-up
	Lookups      uint64 // calls of the validator
	Failures     uint64 // look-ups that ended in neither a sender nor a refusal
	Evictions    uint64 // accepted pairs that made room for others

	Entries         int // accepted pairs held, those past their time included
	RejectedEntries int // the same of rejections
	InFlight        int // calls of the validator now
}

// A Cache is a [Validator] that remembers what another one said. All its
// methods are safe for concurrent use.
//
// It holds no key: an entry is found by a SHA-256 over the sender, the key and
// a secret of the process. One look-up for a pair is in flight at a time,
// whoever asks; it is not tied to the request that started it, and keeps the
// values of that request's context. Errors are not remembered, nor is a
// refusal by a [*Problem].
//
// A validator that ignores its context does not hold a request past
// LookupTimeout; its place among MaxLookups stays taken until it returns. The
// cache owns no goroutine but those of look-ups.
type Cache struct {
	validator Validator
	ttl       time.Duration
	rejected  time.Duration
	stale     time.Duration
	timeout   time.Duration
	start     time.Time // of the cache's clock, which is monotonic

	secret [16]byte
	shards []cacheShard // a power of two
	size   int          // of each segment of a shard
	exact  bool         // the order of use, to the last hit
	slots  chan struct{}
	misses chan struct{} // those of slots that pairs not accepted before can have
	flight singleflight.Group

	lookups, failures atomic.Uint64

	// When a sender is forgotten, the next number of seq is noted at its place
	// in forgotten. An answer is good while neither its sender's place nor
	// purged holds a number above that of seq when its look-up began. Senders
	// that share a place are looked up once more than needed.
	seed      maphash.Seed
	mu        sync.Mutex // of those who forget
	seq       atomic.Uint64
	purged    atomic.Uint64
	forgotten []atomic.Uint64 // a power of two
}

// A digest is 192 bits of a SHA-256: the index finds an entry, the tag says
// that it is the one.
type digest struct {
	index uint64
	tag   [16]byte
}

func (d *digest) is(tag *[16]byte) bool { return subtle.ConstantTimeCompare(d.tag[:], tag[:]) == 1 }

type cacheShard struct {
	mu       sync.Mutex
	accepted *simplelru.LRU[uint64, *acceptance]
	rejected *simplelru.LRU[uint64, *rejection]

	hits, rejectedHits, misses, evictions uint64

	_ [8]byte // to a cache line of 64
}

func (s *cacheShard) empty(size int) {
	s.accepted, _ = simplelru.NewLRU[uint64, *acceptance](size, nil)
	s.rejected, _ = simplelru.NewLRU[uint64, *rejection](size, nil)
}

// An acceptance is a remembered sender. What is not atomic is fixed.
type acceptance struct {
	sender Sender
	tag    [16]byte
	until  time.Duration // of the cache's clock: the end of TTL
	born   uint64        // seq when the look-up began
	place  uint32        // of the sender in forgotten

	moved  atomic.Uint32 // era in which it was last moved to the front
	failed atomic.Bool   // the last look-up behind this entry ended in an error
	again  atomic.Int64  // of the cache's clock: when to look up behind a hit

	account accountHint
}

// era is how exact the order of a cache with many entries is: about 8 seconds.
// Moving an entry to the front touches three others, which costs more than all
// else that a hit does.
func era(now time.Duration) uint32 { return uint32(now >> 33) }

type rejection struct {
	tag   [16]byte
	err   error
	until time.Duration
	born  uint64
	place uint32 // nowhere: of no known sender
}

// nowhere is the place of a rejection without a sender: anybody's new key may
// be the one that was rejected.
const nowhere = math.MaxUint32

// retryLookup is how long after a failed look-up behind an entry the next one
// is tried.
const retryLookup = time.Second

// NewCache returns a cache in front of v. Every mistake in cfg is reported at
// once; a nil v is one.
func NewCache(v Validator, cfg CacheConfig) (*Cache, error) {
	var errs []error
	if isNil(v) {
		errs = append(errs, errors.New("senderauth: NewCache: the Validator is nil"))
	}
	if _, ok := v.(*Cache); ok {
		errs = append(errs, errors.New("senderauth: NewCache: the Validator is a Cache itself"))
	}
	atLeastZero := func(field string, n int64, text any) {
		if n < 0 {
			errs = append(errs, fmt.Errorf("senderauth: CacheConfig.%s: %v is below 0", field, text))
		}
	}
	atLeastZero("Entries", int64(cfg.Entries), cfg.Entries)
	atLeastZero("TTL", int64(cfg.TTL), cfg.TTL)
	atLeastZero("StaleTTL", int64(cfg.StaleTTL), cfg.StaleTTL)
	atLeastZero("LookupTimeout", int64(cfg.LookupTimeout), cfg.LookupTimeout)
	atLeastZero("MaxLookups", int64(cfg.MaxLookups), cfg.MaxLookups)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	or := func(n, otherwise time.Duration) time.Duration {
		if n == 0 {
			return otherwise
		}
		return min(n, 1<<61) // 73 years: the sum of two and the clock is no overflow
	}
	if cfg.Entries == 0 {
		cfg.Entries = 100_000
	}
	if cfg.MaxLookups == 0 {
		cfg.MaxLookups = 64
	}
	c := &Cache{
		validator: v,
		ttl:       or(cfg.TTL, time.Minute),
		rejected:  or(cfg.RejectedTTL, 5*time.Second),
		stale:     or(cfg.StaleTTL, 0),
		timeout:   or(cfg.LookupTimeout, 2*time.Second),
		start:     time.Now(),
		slots:     make(chan struct{}, cfg.MaxLookups),
		misses:    make(chan struct{}, cfg.MaxLookups-cfg.MaxLookups/4),
		seed:      maphash.MakeSeed(),
	}
	rand.Read(c.secret[:])

	// Few entries are one exact LRU; many are shards of 64 and more.
	shards := 1
	for shards < 64 && shards*64 < cfg.Entries {
		shards *= 2
	}
	c.size = cfg.Entries
	if shards > 1 {
		// Six standard deviations of the share that a hash gives one shard.
		share := float64(cfg.Entries) / float64(shards)
		c.size = int(math.Ceil(share + 6*math.Sqrt(share)))
	}
	c.exact = shards == 1
	c.shards = make([]cacheShard, shards)
	for i := range c.shards {
		c.shards[i].empty(c.size)
	}
	places := 1024
	for places < 1<<20 && places < cfg.Entries {
		places *= 2
	}
	c.forgotten = make([]atomic.Uint64, places)
	return c, nil
}

// Validate answers from what is remembered, or asks the validator. Letter case
// does not matter in cr.SenderID; the key is taken as it is. Its errors are the
// validator's, or say that the look-up could not be made in time, or why what
// the validator returned is of no use. It returns when ctx ends, with ctx's
// error, and leaves the look-up to those who wait with it.
func (c *Cache) Validate(ctx context.Context, cr Credentials) (Sender, error) {
	if id, ok := uuid.Canonical(cr.SenderID); ok {
		cr.SenderID = id
	}
	e, _, err := c.lookup(ctx, c.digest(cr), cr)
	if e == nil {
		return Sender{}, err
	}
	return e.sender, nil
}

// Forget drops what is remembered of a sender, rejections included: a key was
// issued, changed or revoked, or the sender was. A look-up in flight is
// neither remembered nor joined by a later request. The cost does not depend
// on the number of entries.
//
// With [Config.KeyOnly] a rejection has no sender: Forget drops them all.
func (c *Cache) Forget(senderID string) {
	c.mu.Lock()
	c.forgotten[c.place(senderID)].Store(c.seq.Add(1))
	c.mu.Unlock()
}

// Purge drops everything that is remembered, as Forget does for one sender:
// events may have been missed.
func (c *Cache) Purge() {
	c.mu.Lock()
	c.purged.Store(c.seq.Add(1))
	c.mu.Unlock()
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.empty(c.size)
		s.mu.Unlock()
	}
}

// Stats locks the parts of the cache one after the other.
func (c *Cache) Stats() CacheStats {
	st := CacheStats{
		Lookups:  c.lookups.Load(),
		Failures: c.failures.Load(),
		InFlight: len(c.slots),
	}
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		st.Hits += s.hits
		st.RejectedHits += s.rejectedHits
		st.Misses += s.misses
		st.Evictions += s.evictions
		st.Entries += s.accepted.Len()
		st.RejectedEntries += s.rejected.Len()
		s.mu.Unlock()
	}
	return st
}

func (c *Cache) place(senderID string) uint32 {
	if id, ok := uuid.Canonical(senderID); ok {
		senderID = id
	}
	return uint32(maphash.String(c.seed, senderID) & uint64(len(c.forgotten)-1))
}

// since returns the last number at which what belongs to place was forgotten.
func (c *Cache) since(place uint32) uint64 {
	if place == nowhere {
		return c.seq.Load()
	}
	return max(c.forgotten[place].Load(), c.purged.Load())
}

// digest names a pair. Every part is of fixed width or has its length in
// front, so that no two pairs are written alike. The secret keeps clients from
// choosing keys that meet in one shard, and the digest from being good for
// anything elsewhere.
func (c *Cache) digest(cr Credentials) digest {
	if sender, lower, ok := uuid.Parse(cr.SenderID); ok && lower {
		if key, lower, ok := uuid.Parse(cr.APIKey); ok && lower {
			return c.digestUUIDs(sender, key)
		}
	}
	b := make([]byte, 0, 1+len(c.secret)+binary.MaxVarintLen64+36+maxKeyLength)
	b = append(b, 1)
	b = append(b, c.secret[:]...)
	b = binary.AppendUvarint(b, uint64(len(cr.SenderID)))
	b = append(b, cr.SenderID...)
	b = append(b, cr.APIKey...)
	return cut(sha256.Sum256(b))
}

// digestUUIDs hashes the pair as 49 bytes, which fit one block of SHA-256
// where 89 bytes of text take two (94 ns for 163).
func (c *Cache) digestUUIDs(sender, key uuid.UUID) digest {
	var b [1 + 16 + 16 + 16]byte
	copy(b[1:], c.secret[:])
	copy(b[17:], sender[:])
	copy(b[33:], key[:])
	return cut(sha256.Sum256(b[:]))
}

func cut(sum [sha256.Size]byte) digest {
	return digest{binary.LittleEndian.Uint64(sum[:8]), [16]byte(sum[8:24])}
}

// lookup is Validate for one who has the digest already. cached reports an
// answer that was remembered; an error beside an entry is the failure that a
// stale one covers.
func (c *Cache) lookup(ctx context.Context, d digest, cr Credentials) (e *acceptance, cached bool, err error) {
	s := &c.shards[d.index&uint64(len(c.shards)-1)]
	now := time.Since(c.start)

	s.mu.Lock()
	e, ok := s.accepted.Peek(d.index)
	if ok && !(d.is(&e.tag) && e.usable(c, now)) {
		s.accepted.Remove(d.index)
		e, ok = nil, false
	}
	if ok && (now < e.until || e.failing(now)) {
		if now := era(now); c.exact || e.moved.Load() != now {
			s.accepted.Get(d.index)
			e.moved.Store(now)
		}
		s.hits++
		s.mu.Unlock()
		again := e.again.Load()
		if int64(now) >= again && e.again.CompareAndSwap(again, int64(now+retryLookup)) {
			c.ask(ctx, s, d, cr, e)
		}
		return e, true, nil
	}
	if !ok {
		if rej, ok := s.rejected.Get(d.index); ok {
			if d.is(&rej.tag) && now < rej.until && c.since(rej.place) <= rej.born {
				s.rejectedHits++
				s.mu.Unlock()
				return nil, true, rej.err
			}
			s.rejected.Remove(d.index)
		}
	}
	s.misses++
	s.mu.Unlock()

	timer := time.NewTimer(c.timeout)
	defer timer.Stop()
	select {
	case res := <-c.ask(ctx, s, d, cr, e):
		if res.Err == nil {
			return res.Val.(*acceptance), false, nil
		}
		err = res.Err
	case <-ctx.Done():
		return nil, false, ctx.Err()
	case <-timer.C:
		err = errLookupTimeout
	}
	// The entry that is kept for this is asked once more: the key may have
	// expired or been forgotten meanwhile.
	if e != nil && isFailure(err) && e.usable(c, time.Since(c.start)) {
		e.fail(time.Since(c.start))
		return e, true, err
	}
	return nil, false, err
}

// holds reports whether a lookup of d would be answered from an accepted entry at
// once.
func (c *Cache) holds(d digest) bool {
	s := &c.shards[d.index&uint64(len(c.shards)-1)]
	now := time.Since(c.start)
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.accepted.Peek(d.index)
	return ok && d.is(&e.tag) && e.usable(c, now) && (now < e.until || e.failing(now))
}

// usable reports whether e may be answered with, or kept for when the
// validator fails.
func (e *acceptance) usable(c *Cache, now time.Duration) bool {
	if now >= e.until+c.stale {
		return false
	}
	// Most of the time nobody was forgotten, and the table is left alone.
	if c.seq.Load() > e.born && c.since(e.place) > e.born {
		return false
	}
	// The wall clock, which can be set: a key ends when the calendar says so.
	return e.sender.Expires.IsZero() || time.Now().Before(e.sender.Expires)
}

// failing reports that the look-ups behind e have lately failed: a request then
// does not wait for another to do so.
func (e *acceptance) failing(now time.Duration) bool {
	return e.failed.Load() && now < time.Duration(e.again.Load())+retryLookup
}

func (e *acceptance) fail(now time.Duration) {
	e.again.Store(int64(now + retryLookup))
	e.failed.Store(true)
}

var (
	errLookupTimeout = errors.New("senderauth: the validator did not answer within CacheConfig.LookupTimeout")
	errLookupTurn    = errors.New("senderauth: the look-up did not come to its turn within half of CacheConfig.LookupTimeout: CacheConfig.MaxLookups are in flight")
)

// ask looks the pair up, or joins the look-up of it that is in flight, unless
// the sender was forgotten since that one began. behind is the entry that is
// being served meanwhile, or nil.
func (c *Cache) ask(ctx context.Context, s *cacheShard, d digest, cr Credentials, behind *acceptance) <-chan singleflight.Result {
	place := uint32(nowhere)
	if cr.SenderID != "" {
		place = c.place(cr.SenderID)
	}
	born := c.seq.Load()
	// In this order: a sender that is forgotten in between starts a look-up of
	// its own, which is remembered for nobody.
	key := string(binary.LittleEndian.AppendUint64(append(binary.LittleEndian.AppendUint64(nil, d.index), d.tag[:]...), c.since(place)))
	return c.flight.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timeout)
		defer cancel()
		// Who waited for all of the time would be given a turn with none left:
		// with more misses than can be served, not one would be.
		turn := time.NewTimer(c.timeout / 2)
		defer turn.Stop()
		seats := []chan struct{}{c.misses, c.slots}
		if behind != nil {
			seats = seats[1:]
		}
		for _, seat := range seats {
			select {
			case seat <- struct{}{}:
				defer func() { <-seat }()
			case <-turn.C:
				c.failures.Add(1)
				if behind != nil {
					behind.fail(time.Since(c.start))
				}
				return nil, errLookupTurn
			}
		}
		c.lookups.Add(1)
		asked := time.Since(c.start) // what is revoked from here on may be missed
		sender, err := call(ctx, c.validator, cr)
		switch {
		case err == nil:
			return c.accept(s, d, sender, asked, born), nil
		case isFailure(err):
			c.failures.Add(1)
			if behind != nil {
				behind.fail(time.Since(c.start))
			}
		default:
			c.reject(s, d, err, asked, born, place)
		}
		return nil, err
	})
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

// accept remembers the sender, unless it was forgotten since its look-up
// began.
func (c *Cache) accept(s *cacheShard, d digest, sender Sender, asked time.Duration, born uint64) *acceptance {
	now := time.Since(c.start)
	// Without its monotonic part an instant is compared by the calendar.
	sender.Expires = sender.Expires.Round(0)
	e := &acceptance{sender: sender, tag: d.tag, until: asked + c.ttl, born: born, place: c.place(sender.ID)}
	e.moved.Store(era(now))
	e.again.Store(int64(asked + c.ttl/2))
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.usable(c, now) {
		if s.accepted.Add(d.index, e) {
			s.evictions++
		}
	}
	return e
}

// reject remembers the refusal, in the same way; one by a Problem only ends an
// acceptance.
func (c *Cache) reject(s *cacheShard, d digest, err error, asked time.Duration, born uint64, place uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Whoever was forgotten meanwhile: at worst it is looked up once more.
	s.accepted.Remove(d.index)
	if c.since(place) > born {
		return
	}
	var p *Problem
	if c.rejected > 0 && !errors.As(err, &p) {
		s.rejected.Add(d.index, &rejection{tag: d.tag, err: err, until: asked + c.rejected, born: born, place: place})
	}
}

// call calls the validator and turns a panic into an error, and so a sender that
// no guard may act on. An error that is a nil pointer is another: to ask one
// what it is may panic, which would end the process where a cache looks up, and
// so is tried here.
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
	isFailure(err)
	return s, err
}

var errNilProblem = &faultError{errors.New("senderauth: the validator returned a nil *Problem as its error")}

// panicError says that and where who panicked. The value of the panic is left
// out, for it may hold a key, unless it comes from the runtime.
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
