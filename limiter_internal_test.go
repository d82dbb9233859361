package senderauth

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A bucket is given its time, so that it can be given one that no clock of
// this process would read.
func admittedAt(limit Limit, times ...time.Duration) (admitted int) {
	c := &Charge{Name: "default", Limit: limit, Cost: 1}
	b := (&account{}).open(c, int64(times[0]))
	for _, now := range times {
		for !b.look(c, int64(now)).Refused {
			b.take(c, int64(now))
			admitted++
		}
	}
	return admitted
}

func TestPitfall01OlderTimeMintsNothing(t *testing.T) {
	var times []time.Duration
	for range 1000 {
		times = append(times, 5*time.Second, 0)
	}
	require.LessOrEqual(t, admittedAt(Limit{Requests: 1, Per: time.Second, Burst: 10}, times...), 15)
	// Beginning with the older one, where all fifteen are legal.
	require.Equal(t, 15, admittedAt(Limit{Requests: 1, Per: time.Second, Burst: 10}, append([]time.Duration{0}, times...)...))
}

func TestPitfall04ClockThatStepsBackNeitherFillsNorBlocks(t *testing.T) {
	limit := Limit{Requests: 1, Per: time.Second, Burst: 10}
	const hour = time.Hour
	require.Equal(t, 10, admittedAt(limit, hour, 0, 1, hour-1, hour))
	require.Equal(t, 12, admittedAt(limit, hour, 0, hour+2*time.Second))

	c := &Charge{Name: "default", Limit: limit, Cost: 1}
	acct := &account{}
	b := acct.open(c, int64(hour))
	b.take(c, int64(hour))
	require.False(t, acct.full(0), "an hour back the bucket is not taken for full, which would have it forgotten")
	require.Equal(t, Balance{Remaining: 9, ResetAfter: time.Second}, b.look(&Charge{Name: "default", Limit: limit}, 0))
}
