package senderauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
			w.Header()["cache-control"] = []string{"public"}
			w.Header()["RateLimit"] = []string{"outer"}
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
		{9 * time.Second, 9 * time.Second, "a", limited("9")}, // the first of equals
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
		senderID(4): {"another": senderauth.Blocked()},
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
			require.True(t, a.events[0].LimiterFailed)
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
		require.True(t, events[1].LimiterFailed)
	})
}

// weighty is a limit that several tokens can be taken of.
var weighty = senderauth.Limit{Requests: 10, Per: 10 * time.Second}

func TestCosting(t *testing.T) {
	newCosting := func(t *testing.T) (*app, http.Handler) {
		a := newApp(t, nil, senderauth.Config{Limits: map[string]senderauth.Limit{"default": three, "messages": weighty}})
		costing := a.guard.Charging("messages").Costing(func(r *http.Request) int {
			_, ok := senderauth.SenderFrom(r.Context())
			require.True(t, ok, "the request of an authenticated sender")
			cost, err := strconv.Atoi(r.URL.Query().Get("cost"))
			require.NoError(t, err)
			return cost
		})
		return a, costing.Wrap(a.hello())
	}
	costs := func(n int) *http.Request {
		r := of(1)
		r.URL.RawQuery = "cost=" + strconv.Itoa(n)
		return r
	}
	fields := func(left, full int, state string) []string {
		return rateFields(10, left, full, `"messages";`+state, `"messages";q=10;w=10`)
	}
	bubble(t, "all or nothing", func(t *testing.T) {
		_, h := newCosting(t)
		require.Equal(t, hello(1).with(fields(3, 7, "r=3;t=1")...), serve(h, costs(7)))
		require.Equal(t, limited("4").with(fields(3, 7, "r=3;t=4")...), serve(h, costs(7)))
		require.Equal(t, hello(1).with(fields(0, 10, "r=0;t=1")...), serve(h, costs(3)))
		time.Sleep(7 * time.Second)
		require.Equal(t, 200, serve(h, costs(7)).Status)
	})
	bubble(t, "a cost of 0 looks", func(t *testing.T) {
		_, h := newCosting(t)
		require.Equal(t, hello(1).with(fields(10, 0, "r=10")...), serve(h, costs(0)))
	})
	bubble(t, "a cost above the burst can never be paid", func(t *testing.T) {
		_, h := newCosting(t)
		require.Equal(t, refused(429, "Rate limit exceeded.").with(fields(10, 0, "r=10")...), serve(h, costs(11)))
	})
	bubble(t, "a cost below 0 is a fault", func(t *testing.T) {
		a, h := newCosting(t)
		require.Equal(t, internal, serve(h, costs(-1)))
		require.EqualError(t, a.events[0].Err, "senderauth: the cost -1 is below 0")
	})
	bubble(t, "the order of Charging and Costing does not matter", func(t *testing.T) {
		a, _ := newCosting(t)
		two := func(*http.Request) int { return 2 }
		for _, g := range []*senderauth.Guard{
			a.guard.Charging("messages").Costing(two), a.guard.Costing(two).Charging("messages"),
			a.guard.Costing(two).ChargingBy(func(*http.Request) []string { return []string{"messages"} }),
		} {
			before := serve(a.guard.Charging("messages").Costing(func(*http.Request) int { return 0 }).Wrap(a.hello()), of(1)).Header["X-Ratelimit-Remaining"]
			after := serve(g.Wrap(a.hello()), of(1)).Header["X-Ratelimit-Remaining"]
			b, err := strconv.Atoi(before)
			require.NoError(t, err)
			require.Equal(t, strconv.Itoa(b-2), after)
		}
	})
}

