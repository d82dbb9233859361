package senderauth

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Limits that people use, and odd ones.
var (
	usualLimits = []Limit{
		PerSecond(1), PerSecond(3), PerMinute(7), PerSecond(1000),
		{Requests: 15, Per: time.Second, Burst: 5}, {Requests: 17, Per: time.Minute, Burst: 5},
		{Requests: 200, Per: time.Minute, Burst: 50}, {Requests: 10, Per: time.Minute, Burst: 5},
		{Requests: 1_000_000, Per: time.Second}, {Requests: 999_983, Per: time.Second, Burst: 1_000_000},
	}
	oddLimits = []Limit{
		{Requests: 3, Per: 7, Burst: 2}, {Requests: 7919, Per: 104729 * time.Hour, Burst: 1299},
		{Requests: 5, Per: 24 * time.Hour}, {Requests: 1, Per: 365 * 24 * time.Hour, Burst: 3},
		PerSecond(maxTokens), {Requests: maxTokens, Per: 1}, {Requests: 999_999_937, Per: time.Hour, Burst: maxTokens},
		{Requests: 3600, Per: time.Hour, Burst: 100_000_000}, {Requests: 1, Per: 1, Burst: 7},
	}
)

// An exactBucket is what a bucket should be, without rounding. Its tokens have
// Per parts each, and a nanosecond brings Requests of them.
type exactBucket struct {
	limit Limit
	parts *big.Int
	now   time.Duration
}

func newExactBucket(l Limit) *exactBucket {
	e := &exactBucket{limit: l}
	e.parts = e.partsOf(l.EffectiveBurst())
	return e
}

func (e *exactBucket) partsOf(tokens int) *big.Int {
	return new(big.Int).Mul(big.NewInt(int64(tokens)), big.NewInt(int64(e.limit.Per)))
}

func (e *exactBucket) advance(d time.Duration) {
	e.now += d
	e.parts.Add(e.parts, new(big.Int).Mul(big.NewInt(int64(d)), big.NewInt(int64(e.limit.Requests))))
	if full := e.partsOf(e.limit.EffectiveBurst()); e.parts.Cmp(full) > 0 {
		e.parts = full
	}
}

func (e *exactBucket) take(tokens int) { e.parts.Sub(e.parts, e.partsOf(tokens)) }

// less returns the tokens in e less n, and rounds to a float64 only then.
func (e *exactBucket) less(n float64) float64 {
	d := new(big.Rat).SetFrac(e.parts, big.NewInt(int64(e.limit.Per)))
	less, _ := d.Sub(d, new(big.Rat).SetFloat64(n)).Float64()
	return less
}

// mintedBy bounds what rounding adds in n requests.
func mintedBy(n int, l Limit) float64 { return float64(n) * float64(l.EffectiveBurst()) * 0x1p-50 }

// A pairOfBuckets is a bucket and its exact model, at one time.
type pairOfBuckets struct {
	*bucket
	exact *exactBucket
	start time.Time
	ops   int
}

func newPairOfBuckets(l Limit) *pairOfBuckets {
	p := &pairOfBuckets{bucket: &bucket{}, exact: newExactBucket(l), start: time.Now()}
	p.fill(&Charge{Name: "default", Limit: l})
	return p
}

func (p *pairOfBuckets) at() time.Time { return p.start.Add(p.exact.now) }

// take charges both, and holds the balance against the model.
func (p *pairOfBuckets) take(t *testing.T, cost int) Balance {
	t.Helper()
	l := p.exact.limit
	c := &Charge{Name: "default", Limit: l, Cost: cost}
	bal := p.balance(c, p.at())
	p.ops++
	slack := mintedBy(p.ops, l)
	if bal.Refused {
		require.Less(t, p.exact.less(float64(cost)), slack, "refused %d of %+v", cost, l)
	} else {
		require.True(t, p.AllowN(p.at(), cost))
		p.exact.take(cost)
		if slack < 1/float64(l.Per) {
			slack = 0 // not enough for the least step of an exact level
		}
		require.GreaterOrEqual(t, p.exact.less(0), -slack, "admitted %d of %+v", cost, l)
	}
	require.GreaterOrEqual(t, p.exact.less(float64(bal.Remaining)), -slack, "%+v", l)
	require.Less(t, p.exact.less(float64(bal.Remaining)), 1+mintedBy(p.ops, l), "%+v", l)
	return bal
}

