package senderauth

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
	"weak"

	"github.com/stretchr/testify/require"
)

// takeOne charges one token of the bucket "default".
func takeOne(m *MemoryLimiter, senderID string, l Limit) Balance {
	balances, _ := m.take(nil, senderID, []Charge{{Name: "default", Limit: l, Cost: 1}}, nil)
	return balances[0]
}

// A bucket that was given a time and then an older one would mint tokens.
func TestClockThatStepsBackNeitherFillsNorBlocks(t *testing.T) {
	m := NewMemoryLimiter(MemoryLimiterConfig{})
	l := Limit{Requests: 1, Per: time.Second, Burst: 10}
	s := m.shard("a")
	for range 10 {
		require.False(t, takeOne(m, "a", l).Refused)
	}
	s.now = time.Hour // read once; the clock is an hour less from here on
	for range 10 {
		require.False(t, takeOne(m, "a", l).Refused)
	}
	for range 1000 {
		require.Equal(t, Balance{Refused: true, RetryAfter: time.Second, ResetAfter: 10 * time.Second}, takeOne(m, "a", l))
	}
	s.now += 2 * time.Second
	require.Equal(t, Balance{Remaining: 1, ResetAfter: 9 * time.Second}, takeOne(m, "a", l))
}

func TestMemoryLimiterReclaimsFromAMillionOn(t *testing.T) {
	m := NewMemoryLimiter(MemoryLimiterConfig{})
	require.InDelta(t, 1_000_000, m.mark*len(m.shards), 1024)
}

func TestNothingIsReclaimedUpToTheMark(t *testing.T) {
	m := NewMemoryLimiter(MemoryLimiterConfig{})
	m.mark = 2
	var ids []string // of one shard
	for i := 0; len(ids) < 3; i++ {
		if id := strconv.Itoa(i); m.shard(id) == &m.shards[0] {
			ids = append(ids, id)
		}
	}
	for i, want := range []int{1, 2, 2} {
		takeOne(m, ids[i%2], PerSecond(maxTokens))
		time.Sleep(time.Microsecond) // the bucket is full again
		require.Equal(t, want, m.Len())
	}
	takeOne(m, ids[2], PerSecond(maxTokens))
	require.Less(t, m.Len(), 3)
}

// A map keeps the memory of all that it ever held: one that has become much too
// large is made anew, when that moves few enough for the lock that is held.
func TestTableGivesMemoryBack(t *testing.T) {
	m := NewMemoryLimiter(MemoryLimiterConfig{Buckets: 1})
	s := &m.shards[0]
	for i := range 5 * mostMoved {
		_, b := s.openLocked(nil, strconv.Itoa(i), &Charge{Name: "default", Limit: PerSecond(1)})
		b.AllowN(m.start, 1)
	}
	table := func() uintptr { return reflect.ValueOf(s.accounts).Pointer() }
	before := table()
	full := m.start.Add(time.Second)
	for len(s.order) > mostMoved {
		if table() != before {
			t.Fatalf("%d were moved", len(s.order))
		}
		s.reclaimLocked(full)
	}
	require.NotEqual(t, before, table())
	made := 0
	for len(s.order) > 0 {
		before := table()
		s.reclaimLocked(full)
		if table() != before {
			made++
		}
	}
	require.LessOrEqual(t, made, 6, "not before it is four times too large")
	require.Empty(t, s.accounts)
	require.Less(t, cap(s.order), 100)
}

func TestHintOfAForgottenSenderFindsTheNewBuckets(t *testing.T) {
	m, other := NewMemoryLimiter(MemoryLimiterConfig{}), NewMemoryLimiter(MemoryLimiterConfig{})
	charges := []Charge{{Name: "default", Limit: Limit{Requests: 1, Per: time.Hour, Burst: 3}, Cost: 1}}
	var hint accountHint
	remaining := func(m *MemoryLimiter, hint *accountHint) int {
		balances, _ := m.take(nil, "a", charges, hint)
		return balances[0].Remaining
	}
	require.Equal(t, 2, remaining(m, &hint))
	require.NotNil(t, hint.account(m), "the request that made the account")
	require.Equal(t, 1, remaining(m, &hint))
	m.Reset("a")
	require.Nil(t, hint.account(m))
	require.Equal(t, 2, remaining(m, nil))
	require.Equal(t, 1, remaining(m, &hint))
	require.Nil(t, hint.account(other))
	require.Equal(t, 2, remaining(other, &hint))
	require.Equal(t, 0, remaining(m, &hint))
}

// A hint is of a cache entry, which may outlive many limiters.
func TestHintKeepsNoLimiterInMemory(t *testing.T) {
	var hint accountHint
	limiter := func() weak.Pointer[MemoryLimiter] {
		m := NewMemoryLimiter(MemoryLimiterConfig{})
		m.take(nil, "a", []Charge{{Name: "default", Limit: PerSecond(1), Cost: 1}}, &hint)
		require.NotNil(t, hint.account(m))
		return weak.Make(m)
	}()
	runtime.GC()
	require.Nil(t, limiter.Value())
	runtime.KeepAlive(&hint)
}

// Everybody at once on one sender, with one hint for two limiters, while its
// buckets are filled by hand: each Reset is worth one burst and no more.
func TestResetDuringTakes(t *testing.T) {
	const burst, resets = 5, 50
	limiters := [2]*MemoryLimiter{NewMemoryLimiter(MemoryLimiterConfig{}), NewMemoryLimiter(MemoryLimiterConfig{})}
	charges := []Charge{{Name: "default", Limit: Limit{Requests: 1, Per: time.Hour, Burst: burst}, Cost: 1}}
	var hint accountHint
	var admitted [2]atomic.Int64
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 5000 {
				n := (g + i) % 2
				if b, _ := limiters[n].take(nil, "a", charges, &hint); !b[0].Refused {
					admitted[n].Add(1)
				}
			}
		})
	}
	wg.Go(func() {
		for range resets {
			limiters[0].Reset("a")
			runtime.Gosched()
		}
	})
	wg.Wait()
	require.LessOrEqual(t, admitted[0].Load(), int64(burst*(resets+1)))
	require.EqualValues(t, burst, admitted[1].Load())
	for _, m := range limiters {
		require.Equal(t, 1, max(m.Len(), 1))
	}
}

