package senderauth_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// Whatever key a sender uses, its requests are charged to one bucket.
func TestKeysOfASenderShareItsBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second := senderauth.Credentials{SenderID: senderID(1), APIKey: apiKey(7)}
		keys, err := senderauth.Static(pair(1), second)
		require.NoError(t, err)
		a := newApp(t, keys.Validate, senderauth.Config{})
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(a, of(1)))
		require.Equal(t, hello(1).with(threeLeft(1)...), serve(a, request("x-sender-id", senderID(1), "x-api-key", apiKey(7))))
	})
}

// Step 1 to 5 come before the limiter, so that nobody's quota is touched.
func TestRefusedRequestsTakeNoQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{})
		for range 10 {
			serve(a, request("x-sender-id", senderID(1), "x-api-key", senderID(1)))
			serve(a, request("x-sender-id", senderID(1), "x-api-key", apiKey(2)))
			serve(a, request("x-sender-id", senderID(1)))
		}
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(a, of(1)))
	})
}

func TestAdmittedAndLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{})
		for left := 2; left >= 0; left-- {
			require.Equal(t, hello(1).with(threeLeft(left)...), serve(a, of(1)))
		}
		time.Sleep(300 * time.Millisecond)
		// 0.7 s to the token, 2.7 s to the full bucket: both are rounded up.
		over := limited("1").with(threeLeft(0)...)
		require.Equal(t, over, serve(a, of(1)))
		head := of(1)
		head.Method = http.MethodHead
		require.Equal(t, over.head(), serve(a, head))
		// What an outer layer has said of another representation goes.
		require.Equal(t, over, serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", "7")
			w.Header().Set("Content-Encoding", "gzip")
			a.ServeHTTP(w, r)
		}), of(1)))
		// Another sender is not touched, and letters have no case.
		time.Sleep(700 * time.Millisecond)
		require.Equal(t, hello(2).with(threeLeft(2)...), serve(a, of(2)))
		upper := request("X-SENDER-ID", strings.ToUpper(senderID(1)), "X-API-KEY", strings.ToUpper(apiKey(1)))
		require.Equal(t, hello(1).with(threeLeft(0)...), serve(a, upper))
		require.Equal(t, pair(1), a.asked[len(a.asked)-1])
		require.Len(t, a.served, 5)
	})
}

func TestRetryAfterIsRoundedUpAndNeverZero(t *testing.T) {
	for _, c := range []struct {
		retry time.Duration
		want  response
	}{
		{0, limited("1")},
		{1, limited("1")},
		{time.Second, limited("1")},
		{time.Second + 1, limited("2")},
		{100 * time.Second, limited("100")},
		{-1, refused(429, "Rate limit exceeded.")},
	} {
		t.Run(c.retry.String(), func(t *testing.T) {
			a := newApp(t, nil, senderauth.Config{RateFields: senderauth.RateFieldsNone, Limiter: takes(func([]senderauth.Charge) ([]senderauth.Balance, error) {
				return []senderauth.Balance{{Refused: true, RetryAfter: c.retry}}, nil
			})})
			require.Equal(t, c.want, serve(a, of(1)))
		})
	}
}

// takes is a limiter that is a function.
type takes func(charges []senderauth.Charge) ([]senderauth.Balance, error)

func (f takes) Take(_ context.Context, _ string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
	return f(charges)
}

func TestSeveralLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{Limits: map[string]senderauth.Limit{
			"default": three, "sensitive": {Requests: 1, Per: 10 * time.Second, Burst: 2}, "open": senderauth.Unlimited(),
		}})
		h := a.guard.Charging("default", "open", "sensitive").Wrap(a.hello())
		policy := `"default";q=3;w=3, "sensitive";q=2;w=20`
		require.Equal(t, hello(1).with(rateFields(2, 1, 10, `"default";r=2;t=1, "sensitive";r=1;t=10`, policy)...), serve(h, of(1)))
		require.Equal(t, hello(1).with(rateFields(2, 0, 20, `"default";r=1;t=1, "sensitive";r=0;t=10`, policy)...), serve(h, of(1)))
		for range 3 { // all of them or none: default keeps its token
			require.Equal(t, limited("10").with(rateFields(2, 0, 20, `"default";r=1;t=1, "sensitive";r=0;t=10`, policy)...), serve(h, of(1)))
		}
		require.Equal(t, "sensitive", a.events[2].Limit)
		require.Equal(t, hello(1).with(threeLeft(0)...), serve(a, of(1)))
		// Both refuse: the longest wait is what the client is told.
		require.Equal(t, limited("10").with(rateFields(3, 0, 3, `"default";r=0;t=1, "sensitive";r=0;t=10`, policy)...), serve(h, of(1)))
		require.Equal(t, "sensitive", a.events[len(a.events)-1].Limit)
	})
}