// A handler learns what a request costs when it has read it.
func TestCharge(t *testing.T) {
	newCharging := func(t *testing.T, cost int, cfg senderauth.Config) (*app, http.Handler, *senderauth.Balance) {
		cfg.Limits = map[string]senderauth.Limit{"default": three, "messages": weighty}
		a, balance := newApp(t, nil, cfg), new(senderauth.Balance)
		hello := a.hello()
		return a, a.guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, problem := a.guard.Charge(r.Context(), "messages", cost)
			*balance = b
			if problem != nil {
				problem.ServeHTTP(w, r)
				return
			}
			hello.ServeHTTP(w, r)
		})), balance
	}
	bubble(t, "admitted, then refused", func(t *testing.T) {
		a, h, balance := newCharging(t, 7, senderauth.Config{})
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(h, of(1)))
		require.Equal(t, senderauth.Balance{Remaining: 3, ResetAfter: 7 * time.Second}, *balance)
		require.Equal(t, limited("4").with(threeLeft(1)...), serve(h, of(1)), "the rate fields are those of what the guard charged")
		require.Equal(t, senderauth.Balance{Refused: true, Remaining: 3, RetryAfter: 4 * time.Second, ResetAfter: 7 * time.Second}, *balance)
		require.Equal(t, []senderauth.Outcome{"admitted", "admitted", "admitted", "limited"}, a.outcomes())
		require.Equal(t, "messages", a.events[3].Limit)
		require.Equal(t, senderID(1), a.events[3].Sender.ID)
		require.Equal(t, []bool{false, true, false, true}, []bool{a.events[0].Inner, a.events[1].Inner, a.events[2].Inner, a.events[3].Inner})
	})
	bubble(t, "never more than the limit", func(t *testing.T) {
		_, h, _ := newCharging(t, 11, senderauth.Config{})
		require.Equal(t, refused(429, "Rate limit exceeded.").with(threeLeft(2)...), serve(h, of(1)))
	})
	bubble(t, "a cost below 0 is a fault", func(t *testing.T) {
		a, h, _ := newCharging(t, -1, senderauth.Config{})
		require.Equal(t, internal.with(threeLeft(2)...), serve(h, of(1)))
		require.EqualError(t, a.events[1].Err, "senderauth: the cost -1 is below 0")
		require.Equal(t, senderID(1), a.events[1].Sender.ID)
	})
	bubble(t, "at the sender's own limits", func(t *testing.T) {
		a := newApp(t, func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			s, err := knowsAll(ctx, c)
			s.Limits = map[string]senderauth.Limit{"default": senderauth.Blocked()}
			return s, err
		}, senderauth.Config{})
		serve(a.guard.Charging().Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, problem := a.guard.Charge(r.Context(), "default", 1)
			require.Equal(t, senderauth.Balance{Refused: true, RetryAfter: -1}, b)
			require.Equal(t, 429, problem.Status)
			require.Zero(t, problem.RetryAfter)
		})), of(1))
	})
	bubble(t, "by many at once, when the request is over", func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{Limits: map[string]senderauth.Limit{"default": three, "messages": weighty}})
		over := make(chan struct{})
		var workers sync.WaitGroup
		var admitted, refused atomic.Int64
		ctx, cancel := context.WithCancel(context.Background())
		serve(a.guard.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			for range 3 * weighty.Requests {
				workers.Go(func() {
					<-over
					if _, problem := a.guard.Charge(r.Context(), "messages", 1); problem == nil {
						admitted.Add(1)
					} else if problem.Status == 429 {
						refused.Add(1)
					}
				})
			}
		})), of(1).WithContext(ctx))
		cancel()
		close(over)
		workers.Wait()
		require.EqualValues(t, weighty.Requests, admitted.Load())
		require.EqualValues(t, 2*weighty.Requests, refused.Load())
	})
	t.Run("when the context has ended and the limiter fails", func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{Limiter: takes(func([]senderauth.Charge) ([]senderauth.Balance, error) { return nil, errOutage })})
		ctx, cancel := context.WithCancel(context.Background())
		serve(a.guard.Charging().Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			balance, problem := a.guard.Charge(r.Context(), "default", 1)
			require.Nil(t, problem, "the limit is open")
			require.Zero(t, balance)
			cancel()
			_, problem = a.guard.Charge(r.Context(), "default", 1)
			require.Equal(t, 503, problem.Status)
			require.ErrorIs(t, problem, errOutage)
		})), of(1).WithContext(ctx))
		require.Equal(t, []senderauth.Outcome{"admitted", "admitted", "canceled"}, a.outcomes())
	})
	t.Run("outside of a guard, or with an unknown name", func(t *testing.T) {
		a, other := newApp(t, nil, senderauth.Config{}), newApp(t, nil, senderauth.Config{})
		_, problem := a.guard.Charge(senderauth.WithSender(context.Background(), senderauth.Sender{ID: senderID(1)}), "default", 1)
		require.Equal(t, 500, problem.Status)
		require.EqualError(t, problem.Err, "senderauth: Guard.Charge: the context has passed no guard of the same New")
		serve(other.guard.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, problem := a.guard.Charge(r.Context(), "default", 1)
			require.Equal(t, 500, problem.Status)
			_, problem = other.guard.Charge(r.Context(), "none", 1)
			require.EqualError(t, problem.Err, `senderauth: limit "none" is not in Config.Limits`)
		})), of(1))
	})
}

