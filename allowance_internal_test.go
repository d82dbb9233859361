package senderauth

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// charge is what a MemoryLimiter does under its lock, at any time of the wall clock.
func (t *allowanceTable) charge(sender, name string, l Limit, cost int, at time.Time, mark int) Balance {
	c := &Charge{Name: name, Limit: l, Cost: cost}
	b := t.balance(sender, c, at.UnixNano())
	if !b.Refused && cost > 0 {
		t.take(sender, c, at.UnixNano(), mark)
	}
	return b
}

// A shownPeriod is the day or month that a clock on the wall shows, as text that sorts
// by time.
func shownPeriod(l Limit, at time.Time) string {
	layout := time.DateOnly
	if l.Calendar.Unit() == "month" {
		layout = "2006-01"
	}
	return at.In(l.Calendar.Location()).Format(layout)
}

var someZones = []string{"UTC", "Asia/Tokyo", "America/New_York", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Europe/Berlin"}

// drift returns the next time of a clock that mostly goes on, and sometimes is set
// forward or back.
func drift(random *rand.Rand, at time.Time) time.Time {
	switch random.IntN(10) {
	case 0:
		return at.Add(-time.Duration(random.Int64N(int64(40 * 24 * time.Hour))))
	case 1:
		return at.Add(time.Duration(random.Int64N(int64(70 * 24 * time.Hour))))
	default:
		return at.Add(time.Duration(random.Int64N(int64(12 * time.Hour))))
	}
}

// Whatever the clock, the zones, the costs and the plans, an allowance is what a
// sheet of paper says: one line for the latest day or month, with what was used in it.
func TestAllowanceAgreesWithASheetOfPaper(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var limits []Limit
	for _, name := range someZones {
		zone, err := time.LoadLocation(name)
		require.NoError(t, err)
		limits = append(limits, PerDay(1+random.IntN(20), zone), PerMonth(1+random.IntN(200), zone))
	}
	for range 50 {
		type line struct {
			period string
			used   int
		}
		paper, table := map[string]line{}, allowanceTable{}
		at := time.Unix(1_700_000_000+random.Int64N(100_000_000), 0)
		for range 300 {
			at = drift(random, at)
			l, cost := limits[random.IntN(len(limits))], random.IntN(25)
			sender, name := strconv.Itoa(random.IntN(3)), strconv.Itoa(random.IntN(2))
			key := sender + name + l.Calendar.Unit()
			have := paper[key]
			if shown := shownPeriod(l, at); shown > have.period {
				have = line{period: shown}
			}
			want := Balance{Refused: cost > 0 && have.used+cost > l.Requests}
			if !want.Refused {
				have.used += cost
				if cost > 0 {
					paper[key] = have
				}
			}
			want.Remaining = max(l.Requests-have.used, 0)
			got := table.charge(sender, name, l, cost, at, 1000)
			require.Equal(t, want.Refused, got.Refused, "%v of %v after %v", cost, l, have)
			require.Equal(t, want.Remaining, got.Remaining, "%v of %v after %v", cost, l, have)
			// The end is the first instant that shows a later period.
			end := at.Add(got.ResetAfter)
			require.Greater(t, shownPeriod(l, end), have.period)
			require.LessOrEqual(t, shownPeriod(l, end.Add(-1)), have.period)
			switch {
			case !got.Refused:
				require.Zero(t, got.RetryAfter)
			case cost > l.Requests:
				require.Negative(t, got.RetryAfter)
			default:
				require.Equal(t, got.ResetAfter, got.RetryAfter)
			}
		}
	}
}

// A table that forgets what is over grants no period twice, even to senders that it
// has forgotten and after the clock was set back.
func TestReclaimingGrantsNoAllowanceTwice(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var zones []*time.Location
	for _, name := range someZones {
		zone, err := time.LoadLocation(name)
		require.NoError(t, err)
		zones = append(zones, zone)
	}
	forgotten := 0
	for range 200 {
		table := allowanceTable{}
		at := time.Date(2026, time.Month(1+random.IntN(12)), 1+random.IntN(28), 0, 0, 0, 0, time.UTC)
		granted, first, latest := map[string]int{}, map[string]int{}, 0
		for range 300 {
			at = at.Add(time.Duration(random.Int64N(int64(75*24*time.Hour)) - int64(35*24*time.Hour)))
			l, sender := PerMonth(1, zones[random.IntN(len(zones))]), strconv.Itoa(random.IntN(4))
			if first[sender] == 0 {
				first[sender] = l.Calendar.Period(at)
			}
			for _, z := range zones {
				latest = max(latest, PerMonth(1, z).Calendar.Period(at))
			}
			before := len(table.used)
			if !table.charge(sender, "messages", l, 1, at, 0).Refused {
				granted[sender]++
			}
			if len(table.used) < before {
				forgotten++
			}
			require.LessOrEqual(t, granted[sender], latest-first[sender]+1, "one for each month")
		}
	}
	require.Positive(t, forgotten)
}

// The clock shows June, a table forgets May, and the clock is set back to May: who used
// up May has not got it again.
func TestClockSetBackAfterReclaiming(t *testing.T) {
	may, july := time.Date(2026, 5, 20, 0, 0, 0, 0, time.UTC), time.Date(2026, 7, 2, 0, 0, 0, 0, time.UTC)
	var table allowanceTable
	l := PerMonth(3, nil)
	require.False(t, table.charge("a", "messages", l, 3, may, 0).Refused)
	require.False(t, table.charge("b", "messages", l, 1, july, 0).Refused)
	require.Len(t, table.used, 1, "a's May is forgotten")
	got := table.charge("a", "messages", l, 3, may, 0)
	june := time.Date(2026, 6, 2, 2, 0, 0, 0, time.UTC) // when May was over in all zones
	require.Equal(t, time.Unix(0, table.floor).UTC(), june)
	require.Equal(t, Balance{ResetAfter: july.AddDate(0, 0, -1).Sub(may)}, got, "this is June's")
	require.True(t, table.charge("a", "messages", l, 1, june, 0).Refused, "and June was granted once")
}

func TestUsageIsForgottenOnceItIsOverInAllZones(t *testing.T) {
	used := time.Date(2026, 5, 20, 0, 0, 0, 0, time.UTC)
	over := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC).Add(zonesApart)
	for at, kept := range map[time.Time]int{over.Add(-1): 2, over: 1} {
		var table allowanceTable
		table.charge("a", "messages", PerMonth(3, nil), 1, used, 1)
		table.charge("b", "messages", PerMonth(3, nil), 1, at, 1)
		require.Len(t, table.used, kept)
	}
	var table allowanceTable // below its mark it looks at nothing
	table.charge("a", "messages", PerMonth(3, nil), 1, used, 2)
	table.charge("b", "messages", PerMonth(3, nil), 1, over, 2)
	require.Len(t, table.used, 2)
}

