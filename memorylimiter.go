package senderauth

import (
	"context"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// MemoryLimiterConfig configures [NewMemoryLimiter]. Its zero value is a good choice.
type MemoryLimiterConfig struct {
	_ [0]func()

	// Buckets is how many senders the limiter keeps before it reclaims memory. Zero
	// means 1,000,000. Above it, each request looks at a few other senders and
	// forgets those whose buckets are full again. It is not a maximum: the limiter
	// never forgets a bucket that is not full, because that would hand quota back.
	// A forgotten bucket starts full again. If the sender's limit was raised in
	// the meantime, it starts with the new burst at once. Above the same number of
	// partly used allowances, the limiter forgets those whose period is over.
	Buckets int
}

// A MemoryLimiter is the [Limiter] of a single instance. Its buckets are
// rate.Limiters of golang.org/x/time/rate. It owns no goroutine, and all its
// methods are safe for concurrent use.
//
// What senders have used of an allowance is lost when the instance ends. Keep monthly
// allowances where they outlive a restart, such as in Redis with contrib/redislimit. The
// wall clock decides which period it is.
//
// Tokens are float64. By rounding, N requests can mint at most N x Burst x 2^-50
// tokens. To mint one token takes more than ten trillion requests with a burst of
// 100, and more than a million with the largest burst. Allowances are whole numbers.
type MemoryLimiter struct {
	id     uint32    // no other limiter has it
	start  time.Time // of its clock, which is monotonic
	seed   maphash.Seed
	shards []limiterShard // a power of two
	mark   int            // a shard with more accounts, or a table with more usages, reclaims

	allowances []allowanceTable // of the shard with the same index
}

// All of a sender's buckets are in one shard, so that one lock makes several
// charges atomic. A shard is a cache line of 64 bytes.
type limiterShard struct {
	mu       sync.Mutex
	home     home
	now      time.Duration // the latest time read
	accounts map[string]*account
	order    []*account // the same, for the reclaiming hand
	hand     uint32
	peak     uint32 // len(order) since the map was made
}

// A home names a shard of a limiter. It is not a pointer, because hints outlive
// limiters and would keep them in memory.
type home struct{ limiter, shard uint32 }

var limiters atomic.Uint32 // how many were made

// An account is a sender's buckets, one or more. Most senders have one, so that
// the first is part of it. An account is two cache lines.
type account struct {
	home      home
	first     bucket
	id        string
	forgotten atomic.Bool // for those who know the account from before
}

// An accountHint remembers where a [MemoryLimiter] keeps a sender's buckets, so
// that a request of a cached sender skips the limiter's map: 551 ns instead of
// 1,295 (BenchmarkTake/one_charge, hinted and looked_up). The zero value remembers
// nothing, and so does a nil pointer.
type accountHint struct{ at atomic.Pointer[account] }

// account returns what m remembered here, which m may have forgotten since.
func (h *accountHint) account(m *MemoryLimiter) *account {
	if h == nil {
		return nil
	}
	if a := h.at.Load(); a != nil && !a.forgotten.Load() && a.home.limiter == m.id {
		return a
	}
	return nil
}

func (h *accountHint) remember(a *account) {
	if h != nil && a != nil && h.at.Load() != a {
		h.at.Store(a)
	}
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
		id:     limiters.Add(1),
		start:  time.Now(),
		seed:   maphash.MakeSeed(),
		shards: make([]limiterShard, shards),
		mark:   max(cfg.Buckets/shards, 1),

		allowances: make([]allowanceTable, shards),
	}
	for i := range m.shards {
		m.shards[i].accounts = make(map[string]*account)
		m.shards[i].home = home{m.id, uint32(i)}
	}
	return m
}

// Len returns the number of senders with a bucket, plus the number of allowances that
// are partly used.
func (m *MemoryLimiter) Len() int {
	n := 0
	for i := range m.shards {
		q := &m.shards[i]
		q.mu.Lock()
		n += len(q.order) + len(m.allowances[i].used)
		q.mu.Unlock()
	}
	return n
}

// Reset fills all buckets of a sender, given its [Sender.ID], and grants all its
// allowances anew. Support staff use it to let in a customer who was locked out by
// mistake.
func (m *MemoryLimiter) Reset(senderID string) {
	q := m.shard(senderID)
	q.mu.Lock()
	defer q.mu.Unlock()
	if a := q.accounts[senderID]; a != nil {
		q.forgetLocked(slices.Index(q.order, a))
	}
	m.allowances[q.home.shard].reset(senderID)
}

// Take implements [Limiter]. It does no I/O and returns an error only for a mistake
// of the caller.
func (m *MemoryLimiter) Take(_ context.Context, senderID string, charges []Charge) ([]Balance, error) {
	if err := validateCharges(charges); err != nil {
		return nil, err
	}
	balances, _ := m.take(make([]Balance, 0, len(charges)), senderID, charges, nil)
	return balances, nil
}