func TestDryRun(t *testing.T) {
	newDry := func(t *testing.T, limiter senderauth.Limiter) *app {
		return newApp(t, nil, senderauth.Config{
			FailClosed: true,
			Limits:     map[string]senderauth.Limit{"default": three, "strict": {Requests: 1, Per: time.Minute}, "other": three},
			DryRun:     []string{"strict"}, Limiter: limiter,
		})
	}
	bubble(t, "observed, not enforced, and not told", func(t *testing.T) {
		a := newDry(t, nil)
		h := a.guard.Charging("default", "strict").Wrap(a.hello())
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(h, of(1)))
		require.Equal(t, hello(1).with(threeLeft(1)...), serve(h, of(1)))
		require.Empty(t, a.events[0].DryRun)
		require.Equal(t, "strict", a.events[1].DryRun)
		require.Equal(t, senderauth.Admitted, a.events[1].Outcome)
		require.Equal(t, "default", a.events[1].Limit)
		require.NoError(t, a.events[1].Err)
	})
	bubble(t, "at the sender's own limits", func(t *testing.T) {
		a := newApp(t, func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			s, err := knowsAll(ctx, c)
			s.Limits = map[string]senderauth.Limit{"default": senderauth.PerMinute(2)}
			return s, err
		}, senderauth.Config{Limits: map[string]senderauth.Limit{"default": three, "strict": senderauth.PerMinute(1)}, DryRun: []string{"default", "strict"}})
		for _, want := range []string{"", "strict", "default"} {
			serve(a.guard.Charging("default", "strict").Wrap(a.hello()), of(1))
			require.Equal(t, want, a.events[len(a.events)-1].DryRun)
		}
	})
	bubble(t, "a request that is refused does not count", func(t *testing.T) {
		a := newDry(t, nil)
		serve(a, of(1))
		serve(a, of(1))
		serve(a, of(1))
		require.Equal(t, 429, serve(a.guard.Charging("default", "strict").Wrap(a.hello()), of(1)).Status)
		require.Equal(t, hello(1), serve(a.guard.Charging("strict").Wrap(a.hello()), of(1)))
		require.Empty(t, a.events[len(a.events)-1].DryRun)
	})
	bubble(t, "once for a request, and by Charge", func(t *testing.T) {
		a := newDry(t, nil)
		h := a.guard.Charging("strict").Wrap(a.guard.Charging("strict", "default").Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, problem := a.guard.Charge(r.Context(), "strict", 1)
			require.Nil(t, problem)
		})))
		serve(h, of(1))
		require.Equal(t, []string{"", "", "strict"}, []string{a.events[0].DryRun, a.events[1].DryRun, a.events[2].DryRun})
	})
	bubble(t, "Charge returns the state of the bucket", func(t *testing.T) {
		a := newDry(t, nil)
		serve(a.guard.Charging().Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			for _, want := range []senderauth.Balance{
				{ResetAfter: time.Minute},
				{Refused: true, RetryAfter: time.Minute, ResetAfter: time.Minute},
			} {
				got, problem := a.guard.Charge(r.Context(), "strict", 1)
				require.Nil(t, problem)
				require.Equal(t, want, got)
			}
		})), of(1))
	})
	t.Run("inside another guard it asks for nothing else", func(t *testing.T) {
		outage := false
		var asked []string
		a := newDry(t, takes(func(charges []senderauth.Charge) ([]senderauth.Balance, error) {
			if outage {
				return nil, errOutage
			}
			for _, c := range charges {
				asked = append(asked, fmt.Sprint(c.Name, " ", c.Cost))
			}
			return make([]senderauth.Balance, len(charges)), nil
		}))
		between := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			outage = true
			a.guard.Charging("strict").Wrap(a.hello()).ServeHTTP(w, r)
		})
		got := serve(a.guard.Wrap(between), of(1))
		require.Equal(t, 200, got.Status)
		require.Equal(t, `"default";q=3;w=3`, got.Header["Ratelimit-Policy"], "those of the guard outside")
		require.ErrorIs(t, a.events[1].Err, errOutage)
		require.Equal(t, []string{"default", ""}, a.limits())

		outage, asked = false, nil
		third := a.guard.Charging("strict").Wrap(a.guard.Charging("strict", "other").Wrap(a.hello()))
		require.Equal(t, 200, serve(a.guard.Wrap(third), of(1)).Status)
		require.Equal(t, []string{"default 1", "strict 1", "other 1", "default 0"}, asked)
	})
	t.Run("an outage is observed, and refuses nothing", func(t *testing.T) {
		a := newDry(t, takes(func(charges []senderauth.Charge) ([]senderauth.Balance, error) {
			if charges[0].Name == "strict" {
				return nil, errOutage
			}
			return make([]senderauth.Balance, len(charges)), nil
		}))
		require.Equal(t, 200, serve(a.guard.Charging("default", "strict").Wrap(a.hello()), of(1)).Status)
		require.ErrorIs(t, a.events[0].Err, errOutage)
		require.True(t, a.events[0].LimiterFailed)

		calls := 0
		down := takes(func([]senderauth.Charge) ([]senderauth.Balance, error) { calls++; return nil, errOutage })
		open := newApp(t, nil, senderauth.Config{Limiter: down, Limits: map[string]senderauth.Limit{"default": three, "strict": three}, DryRun: []string{"strict"}})
		require.Equal(t, 200, serve(open.guard.Charging("default", "strict").Wrap(open.hello()), of(1)).Status)
		require.Equal(t, 1, calls, "a limiter that has just failed is not asked again")
	})
}

