package senderauthtest

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
)

// LimiterConfig tells [TestLimiter] what to test and how exact to be.
type LimiterConfig struct {
	_ [0]func()

	// New returns the limiter for one test. It may return the same one each time,
	// because every test uses its own senders.
	New func(t *testing.T) senderauth.Limiter
	// Run runs one test. Use synctest.Test for a limiter that does no I/O: every
	// time is then exact, and the tests do not wait. Nil means a plain call of f,
	// and the tests sleep for about four seconds.
	Run func(t *testing.T, f func(t *testing.T))
	// Now and Sleep are the clock of the limiter. Nil means that of package time.
	Now   func() time.Time
	Sleep func(time.Duration)
	// Tolerance is how far the limiter's times may be off, because of the
	// resolution of its clock or its rounding. A limiter that counts tokens in
	// float64 needs a nanosecond. Do not add the duration of a call: the tests
	// allow for it. Zero means exact to the nanosecond, rounded up.
	Tolerance time.Duration
	// MayAdmitLess accepts refusals of charges that the limit allows, from a
	// limiter that leases tokens to instances in advance. The tests then check
	// only that it does not admit too much.
	MayAdmitLess bool
}

// TestLimiter tests the contract of [senderauth.Limiter]:
//
//   - over any T seconds a bucket admits at most burst + rate x T and, unless
//     MayAdmitLess is set, no less;
//   - Take charges several buckets together or not at all, and a refusal takes
//     nothing;
//   - every balance is true, and waiting for RetryAfter is enough;
//   - Unlimited, Blocked, a cost of 0 and a cost above the burst mean what their
//     comments say;
//   - a bucket keeps its tokens when its limit changes;
//   - an allowance is granted once in each period, together with the other charges or
//     not at all, and no change of the limit grants it again;
//   - a mistake of the caller is an error;
//   - Take is safe for concurrent use.
func TestLimiter(t *testing.T, cfg LimiterConfig) {
	t.Helper()
	if cfg.New == nil {
		t.Fatal("senderauthtest: LimiterConfig.New is nil")
	}
	if cfg.Run == nil {
		cfg.Run = func(t *testing.T, f func(*testing.T)) { f(t) }
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Sleep == nil {
		cfg.Sleep = time.Sleep
	}
	for _, c := range []struct {
		name string
		test func(*limiterTest)
	}{
		{"a bucket starts full and holds the burst", testBurst},
		{"tokens flow back evenly, up to the burst", testRefill},
		{"a refused charge takes nothing", testRefusedTakesNothing},
		{"several charges are taken together or not at all", testTogether},
		{"a cost of 0 only looks", testLook},
		{"Unlimited keeps no bucket", testUnlimited},
		{"Blocked refuses forever", testBlocked},
		{"a cost above the burst can never pass", testAboveBurst},
		{"waiting for RetryAfter is enough", testRetryAfter},
		{"a change of the limit keeps the tokens", testLimitChange},
		{"senders and names do not share buckets", testIndependent},
		{"very large and very slow limits", testExtremes},
		{"parallel charges admit exactly the burst", testParallel},
		{"parallel charges of two buckets take both or neither", testParallelTogether},
		{"random schedules agree with the model", testSchedules},
		{"mistakes of the caller are errors", testMistakes},
		{"charges are neither changed nor kept", testChargesUntouched},
		{"an ended context is not a refusal", testEndedLimiterContext},
		{"an allowance is granted once in its period", testAllowance},
		{"an allowance starts anew with its period", testNextPeriod},
		{"allowances and buckets are taken together or not at all", testAllowanceTogether},
		{"a bucket and the allowances of one name are apart", testKinds},
		{"parallel charges admit exactly the allowance", testParallelAllowance},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg.Run(t, func(t *testing.T) { c.test(&limiterTest{T: t, cfg: cfg, Limiter: cfg.New(t)}) })
		})
	}
}

type limiterTest struct {
	*testing.T
	senderauth.Limiter
	cfg   LimiterConfig
	model model
}

func hourly(n, burst int) senderauth.Limit {
	return senderauth.Limit{Requests: n, Per: time.Hour, Burst: burst}
}

func charge(name string, l senderauth.Limit, cost int) senderauth.Charge {
	return senderauth.Charge{Name: name, Limit: l, Cost: cost}
}

