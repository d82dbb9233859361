package redislimit

import (
	"math"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

func chargeOf(name string, l senderauth.Limit, cost int) senderauth.Charge {
	return senderauth.Charge{Name: name, Limit: l, Cost: cost}
}

func requestOf(t *testing.T, charges ...senderauth.Charge) *request {
	t.Helper()
	q := &request{sender: "a", charges: charges, balances: make([]senderauth.Balance, len(charges))}
	require.True(t, q.plan(&scales{lease: testLease}))
	return q
}

// holdingOf returns a holding with tokens of buckets with the limit thousand.
func holdingOf(tokens map[string]int) *holding {
	h := &holding{sender: "a"}
	for name, n := range tokens {
		r := newReserve(&senderauth.Charge{Name: name, Limit: thousand}, scaleOf(thousand))
		r.add(n, 1, time.Hour, 0)
		h.reserves = append(h.reserves, r)
	}
	return h
}

// replyOf returns the reply of lease.lua for one bucket at time 0 of its clock.
func replyOf(taken bool, level uint64, leased int, lapse time.Duration) leaseReply {
	n := int64(0)
	if taken {
		n = 1
	}
	return leaseReply{n, 0, int64(level), 0, int64(leased), lapse.Microseconds()}
}

func TestCoveredRequestIsAdmitted(t *testing.T) {
	h := holdingOf(map[string]int{"x": 10, "y": 5})
	q := requestOf(t, chargeOf("x", thousand, 4), chargeOf("y", thousand, 5))
	require.Equal(t, decision{verdict: decided}, h.decide(q, 0))
	require.Equal(t, senderauth.Balance{Remaining: 6, ResetAfter: 994 * time.Millisecond}, q.balances[0])
	require.Equal(t, senderauth.Balance{Remaining: 0, ResetAfter: time.Second}, q.balances[1])
	require.Equal(t, 6, h.reserve("x").held(0))
	require.Equal(t, 4, h.reserve("x").demand)
}

func TestUncoveredRequestAsksRedis(t *testing.T) {
	h := holdingOf(map[string]int{"x": 10, "y": 5})
	d := h.decide(requestOf(t, chargeOf("x", thousand, 4), chargeOf("y", thousand, 6)), 0)
	require.Equal(t, send, d.verdict)
	require.Same(t, h.fetch, d.fetch)
	require.Equal(t, "a", d.fetch.sender)
	require.Equal(t, []int{4, 6}, []int{d.fetch.orders[0].need, d.fetch.orders[1].need})
	require.Zero(t, h.reserve("x").held(0), "what is held goes back")

	// The next request waits for that fetch and is counted in the next one.
	q := requestOf(t, chargeOf("x", thousand, 7))
	require.Equal(t, decision{join, d.fetch}, h.decide(q, 0))
	require.Equal(t, 7, h.reserve("x").waiting)
	h.leave(q)
	require.Zero(t, h.reserve("x").waiting)
}

// A request that takes nothing reads the true level from Redis and leases nothing.
func TestLookAsksRedisAndLeasesNothing(t *testing.T) {
	for _, q := range []*request{
		requestOf(t, chargeOf("x", thousand, 0)),
		requestOf(t, chargeOf("x", thousand, 2), chargeOf("closed", senderauth.Blocked(), 1)),
		requestOf(t, chargeOf("x", thousand, 1001)),
	} {
		h := holdingOf(map[string]int{"x": 100})
		h.reserve("x").rate, h.reserve("x").waiting = 1e6, 50
		d := h.decide(q, 0)
		require.Equal(t, send, d.verdict)
		require.Zero(t, d.fetch.orders[0].need)
		require.Zero(t, d.fetch.orders[0].extra)
		require.Equal(t, join, h.decide(q, 0).verdict)
		require.Equal(t, 50, h.reserve("x").waiting, "it waits for an answer, but for no tokens")
	}
}

// If Redis is known to lack the tokens, the request is refused without a call, and counts
// as demand.
func TestRefusedRequestTakesNothing(t *testing.T) {
	h := holdingOf(map[string]int{"x": 10, "y": 5})
	h.reserve("y").learn(0, 0, 100, false, 0)
	q := requestOf(t, chargeOf("x", thousand, 4), chargeOf("y", thousand, 100))
	require.Equal(t, decision{verdict: decided}, h.decide(q, 0))
	require.False(t, q.balances[0].Refused)
	require.Equal(t, 10, q.balances[0].Remaining)
	require.Zero(t, q.balances[0].RetryAfter)
	require.True(t, q.balances[1].Refused)
	require.Equal(t, 5, q.balances[1].Remaining)
	require.Equal(t, 100*time.Millisecond, q.balances[1].RetryAfter)
	require.Equal(t, []int{10, 5}, []int{h.reserve("x").held(0), h.reserve("y").held(0)})
	require.Equal(t, []int{0, 100}, []int{h.reserve("x").demand, h.reserve("y").demand})
}

// If Redis lacks the tokens of one bucket and the instance merely does not hold those of
// another, Redis decides, and nothing is leased.
func TestHalfKnownShortageIsDecidedByRedis(t *testing.T) {
	h := holdingOf(map[string]int{"x": 0, "y": 0})
	h.reserve("y").learn(0, 0, 1, false, 0)
	q := requestOf(t, chargeOf("x", thousand, 1), chargeOf("y", thousand, 1))
	require.Equal(t, decision{verdict: direct}, h.decide(q, 0))
	require.Equal(t, send, h.decide(q, time.Second).verdict, "until the shortage may have ended")
}

// The fast path admits a request that is amply covered, with the same balances as decide,
// and otherwise changes nothing.
func TestSpendDecidesLikeDecide(t *testing.T) {
	h, same := holdingOf(map[string]int{"x": 100, "y": 100}), holdingOf(map[string]int{"x": 100, "y": 100})
	q := requestOf(t, chargeOf("x", thousand, 1), chargeOf("y", thousand, 75))
	balances := make([]senderauth.Balance, 2)
	require.True(t, h.spend(q.charges, balances, 0))
	require.Equal(t, decided, same.decide(q, 0).verdict)
	require.Equal(t, q.balances, balances)
	require.Equal(t, *same.reserve("x"), *h.reserve("x"))
	require.Equal(t, *same.reserve("y"), *h.reserve("y"))

	before := *h.reserve("x")
	limit := senderauth.PerSecond(10)
	for name, charges := range map[string][]senderauth.Charge{
		"low":      {chargeOf("x", thousand, 1), chargeOf("y", thousand, 1)},
		"unknown":  {chargeOf("x", thousand, 1), chargeOf("z", thousand, 1)},
		"twice":    {chargeOf("x", thousand, 1), chargeOf("x", thousand, 1)},
		"nothing":  {chargeOf("x", thousand, 0)},
		"negative": {chargeOf("x", thousand, -1)},
		"changed":  {chargeOf("x", limit, 1)},
		"three":    {chargeOf("x", thousand, 1), chargeOf("y", thousand, 1), chargeOf("z", thousand, 1)},
		"too much": {chargeOf("x", thousand, math.MaxInt)},
	} {
		require.False(t, h.spend(charges, make([]senderauth.Balance, 3), 0), name)
		require.Equal(t, before, *h.reserve("x"), name)
	}
	h.refill(0)
	require.True(t, h.spend([]senderauth.Charge{chargeOf("y", thousand, 25)}, balances, 0), "more is on its way")
	require.False(t, h.spend([]senderauth.Charge{chargeOf("y", thousand, 1)}, balances, 0))
}

// An instance uses tokens for at most seven eighths of their lease, counted from before it
// called Redis.
func TestLeaseStartsBeforeTheCall(t *testing.T) {
	h := holdingOf(nil)
	sent := 5 * time.Second
	d := h.decide(requestOf(t, chargeOf("x", thousand, 1)), sent)
	h.land(d.fetch, replyOf(true, 400*scaleOf(thousand).perToken, 20, 80*time.Millisecond), sent+30*time.Millisecond)
	require.Nil(t, h.fetch)
	r := h.reserve("x")
	require.Equal(t, 20, r.held(sent+70*time.Millisecond-1))
	require.Zero(t, r.held(sent+70*time.Millisecond))
	require.Equal(t, 20, r.batch)
	require.False(t, r.lacks(1, sent+30*time.Millisecond))
}

// Tokens that arrive after the limit has changed are not spent.
func TestLimitChangesDuringAFetch(t *testing.T) {
	h := holdingOf(nil)
	d := h.decide(requestOf(t, chargeOf("x", thousand, 1)), 0)
	q := requestOf(t, chargeOf("x", senderauth.PerSecond(100), 1))
	require.Equal(t, join, h.decide(q, 0).verdict)
	h.land(d.fetch, replyOf(true, 0, 20, testLease), 0)
	require.Zero(t, h.reserve("x").held(0))
	require.True(t, h.reserve("x").holds(), "it goes back")
	require.False(t, h.reserve("x").lacks(1, 0), "what Redis said was of the other limit")
}

// What a failed fetch gave back and reported is not reported again.
func TestFailedFetchIsNotRepeated(t *testing.T) {
	h := holdingOf(map[string]int{"x": 10})
	q := requestOf(t, chargeOf("x", thousand, 20))
	h.land(h.decide(q, 0).fetch, nil, 0)
	require.Nil(t, h.fetch)
	require.Equal(t, settlement{lapse: 1}, h.decide(q, 0).fetch.orders[0].settled[0])
}

// A balance counts the tokens left in Redis and those that the instance holds.
func TestBalanceAfterAFetch(t *testing.T) {
	token := scaleOf(thousand).perToken
	decideBy := func(cost int, reply leaseReply) senderauth.Balance {
		h := holdingOf(nil)
		q := requestOf(t, chargeOf("x", thousand, cost))
		f := h.decide(q, 0).fetch
		h.land(f, reply, 0)
		f.settle(q, reply)
		return q.balances[0]
	}
	require.Equal(t, senderauth.Balance{Remaining: 420, ResetAfter: 580 * time.Millisecond},
		decideBy(1, replyOf(true, 400*token, 20, testLease)))
	require.Equal(t, 1000, decideBy(1, replyOf(true, 999*token, 20, testLease)).Remaining, "no more than the burst")
	require.Equal(t, senderauth.Balance{Refused: true, Remaining: 2, ResetAfter: 998 * time.Millisecond, RetryAfter: testLease / 4},
		decideBy(3, replyOf(false, 2*token, 0, 0)), "RetryAfter lasts as long as Redis is not called")
	require.Equal(t, 498*time.Millisecond, decideBy(500, replyOf(false, 2*token, 0, 0)).RetryAfter)
	require.EqualValues(t, -1, decideBy(1001, replyOf(true, 2*token, 0, 0)).RetryAfter, "it can never pass")
	require.False(t, decideBy(0, replyOf(true, 0, 0, 0)).Refused)
}

// A refill orders more tokens of all reserves, in one fetch at a time.
func TestLowHoldingIsRefilledOnce(t *testing.T) {
	h := holdingOf(map[string]int{"x": 100})
	q := requestOf(t, chargeOf("x", thousand, 80))
	require.Equal(t, decided, h.decide(q, 0).verdict)
	require.True(t, h.low(q, 0))
	f := h.refill(0)
	require.False(t, h.low(q, 0))
	require.False(t, h.idle(time.Minute))
	require.True(t, h.holds())
	require.Equal(t, 80, f.orders[0].settled[0].spent)
	h.land(f, nil, 0)
	require.True(t, h.low(q, 0))
	require.False(t, h.idle(0))
	require.True(t, h.idle(time.Minute))
}
