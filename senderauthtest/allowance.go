package senderauthtest

import (
	"slices"
	"time"

	"github.com/senderauth/senderauth"
)

// zoneIn returns a time zone in which it is midnight in d.
func (t *limiterTest) zoneIn(d time.Duration) *time.Location {
	const day = 24 * time.Hour
	now := time.Duration(t.cfg.Now().UnixNano()) % day
	offset := (day - d - now).Truncate(time.Second)
	return time.FixedZone("senderauthtest", int(offset/time.Second))
}

// noon returns an allowance of n a day whose period ends in twelve hours.
func (t *limiterTest) noon(n int) senderauth.Limit {
	return senderauth.PerDay(n, t.zoneIn(12*time.Hour))
}

// use charges the sender, and fails the test unless the charges are admitted or
// refused as want says, and all balances of allowances have the times of their periods.
func (t *limiterTest) use(want bool, sender string, charges ...senderauth.Charge) []senderauth.Balance {
	t.Helper()
	before := t.cfg.Now()
	balances, err := t.Take(t.Context(), sender, slices.Clone(charges))
	after := t.cfg.Now()
	if err != nil || len(balances) != len(charges) {
		t.Fatalf("Take(%v) = %+v, %v", charges, balances, err)
	}
	refused := slices.ContainsFunc(balances, func(b senderauth.Balance) bool { return b.Refused })
	if refused == want && !(refused && t.cfg.MayAdmitLess) {
		t.Fatalf("Take(%v) = %+v: admitted is %v, want %v", charges, balances, !refused, want)
	}
	for i, b := range balances {
		c := charges[i]
		if c.Limit.Calendar.Unit() == "" {
			continue
		}
		_, end := c.Limit.Calendar.Bounds(c.Limit.Calendar.Period(before))
		shortest, longest := end.Sub(after)-t.cfg.Tolerance, end.Sub(before)+t.cfg.Tolerance
		ends := func(d time.Duration) bool { return d >= shortest && d <= longest }
		switch {
		case b.Remaining < 0 || b.Remaining > c.Limit.Requests:
			t.Fatalf("Take(%v) = %+v: Remaining is not in 0..%d", charges, balances, c.Limit.Requests)
		case !ends(b.ResetAfter) && before.Before(end) && after.Before(end):
			t.Fatalf("Take(%v) = %+v: ResetAfter is %v, and the period ends in %v to %v", charges, balances, b.ResetAfter, shortest, longest)
		case !b.Refused && b.RetryAfter != 0:
			t.Fatalf("Take(%v) = %+v: RetryAfter is %v without a refusal", charges, balances, b.RetryAfter)
		case b.Refused && (c.Cost > c.Limit.Requests) != (b.RetryAfter < 0):
			t.Fatalf("Take(%v) = %+v: RetryAfter is %v for a cost of %d", charges, balances, b.RetryAfter, c.Cost)
		}
	}
	return balances
}

// remain fails the test unless want tokens of the allowance are left.
func (t *limiterTest) remain(sender, name string, l senderauth.Limit, want int) {
	t.Helper()
	got := t.use(true, sender, charge(name, l, 0))[0].Remaining
	if got > want || got < want && !t.cfg.MayAdmitLess {
		t.Fatalf("%d of the allowance %q are left, want %d", got, name, want)
	}
}

func testAllowance(t *limiterTest) {
	for _, n := range []int{1, 5, 1_000_000_000} {
		l, sender := t.noon(n), newUUID()
		t.use(true, sender, charge("default", l, 0))
		t.remain(sender, "default", l, n)
		t.use(false, sender, charge("default", l, n+1))
		t.use(true, sender, charge("default", l, 1))
		t.use(false, sender, charge("default", l, n))
		t.remain(sender, "default", l, n-1)
		t.use(true, sender, charge("default", l, n-1))
		for range 3 {
			t.use(false, sender, charge("default", l, 1))
			t.use(true, sender, charge("default", l, 0))
		}
		t.remain(newUUID(), "default", l, n)
		t.remain(sender, "other", l, n)
	}
	month, sender := senderauth.PerMonth(3, time.FixedZone("senderauthtest", -3600)), newUUID()
	if _, end := month.Calendar.Bounds(month.Calendar.Period(t.cfg.Now())); end.Sub(t.cfg.Now()) < time.Minute {
		return // the month could end during the test
	}
	t.use(true, sender, charge("default", month, 3))
	b := t.use(false, sender, charge("default", month, 1))
	if !t.cfg.MayAdmitLess && b[0].RetryAfter != b[0].ResetAfter {
		t.Fatalf("RetryAfter is %v, and the month ends in %v", b[0].RetryAfter, b[0].ResetAfter)
	}
}

