package senderauth_test

import (
	"math"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

func TestRateFieldsChoice(t *testing.T) {
	draft := []string{"Ratelimit", `"default";r=2;t=1`, "Ratelimit-Policy", `"default";q=3;w=3`}
	over := []string{"Ratelimit", `"default";r=0;t=1`, "Ratelimit-Policy", `"default";q=3;w=3`}
	synctest.Test(t, func(t *testing.T) {
		for choice, want := range map[senderauth.RateFields][2][]string{
			senderauth.RateFieldsBoth:  {threeLeft(2), threeLeft(0)},
			senderauth.RateFieldsX:     {rateFieldsX(3, 2, 1), rateFieldsX(3, 0, 3)},
			senderauth.RateFieldsDraft: {draft, over},
			senderauth.RateFieldsNone:  {},
		} {
			a := newApp(t, nil, senderauth.Config{RateFields: choice})
			require.Equal(t, hello(1).with(want[0]...), serve(a, of(1)))
			serve(a, of(1))
			serve(a, of(1))
			require.Equal(t, limited("1").with(want[1]...), serve(a, of(1)))
			require.Equal(t, noKey, serve(a, request()), "never on 401")
		}
	})
}

// The values are right at any rate: q is the burst, w the time that fills the
// bucket, r the whole tokens left, t the time to the next token.
func TestRateFieldsValues(t *testing.T) {
	const most = 1_000_000_000
	never := int64(math.MaxInt64)
	for _, c := range []struct {
		name  string
		limit senderauth.Limit
		cost  int
		after time.Duration
		want  []string // the fields after one charge by the guard
	}{
		{"one a second", senderauth.PerSecond(1), 0, 0, []string{`r=0;t=1`, `q=1;w=1`, "1", "0", "1"}},
		{"200 a minute, 50 saved", senderauth.Limit{Requests: 200, Per: time.Minute, Burst: 50}, 0, 0, []string{`r=49;t=1`, `q=50;w=15`, "50", "49", "1"}},
		{"the same, later", senderauth.Limit{Requests: 200, Per: time.Minute, Burst: 50}, 9, 100 * time.Millisecond, []string{`r=40;t=1`, `q=50;w=15`, "50", "40", "3"}},
		{"ten a minute, five saved", senderauth.Limit{Requests: 10, Per: time.Minute, Burst: 5}, 2, 5 * time.Second, []string{`r=2;t=1`, `q=5;w=30`, "5", "2", "13"}},
		{"full again", senderauth.PerSecond(1000), 0, time.Second, []string{`r=999;t=1`, `q=1000;w=1`, "1000", "999", "1"}},
		{"a third of a second", senderauth.Limit{Requests: 3, Per: time.Second, Burst: 7}, 0, 0, []string{`r=6;t=1`, `q=7;w=3`, "7", "6", "1"}},
		{"a nanosecond less than one a second", senderauth.Limit{Requests: 3, Per: 3*time.Second - 1}, 1, 0, []string{`r=1;t=1`, `q=3;w=3`, "3", "1", "2"}},
		{"five a day", senderauth.Limit{Requests: 5, Per: 24 * time.Hour}, 0, time.Hour, []string{`r=4;t=17280`, `q=5;w=86400`, "5", "4", "17280"}},
		{"the most that can be saved", senderauth.Limit{Requests: most, Per: time.Hour}, 0, 0, []string{`r=999999999;t=1`, `q=1000000000;w=3600`, "1000000000", "999999999", "1"}},
		{"longer than a Duration holds", senderauth.Limit{Requests: 1, Per: time.Hour, Burst: most}, 10_000_000, 0,
			[]string{`r=989999999;t=3600`, `q=1000000000;w=3600000000000`, "1000000000", "989999999", "9223372037"}},
		{"just longer than a Duration holds", senderauth.Limit{Requests: 1, Per: time.Hour, Burst: most}, 3_000_000, 0,
			[]string{`r=996999999;t=3600`, `q=1000000000;w=3600000000000`, "1000000000", "996999999", "9223372037"}},
		{"once in 292 years", senderauth.Limit{Requests: 1, Per: time.Duration(never)}, 0, 0, []string{`r=0;t=9223372037`, `q=1;w=9223372037`, "1", "0", "9223372037"}},
	} {
		bubble(t, c.name, func(t *testing.T) {
			l := newLimiter(0)
			if c.cost > 0 {
				take(t, l, 1, c.limit, c.cost)
			}
			time.Sleep(c.after)
			a := newApp(t, nil, senderauth.Config{Limits: limits(c.limit), Limiter: l})
			got := serve(a, of(1)).Header
			require.Equal(t, []string{`"default";` + c.want[0], `"default";` + c.want[1], c.want[2], c.want[3]},
				[]string{got["Ratelimit"], got["Ratelimit-Policy"], got["X-Ratelimit-Limit"], got["X-Ratelimit-Remaining"]})
			full, err := strconv.Atoi(c.want[4])
			require.NoError(t, err)
			require.Equal(t, strconv.FormatInt(time.Now().Unix()+int64(full), 10), got["X-Ratelimit-Reset"])
		})
	}
}

// The times of a custom limiter may be rounded and may disagree. A sender that must
// wait for a token still gets a t, and only a RetryAfter makes it longer than one
// token takes.
func TestRateFieldsOfRoundedTimes(t *testing.T) {
	slow := senderauth.Limit{Requests: 1, Per: math.MaxInt64, Burst: 1_000_000_000}
	for _, c := range []struct {
		limit   senderauth.Limit
		balance senderauth.Balance
		want    string
	}{
		{three, senderauth.Balance{Remaining: 1, ResetAfter: time.Second}, "r=1;t=1"}, // rounding says that the next token is there already
		{three, senderauth.Balance{Remaining: 1}, "r=1"},
		{three, senderauth.Balance{Remaining: 1, ResetAfter: 2 * time.Second}, "r=1;t=1"},
		{three, senderauth.Balance{Remaining: 1, ResetAfter: time.Hour}, "r=1;t=1"},
		{three, senderauth.Balance{Remaining: 3, ResetAfter: time.Second}, "r=3"},
		{three, senderauth.Balance{Refused: true, RetryAfter: 7 * time.Second, ResetAfter: 9 * time.Second}, "r=0;t=7"},
		{slow, senderauth.Balance{ResetAfter: time.Hour}, "r=0;t=9223372037"},
		{senderauth.Limit{Requests: 1, Per: math.MaxInt64, Burst: 5}, senderauth.Balance{Remaining: 1, ResetAfter: time.Hour}, "r=1;t=9223372037"},
	} {
		a := newApp(t, nil, senderauth.Config{Limits: limits(c.limit), RateFields: senderauth.RateFieldsDraft, Limiter: takes(func([]senderauth.Charge) ([]senderauth.Balance, error) {
			return []senderauth.Balance{c.balance}, nil
		})})
		require.Equal(t, `"default";`+c.want, serve(a, of(1)).Header["Ratelimit"])
	}
}

// Among limits with equally few tokens left, the fields describe the one that
// refused.
func TestRateFieldsOfATie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{
			Limits:     map[string]senderauth.Limit{"default": three, "a": {Requests: 2, Per: 20 * time.Second}},
			RateFields: senderauth.RateFieldsX,
			Limiter: takes(func([]senderauth.Charge) ([]senderauth.Balance, error) {
				return []senderauth.Balance{{ResetAfter: 3 * time.Second}, {Refused: true, RetryAfter: time.Second, ResetAfter: 9 * time.Second}}, nil
			}),
		})
		for _, names := range [][]string{{"default", "a"}, {"a", "default"}} {
			l := map[string]int{"a": 2, "default": 3}[names[1]]
			require.Equal(t, limited("1").with(rateFieldsX(l, 0, 9)...), serve(a.guard.Charging(names...).Wrap(a.hello()), of(1)))
		}
	})
}

func TestRateFieldsNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := `a "b"\ ~;r=9`
		a := newApp(t, nil, senderauth.Config{Limits: map[string]senderauth.Limit{"default": three, name: three}})
		quoted := `"a \"b\"\\ ~;r=9"`
		h := a.guard.Charging(name).Wrap(a.hello())
		require.Equal(t, hello(1).with(rateFields(3, 2, 1, quoted+";r=2;t=1", quoted+";q=3;w=3")...), serve(h, of(1)))
	})
}

// Reset is the first whole second at which the bucket is full.
func TestRateFieldsResetIsRoundedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{})
		time.Sleep(time.Nanosecond) // so that the bucket is full a nanosecond past a whole second
		require.Equal(t, hello(1).with(rateFields(3, 2, 2, `"default";r=2;t=1`, `"default";q=3;w=3`)...), serve(a, of(1)))
	})
}

// The inner of two guards replaces the fields of the outer one.
func TestRateFieldsAreOneLineEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{})
		for name, value := range serve(a.guard.Wrap(a), of(1)).Header {
			require.False(t, strings.Contains(value, "\n"), name)
		}
	})
}
