package senderauth

import (
	"math"
	"reflect"
	"strconv"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// admittedAt asks at each of times for one token as often as most says. A
// bucket is given its time, so that it can be given one that no clock of this
// process would read.
func admittedAt(limit Limit, most int, times ...time.Duration) (admitted int) {
	c := &Charge{Name: "default", Limit: limit, Cost: 1}
	b := (&account{}).open(c, int64(times[0]))
	for _, now := range times {
		for i := 0; i < most && !b.look(c, int64(now)).Refused; i++ {
			b.take(c, int64(now))
			admitted++
		}
	}
	return admitted
}

func TestPitfall01OlderTimeMintsNothing(t *testing.T) {
	limit := Limit{Requests: 1, Per: time.Second, Burst: 10}
	var times []time.Duration
	for range 1000 {
		times = append(times, 5*time.Second, 0)
	}
	for _, most := range []int{1, 2, 3, 10} {
		require.LessOrEqual(t, admittedAt(limit, most, times...), 15)
	}
	// Beginning with the older one, where all fifteen are legal.
	require.Equal(t, 15, admittedAt(limit, 10, append([]time.Duration{0}, times...)...))
}

func TestPitfall04ClockThatStepsBackNeitherFillsNorBlocks(t *testing.T) {
	limit := Limit{Requests: 1, Per: time.Second, Burst: 10}
	const hour = time.Hour
	require.Equal(t, 10, admittedAt(limit, 10, hour, 0, 1, hour-1, hour))
	require.Equal(t, 12, admittedAt(limit, 10, hour, 0, hour+2*time.Second))

	c := &Charge{Name: "default", Limit: limit, Cost: 1}
	acct := &account{}
	b := acct.open(c, int64(hour))
	b.take(c, int64(hour))
	require.False(t, acct.full(0), "an hour back the bucket is not taken for full, which would have it forgotten")
	require.Equal(t, Balance{Remaining: 9, ResetAfter: time.Second}, b.look(&Charge{Name: "default", Limit: limit}, 0))
}

// A bucket is forgotten when it is full and not a moment earlier: a time that is
// rounded down would hand back what is missing.
func TestPitfall06BucketLivesUntilItIsFull(t *testing.T) {
	for _, limit := range []Limit{
		PerSecond(3), PerMinute(7), {Requests: 3, Per: 7, Burst: 2}, {Requests: 7919, Per: 104729 * time.Hour, Burst: 1299},
		{Requests: 3600, Per: time.Hour, Burst: 100_000_000}, {Requests: 1, Per: math.MaxInt64 / 2, Burst: 1},
	} {
		c := &Charge{Name: "default", Limit: limit, Cost: 1}
		acct := &account{}
		full := acct.open(c, 0).take(c, 0).ResetAfter
		require.False(t, acct.full(int64(full)-1), "%+v", limit)
		require.True(t, acct.full(int64(full)), "%+v", limit)
	}
}

func TestMemoryLimiterReclaimsFromAMillionOn(t *testing.T) {
	m := NewMemoryLimiter(MemoryLimiterConfig{})
	require.InDelta(t, 1_000_000, m.mark*len(m.shards), 1024)
}

// A map keeps the memory of all that it ever held: one that has become much too
// large is made anew, when that moves few enough for the lock that is held.
func TestTableGivesMemoryBack(t *testing.T) {
	m := NewMemoryLimiter(MemoryLimiterConfig{Buckets: 1})
	s := &m.shards[0]
	one := &Charge{Name: "default", Limit: PerSecond(1), Cost: 1}
	for i := range 5 * mostMoved {
		s.add(strconv.Itoa(i)).open(one, 0).take(one, 0)
	}
	table := func() uintptr { return reflect.ValueOf(s.accounts).Pointer() }
	before := table()
	for len(s.order) > mostMoved {
		if table() != before {
			t.Fatalf("%d were moved", len(s.order))
		}
		s.reclaim(int64(time.Second))
	}
	require.NotEqual(t, before, table())
	for len(s.order) > 0 {
		s.reclaim(int64(time.Second))
	}
	require.Empty(t, s.accounts)
	require.Less(t, cap(s.order), 100)
}

func TestMemoryLimiterNoticesAClockThatIsSet(t *testing.T) {
	m := NewMemoryLimiter(MemoryLimiterConfig{})
	now := int64(time.Since(m.start))
	m.calendar.Store(&calendar{at: now, offset: -now}) // 1970
	require.EqualValues(t, 0, m.unix(now))
	require.EqualValues(t, time.Second-1, m.unix(now+int64(time.Second)-1))
	require.WithinDuration(t, time.Now().Add(time.Second), time.Unix(0, m.unix(now+int64(time.Second))), time.Minute)
}

func TestCeilDivCarries(t *testing.T) {
	hi, lo := ceilDiv(2, math.MaxUint64, 3) // a third below 2^64
	require.Equal(t, [2]uint64{1, 0}, [2]uint64{hi, lo})
}

// Two locks in one cache line would slow down those who do not share a lock.
func TestShardsAreCacheLines(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) == 8 {
		require.EqualValues(t, 64, unsafe.Sizeof(limiterShard{}))
	}
}