// take appends the balances of valid charges to dst, which is empty. It also
// returns when it took them, as Unix time in nanoseconds. hint may be nil.
func (m *MemoryLimiter) take(dst []Balance, senderID string, charges []Charge, hint *accountHint) ([]Balance, int64) {
	acct := hint.account(m)
	var q *limiterShard
	if acct != nil {
		q = &m.shards[acct.home.shard]
	} else {
		q = m.shard(senderID)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now, unix := q.tickLocked(m.start)
	if acct == nil || acct.forgotten.Load() {
		acct = q.accounts[senderID]
	}
	allowances := &m.allowances[q.home.shard]
	refused := false
	for i := range charges {
		c := &charges[i]
		if c.Limit.isAllowance() {
			dst = append(dst, allowances.balance(senderID, c, unix))
		} else {
			dst = append(dst, acct.bucket(c.Name).balance(c, now))
		}
		refused = refused || dst[i].Refused
	}
	for i := range charges {
		c := &charges[i]
		switch {
		case refused && !dst[i].Refused:
			look := *c
			look.Cost = 0
			if c.Limit.isAllowance() {
				dst[i] = allowances.balance(senderID, &look, unix)
			} else {
				dst[i] = acct.bucket(c.Name).balance(&look, now)
			}
		case refused || c.Cost == 0 || c.Limit == Unlimited():
		case c.Limit.isAllowance():
			allowances.take(senderID, c, unix, m.mark)
		default:
			var b *bucket
			acct, b = q.openLocked(acct, senderID, c)
			b.AllowN(now, c.Cost)
		}
	}
	hint.remember(acct)
	if len(q.order) > m.mark {
		q.reclaimLocked(now)
	}
	return dst, unix
}

func (m *MemoryLimiter) shard(senderID string) *limiterShard {
	return &m.shards[maphash.String(m.seed, senderID)&uint64(len(m.shards)-1)]
}

// tickLocked returns the time by the limiter's clock, which never goes back, and
// by the wall clock. It reads them under the lock: a time read before waiting for
// the lock can be older than the one a bucket has seen.
func (q *limiterShard) tickLocked(start time.Time) (now time.Time, unix int64) {
	t := time.Now()
	q.now = max(q.now, t.Sub(start))
	return start.Add(q.now), t.UnixNano()
}

// bucket returns the bucket with that name, nil if there is none.
func (a *account) bucket(name string) *bucket {
	if a == nil {
		return nil
	}
	for b := &a.first; b != nil; b = b.next {
		if b.of.Value().name == name {
			return b
		}
	}
	return nil
}

func (a *account) full(now time.Time) bool {
	for b := &a.first; b != nil; b = b.next {
		if !b.full(now) {
			return false
		}
	}
	return true
}

// openLocked returns the bucket of the charge and its account, and makes what is
// missing of them.
func (q *limiterShard) openLocked(a *account, senderID string, c *Charge) (*account, *bucket) {
	b := a.bucket(c.Name)
	switch {
	case b != nil:
		return a, b
	case a != nil:
		b = &bucket{next: a.first.next}
		a.first.next = b
	default:
		a = &account{id: senderID, home: q.home}
		b = &a.first
		q.accounts[senderID] = a
		q.order = append(q.order, a)
		q.peak = max(q.peak, uint32(len(q.order)))
	}
	b.fill(c)
	return a, b
}

// forgetLocked drops the i-th account.
func (q *limiterShard) forgetLocked(i int) {
	a, last := q.order[i], len(q.order)-1
	q.order[i], q.order[last] = q.order[last], nil
	q.order = q.order[:last]
	delete(q.accounts, a.id)
	a.forgotten.Store(true)
}

// mostMoved bounds how many accounts are moved under one lock when a shard's
// map is made anew.
const mostMoved = 4096

// reclaimLocked looks at four accounts, which is more than a request can add,
// and forgets those with nothing but full buckets: a full bucket and no bucket
// are the same.
func (q *limiterShard) reclaimLocked(now time.Time) {
	for range min(4, len(q.order)) {
		if int(q.hand) >= len(q.order) {
			q.hand = 0
		}
		if q.order[q.hand].full(now) {
			q.forgetLocked(int(q.hand))
		} else {
			q.hand++
		}
	}
	q.shrinkLocked()
}

// shrinkLocked gives memory back. Neither a map nor a slice does so by itself.
func (q *limiterShard) shrinkLocked() {
	if n := len(q.order); n >= int(q.peak)/4 || n > mostMoved {
		return
	}
	accounts := make(map[string]*account, len(q.order))
	for _, a := range q.order {
		accounts[a.id] = a
	}
	q.accounts = accounts
	q.order = append(make([]*account, 0, len(q.order)), q.order...)
	q.peak = uint32(len(q.order))
}
