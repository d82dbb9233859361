package senderauth

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// A shard holds the entries of one part of all digests: accepted and rejected
// ones in a segment each, so that neither evicts the other.
type shard struct {
	index    atomic.Pointer[index] // of accepted
	rejected *simplelru.LRU[digest, *rejection]
	size     int      // of each segment
	_        [40]byte // keeps index in the caches of processors that only read it

	hits, rejectedHits, evictions atomic.Uint64

	mu       sync.Mutex // guards the segments and changes of index
	accepted []*entry   // a ring, in which hand looks for one to evict
	hand     int
}

func (s *shard) init(size int) {
	s.size = size
	s.rejected, _ = simplelru.NewLRU[digest, *rejection](size, nil)
	s.index.Store(&index{{}})
}

// get returns what the shard holds for d: an entry, a rejection or neither.
func (s *shard) get(d digest) (*entry, *rejection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.index.Load().find(d); e != nil {
		return e, nil
	}
	r, _ := s.rejected.Get(d)
	return nil, r
}

// accept stores e in place of what the shard held for the same pair.
func (s *shard) accept(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rejected.Remove(e.digest)
	old := s.index.Load().find(e.digest)
	switch {
	case old != nil:
		e.slot = old.slot
		e.state.Store(used)
	case len(s.accepted) < s.size:
		e.slot = uint16(len(s.accepted))
		s.accepted = append(s.accepted, nil)
	default:
		old = s.unusedLocked()
		e.slot = old.slot
		s.evictions.Add(1)
	}
	if old != nil {
		s.index.Load().remove(old)
	}
	s.accepted[e.slot] = e
	s.indexLocked(e)
}

// reject drops the entry of d and remembers r, if there is one.
func (s *shard) reject(d digest, r *rejection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.index.Load().find(d); e != nil {
		s.index.Load().remove(e)
		last := len(s.accepted) - 1
		s.accepted[e.slot], s.accepted[last].slot = s.accepted[last], e.slot
		s.accepted[last] = nil
		s.accepted = s.accepted[:last]
	}
	if r == nil {
		s.rejected.Remove(d)
	} else {
		s.rejected.Add(d, r)
	}
}

// mostSpared bounds how long unusedLocked holds the lock.
const mostSpared = 64

// unusedLocked returns the entry to evict from a full ring. The hand goes round
// and passes an entry that was hit since it last came by. So a hit moves no entry
// in an order, for which it would need the lock.
func (s *shard) unusedLocked() *entry {
	for spared := 0; ; spared++ {
		if s.hand >= len(s.accepted) {
			s.hand = 0
		}
		e := s.accepted[s.hand]
		s.hand++
		if e.state.And(^uint32(used))&used == 0 || spared == mostSpared {
			return e
		}
	}
}

// indexLocked puts e, which the ring holds already, into the index. If that is
// more than half full, or without room for e, a larger one takes over.
func (s *shard) indexLocked(e *entry) {
	x := *s.index.Load()
	if len(s.accepted) <= 4*len(x) && x.add(e) {
		return
	}
	for all := false; !all; {
		x = make(index, 2*len(x))
		all = true
		for _, e := range s.accepted {
			all = all && x.add(e)
		}
	}
	s.index.Store(&x)
}

// An entry remembers an accepted pair. It also marks the pair as one that was
// accepted before while it is too old, or its sender was forgotten.
//
// It fills three cache lines. A hit reads the first one, which ends with sender.ID,
// and the second one, which ends with the length of sender.Networks. The fields of
// the two spread over three lines took 13 % more time
// (BenchmarkGuard/fields=none/uniform: 1,756 ns instead of 1,559).
type entry struct {
	digest  digest
	until   time.Duration // of the cache's clock: the end of TTL
	account accountHint
	born    uint64        // Cache.seq when the lookup began
	place   uint16        // of the sender in Cache.forgotten
	slot    uint16        // in shard.accepted, under the shard's lock
	state   atomic.Uint32 // used, failed, and from bit refreshes on a number
	sender  Sender
	_       [16]byte
}

const (
	used      = 1 << 0 // by a hit since the entry last had a second chance
	failed    = 1 << 1 // the last lookup of the pair failed
	refreshes = 2      // the last round that a refresh was started in
)

// hit notes a hit in the given round and reports whether it is the one to start
// a refresh: the first of its round.
func (e *entry) hit(round uint32) (refresh bool) {
	before := e.state.Load()
	after := before | used
	if refresh = round > before>>refreshes; refresh {
		after = round<<refreshes | before&failed | used
	}
	if after == before {
		return false
	}
	return e.state.CompareAndSwap(before, after) && refresh
}

// fail notes that a lookup of the pair failed in the given round.
func (e *entry) fail(round uint32) { e.state.Store(round<<refreshes | failed | used) }

// failing reports that a lookup of the pair failed in this round or the last
// one. A request then does not wait for another lookup to fail.
func (e *entry) failing(round uint32) bool {
	state := e.state.Load()
	return state&failed != 0 && round <= state>>refreshes+1
}

// A rejection remembers a rejected pair.
type rejection struct {
	err   error
	until time.Duration
	born  uint64
	place uint32 // nowhere if no sender was named
}
