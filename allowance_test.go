package senderauth_test

import (
	"context"
	mathrand "math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// overAllowance is the refusal of a request above an allowance that starts anew in so
// many seconds.
func overAllowance(seconds int) response {
	n := strconv.Itoa(seconds)
	return refused(429, "Allowance exceeded. Please retry after "+n+" seconds.").with("Retry-After", n)
}

func untilNextMonth() int {
	now := time.Now().UTC()
	next := time.Date(now.Year(), now.Month()+1, 1, 0, 0, 0, 0, time.UTC)
	return int((next.Sub(now) + time.Second - 1) / time.Second)
}

// Each month has its own length, and its own window in the fields.
func TestAllowanceOfAMonth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{Limits: limits(senderauth.PerMonth(3, nil))})
		fields := func(left int, window string) []string {
			end := untilNextMonth()
			return rateFields(3, left, end, `"default";r=`+strconv.Itoa(left)+`;t=`+strconv.Itoa(end), `"default";q=3;w=`+window)
		}
		for _, window := range []string{"2678400", "2505600", "2678400", "2592000"} { // from January 2000
			time.Sleep(36*time.Hour + time.Nanosecond)
			for left := 2; left >= 0; left-- {
				require.Equal(t, hello(1).with(fields(left, window)...), serve(a, of(1)))
				time.Sleep(12 * time.Hour)
			}
			end := untilNextMonth()
			require.Equal(t, overAllowance(end).with(fields(0, window)...), serve(a, of(1)))
			require.Equal(t, hello(2).with(fields(2, window)...), serve(a, of(2)), "another sender has its own")
			time.Sleep(time.Until(time.Now().Add(time.Duration(end)*time.Second).Truncate(time.Second)) - 1)
			require.Equal(t, overAllowance(1).with(fields(0, window)...), serve(a, of(1)), "in the last nanosecond")
			time.Sleep(time.Nanosecond)
		}
		require.Contains(t, a.outcomes(), senderauth.Limited)
	})
}

// It is half past nine in Tokyo when the bubble starts, and the day is 22 hours from its
// end when a cost is refused that is above the rest; one above all of it never passes.
func TestAllowanceOfADayInAZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		costs := 4
		a := newApp(t, nil, senderauth.Config{Limits: limits(senderauth.PerDay(10, zone(t, "Asia/Tokyo")))})
		h := a.guard.Costing(func(*http.Request) int { return costs }).Wrap(a.hello())
		fields := func(left, end int) []string {
			return rateFields(10, left, end, `"default";r=`+strconv.Itoa(left)+`;t=`+strconv.Itoa(end), `"default";q=10;w=86400`)
		}
		const hour = 3600
		require.Equal(t, hello(1).with(fields(6, 15*hour)...), serve(h, of(1)))
		costs = 7
		require.Equal(t, overAllowance(15*hour).with(fields(6, 15*hour)...), serve(h, of(1)), "nothing is taken")
		costs = 11
		require.Equal(t, refused(429, "Allowance exceeded.").with(fields(6, 15*hour)...), serve(h, of(1)))
		costs = 0
		require.Equal(t, hello(1).with(fields(6, 15*hour)...), serve(h, of(1)))
		costs = 6
		require.Equal(t, hello(1).with(fields(0, 15*hour)...), serve(h, of(1)))
		time.Sleep(15 * time.Hour)
		costs = 10
		require.Equal(t, hello(1).with(fields(0, 24*hour)...), serve(h, of(1)))
	})
}

