package redislimit

import (
	"context"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// A holding is kept as long as it knows anything that Redis does not.
func TestTableForgetsUselessHoldings(t *testing.T) {
	for name, keep := range map[string]func(h *holding, now time.Duration){
		"tokens":   func(h *holding, _ time.Duration) { h.reserve("x").add(10, 1, time.Hour, 0) },
		"fetch":    func(h *holding, _ time.Duration) { h.fetch = &fetch{} },
		"listed":   func(h *holding, _ time.Duration) { h.listed = true },
		"waiting":  func(h *holding, _ time.Duration) { h.reserve("x").waiting = 1 },
		"recent":   func(h *holding, now time.Duration) { h.reserve("x").asked = now },
		"shortage": func(h *holding, now time.Duration) { h.reserve("x").shortage.until = now + time.Minute },
	} {
		table := newLeaseTable()
		h := table.open("a", 0)
		h.open(requestOf(t, chargeOf("x", thousand, 1)))
		for now := time.Minute; now < time.Hour; now += time.Minute {
			keep(h, now)
			table.open(now.String(), now)
			require.Same(t, h, table.senders["a"], name)
		}
		require.Less(t, len(table.senders), 4, "the other senders are forgotten")
		*h = holding{sender: "a"}
		for _, sender := range []string{"b", "c", "d"} {
			table.open(sender, 2*time.Hour)
		}
		require.NotContains(t, table.senders, "a", name)
		require.Len(t, table.order, len(table.senders))
	}
}

// Idle tokens are given back as soon as there is a place for the fetch.
func TestTendGivesIdleTokensBack(t *testing.T) {
	table := newLeaseTable()
	h := table.open("a", 0)
	f := h.decide(requestOf(t, chargeOf("x", thousand, 1)), 0).fetch
	table.land(f, replyOf(true, 0, 20, time.Hour), 0)
	require.Equal(t, []*holding{h}, table.holders)
	place, asked := false, 0
	tend := func(now time.Duration) []*fetch {
		return table.tend(now, func(sender string) bool {
			require.Equal(t, "a", sender)
			asked++
			return place
		})
	}
	require.Empty(t, tend(0))
	require.Zero(t, asked, "the tokens are in use")
	require.Empty(t, tend(time.Minute))
	require.Equal(t, 1, asked)
	place = true
	fetches := tend(time.Minute)
	require.Equal(t, []*fetch{h.fetch}, fetches)
	require.Equal(t, 20, fetches[0].orders[0].settled[0].back)
	require.Zero(t, fetches[0].orders[0].extra)
	require.Equal(t, []*holding{h}, table.holders, "listed while the fetch is in flight")
	require.Empty(t, tend(time.Minute))
	table.land(fetches[0], replyOf(true, 0, 0, 0), time.Minute)
	require.Empty(t, tend(time.Minute))
	require.Empty(t, table.holders)
	require.False(t, h.listed)
}

func TestEmptyDropsTheTokensOfOneSender(t *testing.T) {
	table := newLeaseTable()
	table.senders["a"] = holdingOf(map[string]int{"x": 10})
	table.empty("b")
	table.empty("a")
	require.False(t, table.senders["a"].holds())
}

// A lease that lapses while a decision waits for the lock is not spent.
func TestLeaseLapsesWhileWaitingForTheLock(t *testing.T) {
	charges := []senderauth.Charge{chargeOf("x", thousand, 1)}
	l := &Limiter{parts: make([]part, 1), leases: newLeaseMap(), scales: scales{lease: testLease}, stop: make(chan struct{})}
	l.parts[0].failures.Store(opened) // so that nothing calls Redis
	for name, decide := range map[string]func() bool{
		"amply": func() bool { return l.spend("a", charges, make([]senderauth.Balance, 1)) },
		"barely": func() bool {
			return l.leased(context.Background(), requestOf(t, charges...)) == nil
		},
	} {
		shard := &l.leases.shards[l.leases.shard("a")]
		h := holdingOf(map[string]int{"x": 20})
		shard.table.senders["a"] = h
		require.True(t, decide(), name)
		shard.mu.Lock()
		result := make(chan bool)
		go func() { result <- decide() }()
		<-time.After(5 * time.Millisecond)
		h.reserves[0].leases[0].until = l.leases.now()
		shard.mu.Unlock()
		require.False(t, <-result, name)
	}
}
