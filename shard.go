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
	index atomic.Pointer[index] // of accepted
	size  int                   // of each segment
	sets  int                   // of an index for size entries
	_     [48]byte              // keeps index in the caches of processors that only read it

	hits, rejectedHits, misses, evictions atomic.Uint64

	mu       sync.Mutex // guards the segments and changes of index
	accepted *simplelru.LRU[*entry, struct{}]
	rejected *simplelru.LRU[digest, *rejection]
}

func (s *shard) init(size int) {
	s.size, s.sets = size, 1
	for s.sets < size/4 && s.sets < 1<<13 {
		s.sets *= 2
	}
	s.accepted, _ = simplelru.NewLRU(size, func(e *entry, _ struct{}) { s.index.Load().remove(e) })
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
	s.dropLocked(e.digest)
	if s.accepted.Len() == s.size {
		s.spareLocked()
		s.evictions.Add(1)
	}
	s.accepted.Add(e, struct{}{})
	s.addLocked(e)
}

// reject drops the entry of d and remembers r, if there is one.
func (s *shard) reject(d digest, r *rejection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(d)
	if r != nil {
		s.rejected.Add(d, r)
	}
}

func (s *shard) dropLocked(d digest) {
	if e := s.index.Load().find(d); e != nil {
		s.accepted.Remove(e)
	}
	s.rejected.Remove(d)
}

// mostSpared bounds how long spareLocked holds the lock.
const mostSpared = 64

// spareLocked gives entries that were used a second chance until the oldest is
// one that was not. The LRU does not see the hits themselves: moving an entry
// for each of them would touch three others and need the lock.
func (s *shard) spareLocked() {
	for range mostSpared {
		e, _, _ := s.accepted.GetOldest()
		if e.state.And(^uint32(used))&used == 0 {
			return
		}
		s.accepted.Get(e)
	}
}

// addLocked puts e, which the LRU holds already, into the index. If there is no
// room, a larger index takes over.
func (s *shard) addLocked(e *entry) {
	if s.index.Load().add(e) {
		return
	}
	larger := *s.index.Load()
	for all := false; !all; {
		larger = make(index, max(2*len(larger), s.sets))
		all = true
		for _, e := range s.accepted.Keys() {
			all = all && larger.add(e)
		}
	}
	s.index.Store(&larger)
}

// An entry remembers an accepted pair. It also marks the pair as one that was
// accepted before while it is too old, or its sender was forgotten.
//
// It fills two cache lines. A hit reads the first one, which ends with
// sender.ID, and its handler the second.
type entry struct {
	digest  digest
	until   time.Duration // of the cache's clock: the end of TTL
	account accountHint
	born    uint64        // Cache.seq when the lookup began
	place   uint32        // of the sender in Cache.forgotten
	state   atomic.Uint32 // used, failed, and from bit refreshes on a number
	sender  Sender
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
