package senderauth

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	someID  = "7a1de7b4-3a0e-4d6e-9c2b-000000000001"
	someKey = "0b9d3c1e-6f52-4c8a-b1d7-2e9f1a3c5d01"
)

// Who is calling: a request becomes a sender or a refusal.
func TestAuthenticateDecidesWithoutAWriter(t *testing.T) {
	keys, err := Static(Credentials{someID, someKey})
	require.NoError(t, err)
	a := newAuthenticator(keys, &Config{})
	for want, header := range map[Outcome]http.Header{
		Admitted:      {"X-Sender-Id": {someID}, "X-Api-Key": {someKey}},
		MissingKey:    {"X-Sender-Id": {someID}},
		MissingSender: {"X-Api-Key": {someKey}},
		InvalidSender: {"X-Sender-Id": {"x"}, "X-Api-Key": {someKey}},
		InvalidKey:    {"X-Sender-Id": {someID}, "X-Api-Key": {someID}},
		Mismatch:      {"X-Sender-Id": {someKey}, "X-Api-Key": {someKey}},
	} {
		d := decision{outcome: Admitted}
		a.authenticate(&http.Request{Header: header}, &d)
		require.Equal(t, want, d.outcome)
		require.Equal(t, want == Admitted, d.sender != nil)
		require.Equal(t, want == Admitted, d.err == nil)
	}
}

// answers is a Limiter that gives these balances.
type answers []Balance

func (a answers) Take(context.Context, string, []Charge) ([]Balance, error) {
	if a == nil {
		return nil, errors.New("outage")
	}
	return a, nil
}

// May they: a sender and its charges become balances or a refusal.
func TestChargeDecidesWithoutAWriter(t *testing.T) {
	limits := map[string]Limit{"default": PerMinute(3), "a": PerMinute(3), "b": PerMinute(3)}
	never, soon, late := Balance{Refused: true, RetryAfter: -1}, Balance{Refused: true, RetryAfter: 1}, Balance{Refused: true, RetryAfter: 9}
	for _, c := range []struct {
		answers answers
		outcome Outcome
		limit   string
		retry   time.Duration
	}{
		{answers{{}, {}, {}}, Admitted, "default", 0},
		{answers{{}, late, soon}, Limited, "a", 9},
		{answers{{}, soon, late}, Limited, "b", 9},
		{answers{soon, never, late}, Limited, "a", -1},
		{answers{{}, {}, {Refused: true}}, Limited, "b", 1},
		{nil, Admitted, "default", 0},
	} {
		ch := newCharger(&Config{Limits: limits, Limiter: c.answers})
		b, err := ch.bill([]string{"default", "a", "b"}, 1)
		require.NoError(t, err)
		d := decision{outcome: Admitted, sender: &Sender{ID: someID, Limits: map[string]Limit{"a": Blocked()}}}
		ch.charge(t.Context(), &d, b)
		require.Equal(t, c.outcome, d.outcome)
		require.Equal(t, c.limit, d.limit)
		require.Equal(t, c.retry, d.retry)
		require.Equal(t, c.answers == nil, d.err != nil)
		require.Len(t, d.tally.balances(), len(c.answers))
		require.Equal(t, Blocked(), d.tally.charges()[1].Limit, "the sender's own")
	}
}

// What is the client told: a decision becomes an answer.
func TestRespondAnswersADecision(t *testing.T) {
	p := newResponder(&Config{Realm: "r"})
	for _, c := range []struct {
		d      decision
		status int
		detail string
		header http.Header
	}{
		{decision{outcome: InvalidKey}, 401, "Invalid API credentials!", http.Header{"Www-Authenticate": {`ApiKey realm="r"`}}},
		{decision{outcome: Limited, retry: 1500 * time.Millisecond}, 429, "Rate limit exceeded. Please retry after 2 seconds.", http.Header{"Retry-After": {"2"}}},
		{decision{outcome: Limited, retry: -1}, 429, "Rate limit exceeded.", http.Header{}},
		{decision{outcome: Canceled}, 503, "The service is temporarily unavailable. Please retry.", http.Header{"Retry-After": {"1"}}},
		{decision{outcome: Refused, problem: &Problem{Status: 403, Detail: "no"}}, 403, "no", http.Header{}},
	} {
		w := httptest.NewRecorder()
		p.refuse(w, httptest.NewRequest("GET", "/", nil), &c.d)
		require.Equal(t, c.status, w.Code)
		require.Contains(t, w.Body.String(), `"detail":"`+c.detail+`"`)
		for _, name := range []string{"Www-Authenticate", "Retry-After"} {
			require.Equal(t, c.header[name], w.Header()[name])
		}
		// The problem for a function of the program's own says the same.
		problem := p.problem(&c.d)
		again := httptest.NewRecorder()
		problem.ServeHTTP(again, httptest.NewRequest("GET", "/", nil))
		require.Equal(t, w.Body.String(), again.Body.String())
		require.Equal(t, w.Header(), again.Header())
	}
}
