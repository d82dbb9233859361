package redislimit

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers/redistest"
	"github.com/stretchr/testify/require"
)

// A day or month that is not the present one by the clock of Redis changes nothing: neither a
// bucket, nor an allowance, nor what the instance owes.
func TestAnotherPeriodChangesNothing(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: redistest.New(t).Addr(), ContextTimeoutEnabled: true})
	defer client.Close()
	l, err := New(client, Config{Instances: 1, Timeout: 20 * time.Second})
	require.NoError(t, err)
	defer l.Close()
	bucket, day := senderauth.Limit{Requests: 1, Per: time.Hour, Burst: 10}, senderauth.PerDay(10, nil)
	charges := []senderauth.Charge{{Name: "b", Limit: bucket, Cost: 1}, {Name: "d", Limit: day, Cost: 1}}
	l.ledger.learnUsage("a", &charges[1], day.Calendar.Period(time.Now()), 0)
	l.ledger.oweDebt("a", &charges[1], debt{day.Calendar.Period(time.Now()), 3})
	for _, days := range []int{-40, -1, 1, 40} {
		q := request{sender: "a", charges: charges, balances: make([]senderauth.Balance, 2)}
		require.True(t, q.plan(&l.scales))
		reply, err := l.count(context.Background(), &q, time.Now().AddDate(0, 0, days))
		require.NoError(t, err)
		require.Nil(t, reply)
		require.WithinDuration(t, time.Now(), q.clock, time.Minute)
	}
	require.Zero(t, client.DBSize(context.Background()).Val())
	balances, err := l.Take(context.Background(), "a", charges)
	require.NoError(t, err)
	require.Equal(t, []int{9, 6}, []int{balances[0].Remaining, balances[1].Remaining}, "3 are owed")
}

// What was granted without Redis in an earlier period is not used of the present one. If
// the instance was ahead of Redis, it is.
func TestDebtCountsInItsPeriodAndEarlierOnes(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: redistest.New(t).Addr()})
	defer client.Close()
	ctx, day := context.Background(), senderauth.PerDay(10, nil)
	today := day.Calendar.Period(time.Now())
	for by, used := range map[int]int64{-1: 2, 0: 5, 1: 5} {
		client.FlushDB(ctx)
		c := &allowanceCharge{Charge: &senderauth.Charge{Name: "d", Limit: day, Cost: 2}, period: today, debt: debt{today + by, 3}}
		args := []any{string(appendDoubles(nil, 0, 0)), packCount(c)}
		reply, err := client.Eval(ctx, countScript.text, []string{"k"}, args...).Int64Slice()
		require.NoError(t, err)
		require.Equal(t, []int64{1, int64(today), used}, []int64{reply[0], reply[2], reply[3]}, "%d days later", by)
	}
}
