package senderauth

import (
	"context"
	"hash/maphash"
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// MemoryLimiterConfig configures [NewMemoryLimiter]; its zero value is good.
type MemoryLimiterConfig struct {
	_ [0]func()

	// Buckets is where reclaiming starts: with more senders than that, each
	// request looks at a few others and forgets those whose buckets are full
	// again. It is not a maximum: a bucket that is not full is never
	// forgotten, for that would hand quota back. 0 and below: 1,000,000.
	Buckets int
}

// A MemoryLimiter is the [Limiter] of a single process. It owns no goroutine,
// and all its methods are safe for concurrent use.
//
// It counts in whole numbers, so that what it admits is exact: tokens are
// neither lost nor minted by rounding. Only where Burst x Per is more than 146
// years it counts in ticks longer than a nanosecond, and rounds Per up to one.
type MemoryLimiter struct {
	start  time.Time // of its clock, which is monotonic
	seed   maphash.Seed
	shards []limiterShard // a power of two
	mark   int            // accounts in a shard from which on it reclaims

	calendar atomic.Pointer[calendar]
}

// A calendar is the Unix time of one instant of a limiter's clock.
type calendar struct{ at, offset int64 }

// All of a sender's buckets are in one shard, so that one lock makes several
// charges atomic. A shard is a cache line of 64 bytes.
type limiterShard struct {
	mu       sync.Mutex
	accounts map[string]*account
	order    []*account // the same, for the reclaiming hand
	hand     int
	peak     int // len(order) since the map was made
	limiter  *MemoryLimiter
}

// An account is a sender's buckets. Most senders have one, so that the first
// is part of it.
type account struct {
	id        string
	shard     *limiterShard
	forgotten bool // for those who know the account from before
	first     bucket
}

// An accountHint remembers where a [MemoryLimiter] keeps a sender's buckets, so
// that a request of a cached sender skips the limiter's map: half of the cache
// misses of a request. The zero value remembers nothing, and so does a nil
// pointer.
type accountHint struct{ at atomic.Pointer[account] }

// account returns what m remembered here, which m may have forgotten since.
func (h *accountHint) account(m *MemoryLimiter) *account {
	if h == nil {
		return nil
	}
	if a := h.at.Load(); a != nil && a.shard.limiter == m {
		return a
	}
	return nil
}

func (h *accountHint) remember(a *account) {
	if h != nil && a != nil {
		h.at.Store(a)
	}
}

type bucket struct {
	next  *bucket
	name  string
	limit Limit
	last  int64  // when level was true: nanoseconds of the limiter's clock
	level uint64 // parts of tokens; see measure
}

// NewMemoryLimiter returns an empty limiter: every bucket is full.
func NewMemoryLimiter(cfg MemoryLimiterConfig) *MemoryLimiter {
	if cfg.Buckets <= 0 {
		cfg.Buckets = 1_000_000
	}
	// About 1,000 accounts a shard: far below mostMoved.
	shards := 64
	for shards < 4096 && shards*1024 < cfg.Buckets {
		shards *= 2
	}
	m := &MemoryLimiter{
		start:  time.Now(),
		seed:   maphash.MakeSeed(),
		shards: make([]limiterShard, shards),
		mark:   max(cfg.Buckets/shards, 1),
	}
	for i := range m.shards {
		m.shards[i].accounts = make(map[string]*account)
		m.shards[i].limiter = m
	}
	return m
}

// Len is the number of senders with a bucket. It locks the parts of the
// limiter one after the other.
func (m *MemoryLimiter) Len() int {
	n := 0
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		n += len(s.order)
		s.mu.Unlock()
	}
	return n
}

// Take is [Limiter]'s. It does not block and returns an error only for a
// mistake of the caller.
func (m *MemoryLimiter) Take(_ context.Context, senderID string, charges []Charge) ([]Balance, error) {
	if err := validateCharges(charges); err != nil {
		return nil, err
	}
	balances, _ := m.take(make([]Balance, 0, len(charges)), senderID, charges, nil)
	return balances, nil
}

