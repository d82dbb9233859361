package senderauth

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// nth is the n-th of many digests that are spread like those of pairs.
func nth(n uint64) digest { return digest{n * 0x9e3779b97f4a7c15, n * 0xbf58476d1ce4e5b9} }

func newShard(size int) *shard {
	s := &shard{}
	s.init(size)
	return s
}

// BenchmarkGuard/fields=none/uniform shows what a third line costs.
func TestHitReadsTwoCacheLines(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) == 8 {
		const sender = unsafe.Offsetof(entry{}.sender)
		require.EqualValues(t, 3*64, unsafe.Sizeof(entry{}))
		require.EqualValues(t, 64, sender+unsafe.Sizeof(Sender{}.ID))
		require.EqualValues(t, 128, sender+unsafe.Offsetof(Sender{}.Networks)+2*unsafe.Sizeof(0))
		require.EqualValues(t, 64, unsafe.Sizeof(set{}))
		require.EqualValues(t, 128, unsafe.Sizeof(shard{}))
		require.EqualValues(t, 64, unsafe.Offsetof(shard{}.hits))
	}
}

// Whatever is accepted, rejected and evicted, a shard holds at most its size, and
// every entry is in the index and at its place in the ring.
func TestShardHoldsWhatItsIndexFinds(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{1, 2, 7, 300} {
		s, held, evicted := newShard(size), map[digest]*entry{}, uint64(0)
		for range 20 * size {
			d := nth(random.Uint64N(uint64(2 * size)))
			switch _, there := held[d]; {
			case random.IntN(4) == 0:
				s.reject(d, &rejection{})
				delete(held, d)
				require.Equal(t, size, max(size, s.rejected.Len()))
				e, r := s.get(d)
				require.Nil(t, e)
				require.NotNil(t, r)
			default:
				if !there && len(held) == size {
					evicted++
				}
				e := &entry{digest: d}
				s.accept(e)
				got, _ := s.get(d)
				require.Same(t, e, got)
				require.False(t, s.rejected.Contains(d))
				held[d] = e
			}
			for d, e := range held {
				if s.index.Load().find(d) != e { // evicted
					delete(held, d)
				}
			}
			require.Len(t, s.accepted, len(held))
			require.LessOrEqual(t, len(held), size)
		}
		require.Equal(t, evicted, s.evictions.Load())
		for i, e := range s.accepted {
			require.EqualValues(t, i, e.slot)
			require.Same(t, e, held[e.digest])
		}
	}
}

// An index in which an entry has no room makes way for a larger one, in which
// every entry is found; and it is never more than four sevenths full.
func TestIndexGrows(t *testing.T) {
	s := newShard(1000)
	for n := range uint64(1000) {
		s.accept(&entry{digest: nth(n)})
		for m := range n + 1 {
			require.NotNil(t, s.index.Load().find(nth(m)))
		}
		require.LessOrEqual(t, int(n), 4*len(*s.index.Load()))
	}
	require.Len(t, *s.index.Load(), 256)
	require.Nil(t, s.index.Load().find(nth(1000)))
	require.Zero(t, s.evictions.Load())

	s = newShard(1000)
	for n := range uint64(5 * probed * 7) { // of a small index, all belong into one set
		s.accept(&entry{digest: digest{n << 37, n}})
		for m := range n + 1 {
			require.NotNil(t, s.index.Load().find(digest{m << 37, m}))
		}
	}
}

func TestEntriesThatWereHitAreEvictedLast(t *testing.T) {
	const size = 1000
	s := newShard(size)
	var all []*entry
	add := func() {
		all = append(all, &entry{digest: nth(uint64(len(all)))})
		s.accept(all[len(all)-1])
	}
	held := func(e *entry) bool { return s.index.Load().find(e.digest) == e }
	for range size {
		add()
	}
	all[0].hit(0)
	all[2].hit(0)
	for range 3 {
		add()
	}
	for i, want := range []bool{true, false, true, false, false, true} {
		require.Equal(t, want, held(all[i]), i)
	}
	for range size - 2 { // the hand has been everywhere
		add()
	}
	require.False(t, held(all[0]), "the second chance is the last, unless it is hit again")
	require.False(t, held(all[2]))

	// One that is looked up again counts as used, and keeps its place.
	s = newShard(2)
	for n := range 3 {
		s.accept(&entry{digest: nth(uint64(n % 2))})
	}
	s.accept(&entry{digest: nth(2)})
	require.NotNil(t, s.index.Load().find(nth(0)))
	require.Nil(t, s.index.Load().find(nth(1)))
}

// If all entries are in use, a new one does not wait until the hand has been
// everywhere.
func TestEvictionLooksAtFewEntries(t *testing.T) {
	const size = 1000
	s := newShard(size)
	for n := range uint64(size) {
		s.accept(&entry{digest: nth(n)})
	}
	for _, e := range s.accepted {
		e.hit(0)
	}
	s.accept(&entry{digest: nth(size)})
	require.Nil(t, s.index.Load().find(nth(mostSpared)))
	unused := 0
	for _, e := range s.accepted {
		if e.state.Load()&used == 0 {
			unused++
		}
	}
	require.Equal(t, mostSpared+1, unused, "those that were passed, and the new one")
}

// No cache has a shard with more entries than a slot counts, and every cache has
// room for its entries.
func TestSlotCountsTheEntriesOfAShard(t *testing.T) {
	for _, n := range []int{1, 64, 65, 4096, 100_000, 1 << 21, 1<<21 + 1, 5_000_000} {
		c, err := NewCache(ValidatorFunc(func(context.Context, Credentials) (Sender, error) { return Sender{}, nil }), CacheConfig{Entries: n})
		require.NoError(t, err)
		size := c.shards[0].size
		require.LessOrEqual(t, size, math.MaxUint16+1)
		require.GreaterOrEqual(t, size*len(c.shards), n)
		require.LessOrEqual(t, size*len(c.shards), 3*n, "%d", n)
	}
	require.Equal(t, 1<<27, CacheConfig{Entries: math.MaxInt}.withDefaults().Entries)
}

// Readers find an entry that stays, in the index or under the lock, and never an
// entry of another digest, whatever the writer does meanwhile.
func TestReadersOfTheIndexWhileItChanges(t *testing.T) {
	s := newShard(200)
	var stays [20]digest
	for i := range stays {
		stays[i] = nth(uint64(i))
		s.accept(&entry{digest: stays[i]})
	}
	var done atomic.Bool
	var readers sync.WaitGroup
	for r := range 3 {
		readers.Go(func() {
			for i := r; !done.Load(); i++ {
				d := stays[i%len(stays)]
				e := s.index.Load().find(d)
				if e == nil {
					e, _ = s.get(d)
				}
				if e == nil || e.digest != d {
					t.Error("an entry that stays was not found")
					return
				}
				if e := s.index.Load().find(nth(uint64(i % 300))); e != nil && e.digest != nth(uint64(i%300)) {
					t.Error("an entry of another digest was found")
					return
				}
			}
		})
	}
	random := rand.New(rand.NewPCG(3, 4))
	for i := range uint64(2_000) {
		if n := uint64(len(stays)) + random.Uint64N(150); random.IntN(3) == 0 {
			s.reject(nth(n), nil)
		} else {
			s.accept(&entry{digest: nth(n)})
		}
		s.accept(&entry{digest: stays[i%20]}) // as a refresh does
	}
	done.Store(true)
	readers.Wait()
}
