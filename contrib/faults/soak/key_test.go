package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// at returns a time, in seconds of the tests of the model.
func at(second float64) time.Time {
	return time.Unix(1_000_000, 0).Add(time.Duration(second * float64(time.Second)))
}

// between is an answer of the first instance to a request.
func between(sent, got float64) answer { return answer{sent: at(sent), got: at(got)} }

// promisesWith returns the promises of instances with a bound of 2 seconds, a TTL of 10
// and a RejectedTTL of 5, while PostgreSQL is down during spans.
func promisesWith(down ...span) promises {
	return promises{bound: 2 * time.Second, ttl: 10 * time.Second, rejectedTTL: 5 * time.Second, postgres: &outages{spans: down}, stalls: new(outages)}
}

// A key is issued at second 1, revoked between 10 and 11, and so on.
func keyWith(changes ...change) *key {
	return &key{changes: append([]change{{active: true, begun: at(0), done: at(1)}}, changes...)}
}

func TestModelOfARevokedKey(t *testing.T) {
	revoked := change{begun: at(10), done: at(11)}
	for name, test := range map[string]struct {
		answer   answer
		down     []span
		admitted string // why it may not be
		refused  string
	}{
		"before the revocation":                {answer: between(5, 6), refused: "the key was active"},
		"during it":                            {answer: between(9, 10.5)},
		"within the bound":                     {answer: between(12.9, 13)},
		"past the bound":                       {answer: between(13.1, 13.2), admitted: "the instance should have known that the key was revoked"},
		"within the TTL, PostgreSQL down":      {answer: between(20.9, 21), down: []span{{at(12), never}}},
		"past the TTL, PostgreSQL down":        {answer: between(21.1, 21.2), down: []span{{at(12), never}}, admitted: "the instance should have known that the key was revoked"},
		"within the bound, PostgreSQL back":    {answer: between(16.9, 17), down: []span{{at(12), at(15)}}},
		"past the bound, PostgreSQL back":      {answer: between(17.1, 17.2), down: []span{{at(12), at(15)}}, admitted: "the instance should have known that the key was revoked"},
		"PostgreSQL down only later":           {answer: between(14.1, 14.2), down: []span{{at(14), never}}, admitted: "the instance should have known that the key was revoked"},
		"PostgreSQL down again within a bound": {answer: between(19.9, 20), down: []span{{at(12), at(15)}, {at(16), at(18)}}},
	} {
		t.Run(name, func(t *testing.T) {
			k, p := keyWith(revoked), promisesWith(test.down...)
			require.Equal(t, test.admitted, k.mayBeAdmitted(test.answer, p))
			require.Equal(t, test.refused, k.mayBeRefused(test.answer, p))
		})
	}
}

func TestModelOfARevocationInFlight(t *testing.T) {
	k, p := keyWith(change{begun: at(10)}), promisesWith()
	require.Empty(t, k.mayBeAdmitted(between(100, 101), p))
	require.Empty(t, k.mayBeRefused(between(100, 101), p))
	require.Equal(t, "the key was active", k.mayBeRefused(between(8, 9), p))
}

func TestModelOfAnInstanceThatHasRefused(t *testing.T) {
	k, p := keyWith(change{begun: at(10), done: at(11)}), promisesWith()
	k.noteRefusal(between(5, 5.1)) // not because of the revocation
	require.Empty(t, k.mayBeAdmitted(between(12, 12.1), p))
	k.noteRefusal(between(10.5, 11.5))
	require.Empty(t, k.mayBeAdmitted(between(11.4, 12), p))
	require.Equal(t, "the instance had refused the key", k.mayBeAdmitted(between(11.6, 12), p))
	other := between(11.6, 12)
	other.instance = 1
	require.Empty(t, k.mayBeAdmitted(other, p))
}

func TestModelOfAnEnabledKey(t *testing.T) {
	k, p := keyWith(change{begun: at(10), done: at(11)}, change{active: true, begun: at(20), done: at(21)}), promisesWith()
	require.NotEmpty(t, k.mayBeAdmitted(between(19, 19.5), p))
	require.Empty(t, k.mayBeAdmitted(between(19, 20.5), p))
	require.Empty(t, k.mayBeRefused(between(22.9, 23), p))
	require.Equal(t, "the key was active", k.mayBeRefused(between(23.1, 23.2), p))
	down := promisesWith(span{at(21.5), never})
	require.Empty(t, k.mayBeRefused(between(25.9, 26), down), "a rejection is remembered")
	require.NotEmpty(t, k.mayBeRefused(between(26.1, 26.2), down))
}

func TestModelOfANewKey(t *testing.T) {
	k, p := keyWith(), promisesWith()
	require.NotEmpty(t, k.mayBeAdmitted(between(-2, -1), p))
	require.Empty(t, k.mayBeAdmitted(between(-1, 0.5), p))
	require.Empty(t, k.mayBeRefused(between(0.9, 1.1), p))
	require.Equal(t, "the key was active", k.mayBeRefused(between(1.1, 1.2), p), "nobody has asked for it before")
}

func TestModelOfAKeyThatEnds(t *testing.T) {
	k, p := keyWith(), promisesWith()
	k.endsWithin(at(30), at(31))
	require.Equal(t, "the key was active", k.mayBeRefused(between(29, 29.9), p))
	require.Empty(t, k.mayBeRefused(between(29, 30), p))
	require.Empty(t, k.mayBeAdmitted(between(30.9, 32), p))
	require.Equal(t, "the key had ended", k.mayBeAdmitted(between(31, 32), p))
}

func TestModelOfAnOutage(t *testing.T) {
	p := promisesWith(span{at(10), at(20)})
	for _, a := range []answer{between(9, 10), between(15, 16), between(21.9, 22.5)} {
		require.Empty(t, p.mayBeUnavailable(a))
	}
	for _, a := range []answer{between(9, 9.9), between(22.1, 22.2)} {
		require.Equal(t, "PostgreSQL was up", p.mayBeUnavailable(a))
	}
	p.stalls.add(span{at(30), at(31)})
	require.Empty(t, p.mayBeUnavailable(between(29, 31)), "nobody could run")
}
