package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const tenant = "7a1de7b4-3a0e-4d6e-9c2b-000000000001"

// A quota is a ledger of one sender that begins at second 0. "messages" has a burst of 6,
// and 2 tokens a second.
type quota struct{ *ledger }

func newQuota() quota { return quota{newLedger(at(0), []string{tenant})} }

// answered adds n answers to requests that charge "messages".
func (q quota) answered(n, status int, sent, got float64) {
	for range n {
		a := between(sent, got)
		a.status = status
		q.charges = append(q.charges, charge{answer: a, sender: tenant, limits: []string{"messages"}})
	}
}

// wrong checks everything and returns what is wrong.
func (q quota) wrong() []string {
	var all []string
	q.check(at(1000), func(_ answer, why string) { all = append(all, why) })
	return all
}

func TestLedgerOfALimit(t *testing.T) {
	q := newQuota()
	q.answered(6, 200, 1, 1)
	q.answered(1, 429, 1.1, 1.1)
	q.answered(2, 200, 2, 2)
	q.answered(1, 429, 2.1, 2.1)
	require.Empty(t, q.wrong())
}

func TestLedgerFindsATokenTooMany(t *testing.T) {
	q := newQuota()
	q.answered(6, 200, 1, 1)
	q.answered(3, 200, 2, 2)
	require.Equal(t, []string{"1.00 tokens too many were taken"}, q.wrong())
}

// A request that waited may have been charged at any time until it was answered.
func TestLedgerAllowsForTheTimeOfARequest(t *testing.T) {
	q := newQuota()
	q.answered(6, 200, 1, 2)
	q.answered(2, 200, 2, 2)
	q.answered(1, 429, 2, 2)
	require.Empty(t, q.wrong())
	q = newQuota()
	q.answered(6, 200, 1, 2)
	q.answered(3, 200, 2, 2)
	require.NotEmpty(t, q.wrong())
}

// A request that was charged late makes the bucket full later than the model thinks.
func TestLedgerRemembersALateCharge(t *testing.T) {
	q := newQuota()
	q.answered(1, 200, 1, 1.5)
	q.answered(5, 200, 1.55, 1.55)
	q.answered(1, 429, 1.56, 1.56)
	require.Empty(t, q.wrong())
	q.answered(1, 429, 2.1, 2.1)
	require.NotEmpty(t, q.wrong())
}

func TestLedgerFindsARefusalTooMany(t *testing.T) {
	q := newQuota()
	q.answered(4, 200, 1, 1)
	q.answered(1, 429, 1, 1)
	q.answered(2, 200, 1, 1)
	q.answered(1, 429, 3, 3.1)
	require.Equal(t, []string{"there were tokens of every limit", "there were tokens of every limit"}, q.wrong())
}

// While instances decide on their own they have at most another burst.
func TestLedgerOfATrouble(t *testing.T) {
	during := func(n, status int) quota {
		q := newQuota()
		q.trouble = []span{{at(2), at(3)}}
		q.answered(6, 200, 1, 1)
		q.answered(n, status, 2.001, 2.001)
		return q
	}
	require.Empty(t, during(8, 200).wrong(), "a burst, and what flowed in since")
	require.Equal(t, []string{"1.00 tokens too many were taken"}, during(9, 200).wrong())
	require.Empty(t, during(1, 429).wrong(), "the share of an instance may be empty")
}

// A Redis that comes back empty has another burst, and no more.
func TestLedgerOfALoss(t *testing.T) {
	after := func(n int) quota {
		q := newQuota()
		q.trouble = []span{{at(2), at(3)}}
		q.losses = []time.Time{at(2.5)}
		q.answered(6, 200, 1, 1)
		q.answered(8, 200, 2.001, 2.001)
		q.answered(n, 200, 3.001, 3.001)
		return q
	}
	require.Empty(t, after(6).wrong())
	require.Equal(t, []string{"1.00 tokens too many were taken"}, after(7).wrong())
}

// Redis may have executed calls without an answer, so nothing is known of its bucket
// right after a trouble.
func TestLedgerOfRefusalsAfterATrouble(t *testing.T) {
	after := func(second float64) quota {
		q := newQuota()
		q.trouble = []span{{at(2), at(3)}}
		q.answered(1, 429, second, second)
		return q
	}
	require.Empty(t, after(3.4).wrong())
	require.NotEmpty(t, after(3.6).wrong())
	q := after(3.9)
	q.answered(1, 200, 3.5, 3.5)
	require.Empty(t, q.wrong(), "what was taken during the trouble stays taken")
}

func TestLedgerKeepsWhatCameAfterTheCheck(t *testing.T) {
	q := newQuota()
	q.answered(6, 200, 1, 1)
	q.answered(3, 200, 2, 2)
	q.check(at(1.5), func(a answer, why string) { require.Fail(t, why) })
	require.Len(t, q.charges, 3)
	require.Len(t, q.wrong(), 1)
}

func TestUnion(t *testing.T) {
	got := union([]span{{at(5), at(6)}, {at(1), at(3)}, {at(2), at(4)}, {at(8), never}, {at(9), at(10)}})
	require.Equal(t, []span{{at(1), at(4)}, {at(5), at(6)}, {at(8), never}}, got)
}
