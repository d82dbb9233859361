package senderauthtest

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"time"

	"github.com/senderauth/senderauth"
)

// A model keeps the buckets that a limiter should keep, in exact numbers.
//
// It knows only that the limiter decided a call somewhere between the call's
// start and its end, so the tokens of a bucket are an interval. The interval is a
// single point if the clock stands still during a call, as under testing/synctest.
type model struct {
	tolerance    time.Duration
	mayAdmitLess bool
	buckets      map[bucketKey]*bucket
}

type bucketKey struct{ sender, name string }

type bucket struct {
	least, most   *big.Rat // tokens
	limit         senderauth.Limit
	before, after time.Time // start and end of the last call that touched it
}

// A complaint reports what is wrong with the balance of one charge.
type complaint func(format string, args ...any)

// take compares balances with the model, charges the model, and returns what is
// wrong.
func (m *model) take(sender string, charges []senderauth.Charge, balances []senderauth.Balance, before, after time.Time) (complaints []string) {
	admitted := !slices.ContainsFunc(balances, func(b senderauth.Balance) bool { return b.Refused })
	for i, c := range charges {
		complain := func(format string, args ...any) {
			complaints = append(complaints, c.Name+": "+fmt.Sprintf(format, args...))
		}
		balance := balances[i]
		if !balance.Refused && balance.RetryAfter != 0 {
			complain("RetryAfter is %v without a refusal", balance.RetryAfter)
		}
		switch c.Limit {
		case senderauth.Unlimited():
			if balance != (senderauth.Balance{Remaining: math.MaxInt}) {
				complain("Unlimited must give Balance{Remaining: math.MaxInt}")
			}
		case senderauth.Blocked():
			if balance.Remaining != 0 || balance.ResetAfter != 0 || balance.Refused != (c.Cost > 0) || balance.Refused && balance.RetryAfter >= 0 {
				complain("Blocked must be refused forever, unless the cost is 0")
			}
		default:
			b := m.at(sender, c, before, after)
			m.checkRefused(b, c, balance, complain)
			if admitted {
				b.least, b.most = sub(b.least, rat(c.Cost)), sub(b.most, rat(c.Cost))
			}
			m.checkTokens(b, balance, complain)
		}
	}
	return complaints
}

// checkRefused checks Refused and RetryAfter against b before the charge, and
// narrows b to the tokens that explain them.
func (m *model) checkRefused(b *bucket, c senderauth.Charge, balance senderauth.Balance, complain complaint) {
	burst, cost := burst(c.Limit), rat(c.Cost)
	switch {
	case balance.Refused && b.least.Cmp(cost) >= 0 && (!m.mayAdmitLess || c.Cost == 0):
		complain("refused with %s tokens", b)
	case !balance.Refused && b.most.Cmp(cost) < 0:
		complain("not refused with %s tokens", b)
	}
	if !balance.Refused {
		b.least = most(b.least, cost)
		return
	}
	if !m.mayAdmitLess {
		b.most = least(b.most, cost)
	}
	switch {
	case c.Cost > burst && balance.RetryAfter >= 0:
		complain("RetryAfter is %v although the cost is above the burst: want it below 0", balance.RetryAfter)
	case c.Cost <= burst && balance.RetryAfter <= 0:
		complain("RetryAfter is %v although waiting helps: want it above 0", balance.RetryAfter)
	case c.Cost <= burst && !m.mayAdmitLess:
		if wrong := m.between(balance.RetryAfter, c.Limit, sub(cost, b.most), sub(cost, b.least)); wrong != "" {
			complain("RetryAfter is %s", wrong)
		}
	}
}

// checkTokens checks Remaining and ResetAfter against b after the charge.
func (m *model) checkTokens(b *bucket, balance senderauth.Balance, complain complaint) {
	if r := rat(balance.Remaining); balance.Remaining < 0 || r.Cmp(b.most) > 0 || r.Cmp(floor(b.least)) < 0 && !m.mayAdmitLess {
		complain("Remaining is %d with %s tokens", balance.Remaining, b)
	}
	if m.mayAdmitLess {
		return
	}
	full := rat(burst(b.limit))
	if wrong := m.between(balance.ResetAfter, b.limit, sub(full, b.most), sub(full, b.least)); wrong != "" {
		complain("ResetAfter is %s", wrong)
	}
}