// Whoever times requests to the nanosecond, so that rounding is in their favour
// each time, gets no token too many from a usual limit, and no more than the
// bound from any other.
func TestRoundingInFavourOfASenderMintsNoToken(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, l := range append(usualLimits, oddLimits...) {
		p := newPairOfBuckets(l)
		token := max(int64(l.Per)/int64(l.Requests), 1)
		worst := 0.0
		for range 1000 {
			if bal := p.take(t, 1+random.IntN(min(l.EffectiveBurst(), 3))); bal.Refused && bal.RetryAfter < 1<<60-p.exact.now {
				p.exact.advance(bal.RetryAfter)
			}
			best, gain := time.Duration(0), math.Inf(-1)
			for range 8 {
				d := time.Duration(1 + random.Int64N(token))
				later := *p.exact
				later.parts = new(big.Int).Set(p.exact.parts)
				later.advance(d)
				if minted := -later.less(p.TokensAt(p.at().Add(d))); minted > gain {
					best, gain = d, minted
				}
			}
			worst = max(worst, gain)
			if p.exact.now < 1<<60 {
				p.exact.advance(best)
			}
		}
		t.Logf("%+v: %.2g tokens minted, bound %.2g", l, worst, mintedBy(p.ops, l))
		require.LessOrEqual(t, worst, mintedBy(p.ops, l))
	}
}

func TestWaitingForRetryAfterIsEnoughForEveryLimit(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, l := range append(usualLimits, oddLimits...) {
		p := newPairOfBuckets(l)
		for range 1000 {
			cost := 1 + random.IntN(l.EffectiveBurst())
			bal := p.take(t, cost)
			if !bal.Refused {
				p.exact.advance(min(time.Duration(random.Int64N(int64(bal.ResetAfter)+1)), max(1<<60-p.exact.now, 0)))
				continue
			}
			if bal.RetryAfter > 1<<60-p.exact.now {
				break
			}
			require.Positive(t, bal.RetryAfter)
			exact := -p.exact.less(float64(cost)) * float64(l.Per) / float64(l.Requests)
			most := exact*(1+0x1p-48) + 2 + mintedBy(p.ops, l)*float64(l.Per)/float64(l.Requests)
			require.LessOrEqual(t, float64(bal.RetryAfter), most, "%+v", l)
			p.exact.advance(bal.RetryAfter)
			require.False(t, p.take(t, cost).Refused, "%v was not enough under %+v", bal.RetryAfter, l)
		}
	}
}

// A bucket is full, and may be forgotten, not a moment earlier than it says,
// give or take a nanosecond, or 2^-50 of the time that fills it from empty.
func TestBucketIsFullAfterItsReset(t *testing.T) {
	for _, l := range append(usualLimits, oddLimits...) {
		p := newPairOfBuckets(l)
		reset := p.take(t, 1).ResetAfter
		slack := l.refill(float64(l.EffectiveBurst()))>>50 + 1
		require.True(t, reset <= slack || !p.full(p.at().Add(reset-slack)), "%+v", l)
		require.True(t, p.full(p.at().Add(reset+slack)), "%+v", l)
	}
}

func TestWaitOfCenturiesIsTheLongestDuration(t *testing.T) {
	p := newPairOfBuckets(Limit{Requests: 1, Per: math.MaxInt64, Burst: 3})
	require.Equal(t, Balance{ResetAfter: math.MaxInt64}, p.take(t, 3))
	bal := p.take(t, 1)
	require.Equal(t, Balance{Refused: true, RetryAfter: math.MaxInt64, ResetAfter: math.MaxInt64}, bal)
	require.False(t, p.full(p.at().Add(1<<62)))
}

// Plans that alternate neither hand out tokens nor lose parts of one, and a
// narrower plan keeps no more than its burst.
func TestChangeOfPlanKeepsTheTokens(t *testing.T) {
	now := time.Now()
	wide, narrow := Limit{Requests: 1, Per: time.Hour, Burst: 10}, Limit{Requests: 1, Per: time.Minute, Burst: 3}
	look := func(b *bucket, l Limit) int { return b.balance(&Charge{Name: "default", Limit: l}, now).Remaining }
	b := &bucket{}
	b.fill(&Charge{Name: "default", Limit: wide})
	require.True(t, b.AllowN(now, 4))
	require.Equal(t, 6, look(b, Limit{Requests: 1, Per: time.Hour, Burst: 20}))
	require.Equal(t, 6, look(b, wide))
	require.Equal(t, 3, look(b, narrow))
	require.Equal(t, 3, look(b, wide))
	require.True(t, b.AllowN(now, 3))

	admitted := 0
	for i := range 240 { // a minute at one a minute, a minute at one an hour, in turn
		now = now.Add(500 * time.Millisecond)
		l := []Limit{narrow, wide}[i%2]
		if !b.balance(&Charge{Name: "default", Limit: l, Cost: 1}, now).Refused {
			require.True(t, b.AllowN(now, 1))
			admitted++
		}
	}
	require.Equal(t, 1, admitted)
}