// take charges the sender, compares the balances with the model, and reports
// whether all charges were admitted.
func (t *limiterTest) take(sender string, charges ...senderauth.Charge) ([]senderauth.Balance, bool) {
	t.Helper()
	before := t.cfg.Now()
	balances, err := t.Take(context.Background(), sender, charges)
	after := t.cfg.Now()
	if err != nil {
		t.Fatalf("Take(%v): %v", charges, err)
	}
	if len(balances) != len(charges) {
		t.Fatalf("Take(%v): %d balances", charges, len(balances))
	}
	admitted := !slices.ContainsFunc(balances, func(b senderauth.Balance) bool { return b.Refused })
	t.model.tolerance, t.model.mayAdmitLess = t.cfg.Tolerance, t.cfg.MayAdmitLess
	for _, complaint := range t.model.take(sender, charges, balances, before, after) {
		t.Errorf("Take(%v) = %+v: %s", charges, balances, complaint)
	}
	if t.Failed() {
		t.FailNow()
	}
	return balances, admitted
}

// admit fails the test if a charge is refused.
func (t *limiterTest) admit(sender string, charges ...senderauth.Charge) []senderauth.Balance {
	t.Helper()
	balances, ok := t.take(sender, charges...)
	if !ok && !t.cfg.MayAdmitLess {
		t.Fatalf("Take(%v) = %+v: refused", charges, balances)
	}
	return balances
}

// refuse fails the test if the charges are admitted.
func (t *limiterTest) refuse(sender string, charges ...senderauth.Charge) []senderauth.Balance {
	t.Helper()
	balances, ok := t.take(sender, charges...)
	if ok {
		t.Fatalf("Take(%v) = %+v: admitted", charges, balances)
	}
	return balances
}

// holds fails the test unless the bucket has want tokens. The limit must be too
// slow to give back a whole token during the test.
func (t *limiterTest) holds(sender, name string, l senderauth.Limit, want int) {
	t.Helper()
	balances, _ := t.take(sender, charge(name, l, 0))
	if got := balances[0].Remaining; got > want || got < want && !t.cfg.MayAdmitLess {
		t.Fatalf("the bucket %q holds %d tokens, want %d", name, got, want)
	}
}

func testBurst(t *limiterTest) {
	for _, l := range []senderauth.Limit{hourly(1, 5), hourly(7, 0), {Requests: 1, Per: 24 * time.Hour, Burst: 1}} {
		sender := newUUID()
		t.holds(sender, "default", l, burst(l))
		for range burst(l) {
			t.admit(sender, charge("default", l, 1))
		}
		t.refuse(sender, charge("default", l, 1))
		t.holds(sender, "default", l, 0)
	}
	sender := newUUID()
	t.admit(sender, charge("default", hourly(1, 5), 5))
	t.refuse(sender, charge("default", hourly(1, 5), 1))
}

func testRefill(t *limiterTest) {
	l := senderauth.Limit{Requests: 20, Per: time.Second, Burst: 4}
	sender := newUUID()
	for range 4 {
		t.admit(sender, charge("default", l, 1))
	}
	for _, pause := range []time.Duration{25, 25, 50, 10, 40, 100, 125} {
		t.take(sender, charge("default", l, 1))
		t.take(sender, charge("default", l, 2))
		t.cfg.Sleep(pause * time.Millisecond)
	}
	t.cfg.Sleep(200*time.Millisecond + t.cfg.Tolerance)
	t.admit(sender, charge("default", l, 4))
}

func testRefusedTakesNothing(t *limiterTest) {
	l := hourly(1, 3)
	sender := newUUID()
	t.admit(sender, charge("default", l, 2))
	for range 20 {
		t.refuse(sender, charge("default", l, 2))
		t.refuse(sender, charge("default", l, 4))
	}
	t.holds(sender, "default", l, 1)
	t.admit(sender, charge("default", l, 1))
}