// Of several waits the longest is told, and never is longer than any.
func TestLongestWaitDecides(t *testing.T) {
	for _, c := range []struct {
		a, b  time.Duration
		limit string
		want  response
	}{
		{2 * time.Second, 9 * time.Second, "b", limited("9")},
		{9 * time.Second, 2 * time.Second, "a", limited("9")},
		{-1, 9 * time.Second, "a", refused(429, "Rate limit exceeded.")},
		{9 * time.Second, -1, "b", refused(429, "Rate limit exceeded.")},
	} {
		a := newApp(t, nil, senderauth.Config{
			Limits: map[string]senderauth.Limit{"default": three, "a": three, "b": three}, RateFields: senderauth.RateFieldsNone,
			Limiter: takes(func([]senderauth.Charge) ([]senderauth.Balance, error) {
				return []senderauth.Balance{{Refused: true, RetryAfter: c.a}, {Refused: true, RetryAfter: c.b}}, nil
			}),
		})
		require.Equal(t, c.want, serve(a.guard.Charging("a", "b").Wrap(a.hello()), of(1)))
		require.Equal(t, c.limit, a.events[0].Limit)
	}
}

func TestSenderLimitsOverride(t *testing.T) {
	plans := map[string]map[string]senderauth.Limit{
		senderID(1): {"default": {Requests: 2, Per: 20 * time.Second}, "unheard of": senderauth.PerSecond(1)},
		senderID(2): {"default": senderauth.Unlimited()},
		senderID(3): {"default": senderauth.Blocked()},
	}
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			s, err := knowsAll(ctx, c)
			s.Limits = plans[s.ID]
			return s, err
		}, senderauth.Config{})
		require.Equal(t, hello(1).with(rateFields(2, 1, 10, `"default";r=1;t=10`, `"default";q=2;w=20`)...), serve(a, of(1)))
		for range 10 {
			require.Equal(t, hello(2), serve(a, of(2)))
		}
		blocked := refused(429, "Rate limit exceeded.").with(rateFields(0, 0, 0, `"default";r=0`, `"default";q=0`)...)
		require.Equal(t, blocked, serve(a, of(3)))
		require.Equal(t, hello(4).with(threeLeft(2)...), serve(a, of(4)))
	})
}

func TestLimiterFailure(t *testing.T) {
	outage := errors.New("redis: connection refused")
	for name, c := range map[string]struct {
		balances []senderauth.Balance
		err      error
		closed   bool
		want     response
		outcome  senderauth.Outcome
	}{
		"open":                  {err: outage, want: hello(1), outcome: "admitted"},
		"closed":                {err: outage, closed: true, want: unavailable, outcome: "unavailable"},
		"too few balances":      {want: hello(1), outcome: "admitted"},
		"too many, closed":      {balances: make([]senderauth.Balance, 2), closed: true, want: unavailable, outcome: "unavailable"},
		"balances and an error": {balances: []senderauth.Balance{{Refused: true}}, err: outage, want: hello(1), outcome: "admitted"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newApp(t, nil, senderauth.Config{FailClosed: c.closed, Limiter: takes(func([]senderauth.Charge) ([]senderauth.Balance, error) {
				return c.balances, c.err
			})})
			require.Equal(t, c.want, serve(a, of(1)))
			require.Equal(t, []senderauth.Outcome{c.outcome}, a.outcomes())
			require.Error(t, a.events[0].Err)
			if c.err != nil {
				require.ErrorIs(t, a.events[0].Err, outage)
			}
			require.Equal(t, senderID(1), a.events[0].Sender.ID)
		})
	}
}

// The store of the keys and that of the limits are often one: an event tells of
// both outages.
func TestEventOfTwoOutages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := &backend{}
		limiterOutage := errors.New("redis: connection refused")
		var events []senderauth.Event
		guard, err := senderauth.New(newCache(t, back, senderauth.CacheConfig{StaleTTL: time.Hour}), senderauth.Config{
			Limits:  limits(three),
			Limiter: takes(func([]senderauth.Charge) ([]senderauth.Balance, error) { return nil, limiterOutage }),
			Observe: func(_ context.Context, e senderauth.Event) { events = append(events, e) },
		})
		require.NoError(t, err)
		h := guard.Wrap(http.NotFoundHandler())
		serve(h, of(1))
		back.set(refuseWith(errOutage))
		time.Sleep(2 * time.Minute)
		serve(h, of(1))
		require.Len(t, events, 2)
		require.ErrorIs(t, events[0].Err, limiterOutage)
		require.ErrorIs(t, events[1].Err, limiterOutage)
		require.ErrorIs(t, events[1].Err, errOutage)
		require.Equal(t, senderauth.Admitted, events[1].Outcome)
	})
}