// take appends the balances of valid charges to dst, and returns the time by
// the limiter's clock. hint may be nil.
func (m *MemoryLimiter) take(dst []Balance, senderID string, charges []Charge, hint *accountHint) ([]Balance, int64) {
	acct := hint.account(m)
	var s *limiterShard
	if acct != nil {
		s = acct.shard
	} else {
		s = &m.shards[maphash.String(m.seed, senderID)&uint64(len(m.shards)-1)]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// The clock is read under the lock: a time that was taken before waiting
	// for it can be older than the bucket's, and an older time mints tokens.
	now := int64(time.Since(m.start))

	if acct == nil || acct.forgotten {
		acct = s.accounts[senderID]
		hint.remember(acct)
	}
	refused := false
	for i := range charges {
		c := &charges[i]
		dst = append(dst, acct.bucket(c).look(c, now))
		refused = refused || dst[i].Refused
	}
	if refused {
		return dst, now
	}
	for i := range charges {
		c := &charges[i]
		if c.Cost == 0 || c.Limit == Unlimited() {
			continue
		}
		if acct == nil {
			acct = s.add(senderID)
		}
		dst[i] = acct.open(c, now).take(c, now)
	}
	if len(s.order) > m.mark {
		s.reclaim(now)
	}
	return dst, now
}

// unix returns the Unix time, in nanoseconds, at now of the limiter's clock. To
// read the calendar takes longer than all else that the limiter does, so that
// it is read once a second; a clock that is set is noticed within one.
func (m *MemoryLimiter) unix(now int64) int64 {
	c := m.calendar.Load()
	if c == nil || now-c.at >= int64(time.Second) {
		c = &calendar{at: now, offset: time.Now().UnixNano() - now}
		m.calendar.Store(c)
	}
	return now + c.offset
}

// add makes an account without buckets.
func (s *limiterShard) add(senderID string) *account {
	acct := &account{id: senderID, shard: s}
	s.accounts[senderID] = acct
	s.order = append(s.order, acct)
	s.peak = max(s.peak, len(s.order))
	return acct
}

// mostMoved bounds what one lock is held for when a shard's map is made anew.
const mostMoved = 4096

// reclaim looks at four accounts, which is more than a request can add, and
// forgets those with nothing but full buckets: a full bucket and no bucket are
// the same.
func (s *limiterShard) reclaim(now int64) {
	for range min(4, len(s.order)) {
		if s.hand >= len(s.order) {
			s.hand = 0
		}
		acct := s.order[s.hand]
		if !acct.full(now) {
			s.hand++
			continue
		}
		last := len(s.order) - 1
		s.order[s.hand], s.order[last] = s.order[last], nil
		s.order = s.order[:last]
		delete(s.accounts, acct.id)
		acct.forgotten = true
	}
	// Neither a map nor a slice gives memory back by itself.
	if n := len(s.order); n < s.peak/4 && n <= mostMoved && s.peak > 64 {
		accounts := make(map[string]*account, len(s.order))
		for _, a := range s.order {
			accounts[a.id] = a
		}
		s.accounts = accounts
		s.order = append(make([]*account, 0, len(s.order)), s.order...)
		s.peak = len(s.order)
	}
}

// bucket returns the bucket of the charge, nil where there is none.
func (a *account) bucket(c *Charge) *bucket {
	if a == nil {
		return nil
	}
	for b := &a.first; b != nil; b = b.next {
		if b.name == c.Name && b.limit != (Limit{}) {
			return b
		}
	}
	return nil
}

// open returns the bucket of the charge, a full one where there is none.
func (a *account) open(c *Charge, now int64) *bucket {
	b := a.bucket(c)
	if b != nil {
		return b
	}
	b = &a.first
	if b.limit != (Limit{}) {
		b = &bucket{next: a.first.next}
		a.first.next = b
	}
	b.name, b.limit, b.last = c.Name, c.Limit, now
	b.level = measure(c.Limit).full
	return b
}

func (a *account) full(now int64) bool {
	for b := &a.first; b != nil; b = b.next {
		m := measure(b.limit)
		if m.refill(b.level, b.last, now) < m.full {
			return false
		}
	}
	return true
}

// A scale is the arithmetic of one limit in whole numbers: a token has perToken
// parts, and each tick brings perTick of them.
type scale struct {
	perToken uint64 // Per, in ticks
	perTick  uint64 // Requests
	full     uint64 // burst x perToken, at most 2^62
	tick     int64  // nanoseconds: 1, or more where the burst is very large
}

// measure returns the scale of a limit that is neither Unlimited nor Blocked.
// A coarser tick rounds Per up: never more than the limit is admitted.
func measure(l Limit) scale {
	perToken, tick := uint64(l.Per), int64(1)
	for {
		hi, full := bits.Mul64(uint64(l.EffectiveBurst()), perToken)
		if hi == 0 && full <= 1<<62 {
			return scale{perToken: perToken, perTick: uint64(l.Requests), full: full, tick: tick}
		}
		perToken, tick = (perToken+9)/10, tick*10
	}
}

// refill returns the level at now of a bucket that had level at last.
func (s *scale) refill(level uint64, last, now int64) uint64 {
	if now <= last {
		return level
	}
	hi, gain := bits.Mul64(uint64((now-last)/s.tick), s.perTick)
	if hi != 0 || gain >= s.full-level {
		return s.full
	}
	return level + gain
}

// wait returns how long until a bucket that had level at last has want.
func (s *scale) wait(level, want uint64, last, now int64) time.Duration {
	if level >= want {
		return 0
	}
	ticks := (want - level + s.perTick - 1) / s.perTick
	hi, ns := bits.Mul64(ticks, uint64(s.tick))
	if hi != 0 || ns > math.MaxInt64 {
		return math.MaxInt64
	}
	// Part of the running tick has passed already.
	return time.Duration(ns) - time.Duration((now-last)%s.tick)
}

// look returns the balance of the charge without taking anything. A nil bucket
// is a full one.
func (b *bucket) look(c *Charge, now int64) Balance {
	switch c.Limit {
	case Unlimited():
		return Balance{Remaining: math.MaxInt}
	case Blocked():
		if c.Cost == 0 {
			return Balance{}
		}
		return Balance{Refused: true, RetryAfter: -1}
	}
	s := measure(c.Limit)
	level, last := s.full, now
	if b != nil {
		b.adopt(c.Limit, now)
		level, last = s.refill(b.level, b.last, now), b.last
	}
	bal := Balance{Remaining: int(level / s.perToken), ResetAfter: s.wait(level, s.full, last, now)}
	if c.Cost > bal.Remaining {
		bal.Refused = true
		bal.RetryAfter = -1
		if c.Cost <= c.Limit.EffectiveBurst() {
			bal.RetryAfter = s.wait(level, uint64(c.Cost)*s.perToken, last, now)
		}
	}
	return bal
}

// take takes the tokens that look has found.
func (b *bucket) take(c *Charge, now int64) Balance {
	s := measure(c.Limit)
	level := s.refill(b.level, b.last, now)
	rest := (now - b.last) % s.tick // of the running tick is not lost
	if lacks := s.full - level; rest > 0 && lacks < s.perTick {
		// Nor does it fill the bucket beyond its brim.
		hi, lo := bits.Mul64(lacks, uint64(s.tick))
		most, _ := bits.Div64(hi, lo, s.perTick)
		rest = min(rest, int64(most))
	}
	b.last = max(b.last, now-rest)
	b.level = level - uint64(c.Cost)*s.perToken
	return Balance{
		Remaining:  int(b.level / s.perToken),
		ResetAfter: s.wait(b.level, s.full, b.last, now),
	}
}

// adopt moves the bucket to another limit. Its tokens stay, up to the new
// burst: a change of plan neither hands out a burst nor takes one.
func (b *bucket) adopt(l Limit, now int64) {
	if b.limit == l {
		return
	}
	from, to := measure(b.limit), measure(l)
	level := from.refill(b.level, b.last, now)
	tokens, part := level/from.perToken, level%from.perToken
	hi, lo := bits.Mul64(part, to.perToken)
	part, _ = bits.Div64(hi, lo, from.perToken)
	if tokens >= uint64(l.EffectiveBurst()) {
		tokens, part = uint64(l.EffectiveBurst()), 0
	}
	b.limit, b.last, b.level = l, now, tokens*to.perToken+part
}