// The bucket's text and the allowance's are those of the limit that one must wait for
// longest.
func TestAllowanceBesideABucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{Limits: map[string]senderauth.Limit{
			"default": three, "month": senderauth.PerMonth(5, nil),
		}})
		h := a.guard.Charging("default", "month").Wrap(a.hello())
		const month = 31 * 24 * 3600
		fields := func(limit, left, full, bucket, allowance int) []string {
			wait := `;t=1`
			if bucket == 3 {
				wait = ""
			}
			return rateFields(limit, left, full, `"default";r=`+strconv.Itoa(bucket)+wait+`, "month";r=`+strconv.Itoa(allowance)+`;t=`+strconv.Itoa(untilNextMonth()),
				`"default";q=3;w=3, "month";q=5;w=`+strconv.Itoa(month))
		}
		for left := 2; left >= 0; left-- {
			require.Equal(t, hello(1).with(fields(3, left, 3-left, left, left+2)...), serve(h, of(1)))
		}
		require.Equal(t, limited("1").with(fields(3, 0, 3, 0, 2)...), serve(h, of(1)), "a refusal of the bucket uses nothing of the allowance")
		time.Sleep(10 * time.Second)
		serve(h, of(1))
		serve(h, of(1))
		over := overAllowance(month - 10).with(fields(5, 0, month-10, 1, 0)...)
		require.Equal(t, over, serve(h, of(1)))
		require.Equal(t, over, serve(h, of(1)), "a refusal of the allowance takes nothing from the bucket")
		require.Equal(t, "month", a.events[len(a.events)-1].Limit)
		serve(a, of(1))
		require.Equal(t, overAllowance(month-10).with(fields(3, 0, 3, 0, 0)...), serve(h, of(1)), "both refuse")
	})
}

// A plan may turn a bucket into an allowance and back. Each goes on where it was.
func TestLimitThatChangesItsKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(0)
		bucket, day, month := hourly(2), senderauth.PerDay(3, nil), senderauth.PerMonth(4, nil)
		take(t, l, 1, bucket, 2)
		require.Equal(t, 0, take(t, l, 1, day, 3).Remaining)
		require.Equal(t, 1, take(t, l, 1, month, 3).Remaining)
		for range 3 {
			require.True(t, take(t, l, 1, bucket, 1).Refused)
			require.True(t, take(t, l, 1, day, 1).Refused)
			require.Equal(t, 1, take(t, l, 1, month, 0).Remaining)
			require.Equal(t, senderauth.Balance{Remaining: 1<<63 - 1}, take(t, l, 1, senderauth.Unlimited(), 9))
			require.True(t, take(t, l, 1, senderauth.Blocked(), 1).Refused)
		}
		// A larger or smaller plan counts what was used.
		require.Equal(t, 7, take(t, l, 1, senderauth.PerMonth(10, nil), 0).Remaining)
		require.Equal(t, 0, take(t, l, 1, senderauth.PerMonth(2, nil), 0).Remaining)
		// East of Greenwich the next month has begun, and in the west this one goes on.
		time.Sleep(31*24*time.Hour - time.Minute)
		tokyo, newYork := senderauth.PerMonth(4, zone(t, "Asia/Tokyo")), senderauth.PerMonth(4, zone(t, "America/New_York"))
		require.Equal(t, 0, take(t, l, 1, tokyo, 4).Remaining)
		for _, back := range []senderauth.Limit{month, newYork, tokyo} {
			require.True(t, take(t, l, 1, back, 1).Refused, "%v", back)
		}
		time.Sleep(29 * 24 * time.Hour) // of February
		require.True(t, take(t, l, 1, newYork, 1).Refused)
		require.Equal(t, 3, take(t, l, 1, tokyo, 1).Remaining)
	})
}

// Dry runs, charges of a handler and the sender's own plan know allowances, too.
func TestAllowanceWhereverALimitGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plans := func(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			return senderauth.Sender{ID: c.SenderID, Limits: map[string]senderauth.Limit{"default": senderauth.PerMonth(1, nil)}}, nil
		}
		a := newApp(t, plans, senderauth.Config{
			Limits:     map[string]senderauth.Limit{"default": three, "day": senderauth.PerDay(2, nil), "dry": senderauth.PerDay(1, nil)},
			DryRun:     []string{"dry"},
			RateFields: senderauth.RateFieldsDraft,
		})
		const day, month = 24 * 3600, 31 * 24 * 3600
		draft := []string{"Ratelimit", `"default";r=0;t=2678400`, "Ratelimit-Policy", `"default";q=1;w=2678400`}
		h := a.guard.Charging("default", "dry").Wrap(a.hello())
		require.Equal(t, hello(1).with(draft...), serve(h, of(1)))
		require.Equal(t, overAllowance(month).with(draft...), serve(h, of(1)), "the sender's plan has an allowance in place of a bucket")

		dry := a.guard.Charging("dry").Wrap(a.hello())
		require.Equal(t, hello(1), serve(dry, of(1)))
		require.Equal(t, "dry", a.events[len(a.events)-1].DryRun)

		late := a.guard.Charging().Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, p := a.guard.Charge(r.Context(), "day", 2)
			require.Nil(t, p)
			require.Equal(t, senderauth.Balance{ResetAfter: day * time.Second}, b)
			_, p = a.guard.Charge(r.Context(), "day", 1)
			p.ServeHTTP(w, r)
		}))
		require.Equal(t, overAllowance(day), serve(late, of(1)))
	})
}

func TestResetGrantsAllowancesAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(0)
		for n := range 2 {
			take(t, l, n, senderauth.PerMonth(3, nil), 3)
		}
		require.Equal(t, 2, l.Len())
		l.Reset(senderID(0))
		require.Equal(t, 3, take(t, l, 0, senderauth.PerMonth(3, nil), 0).Remaining)
		require.Equal(t, 0, take(t, l, 1, senderauth.PerMonth(3, nil), 0).Remaining)
		require.Equal(t, 1, l.Len())
	})
}

// Everybody at once on one sender: exactly the allowance is granted, and of the bucket
// beside it nothing that the allowance refused.
func TestConcurrentCallersGetExactlyTheAllowance(t *testing.T) {
	const callers, each, allowance, burst = 16, 200, 500, 900
	// The date changes in about twelve hours, wherever the tests run.
	noon := time.FixedZone("noon", int((12*time.Hour-time.Duration(time.Now().Unix()%86400)*time.Second)/time.Second))
	charges := []senderauth.Charge{
		{Name: "default", Limit: senderauth.Limit{Requests: 1, Per: 1000 * time.Hour, Burst: burst}, Cost: 1},
		{Name: "messages", Limit: senderauth.PerDay(allowance, noon), Cost: 1},
	}
	l := newLimiter(1)
	var admitted atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				b, err := l.Take(context.Background(), senderID(1), charges)
				if err != nil {
					t.Error(err)
				} else if !b[0].Refused && !b[1].Refused {
					admitted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, allowance, admitted.Load())
	b, err := l.Take(context.Background(), senderID(1), []senderauth.Charge{{Name: "default", Limit: charges[0].Limit}})
	require.NoError(t, err)
	require.Equal(t, burst-allowance, b[0].Remaining)
}

// Random charges of several buckets and allowances: either all of a request is in the
// books of all its limits, or nothing is.
func TestAllowancesAndBucketsAreChargedTogether(t *testing.T) {
	seed := mathrand.Uint64()
	t.Logf("seed %d", seed)
	random := mathrand.New(mathrand.NewPCG(seed, 0))
	limits := map[string]senderauth.Limit{
		"bucket": hourly(40), "day": senderauth.PerDay(30, nil), "month": senderauth.PerMonth(200, zone(t, "Asia/Kolkata")), "fast": senderauth.PerSecond(12),
	}
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			l := newLimiter(1)
			used, period := map[string]int{}, map[string]int{}
			tokens, at := map[string]float64{"bucket": 40, "fast": 12}, time.Now()
			for range 300 {
				time.Sleep(time.Duration(random.Int64N(int64(5 * time.Hour))).Truncate(time.Hour))
				hours := time.Since(at).Hours()
				at = time.Now()
				tokens["bucket"], tokens["fast"] = min(tokens["bucket"]+hours, 40), min(tokens["fast"]+3600*12*hours, 12)
				var charges []senderauth.Charge
				refused := false
				for name, limit := range limits {
					if random.IntN(2) == 0 {
						continue
					}
					cost := random.IntN(15)
					charges = append(charges, senderauth.Charge{Name: name, Limit: limit, Cost: cost})
					if c := limit.Calendar; c.Unit() != "" {
						if p := c.Period(at); p != period[name] {
							period[name], used[name] = p, 0
						}
						tokens[name] = float64(limit.Requests - used[name])
					}
					refused = refused || cost > 0 && float64(cost) > tokens[name]
				}
				got, err := l.Take(context.Background(), senderID(1), charges)
				require.NoError(t, err)
				any := false
				for i, c := range charges {
					if !refused {
						tokens[c.Name] -= float64(c.Cost)
						used[c.Name] += c.Cost
					}
					any = any || got[i].Refused
					require.Equal(t, int(tokens[c.Name]), got[i].Remaining, "%v of %v", c, charges)
				}
				require.Equal(t, refused, any, "%v", charges)
			}
		})
	}
}