func TestAllowanceTableGivesMemoryBack(t *testing.T) {
	may, june := time.Date(2026, 5, 20, 0, 0, 0, 0, time.UTC), time.Date(2026, 6, 20, 0, 0, 0, 0, time.UTC)
	var table allowanceTable
	for i := range 2 * mostMoved {
		table.charge(strconv.Itoa(i), "messages", PerMonth(3, nil), 1, may, 0)
	}
	require.Len(t, table.used, 2*mostMoved)
	for range 2 * mostMoved {
		table.charge("new", "messages", PerMonth(1_000_000, nil), 1, june, 0)
	}
	require.Len(t, table.used, 1)
	require.LessOrEqual(t, table.peak, 7)
}

func TestAllowanceDoesNotAllocate(t *testing.T) {
	m := NewMemoryLimiter(MemoryLimiterConfig{})
	zone, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	var buf [2]Balance
	for _, cost := range []int{0, 1, 2_000_000_000} {
		charges := []Charge{{Name: "default", Limit: PerSecond(1_000_000), Cost: 1}, {Name: "messages", Limit: PerMonth(1_000_000_000, zone), Cost: cost}}
		require.Zero(t, testing.AllocsPerRun(1000, func() { m.take(buf[:0], "a", charges, nil) }), "cost %d", cost)
	}
}

func BenchmarkTakeAllowance(b *testing.B) {
	zone, err := time.LoadLocation("Europe/Berlin")
	require.NoError(b, err)
	const senders = 200_000
	ids := make([]string, senders)
	for i := range ids {
		ids[i] = fmt.Sprintf("7a1de7b4-3a0e-4d6e-9c2b-%012x", i+1)
	}
	m, charges := NewMemoryLimiter(MemoryLimiterConfig{}), []Charge{{Name: "messages", Limit: PerMonth(maxTokens, zone), Cost: 1}}
	var buf [1]Balance
	for i := range ids {
		m.take(buf[:0], ids[i], charges, nil)
	}
	b.ReportAllocs()
	for b.Loop() {
		m.take(buf[:0], ids[rand.IntN(senders)], charges, nil)
	}
}
