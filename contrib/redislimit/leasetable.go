package redislimit

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"
)

// A leaseMap is what an instance holds of all senders.
type leaseMap struct {
	start  time.Time // zero of the instance's clock
	seed   maphash.Seed
	shards [64]leaseShard
	places chan struct{} // for fetches in the background
}

type leaseShard struct {
	mu    sync.Mutex
	table leaseTable
}

func newLeaseMap() *leaseMap {
	m := &leaseMap{start: time.Now(), seed: maphash.MakeSeed(), places: make(chan struct{}, 64)}
	for i := range m.shards {
		m.shards[i].table = newLeaseTable()
	}
	return m
}

// locked calls f with the table of a shard and the time. It reads the time under the lock,
// because a lease may lapse while locked waits for the lock. No other function locks. f must
// neither block nor keep anything of the table.
func (m *leaseMap) locked(shard int, f func(t *leaseTable, now time.Duration)) {
	s := &m.shards[shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.table, m.now())
}

func (m *leaseMap) now() time.Duration { return time.Since(m.start) }

func (m *leaseMap) shard(sender string) int {
	return int(maphash.String(m.seed, sender) % uint64(len(m.shards)))
}

// A leaseTable is what an instance holds of the senders of a shard.
type leaseTable struct {
	senders map[string]*holding
	order   []*holding // the same holdings, for the hand
	hand    int        // next index of order to check for eviction
	holders []*holding // holdings that may have tokens to give back
}

func newLeaseTable() leaseTable { return leaseTable{senders: make(map[string]*holding)} }

// open returns the sender's holding. If there is none it makes one, and forgets
// up to four others that hold nothing and were not asked for in a while.
func (t *leaseTable) open(sender string, now time.Duration) *holding {
	if h := t.senders[sender]; h != nil {
		return h
	}
	t.forget(now)
	h := &holding{sender: strings.Clone(sender)}
	t.senders[h.sender] = h
	t.order = append(t.order, h)
	return h
}

func (t *leaseTable) forget(now time.Duration) {
	for range min(4, len(t.order)) {
		if t.hand >= len(t.order) {
			t.hand = 0
		}
		h := t.order[t.hand]
		if !h.forgettable(now) {
			t.hand++
			continue
		}
		last := len(t.order) - 1
		t.order[t.hand], t.order[last] = t.order[last], nil
		t.order = t.order[:last]
		delete(t.senders, h.sender)
	}
}

// land ends a fetch; see [holding.land].
func (t *leaseTable) land(f *fetch, reply leaseReply, now time.Duration) {
	h := t.senders[f.sender]
	h.land(f, reply, now)
	if !h.listed && h.holds() {
		h.listed = true
		t.holders = append(t.holders, h)
	}
}

// tend begins fetches that give back idle tokens, for as many senders as it gets a place.
func (t *leaseTable) tend(now time.Duration, place func(sender string) bool) (fetches []*fetch) {
	t.holders = slices.DeleteFunc(t.holders, func(h *holding) bool {
		if h.idle(now) && place(h.sender) {
			fetches = append(fetches, h.refill(now))
		}
		h.listed = h.holds()
		return !h.listed
	})
	return fetches
}

// empty drops what is held of a sender.
func (t *leaseTable) empty(sender string) {
	if h := t.senders[sender]; h != nil {
		for i := range h.reserves {
			h.reserves[i].empty()
		}
	}
}
