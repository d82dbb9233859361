package senderauth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A Limit is a token bucket. It starts full with Burst tokens, a request takes
// one, and Requests tokens flow back evenly every Per, up to Burst. Over any
// T seconds it admits at most Burst + T x Requests/Per requests.
//
// With a Calendar a Limit is an allowance instead: Requests requests in each day or
// month, and all of them again when the next one begins. [PerDay] and [PerMonth]
// return one.
//
// The zero Limit is a mistake that [New] reports. Use [Unlimited] for no limit and
// [Blocked] to refuse everything.
type Limit struct {
	Requests int           // tokens that flow back every Per: 1 to 1,000,000,000
	Per      time.Duration // at least a microsecond; zero with a Calendar
	Burst    int           // tokens that can be saved: up to 1,000,000,000; zero means Requests; zero with a Calendar
	Calendar Calendar      // makes this an allowance; the zero Calendar means a token bucket
}

// PerSecond returns a limit of n requests a second, all of which may come at once.
func PerSecond(n int) Limit { return Limit{Requests: n, Per: time.Second} }

// PerMinute returns a limit of n requests a minute, all of which may come at once.
func PerMinute(n int) Limit { return Limit{Requests: n, Per: time.Minute} }

// Unlimited returns the explicit absence of a limit. It is a fixed value: a [Limiter]
// compares with == and admits the charge without keeping a bucket.
func Unlimited() Limit { return Limit{Requests: -1, Burst: -1} }

// Blocked returns a limit that refuses every request. It is a fixed value: a [Limiter]
// compares with == and refuses the charge without keeping a bucket.
func Blocked() Limit { return Limit{Requests: -2, Burst: -2} }

// maxTokens is the largest Requests and Burst. A [MemoryLimiter] counts in float64,
// and up to maxTokens rounding mints less than a token in a million requests.
const maxTokens = 1_000_000_000

// Validate reports every mistake in l at once: the zero Limit, Requests or Burst
// out of range, a Per below a microsecond, or a Per or Burst beside a Calendar. [New]
// and every [Limiter] accept a limit only if Validate returns nil.
func (l Limit) Validate() error {
	if l == Unlimited() || l == Blocked() {
		return nil
	}
	if l == (Limit{}) {
		return errors.New("the zero Limit: say Unlimited() or Blocked(), or set Requests and Per")
	}
	var wrong []string
	if l.Requests < 1 || l.Requests > maxTokens {
		wrong = append(wrong, fmt.Sprintf("Requests is %d, not in 1..%d", l.Requests, maxTokens))
	}
	switch {
	case l.isAllowance() && l.Per != 0:
		wrong = append(wrong, fmt.Sprintf("Per is %v beside Calendar %v, which has its own period", l.Per, l.Calendar))
	case !l.isAllowance() && l.Per < time.Microsecond:
		// A plain 60 is 60 nanoseconds, which nobody means.
		wrong = append(wrong, fmt.Sprintf("Per is %v, below a microsecond", l.Per))
	}
	switch {
	case l.isAllowance() && l.Burst != 0:
		wrong = append(wrong, fmt.Sprintf("Burst is %d beside Calendar %v: all of an allowance may come at once", l.Burst, l.Calendar))
	case l.Burst < 0 || l.Burst > maxTokens:
		wrong = append(wrong, fmt.Sprintf("Burst is %d, not in 0..%d", l.Burst, maxTokens))
	}
	if len(wrong) == 0 {
		return nil
	}
	return errors.New(strings.Join(wrong, ", "))
}

func (l Limit) isAllowance() bool { return l.Calendar != (Calendar{}) }

// EffectiveBurst returns the size of the bucket: Burst, or Requests if Burst is
// zero, as it is for an allowance. It is 0 for [Blocked] and negative for [Unlimited].
func (l Limit) EffectiveBurst() int {
	switch {
	case l == Blocked():
		return 0
	case l.Burst == 0:
		return l.Requests
	}
	return l.Burst
}

// A Charge asks for Cost tokens of the bucket Name, which Limit fills, or of the
// allowance Name. A Cost of 0 only looks: it takes nothing and is never refused, even
// by [Blocked].
type Charge struct {
	Name  string
	Limit Limit
	Cost  int
}

// A Balance is the state of one bucket or allowance after [Limiter.Take].
type Balance struct {
	// Refused reports that the bucket or allowance did not have the tokens.
	Refused bool
	// Remaining is the number of whole tokens left: math.MaxInt for [Unlimited], 0
	// for [Blocked].
	Remaining int
	// RetryAfter is how long to wait until a refused charge could pass. It is
	// negative if it never can, because the limit is [Blocked] or the cost is above
	// the burst or the whole allowance, and zero if the charge was not refused.
	RetryAfter time.Duration
	// ResetAfter is how long until the bucket is full, or until the period of an
	// allowance ends, even if nothing of it was used.
	ResetAfter time.Duration
}

// A Limiter keeps a token bucket, or what is used of an allowance, for each sender and
// name. [MemoryLimiter] serves a single instance. Several instances share a Limiter with
// buckets outside of them, such as that of contrib/redislimit. The suite
// senderauthtest.TestLimiter tests an implementation.
type Limiter interface {
	// Take charges all of charges to the sender, or none of them. balances[i] is the
	// state of charges[i] afterwards. A refusal is a Balance, never an error. An
	// error is an outage, or a mistake of the caller: a Limit that Validate rejects,
	// a negative Cost, or a name given twice. Take must not keep or change charges.
	//
	// If the Limit of a bucket has changed, its tokens stay, up to the new burst. What
	// was used of an allowance counts until its period ends, even if the zone or the
	// number of requests changes. A bucket, a daily and a monthly allowance of the same
	// name are kept apart, so that a change from one to another and back hands nothing
	// out again. A period that was charged never gives way to an earlier one, whatever
	// the clock says: see [Calendar].
	//
	// ctx is the request's, and a guard adds no deadline to it, so a Limiter that does
	// I/O needs one of its own. Take is safe for concurrent use.
	Take(ctx context.Context, senderID string, charges []Charge) (balances []Balance, err error)
}

func validateCharges(charges []Charge) error {
	var errs []error
	for i, c := range charges {
		if err := c.Limit.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("senderauth: charge %q: Limit: %w", c.Name, err))
		}
		if c.Cost < 0 {
			errs = append(errs, fmt.Errorf("senderauth: charge %q: Cost %d is below 0", c.Name, c.Cost))
		}
		for _, before := range charges[:i] {
			if before.Name == c.Name {
				errs = append(errs, fmt.Errorf("senderauth: charge %q is given twice", c.Name))
			}
		}
	}
	return errors.Join(errs...)
}