// A client may choose the deadline of its request, through a layer outside that
// reads one from a header.
func TestDeadlineOfTheRequestOpensNoLimit(t *testing.T) {
	a := newApp(t, nil, senderauth.Config{Limiter: takes(func([]senderauth.Charge) ([]senderauth.Balance, error) {
		return nil, context.DeadlineExceeded
	})})
	ctx, cancel := context.WithDeadline(context.Background(), time.Unix(1, 0))
	defer cancel()
	require.Equal(t, unavailable, serve(a, of(1).WithContext(ctx)))
	require.Equal(t, []senderauth.Outcome{"unavailable"}, a.outcomes())
	require.True(t, a.events[0].LimiterFailed)
	require.Equal(t, 200, serve(a, of(1)).Status, "the limiter's own failure fails open")

	// A connection with the same deadline fails before the context says that it ended.
	for deadline, status := range map[time.Duration]int{0: 503, time.Hour: 200} {
		r := of(1).WithContext(unnoticed{context.Background(), time.Now().Add(deadline)})
		require.Equal(t, status, serve(a, r).Status)
	}
}

// unnoticed is a context with a deadline that no timer looks at.
type unnoticed struct {
	context.Context
	deadline time.Time
}

func (u unnoticed) Deadline() (time.Time, bool) { return u.deadline, true }