func testTogether(t *limiterTest) {
	wide, narrow := hourly(1, 10), hourly(1, 2)
	sender := newUUID()
	for range 2 {
		t.admit(sender, charge("wide", wide, 1), charge("narrow", narrow, 1))
	}
	for range 5 {
		t.refuse(sender, charge("wide", wide, 1), charge("narrow", narrow, 1))
		t.refuse(sender, charge("narrow", narrow, 1), charge("wide", wide, 1))
		t.refuse(sender, charge("wide", wide, 1), charge("fresh", narrow, 3))
		t.refuse(sender, charge("wide", wide, 1), charge("closed", senderauth.Blocked(), 1))
		t.refuse(sender, charge("open", senderauth.Unlimited(), 1), charge("narrow", narrow, 1))
	}
	t.holds(sender, "wide", wide, 8)
	t.holds(sender, "narrow", narrow, 0)
	t.holds(sender, "fresh", narrow, 2)
	t.admit(sender, charge("wide", wide, 8), charge("narrow", narrow, 0), charge("open", senderauth.Unlimited(), 1))
	t.holds(sender, "wide", wide, 0)
}

func testLook(t *limiterTest) {
	l := hourly(1, 2)
	sender := newUUID()
	for range 3 {
		t.admit(sender, charge("default", l, 0))
	}
	t.admit(sender, charge("default", l, 2))
	for range 3 {
		if b, ok := t.take(sender, charge("default", l, 0)); !ok {
			t.Fatalf("a look at an empty bucket is refused: %+v", b)
		}
	}
	if b, ok := t.take(sender, charge("closed", senderauth.Blocked(), 0)); !ok {
		t.Fatalf("a look at Blocked is refused: %+v", b)
	}
	t.refuse(sender, charge("default", l, 1))
}

func testUnlimited(t *limiterTest) {
	sender := newUUID()
	for range 100 {
		t.admit(sender, charge("default", senderauth.Unlimited(), 1), charge("other", senderauth.Unlimited(), math.MaxInt))
	}
	// Charges without a limit do not count against a later limit.
	t.admit(sender, charge("default", hourly(1, 5), 5))
}

func testBlocked(t *limiterTest) {
	sender := newUUID()
	for range 3 {
		t.refuse(sender, charge("default", senderauth.Blocked(), 1))
	}
	t.cfg.Sleep(5 * time.Millisecond)
	t.refuse(sender, charge("default", senderauth.Blocked(), math.MaxInt))
	t.admit(sender, charge("default", hourly(1, 5), 5))
}

func testAboveBurst(t *limiterTest) {
	l := senderauth.Limit{Requests: 1000, Per: time.Second, Burst: 3}
	sender := newUUID()
	for _, cost := range []int{4, 5, 1_000_000, math.MaxInt} {
		t.refuse(sender, charge("default", l, cost))
	}
	t.admit(sender, charge("default", hourly(1, 3), 3))
	t.refuse(sender, charge("default", hourly(1, 3), 4))
}

func testRetryAfter(t *limiterTest) {
	for _, l := range []senderauth.Limit{
		{Requests: 50, Per: time.Second, Burst: 3},
		{Requests: 7, Per: 100 * time.Millisecond, Burst: 2},
		{Requests: 3, Per: 31 * time.Millisecond},
		{Requests: 1_000_003, Per: time.Second, Burst: 1},
	} {
		sender := newUUID()
		full := burst(l)
		cost := min(2, full)
		for range 3 {
			for range full {
				t.take(sender, charge("default", l, 1))
			}
			b, ok := t.take(sender, charge("default", l, cost))
			if ok {
				continue // the tokens came back during the calls
			}
			t.cfg.Sleep(b[0].RetryAfter + t.cfg.Tolerance)
			t.admit(sender, charge("default", l, cost))
		}
		b, _ := t.take(sender, charge("default", l, 0))
		t.cfg.Sleep(b[0].ResetAfter + t.cfg.Tolerance)
		t.holds(sender, "default", l, full)
	}
}

func testLimitChange(t *limiterTest) {
	sender := newUUID()
	t.admit(sender, charge("default", hourly(1, 10), 4))
	t.holds(sender, "default", hourly(1, 20), 6)
	t.holds(sender, "default", hourly(2, 10), 6)
	t.admit(sender, charge("default", hourly(1, 20), 1))
	t.admit(sender, charge("default", hourly(1, 3), 1)) // the new burst keeps 3 of 5 tokens
	t.admit(sender, charge("default", hourly(1, 10), 1))

	// Alternating limits mint nothing.
	sender = newUUID()
	limits := []senderauth.Limit{hourly(1, 10), hourly(3, 1_000_000), hourly(7, 11), {Requests: 1, Per: 7 * time.Hour, Burst: 13}}
	admitted := 0
	for i := range 200 {
		if _, ok := t.take(sender, charge("default", limits[i%len(limits)], 1)); ok {
			admitted++
		}
	}
	if admitted > 10 || admitted < 10 && !t.cfg.MayAdmitLess {
		t.Fatalf("%d charges were admitted by a bucket of 10 with alternating limits", admitted)
	}
	// Leaving a plan and coming back does not refill the bucket either.
	sender = newUUID()
	t.admit(sender, charge("default", hourly(1, 5), 5))
	t.admit(sender, charge("default", senderauth.Unlimited(), 1))
	t.refuse(sender, charge("default", senderauth.Blocked(), 1))
	t.refuse(sender, charge("default", hourly(1, 5), 1))
}