// An account that is forgotten while a request waits for the lock is not used.
func TestAccountForgottenBeforeTheLockIsNotUsed(t *testing.T) {
	m := NewMemoryLimiter(MemoryLimiterConfig{})
	charges := []Charge{{Name: "default", Limit: Limit{Requests: 1, Per: time.Hour, Burst: 3}, Cost: 1}}
	var hint accountHint
	m.take(nil, "a", charges, &hint)
	s := m.shard("a")
	s.mu.Lock()
	remaining := make(chan int)
	go func() {
		b, _ := m.take(nil, "a", charges, &hint)
		remaining <- b[0].Remaining
	}()
	s.forgetLocked(0)
	s.mu.Unlock()
	require.Equal(t, 2, <-remaining)
	b, _ := m.take(nil, "a", charges, nil)
	require.Equal(t, 1, b[0].Remaining, "what was taken is in the buckets that the limiter keeps")
}

func TestTakeDoesNotAllocate(t *testing.T) {
	m := NewMemoryLimiter(MemoryLimiterConfig{})
	drained := Limit{Requests: 1, Per: time.Hour, Burst: 1}
	var hint accountHint
	var buf [2]Balance
	for name, charges := range map[string][]Charge{
		"one charge":  {{Name: "default", Limit: PerSecond(1_000_000), Cost: 1}},
		"two charges": {{Name: "default", Limit: PerSecond(1_000_000), Cost: 1}, {Name: "messages", Limit: PerSecond(1_000_000), Cost: 1}},
		"refused":     {{Name: "default", Limit: PerSecond(1_000_000), Cost: 1}, {Name: "drained", Limit: drained, Cost: 1}},
	} {
		require.Zero(t, testing.AllocsPerRun(1000, func() { m.take(buf[:0], "a", charges, &hint) }), name)
		require.Zero(t, testing.AllocsPerRun(1000, func() { m.take(buf[:0], "a", charges, nil) }), name)
	}
	plans := [2]Limit{PerSecond(1000), PerSecond(2000)}
	charge := []Charge{{Name: "default", Cost: 1}}
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		charge[0].Limit = plans[0]
		plans[0], plans[1] = plans[1], plans[0]
		m.take(buf[:0], "a", charge, &hint)
	}), "plans in turn")
}

// An account and, now and then, its place in the map and in the order.
func TestNewSenderIsOneAllocation(t *testing.T) {
	m := NewMemoryLimiter(MemoryLimiterConfig{})
	charges := []Charge{{Name: "default", Limit: PerMinute(60), Cost: 1}}
	ids := make([]string, 20_000)
	for i := range ids {
		ids[i] = fmt.Sprint(i)
	}
	var buf [1]Balance
	next := 0
	require.EqualValues(t, 1, testing.AllocsPerRun(len(ids)-1, func() {
		m.take(buf[:0], ids[next], charges, nil)
		next++
	}))
}

// Two locks in one cache line would slow down those who do not share a lock,
// and a longer account would be a third line for every request.
func TestShardsAndAccountsAreCacheLines(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) == 8 {
		require.EqualValues(t, 64, unsafe.Sizeof(limiterShard{}))
		require.LessOrEqual(t, unsafe.Sizeof(account{}), uintptr(128))
	}
}

// BenchmarkTake charges 200,000 senders in random order, with a hint as for a
// cached sender and without, and one sender again and again.
func BenchmarkTake(b *testing.B) {
	const senders = 200_000
	ids := make([]string, senders)
	for i := range ids {
		ids[i] = fmt.Sprintf("7a1de7b4-3a0e-4d6e-9c2b-%012x", i+1)
	}
	order := make([]int32, 1<<20)
	for i := range order {
		order[i] = rand.Int32N(senders)
	}
	fast := PerSecond(1_000_000_000)
	for name, charges := range map[string][]Charge{
		"one charge":  {{Name: "default", Limit: fast, Cost: 1}},
		"two charges": {{Name: "default", Limit: fast, Cost: 1}, {Name: "sensitive", Limit: fast, Cost: 1}},
		"refused":     {{Name: "default", Limit: Limit{Requests: 1, Per: 10_000 * time.Hour, Burst: 1}, Cost: 1}},
	} {
		b.Run(name, func(b *testing.B) {
			m, hints := NewMemoryLimiter(MemoryLimiterConfig{}), make([]accountHint, senders)
			var buf [2]Balance
			for i := range ids {
				m.take(buf[:0], ids[i], charges, &hints[i])
			}
			run := func(name string, sender func(i int) int32, hint func(n int32) *accountHint) {
				b.Run(name, func(b *testing.B) {
					b.ReportAllocs()
					for i := 0; b.Loop(); i++ {
						n := sender(i)
						m.take(buf[:0], ids[n], charges, hint(n))
					}
				})
			}
			random := func(i int) int32 { return order[i&(len(order)-1)] }
			hinted := func(n int32) *accountHint { return &hints[n] }
			run("hinted", random, hinted)
			run("looked up", random, func(int32) *accountHint { return nil })
			run("one sender", func(int) int32 { return 0 }, hinted)
		})
	}
}