// at returns the bucket as it is during a call, under the limit of the charge.
func (m *model) at(sender string, c senderauth.Charge, before, after time.Time) *bucket {
	key := bucketKey{sender, c.Name}
	full := rat(burst(c.Limit))
	b := m.buckets[key]
	if b == nil {
		if m.buckets == nil {
			m.buckets = make(map[bucketKey]*bucket)
		}
		b = &bucket{least: full, most: full}
		m.buckets[key] = b
	} else {
		was := rat(burst(b.limit))
		shortest := before.Sub(b.after) - m.tolerance
		longest := after.Sub(b.before) + m.tolerance
		b.least = least(was, add(b.least, tokens(b.limit, max(shortest, 0))))
		b.most = least(was, add(b.most, tokens(b.limit, longest)))
		if b.limit != c.Limit && b.most.Cmp(was) == 0 {
			b.most = full // the limiter may have dropped a full bucket
		}
		if m.mayAdmitLess {
			b.least = new(big.Rat)
		}
		b.least, b.most = least(b.least, full), least(b.most, full)
	}
	b.limit, b.before, b.after = c.Limit, before, after
	return b
}

// between returns what is wrong with d, or "" if d is the time in which from..to
// tokens flow back, rounded up to nanoseconds and within the tolerance. A limiter
// may also be off by 2^-50 of the time that fills an empty bucket, a nanosecond in
// 13 days, because its tokens may be float64.
func (m *model) between(d time.Duration, l senderauth.Limit, from, to *big.Rat) string {
	tolerance := m.tolerance + duration(l, big.NewRat(int64(burst(l)), 1<<50)) - 1
	shortest, longest := duration(l, from)-tolerance, duration(l, to)
	if longest <= math.MaxInt64-tolerance {
		longest += tolerance
	}
	if d >= shortest && d <= longest {
		return ""
	}
	return fmt.Sprintf("%v, want %v to %v", d, max(shortest, 0), longest)
}

func (b *bucket) String() string {
	if b.least.Cmp(b.most) == 0 {
		return b.most.FloatString(9)
	}
	return b.least.FloatString(9) + " to " + b.most.FloatString(9)
}

func burst(l senderauth.Limit) int {
	if l.Burst == 0 {
		return l.Requests
	}
	return l.Burst
}

// tokens returns how many tokens flow back in d.
func tokens(l senderauth.Limit, d time.Duration) *big.Rat {
	t := big.NewRat(int64(l.Requests), int64(l.Per))
	return t.Mul(t, new(big.Rat).SetInt64(int64(d)))
}

// duration returns how long n tokens take to flow back, rounded up.
func duration(l senderauth.Limit, n *big.Rat) time.Duration {
	if n.Sign() <= 0 {
		return 0
	}
	d := big.NewRat(int64(l.Per), int64(l.Requests))
	d.Mul(d, n)
	ns, rest := new(big.Int).QuoRem(d.Num(), d.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		ns.Add(ns, big.NewInt(1))
	}
	if !ns.IsInt64() {
		return math.MaxInt64
	}
	return time.Duration(ns.Int64())
}

func rat(n int) *big.Rat         { return new(big.Rat).SetInt64(int64(n)) }
func add(a, b *big.Rat) *big.Rat { return new(big.Rat).Add(a, b) }
func sub(a, b *big.Rat) *big.Rat { return new(big.Rat).Sub(a, b) }

func floor(a *big.Rat) *big.Rat {
	return new(big.Rat).SetInt(new(big.Int).Div(a.Num(), a.Denom()))
}

func least(a, b *big.Rat) *big.Rat {
	if a.Cmp(b) < 0 {
		return a
	}
	return b
}

func most(a, b *big.Rat) *big.Rat {
	if a.Cmp(b) > 0 {
		return a
	}
	return b
}
