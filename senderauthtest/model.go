package senderauthtest

import (
	"fmt"
	"math"
	"math/big"
	"time"

	"github.com/senderauth/senderauth"
)

// A model keeps the buckets that a limiter should keep, in exact numbers.
// When a call was decided is only known to lie between its beginning and its
// end, so that a level is an interval: a point where the clock stands still
// during a call, as it does under testing/synctest.
type model struct {
	tolerance    time.Duration
	mayAdmitLess bool
	buckets      map[[2]string]*level
}

type level struct {
	least, most   *big.Rat // tokens
	limit         senderauth.Limit
	before, after time.Time // of the call that left it
}

// take holds balances against the model, moves the model on, and returns what
// is wrong.
func (m *model) take(sender string, charges []senderauth.Charge, balances []senderauth.Balance, before, after time.Time) (complaints []string) {
	complain := func(c senderauth.Charge, format string, args ...any) {
		complaints = append(complaints, c.Name+": "+fmt.Sprintf(format, args...))
	}
	admitted := true
	for _, b := range balances {
		admitted = admitted && !b.Refused
	}
	for i, c := range charges {
		b := balances[i]
		if !b.Refused && b.RetryAfter != 0 {
			complain(c, "RetryAfter is %v without a refusal", b.RetryAfter)
		}
		switch c.Limit {
		case senderauth.Unlimited():
			if b != (senderauth.Balance{Remaining: math.MaxInt}) {
				complain(c, "Unlimited is not Balance{Remaining: math.MaxInt}")
			}
			continue
		case senderauth.Blocked():
			if b.Remaining != 0 || b.ResetAfter != 0 || b.Refused != (c.Cost > 0) || b.Refused && b.RetryAfter >= 0 {
				complain(c, "Blocked is refused for ever, unless the cost is 0")
			}
			continue
		}
		l := m.at(sender, c, before, after)
		burst := burst(c.Limit)
		cost := rat(c.Cost)

		switch {
		case b.Refused && l.least.Cmp(cost) >= 0 && (!m.mayAdmitLess || c.Cost == 0):
			complain(c, "refused with %s tokens", l)
		case !b.Refused && l.most.Cmp(cost) < 0:
			complain(c, "not refused with %s tokens", l)
		}
		if b.Refused {
			if !m.mayAdmitLess {
				l.most = least(l.most, cost)
			}
			switch {
			case c.Cost > burst && b.RetryAfter >= 0:
				complain(c, "RetryAfter is %v and the cost is above the burst: want it below 0", b.RetryAfter)
			case c.Cost <= burst && b.RetryAfter <= 0:
				complain(c, "RetryAfter is %v on a refusal that ends: want it above 0", b.RetryAfter)
			case c.Cost <= burst && !m.mayAdmitLess:
				if complaint := m.between(b.RetryAfter, c.Limit, sub(cost, l.most), sub(cost, l.least)); complaint != "" {
					complain(c, "RetryAfter is %s", complaint)
				}
			}
		} else {
			l.least = most(l.least, cost)
		}
		if admitted {
			l.least, l.most = sub(l.least, cost), sub(l.most, cost)
		}
		if r := rat(b.Remaining); b.Remaining < 0 || r.Cmp(l.most) > 0 || r.Cmp(floor(l.least)) < 0 && !m.mayAdmitLess {
			complain(c, "Remaining is %d with %s tokens", b.Remaining, l)
		}
		if !m.mayAdmitLess {
			full := rat(burst)
			if complaint := m.between(b.ResetAfter, c.Limit, sub(full, l.most), sub(full, l.least)); complaint != "" {
				complain(c, "ResetAfter is %s", complaint)
			}
		}
	}
	return complaints
}

// at returns the bucket at the time of a call, under the limit of the charge.
func (m *model) at(sender string, c senderauth.Charge, before, after time.Time) *level {
	key := [2]string{sender, c.Name}
	full := rat(burst(c.Limit))
	l := m.buckets[key]
	if l == nil {
		if m.buckets == nil {
			m.buckets = make(map[[2]string]*level)
		}
		l = &level{least: full, most: full}
		m.buckets[key] = l
	} else {
		was := rat(burst(l.limit))
		shortest := before.Sub(l.after) - m.tolerance
		longest := after.Sub(l.before) + m.tolerance
		l.least = least(was, add(l.least, tokens(l.limit, max(shortest, 0))))
		l.most = least(was, add(l.most, tokens(l.limit, longest)))
		if l.limit != c.Limit && l.most.Cmp(was) == 0 {
			l.most = full // a full bucket may have been forgotten
		}
		if m.mayAdmitLess {
			l.least = new(big.Rat)
		}
		l.least, l.most = least(l.least, full), least(l.most, full)
	}
	l.limit, l.before, l.after = c.Limit, before, after
	return l
}

// between says what is wrong with d, which is the time that from..to tokens
// take, rounded up to nanoseconds and within the tolerance. No limiter has to
// be more exact than 2^-50 of the time that fills the bucket from empty, which
// is a nanosecond in 13 days: its tokens may be float64.
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

func (l *level) String() string {
	if l.least.Cmp(l.most) == 0 {
		return l.most.FloatString(9)
	}
	return l.least.FloatString(9) + " to " + l.most.FloatString(9)
}

func burst(l senderauth.Limit) int {
	if l.Burst == 0 {
		return l.Requests
	}
	return l.Burst
}

// tokens is what flows back in d.
func tokens(l senderauth.Limit, d time.Duration) *big.Rat {
	t := big.NewRat(int64(l.Requests), int64(l.Per))
	return t.Mul(t, new(big.Rat).SetInt64(int64(d)))
}

// duration is how long n tokens take to flow back, rounded up.
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
