package conformance

import (
	"context"
	"fmt"
	"math"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"
	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// maxInteger is the largest Integer of RFC 9651 section 3.3.1.
const maxInteger = 999_999_999_999_999

// maxTokens is the largest Requests and Burst of a Limit.
const maxTokens = 1_000_000_000

// A recorder is a Limiter that records its last call.
type recorder struct {
	*senderauth.MemoryLimiter
	charges  []senderauth.Charge
	balances []senderauth.Balance
}

func (l *recorder) Take(ctx context.Context, senderID string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
	balances, err := l.MemoryLimiter.Take(ctx, senderID, charges)
	l.charges, l.balances = charges, balances
	return balances, err
}

// FuzzRateFields charges three limits, one of them overridden by the sender, and
// parses the fields as Lists of RFC 9651.
func FuzzRateFields(f *testing.F) {
	const day = int64(24 * time.Hour)
	f.Add("messages", "sensitive", 200, int64(time.Minute), 50, 10, int64(time.Minute), uint8(0), uint8(1))
	f.Add(`a "quoted" name`, `back\slash\`, 5, day, 0, 1, day, uint8(1), uint8(6))
	f.Add(` ;r=9, "x"`, `"`, 1, int64(time.Microsecond), 1, maxTokens, int64(time.Microsecond), uint8(2), uint8(3))
	f.Add("~", " ", maxTokens, int64(time.Second), maxTokens, 3, int64(7*time.Second), uint8(0), uint8(5))
	f.Add("blocked", "\x7f", 1, int64(time.Second), 1, 1, int64(time.Microsecond), uint8(3), uint8(1))
	f.Add("same", "same", 1, int64(time.Second), 1, 1, int64(time.Microsecond), uint8(1), uint8(1))
	f.Add("é", "", -1, int64(-1), -1, 0, int64(0), uint8(4), uint8(0))
	f.Add("slow", "fast", 1, int64(1<<62), 9, 1, int64(time.Microsecond), uint8(5), uint8(2))

	f.Fuzz(func(t *testing.T, a, b string, requests int, per int64, burst, own int, ownPer int64, override, calls uint8) {
		limits := map[string]senderauth.Limit{
			"default": senderauth.PerMinute(60),
			a:         {Requests: requests, Per: time.Duration(per), Burst: burst},
			b:         senderauth.PerSecond(1000),
		}
		names := []string{"default", a, b}
		if len(limits) < len(names) {
			return // two names are the same
		}
		limiter := &recorder{MemoryLimiter: senderauth.NewMemoryLimiter(senderauth.MemoryLimiterConfig{})}
		sender := senderauth.Sender{ID: "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11"}
		switch override % 4 {
		case 1:
			sender.Limits = map[string]senderauth.Limit{b: {Requests: own, Per: time.Duration(ownPer)}}
		case 2:
			sender.Limits = map[string]senderauth.Limit{a: senderauth.Unlimited()}
		case 3:
			sender.Limits = map[string]senderauth.Limit{b: senderauth.Blocked()}
		}
		validator := senderauth.ValidatorFunc(func(context.Context, senderauth.Credentials) (senderauth.Sender, error) {
			return sender, nil
		})

		guard, err := senderauth.New(validator, senderauth.Config{Limits: limits, Limiter: limiter})
		if !printable(a) || !printable(b) || requests < 1 || per < int64(time.Microsecond) || burst < 0 || requests > maxTokens || burst > maxTokens {
			require.Error(t, err)
			return
		}
		require.NoError(t, err)
		h := guard.Charging(names...).Wrap(http.NotFoundHandler())
		for range calls%8 + 1 {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("X-Sender-Id", sender.ID)
			r.Header.Set("X-Api-Key", "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01")
			w := httptest.NewRecorder()
			limiter.charges = nil
			before := time.Now()
			h.ServeHTTP(w, r)
			if limiter.charges == nil {
				// An invalid override fails closed.
				require.Equal(t, uint8(1), override%4)
				require.Equal(t, http.StatusInternalServerError, w.Code)
				require.Empty(t, w.Header().Values("RateLimit"))
				return
			}
			requireFields(t, w.Header(), names, limiter, before)
		}
	})
}

// printable reports whether s may be a name in Config.Limits.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return s != ""
}

// requireFields compares the fields with the charges and their balances.
func requireFields(t *testing.T, h http.Header, names []string, l *recorder, before time.Time) {
	t.Helper()
	type want struct {
		name    string
		limit   senderauth.Limit
		balance senderauth.Balance
	}
	var wants []want
	for i, c := range l.charges {
		require.Equal(t, names[i], c.Name)
		if c.Limit != senderauth.Unlimited() {
			wants = append(wants, want{c.Name, c.Limit, l.balances[i]})
		}
	}
	state, policy := list(t, h, "RateLimit"), list(t, h, "RateLimit-Policy")
	require.Len(t, state, len(wants))
	require.Len(t, policy, len(wants))
	tightest := wants[0]
	for i, w := range wants {
		require.Equal(t, w.name, state[i].name)
		require.Equal(t, w.name, policy[i].name)
		require.Equal(t, int64(w.balance.Remaining), state[i].params["r"])
		if w.limit == senderauth.Blocked() {
			require.Equal(t, map[string]int64{"r": 0}, state[i].params)
			require.Equal(t, map[string]int64{"q": 0}, policy[i].params)
		} else {
			require.Equal(t, map[string]int64{"q": burst(w.limit), "w": refill(w.limit, burst(w.limit))}, policy[i].params)
			next, said := state[i].params["t"]
			require.Equal(t, w.balance.ResetAfter > 0, said, "t of a bucket that is %v from full", w.balance.ResetAfter)
			if w.balance.Refused {
				require.Equal(t, min(ceilSeconds(w.balance.RetryAfter), maxInteger), next)
			} else if said {
				requireNext(t, w.limit, w.balance, next)
			}
		}
		if w.balance.Remaining < tightest.balance.Remaining ||
			w.balance.Remaining == tightest.balance.Remaining && w.balance.Refused && !tightest.balance.Refused {
			tightest = w
		}
	}

	require.Equal(t, []string{strconv.FormatInt(burst(tightest.limit), 10)}, h.Values("X-RateLimit-Limit"))
	require.Equal(t, []string{strconv.Itoa(tightest.balance.Remaining)}, h.Values("X-RateLimit-Remaining"))
	require.Len(t, h.Values("X-RateLimit-Reset"), 1)
	reset, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64)
	require.NoError(t, err)
	// Compare seconds, because a time that far ahead has no UnixNano.
	seconds := int64(tightest.balance.ResetAfter / time.Second)
	require.GreaterOrEqual(t, reset, before.Unix()+seconds)
	require.LessOrEqual(t, reset, time.Now().Unix()+seconds+2)
}