func testNextPeriod(t *limiterTest) {
	l, sender := senderauth.PerDay(3, t.zoneIn(1500*time.Millisecond)), newUUID()
	t.use(true, sender, charge("default", l, 3))
	b := t.use(false, sender, charge("default", l, 1))
	t.cfg.Sleep(b[0].RetryAfter + t.cfg.Tolerance)
	t.use(true, sender, charge("default", l, 3))
	t.use(false, sender, charge("default", l, 1))
}

func testAllowanceTogether(t *limiterTest) {
	bucket, day, sender := hourly(1, 6), t.noon(4), newUUID()
	t.use(true, sender, charge("bucket", bucket, 1), charge("day", day, 2))
	for range 3 {
		t.use(false, sender, charge("bucket", bucket, 1), charge("day", day, 3))
		t.use(false, sender, charge("day", day, 1), charge("bucket", bucket, 6))
		t.use(false, sender, charge("day", day, 1), charge("month", senderauth.PerMonth(1, nil), 2))
		t.use(false, sender, charge("day", day, 1), charge("closed", senderauth.Blocked(), 1))
	}
	t.remain(sender, "day", day, 2)
	b := t.use(true, sender, charge("bucket", bucket, 5), charge("open", senderauth.Unlimited(), 1), charge("day", day, 0))
	if b[0].Remaining != 0 || b[2].Remaining != 2 {
		t.Fatalf("the bucket has %d tokens and the allowance %d, want 0 and 2", b[0].Remaining, b[2].Remaining)
	}
	t.use(true, sender, charge("bucket", bucket, 0), charge("day", day, 2))
	t.remain(sender, "day", day, 0)
}

func testKinds(t *limiterTest) {
	bucket, day, sender := hourly(1, 2), t.noon(3), newUUID()
	month := senderauth.PerMonth(4, day.Calendar.Location())
	t.use(true, sender, charge("default", bucket, 2))
	t.use(true, sender, charge("default", day, 3))
	t.use(true, sender, charge("default", month, 4))
	for range 3 {
		for _, l := range []senderauth.Limit{bucket, day, month} {
			t.use(false, sender, charge("default", l, 1))
		}
		t.use(true, sender, charge("default", senderauth.Unlimited(), 1))
		t.use(false, sender, charge("default", senderauth.Blocked(), 1))
	}
	// What was used counts in a larger plan and in a smaller one, and in another zone.
	larger, smaller := t.noon(10), t.noon(2)
	t.remain(sender, "default", larger, 7)
	t.remain(sender, "default", smaller, 0)
	t.use(false, sender, charge("default", smaller, 1))
	east := senderauth.PerDay(3, t.zoneIn(11*time.Hour))
	t.use(false, sender, charge("default", east, 1))
	// East of here the next day has begun. Its end is far, so no test of it is late.
	next := senderauth.PerDay(3, t.zoneIn(0))
	_, offset := t.cfg.Now().In(next.Calendar.Location()).Zone()
	next = senderauth.PerDay(3, time.FixedZone("senderauthtest", offset+3600))
	if next.Calendar.Period(t.cfg.Now()) == day.Calendar.Period(t.cfg.Now()) {
		t.Fatal("the zone of this test is wrong")
	}
	if _, err := t.Take(t.Context(), sender, []senderauth.Charge{charge("default", next, 3)}); err != nil {
		t.Fatal(err)
	}
	if b, err := t.Take(t.Context(), sender, []senderauth.Charge{charge("default", larger, 8)}); err != nil || !b[0].Refused {
		t.Fatalf("Take = %+v, %v: the day before came back with the zone", b, err)
	}
}

func testParallelAllowance(t *limiterTest) {
	bucket, day, sender := hourly(1, 60), t.noon(25), newUUID()
	got := t.count(100, sender, func() []senderauth.Charge {
		return []senderauth.Charge{charge("bucket", bucket, 1), charge("day", day, 1)}
	})
	if got > 25 || got < 25 && !t.cfg.MayAdmitLess {
		t.Fatalf("%d of 100 parallel charges were admitted by an allowance of 25", got)
	}
	if left := t.use(true, sender, charge("bucket", bucket, 0))[0].Remaining; left != 60-got && !t.cfg.MayAdmitLess {
		t.Fatalf("the bucket of 60 holds %d tokens after %d charges", left, got)
	}
}
