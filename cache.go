package senderauth

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/senderauth/senderauth/internal/uuid"
	"golang.org/x/sync/singleflight"
)

// CacheConfig configures [NewCache]. Its zero value is a good choice.
type CacheConfig struct {
	_ [0]func()

	// Entries is how many accepted entries the cache holds, one for each key in
	// use. Zero means 100,000, and 2^27 is the most. Beyond it the cache evicts the
	// entry that has gone unused the longest, or nearly so. Rejected entries have a
	// segment of the same size to themselves, so that a flood of bad keys evicts no
	// good one. A hash spreads the entries over shards, and each shard has some
	// slack, so that this many do fit.
	Entries int
	// TTL is how long an accepted entry is served, counted from the call of the
	// Validator. Zero means 1 minute. It bounds how long a revoked key lives if
	// nobody calls Forget. Time that the machine spends asleep counts. A hit older
	// than half the TTL is served immediately and refreshed in the background.
	TTL time.Duration
	// RejectedTTL is how long a rejected entry is remembered, counted in the same
	// way. Zero means 5 seconds. A negative value means that rejections are not
	// remembered.
	RejectedTTL time.Duration
	// StaleTTL is how long past TTL an accepted entry is still served while the
	// Validator fails. It is never served past Sender.Expires or after Forget.
	// Zero means not at all.
	StaleTTL time.Duration
	// LookupTimeout is the deadline of a lookup, including the time that it
	// queues. Zero means 2 seconds.
	LookupTimeout time.Duration
	// MaxLookups is how many lookups may be in flight at once. Zero means 64.
	// Further lookups queue for at most half of LookupTimeout and then fail. There
	// is no bound on how many queue, and each takes about 12 KiB.
	//
	// A quarter of MaxLookups, rounded down, is reserved for credentials that were
	// accepted before, so that a flood of bad keys does not delay the lookup of a
	// good one. Credentials count as accepted before until their entry is evicted
	// or they are rejected, also past TTL and after Forget and Purge.
	MaxLookups int
	// LookupContext chooses the values in the context of a lookup. It gets the
	// context of the request that starts the lookup. The Cache takes the values of
	// the context that it returns, but not its deadline or cancellation. Nil means
	// no values, and so does a nil context.
	//
	// A lookup can outlive its request, so a value must stay usable when the
	// request is over. The span context of a trace does. What chi or gin put into
	// a context does not, because they reuse it for other requests.
	LookupContext func(request context.Context) context.Context
}

// CacheStats are counters since [NewCache], followed by three current values.
type CacheStats struct {
	Hits         uint64 // served from an accepted entry, including stale ones
	RejectedHits uint64 // refused by a remembered rejection
	Misses       uint64 // waited for a lookup
	Lookups      uint64 // calls of the Validator
	Failures     uint64 // lookups that ended with neither a sender nor a rejection
	Evictions    uint64 // accepted entries that made room for others

	Entries         int // accepted entries held, including those that are no longer served
	RejectedEntries int // rejected entries held, including those that no longer count
	InFlight        int // calls of the Validator in flight
}

// A Cache is a [Validator] that remembers the answers of another one. All its
// methods are safe for concurrent use.
//
// A Cache holds no keys. It finds an entry by a SHA-256 of the sender, the key
// and a random secret. It never has two lookups of the same credentials in flight:
// all requests with these credentials share one answer. If a sender's Expires
// passes during the lookup, the answer is [ErrInvalidKey]. Errors are not
// remembered, and neither is a refusal by a [*Problem].
//
// No request cancels a lookup. The context of a lookup has no values of a request,
// except those that [CacheConfig.LookupContext] hands on.
//
// When the lookups of 16 different keys in a row have failed, further lookups fail
// at once. Every second the Cache tries the Validator again with a few of them, and
// the first answer ends this. Keys that were accepted before are counted
// separately.
//
// A Validator that ignores its context cannot delay a request beyond
// LookupTimeout. Until it returns, it occupies one of MaxLookups, and the Cache
// does not look the same credentials up again unless Forget or Purge is called. A
// Cache has no goroutines except those of its lookups.
type Cache struct {
	validator Validator
	cfg       CacheConfig // with defaults
	clock     clock
	secret    [16]byte
	shards    []shard // a power of two

	// When a sender is forgotten, the next number of seq is noted at its place
	// in forgotten. An answer is good while neither its sender's place nor
	// purged holds a number above that of seq when its lookup began. Senders
	// that share a place are looked up once more than needed.
	seed      maphash.Seed
	mu        sync.Mutex // orders the changes of seq
	seq       atomic.Uint64
	purged    atomic.Uint64
	forgotten [1 << 16]atomic.Uint64

	flights        singleflight.Group
	slots          chan struct{} // one for each call of the validator
	known, unknown lane          // of pairs that were accepted before, and of others

	misses, lookups, failures atomic.Uint64
}

