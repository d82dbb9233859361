package redislimit

import (
	"context"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// A lease that has lapsed is not spent, also where it lapsed while the decision
// waited for its turn.
func TestLapse(t *testing.T) {
	limit := senderauth.PerSecond(1000)
	charges := []senderauth.Charge{{Name: "x", Limit: limit, Cost: 1}}
	l := &Limiter{parts: make([]part, 1), leases: newLeases(time.Second), failClosed: true, stop: make(chan struct{})}
	l.parts[0].failures.Store(opened) // Redis is not asked
	shard := l.leases.shard("a")
	p := shard.holding("a", 0).purse(&charges[0], &asked{scale: measure(limit)})
	p.add(10, 1, time.Hour)
	p.add(20, 2, 2*time.Hour)
	require.Equal(t, 30, p.held(time.Hour-1))
	require.Equal(t, 20, p.held(time.Hour))
	p.spend(5, time.Hour)
	require.Equal(t, 15, p.held(time.Hour))
	require.Equal(t, 25, p.held(time.Hour-1), "the first lot is as it was")
	require.Equal(t, 0, p.held(2*time.Hour))

	for name, decide := range map[string]func() bool{
		"amply": func() bool { return l.leases.spend("a", charges, make([]senderauth.Balance, 1)) },
		"barely": func() bool {
			s := take{sender: "a", charges: charges, balances: make([]senderauth.Balance, 1)}
			require.NoError(t, l.plan(&s))
			return l.leased(context.Background(), &s) == nil
		},
	} {
		p.add(20, 2, time.Hour)
		require.True(t, decide(), name)
		shard.mu.Lock()
		decided := make(chan bool)
		go func() { decided <- decide() }()
		<-time.After(5 * time.Millisecond)
		p.lots[0].until, p.lots[1].until = l.leases.now(), l.leases.now()
		shard.mu.Unlock()
		require.False(t, <-decided, name)
	}
}

// What is leased is away from the others for a quarter of the time that fills
// the bucket, at the most.
func TestTerm(t *testing.T) {
	for burst, want := range map[int]time.Duration{1000: 100 * time.Millisecond, 100: 25 * time.Millisecond, 16: 4 * time.Millisecond, 15: 0} {
		s := measure(senderauth.Limit{Requests: 1000, Per: time.Second, Burst: burst})
		require.Equal(t, want, s.term(100*time.Millisecond), burst)
	}
}

// What holds tokens is not forgotten, and what does not is.
func TestForget(t *testing.T) {
	shard := &leaseShard{senders: map[string]*holding{}}
	limit := senderauth.PerSecond(1000)
	hot := shard.holding("hot", 0)
	hot.purse(&senderauth.Charge{Name: "x", Limit: limit}, &asked{scale: measure(limit)}).add(10, 1, time.Hour)
	for now := time.Minute; now < time.Hour; now += time.Minute {
		shard.holding(now.String(), now)
		require.Same(t, hot, shard.holding("hot", now))
	}
	require.Less(t, len(shard.senders), 4)
	shard.holding("another", time.Hour)
	shard.holding("one more", time.Hour)
	require.NotContains(t, shard.senders, "hot")
}

// What is refused anyhow waits for an answer, but for no tokens.
func TestWaiting(t *testing.T) {
	limit := senderauth.Limit{Requests: 1, Per: time.Hour, Burst: 10}
	l, h := new(Limiter), new(holding)
	for _, c := range []struct{ cost, want int }{{3, 3}, {11, 0}} {
		s := take{charges: []senderauth.Charge{{Name: "x", Limit: limit, Cost: c.cost}}, balances: make([]senderauth.Balance, 1)}
		require.NoError(t, l.plan(&s))
		h.wait(&s, +1)
		require.Equal(t, c.want, h.named("x").waiting)
		h.wait(&s, -1)
		require.Zero(t, h.named("x").waiting)
	}
}