// requireNext compares next, a parameter t, with the time until the next whole token:
// the time until the bucket is full, less that of the tokens after the next one.
func requireNext(t *testing.T, l senderauth.Limit, b senderauth.Balance, next int64) {
	t.Helper()
	require.GreaterOrEqual(t, next, int64(1))
	require.LessOrEqual(t, next, refill(l, 1))
	behind := new(big.Int).Mul(big.NewInt(burst(l)-int64(b.Remaining)-1), big.NewInt(int64(l.Per)))
	behind.Quo(behind, big.NewInt(int64(l.Requests)))
	after := new(big.Int).Sub(big.NewInt(int64(b.ResetAfter)), behind)
	if b.ResetAfter == math.MaxInt64 || after.Cmp(big.NewInt((int64(l.Per)-1)/int64(l.Requests)+1)) > 0 {
		// ResetAfter does not fit a Duration, or is rounded to coarser units.
		require.Equal(t, refill(l, 1), next)
		return
	}
	require.Equal(t, max(ceilSeconds(time.Duration(after.Int64())), 1), next)
}

type item struct {
	name   string
	params map[string]int64
}

// list parses a field as a List of Strings with Integer parameters.
func list(t *testing.T, h http.Header, name string) []item {
	t.Helper()
	require.Len(t, h.Values(name), 1)
	l, err := httpsfv.UnmarshalList(h.Values(name))
	require.NoError(t, err, "%s: %q", name, h.Get(name))
	var items []item
	for _, m := range l {
		require.IsType(t, httpsfv.Item{}, m)
		i := m.(httpsfv.Item)
		require.IsType(t, "", i.Value, fmt.Sprint(i.Value))
		out := item{i.Value.(string), map[string]int64{}}
		for _, k := range i.Params.Names() {
			v, _ := i.Params.Get(k)
			require.IsType(t, int64(0), v, k)
			out.params[k] = v.(int64)
		}
		items = append(items, out)
	}
	again, err := httpsfv.Marshal(l)
	require.NoError(t, err)
	require.Equal(t, again, h.Get(name), "not in the one form of RFC 9651 section 4.1")
	return items
}

func burst(l senderauth.Limit) int64 {
	switch {
	case l == senderauth.Blocked():
		return 0
	case l.Burst == 0:
		return int64(l.Requests)
	}
	return int64(l.Burst)
}

// refill returns the whole seconds in which n tokens flow back, at least 1, in exact
// arithmetic.
func refill(l senderauth.Limit, n int64) int64 {
	ns := new(big.Int).Mul(big.NewInt(n), big.NewInt(int64(l.Per)))
	unit := new(big.Int).Mul(big.NewInt(int64(l.Requests)), big.NewInt(int64(time.Second)))
	q, rest := new(big.Int).QuoRem(ns, unit, new(big.Int))
	if rest.Sign() > 0 {
		q.Add(q, big.NewInt(1))
	}
	if !q.IsInt64() {
		return maxInteger
	}
	return min(max(q.Int64(), 1), maxInteger)
}

func ceilSeconds(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d%time.Second > 0 {
		s++
	}
	return s
}