func testIndependent(t *limiterTest) {
	l := hourly(1, 2)
	sender, other := newUUID(), newUUID()
	// New accepts any printable ASCII name.
	names := []string{"default", "Default", "default ", " ", ":", "a", "a:b", "b", "{a}", "{", "%s", "*", "?", `"q"`, `\`, "a,b", "a b", strings.Repeat("n", 300)}
	for _, name := range names {
		t.holds(sender, name, l, 2)
		t.admit(sender, charge(name, l, 2))
		t.refuse(sender, charge(name, l, 1))
	}
	for _, name := range names {
		t.holds(other, name, l, 2)
	}
}

func testExtremes(t *limiterTest) {
	const most = 1_000_000_000 // the largest that Limit.Validate accepts
	for _, l := range []senderauth.Limit{
		hourly(1, most),
		hourly(1, most-1),
		{Requests: 1, Per: math.MaxInt64, Burst: 2},
	} {
		sender := newUUID()
		t.holds(sender, "default", l, l.Burst)
		t.admit(sender, charge("default", l, 1))
		t.holds(sender, "default", l, l.Burst-1)
		t.admit(sender, charge("default", l, l.Burst-1))
		t.refuse(sender, charge("default", l, 1))
	}
	for _, l := range []senderauth.Limit{
		{Requests: most, Per: time.Microsecond, Burst: most},
		{Requests: most, Per: time.Second, Burst: 1},
	} {
		sender := newUUID()
		for range 3 {
			t.take(sender, charge("default", l, l.Burst))
			t.cfg.Sleep(time.Millisecond + t.cfg.Tolerance)
			t.admit(sender, charge("default", l, 1))
		}
	}
}

// parallel calls f n times at once.
func parallel(n int, f func()) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for range n {
		wg.Go(func() {
			<-start
			f()
		})
	}
	close(start)
	wg.Wait()
}

// count calls Take n times in parallel and returns how many calls were admitted.
func (t *limiterTest) count(n int, sender string, charges func() []senderauth.Charge) int {
	t.Helper()
	var admitted atomic.Int64
	parallel(n, func() {
		balances, err := t.Take(context.Background(), sender, charges())
		if err != nil {
			t.Errorf("Take: %v", err)
			return
		}
		if !slices.ContainsFunc(balances, func(b senderauth.Balance) bool { return b.Refused }) {
			admitted.Add(1)
		}
	})
	return int(admitted.Load())
}

func testParallel(t *limiterTest) {
	l := hourly(1, 40)
	sender := newUUID()
	got := t.count(200, sender, func() []senderauth.Charge { return []senderauth.Charge{charge("default", l, 1)} })
	if got > 40 || got < 40 && !t.cfg.MayAdmitLess {
		t.Fatalf("%d of 200 parallel charges were admitted by a bucket of 40", got)
	}
}

func testParallelTogether(t *limiterTest) {
	wide, narrow := hourly(1, 60), hourly(1, 25)
	sender := newUUID()
	var turn atomic.Int64
	got := t.count(100, sender, func() []senderauth.Charge {
		charges := []senderauth.Charge{charge("wide", wide, 1), charge("narrow", narrow, 1)}
		if turn.Add(1)%2 == 0 {
			slices.Reverse(charges)
		}
		return charges
	})
	if got > 25 || got < 25 && !t.cfg.MayAdmitLess {
		t.Fatalf("%d of 100 parallel charges were admitted by buckets of 60 and 25", got)
	}
	left := t.count(100, sender, func() []senderauth.Charge { return []senderauth.Charge{charge("wide", wide, 1)} })
	if got+left > 60 || left < 35 && !t.cfg.MayAdmitLess {
		t.Fatalf("the bucket of 60 admitted %d after %d: a refused charge took tokens from it, or gave it some", left, got)
	}
}

func testSchedules(t *limiterTest) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 3 {
		limits := map[string]senderauth.Limit{
			"a": {Requests: 1 + random.IntN(400), Per: time.Second, Burst: 1 + random.IntN(8)},
			"b": {Requests: 1 + random.IntN(40), Per: 97 * time.Millisecond},
			"c": senderauth.Unlimited(),
		}
		type admission struct {
			before, after time.Time
			cost          int
		}
		admissions := map[string][]admission{}
		sender := newUUID()
		for range 100 {
			var charges []senderauth.Charge
			for name, l := range limits {
				if random.IntN(2) == 0 {
					charges = append(charges, charge(name, l, random.IntN(4)))
				}
			}
			if len(charges) == 0 {
				continue
			}
			before := t.cfg.Now()
			if _, ok := t.take(sender, charges...); ok {
				for _, c := range charges {
					admissions[c.Name] = append(admissions[c.Name], admission{before, t.cfg.Now(), c.Cost})
				}
			}
			if random.IntN(3) == 0 {
				t.cfg.Sleep(time.Duration(random.Int64N(int64(12 * time.Millisecond))))
			}
		}
		// Check the promise itself, without the model: at most burst + rate x T
		// over any T seconds.
		for _, name := range []string{"a", "b"} {
			l, of := limits[name], admissions[name]
			for i := range of {
				sum := 0
				for j := i; j < len(of); j++ {
					sum += of[j].cost
					over := of[j].after.Sub(of[i].before) + 2*t.cfg.Tolerance
					if most := float64(burst(l)) + float64(l.Requests)*float64(over)/float64(l.Per); float64(sum) > most+1e-6 {
						t.Fatalf("%+v gave out %d tokens within %v, want at most %g (seed %d)", l, sum, over, most, seed)
					}
				}
			}
		}
	}
}

func testMistakes(t *limiterTest) {
	good := hourly(1, 3)
	sender := newUUID()
	for name, wrong := range map[string][]senderauth.Charge{
		"the zero Limit":  {charge("other", senderauth.Limit{}, 1)},
		"Requests 0":      {charge("other", senderauth.Limit{Per: time.Second, Burst: 1}, 1)},
		"Requests -1":     {charge("other", senderauth.Limit{Requests: -1, Per: time.Second, Burst: 1}, 1)},
		"Per 0":           {charge("other", senderauth.Limit{Requests: 1, Burst: 1}, 1)},
		"Per below 0":     {charge("other", senderauth.Limit{Requests: 1, Per: -1, Burst: 1}, 1)},
		"Burst -1":        {charge("other", senderauth.Limit{Requests: 1, Per: time.Second, Burst: -1}, 1)},
		"Cost -1":         {charge("other", good, -1)},
		"a name twice":    {charge("other", good, 1), charge("other", good, 1)},
		"Unlimited, cost": {charge("other", senderauth.Unlimited(), -1)},
	} {
		charges := append([]senderauth.Charge{charge("default", good, 1)}, wrong...)
		if _, err := t.Take(context.Background(), sender, charges); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	t.holds(sender, "default", good, 3)
	t.holds(sender, "other", good, 3)
}

func testChargesUntouched(t *limiterTest) {
	l := hourly(1, 3)
	sender := newUUID()
	charges := []senderauth.Charge{charge("z", l, 1), charge("a", l, 2), charge("m", senderauth.Unlimited(), 1)}
	for range 3 { // admitted, refused, refused
		want := slices.Clone(charges)
		t.take(sender, charges...)
		if !slices.Equal(charges, want) {
			t.Fatalf("Take changed its charges from %v to %v", want, charges)
		}
	}
	// A guard reuses the slice for the next request.
	charges[0], charges[1] = charge("q", l, 3), charge("r", l, 3)
	t.holds(sender, "z", l, 2)
	t.holds(sender, "a", l, 1)
	t.holds(sender, "q", l, 3)
}

func testEndedLimiterContext(t *limiterTest) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	balances, err := t.Take(ctx, newUUID(), []senderauth.Charge{charge("default", hourly(1, 3), 1)})
	if err == nil && (len(balances) != 1 || balances[0].Refused) {
		t.Fatalf("Take with an ended context = %+v: want an error or the charge admitted", balances)
	}
}