// NewCache returns a Cache in front of v. It reports all mistakes at once. A
// nil v is a mistake.
func NewCache(v Validator, cfg CacheConfig) (*Cache, error) {
	var errs []error
	if isNil(v) {
		errs = append(errs, errors.New("senderauth: NewCache: the Validator is nil"))
	}
	if _, ok := v.(*Cache); ok {
		errs = append(errs, errors.New("senderauth: NewCache: the Validator is a Cache itself"))
	}
	if err := errors.Join(append(errs, cfg.validate()...)...); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	c := &Cache{
		validator: v,
		cfg:       cfg,
		clock:     clock{start: time.Now()},
		seed:      maphash.MakeSeed(),
		slots:     make(chan struct{}, cfg.MaxLookups),
	}
	rand.Read(c.secret[:])
	unreserved := make(chan struct{}, cfg.MaxLookups-cfg.MaxLookups/4)
	c.known.init(c.slots)
	c.unknown.init(unreserved, c.slots)

	// Few entries share one shard; many are spread over 64 and, if a shard would
	// hold more than entry.slot can count, over more.
	shards, size := 1, cfg.Entries
	for shards*64 < cfg.Entries && (shards < 64 || shards<<15 < cfg.Entries) {
		shards *= 2
	}
	if shards > 1 {
		// Six standard deviations of the share that a hash gives one shard.
		share := float64(cfg.Entries) / float64(shards)
		size = int(math.Ceil(share + 6*math.Sqrt(share)))
	}
	c.shards = make([]shard, shards)
	for i := range c.shards {
		c.shards[i].init(size)
	}
	return c, nil
}

// validate returns every mistake in cfg.
func (cfg *CacheConfig) validate() (errs []error) {
	atLeastZero := func(field string, negative bool, value any) {
		if negative {
			errs = append(errs, fmt.Errorf("senderauth: CacheConfig.%s: %v is below 0", field, value))
		}
	}
	atLeastZero("Entries", cfg.Entries < 0, cfg.Entries)
	atLeastZero("TTL", cfg.TTL < 0, cfg.TTL)
	atLeastZero("StaleTTL", cfg.StaleTTL < 0, cfg.StaleTTL)
	atLeastZero("LookupTimeout", cfg.LookupTimeout < 0, cfg.LookupTimeout)
	atLeastZero("MaxLookups", cfg.MaxLookups < 0, cfg.MaxLookups)
	return errs
}

func (cfg CacheConfig) withDefaults() CacheConfig {
	const longest = 1 << 60 // 36 years: sums with the clock do not overflow
	const most = 1 << 27    // 4,096 shards of 2^15 entries and some slack, which entry.slot counts
	cfg.Entries = min(cmp.Or(cfg.Entries, 100_000), most)
	cfg.TTL = min(cmp.Or(cfg.TTL, time.Minute), longest)
	cfg.RejectedTTL = min(cmp.Or(cfg.RejectedTTL, 5*time.Second), longest)
	cfg.StaleTTL = min(cfg.StaleTTL, longest)
	cfg.LookupTimeout = cmp.Or(cfg.LookupTimeout, 2*time.Second)
	cfg.MaxLookups = cmp.Or(cfg.MaxLookups, 64)
	return cfg
}

// Validate answers from the cache or calls the Validator. Letter case does not
// matter in cr.SenderID, but it does in cr.APIKey. It returns the Validator's error,
// or one that says that the lookup was not made in time or returned nothing usable.
// When ctx ends, Validate returns its error, and the lookup goes on for the other
// requests that share it.
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

// Forget drops everything remembered about a sender, including rejections.
// Call it when a key of the sender is issued, changed or revoked, or when the
// sender itself changes. The answer of a lookup in flight is not remembered, and
// later requests do not share it. The number of entries does not affect its cost.
//
// With [Config.KeyOnly], rejections belong to no sender, so Forget drops all of
// them.
func (c *Cache) Forget(senderID string) { c.forget(&c.forgotten[c.place(senderID)]) }

// Purge does for all senders what Forget does for one. Call it when calls of
// Forget may have been missed.
func (c *Cache) Purge() { c.forget(&c.purged) }

func (c *Cache) forget(at *atomic.Uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at.Store(c.seq.Add(1))
}

// Stats returns the counters and the current values. It reads them one after the
// other, not at one instant.
func (c *Cache) Stats() CacheStats {
	st := CacheStats{
		Misses:   c.misses.Load(),
		Lookups:  c.lookups.Load(),
		Failures: c.failures.Load(),
		InFlight: len(c.slots),
	}
	for i := range c.shards {
		s := &c.shards[i]
		st.Hits += s.hits.Load()
		st.RejectedHits += s.rejectedHits.Load()
		st.Evictions += s.evictions.Load()
		s.mu.Lock()
		st.Entries += len(s.accepted)
		st.RejectedEntries += s.rejected.Len()
		s.mu.Unlock()
	}
	return st
}

// nowhere is the place of a rejection without a sender: a new key of any sender
// may be the one that was rejected.
const nowhere = math.MaxUint32

func (c *Cache) place(senderID string) uint32 {
	if id, ok := uuid.Canonical(senderID); ok {
		senderID = id
	}
	return uint32(maphash.String(c.seed, senderID) % uint64(len(c.forgotten)))
}

// since returns the last number at which what belongs to place was forgotten.
func (c *Cache) since(place uint32) uint64 {
	if place == nowhere {
		return c.seq.Load()
	}
	return max(c.forgotten[place].Load(), c.purged.Load())
}
