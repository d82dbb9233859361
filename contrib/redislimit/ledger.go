package redislimit

import (
	"math"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/senderauth/senderauth"
)

// A ledger is what an instance knows of the buckets in Redis in case Redis fails: what Redis
// last said, and what the instance has admitted without Redis since then. A local bucket thus
// starts from what Redis last said, and Redis goes on from what the local buckets left.
// A nil ledger knows nothing.
type ledger struct {
	mu      sync.Mutex
	senders *simplelru.LRU[string, *account]
}

// maxAccounts bounds the senders in a ledger. Of others the instance knows nothing, as of
// those that it has never asked Redis for.
const maxAccounts = 1 << 16

// An account is what the ledger knows of one sender.
type account struct {
	entries []*entry
	tallies []*tally
}

// An entry is about one bucket of a sender.
type entry struct {
	name      string
	limit     senderauth.Limit
	at        time.Time // of the following numbers of tokens
	tokens    float64   // in Redis, if no instance had admitted anything since its last reply
	owed      float64   // admitted without Redis and not yet reported to it
	instances int       // that shared the limit when something was last owed
}

func newLedger() *ledger {
	senders, err := simplelru.NewLRU[string, *account](maxAccounts, nil)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &ledger{senders: senders}
}

// learn records the level of a bucket in a reply of Redis.
func (g *ledger) learn(sender, name string, s *scale, level uint64) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	e := g.openLocked(sender, name, s.limit, time.Now())
	e.tokens = float64(level) / float64(s.perToken)
}

// claim returns the parts to report to Redis, after which the instance owes nothing.
func (g *ledger) claim(sender, name string, s *scale) (parts uint64) {
	if g == nil {
		return 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	a, _ := g.senders.Get(sender)
	e := a.entry(name)
	if e == nil || e.owed == 0 {
		return 0
	}
	e.advance(time.Now())
	parts = uint64(min(e.owed*float64(s.perToken), float64(s.full)))
	e.owed = 0
	return parts
}

// owe takes back a claim that did not reach Redis.
func (g *ledger) owe(sender, name string, s *scale, parts uint64) {
	if g == nil || parts == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	a, _ := g.senders.Get(sender)
	if e := a.entry(name); e != nil {
		e.owed += float64(parts) / float64(s.perToken)
	}
}

// forget drops what is known of a sender.
func (g *ledger) forget(sender string) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.senders.Remove(sender)
}

// openLocked returns the entry of a bucket as it is now. A new one is that of a full bucket.
func (g *ledger) openLocked(sender, name string, l senderauth.Limit, now time.Time) *entry {
	a := g.openAccountLocked(sender)
	e := a.entry(name)
	if e == nil {
		e = &entry{name: strings.Clone(name), limit: l, at: now, tokens: float64(l.EffectiveBurst()), instances: 1}
		a.entries = append(a.entries, e)
	}
	e.advance(now)
	e.limit = l
	e.tokens = min(e.tokens, float64(l.EffectiveBurst()))
	return e
}

func (g *ledger) openAccountLocked(sender string) *account {
	a, ok := g.senders.Get(sender)
	if !ok {
		a = &account{}
		g.senders.Add(strings.Clone(sender), a)
	}
	return a
}

func (a *account) entry(name string) *entry {
	if a == nil {
		return nil
	}
	for _, e := range a.entries {
		if e.name == name {
			return e
		}
	}
	return nil
}

// advance brings an entry forward to a time. What would have flowed into a full bucket fills
// the gap that the owed tokens have left.
func (e *entry) advance(now time.Time) {
	e.tokens += float64(now.Sub(e.at)) * float64(e.limit.Requests) / float64(e.limit.Per)
	e.at = now
	if over := e.tokens - float64(e.limit.EffectiveBurst()); over > 0 {
		e.tokens -= over
		e.owed = max(e.owed-over/float64(e.instances), 0)
	}
}

// left returns the tokens of an instance's share of the limit that are left.
func (e *entry) left(share senderauth.Limit) float64 {
	return e.tokens*float64(share.EffectiveBurst())/float64(e.limit.EffectiveBurst()) - e.owed
}

// covers reports whether the tokens that are left cover a charge of the share. One above the
// share's burst is for the local bucket to refuse.
func (e *entry) covers(share *senderauth.Charge) bool {
	return share.Cost > share.Limit.EffectiveBurst() || e.left(share.Limit)+rounding >= float64(share.Cost)
}

// admit notes tokens that one of n instances has admitted without Redis.
func (e *entry) admit(cost, n int) {
	e.owed += float64(cost)
	e.instances = n
}

// rounding is more than the errors of the ledger's floating-point numbers, in tokens.
const rounding = 1e-6

// limitBalance makes the balance of a local bucket that of the entry, if that is lower.
func (e *entry) limitBalance(b *senderauth.Balance, share *senderauth.Charge, admitted bool) {
	left := e.left(share.Limit)
	wait := func(tokens float64) time.Duration {
		if tokens <= left+rounding {
			return 0
		}
		ns := (tokens - left) * float64(share.Limit.Per) / float64(share.Limit.Requests)
		if ns >= math.MaxInt64 {
			return math.MaxInt64
		}
		return time.Duration(math.Ceil(ns))
	}
	b.Remaining = min(b.Remaining, int(max(left+rounding, 0)))
	b.ResetAfter = max(b.ResetAfter, wait(float64(share.Limit.EffectiveBurst())))
	if !admitted && !e.covers(share) {
		b.Refused = true
		b.RetryAfter = max(b.RetryAfter, wait(float64(share.Cost)), time.Microsecond)
	}
}
