package redislimit

import (
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// thousand is a limit with leases of a tenth of a second.
var thousand = senderauth.Limit{Requests: 1000, Per: time.Second, Burst: 1000}

const testLease = 100 * time.Millisecond

func scaleOf(l senderauth.Limit) *scale { return (&scales{lease: testLease}).of(l) }

func reserveOf(l senderauth.Limit) *reserve {
	r := newReserve(&senderauth.Charge{Name: "x", Limit: l}, scaleOf(l))
	return &r
}

// A lease lasts at most a quarter of the time that fills the bucket, because other
// instances lack its tokens for that long.
func TestTermOfALease(t *testing.T) {
	for burst, want := range map[int]time.Duration{1000: testLease, 100: 25 * time.Millisecond, 16: 4 * time.Millisecond, 15: 0} {
		require.Equal(t, want, scaleOf(senderauth.Limit{Requests: 1000, Per: time.Second, Burst: burst}).term, burst)
	}
}

func TestLapsedLeaseIsNotSpent(t *testing.T) {
	r := reserveOf(thousand)
	r.add(10, 1, time.Hour, 0)
	r.add(20, 2, 2*time.Hour, 0)
	require.Equal(t, 30, r.held(time.Hour-1))
	require.Equal(t, 20, r.held(time.Hour))
	r.spend(5, time.Hour)
	require.Equal(t, 15, r.held(time.Hour))
	require.Equal(t, 25, r.held(time.Hour-1), "the first lease is as it was")
	require.Equal(t, 0, r.held(2*time.Hour))
	require.True(t, r.holds(), "what Redis has not got back")
}

// Tokens that lapse at the same time are one lease. A third lease replaces the one that
// lapses first.
func TestTwoLeasesAtATime(t *testing.T) {
	r := reserveOf(thousand)
	r.add(10, 5, time.Hour, 0)
	r.add(20, 9, 2*time.Hour, 0)
	r.add(3, 5, time.Hour, 0)
	require.Equal(t, 33, r.held(0))
	require.Equal(t, 33, r.batch)
	r.add(7, 12, 3*time.Hour, 0)
	require.Equal(t, 27, r.held(0))
	require.Equal(t, 7, r.held(2*time.Hour))
}

// A lease that is not used, or that is about to lapse, goes back.
func TestIdleLeaseGoesBack(t *testing.T) {
	r := reserveOf(thousand)
	r.add(10, 1, testLease, 0)
	e := &r.leases[0]
	r.used = 0
	require.False(t, r.idle(e, testLease/5))
	require.True(t, r.idle(e, testLease/5+1))
	r.used = testLease
	edge := testLease - testLease/6
	require.False(t, r.idle(e, edge))
	require.True(t, r.idle(e, edge+1))
	require.True(t, r.anyIdle(edge+1))
	e.tokens = 0
	require.False(t, r.anyIdle(edge+1), "nothing is held")
}

// serve lets a sender take perMillisecond tokens every millisecond, with a fetch every ten
// milliseconds, and returns how many tokens the last fetch wants.
func serve(r *reserve, perMillisecond int, length time.Duration) int {
	wants := 0
	for now := time.Duration(0); now < length; now += time.Millisecond {
		r.demand += perMillisecond
		if now%(10*time.Millisecond) == 0 {
			r.followDemand(now)
			wants = r.want()
			r.asked, r.demand = now, 0
		}
	}
	return wants
}

// A reserve wants what the sender takes in 0.4 leases, and nothing for a slow sender.
func TestReserveFollowsTheDemand(t *testing.T) {
	r := reserveOf(senderauth.Limit{Requests: 100_000, Per: time.Second})
	require.InDelta(t, 10*40, serve(r, 10, 2*time.Second), 4)
	require.InDelta(t, 20*40, serve(r, 20, 2*time.Second), 8)
	r.waiting = 5000
	require.Equal(t, 5000, r.want(), "and at least what callers wait for")
	r.waiting, r.demand = 0, 0
	require.Zero(t, r.want(), "there was no demand since the last fetch")
	r.demand = 1
	require.Positive(t, r.want())
	r.rate = worthwhile / 0.04
	require.Equal(t, worthwhile, r.want())
	r.rate--
	require.Zero(t, r.want())

	small := reserveOf(thousand)
	require.Equal(t, thousand.Burst, serve(small, 100, time.Second), "no more than the bucket holds")

	hasty := reserveOf(thousand)
	hasty.asked, hasty.demand = 0, 2
	hasty.followDemand(time.Microsecond)
	require.Less(t, hasty.rate, 51.0, "two requests in a row are no two million a second")
}

// A fetch for a caller gives back all tokens that the instance holds, so that Redis decides
// with every token there is.
func TestFetchWithANeedGivesEverythingBack(t *testing.T) {
	r := reserveOf(thousand)
	r.add(10, 7, time.Hour, 0)
	r.spend(4, 0)
	o := r.prepare(8, true, time.Millisecond)
	require.Equal(t, 8, o.need)
	require.Equal(t, settlement{lapse: 7, spent: 4, back: 6}, o.settled[0])
	require.Zero(t, r.held(0))
	require.Zero(t, r.demand)
	require.Equal(t, time.Millisecond, r.asked)

	o = r.prepare(8, true, 2*time.Millisecond)
	require.Equal(t, settlement{lapse: 7}, o.settled[0], "each token is reported once")
}

// A fetch in the background leases only what the instance does not hold yet.
func TestRefillKeepsWhatIsInUse(t *testing.T) {
	r := reserveOf(senderauth.Limit{Requests: 100_000, Per: time.Second})
	serve(r, 10, time.Second)
	now := time.Second
	empty := *r
	r.add(100, 7, now+time.Hour, now)
	r.used = now
	o := r.prepare(0, true, now)
	require.Zero(t, o.settled[0].back)
	require.Equal(t, 100, r.held(now))
	require.Equal(t, empty.prepare(0, true, now).extra-100, o.extra)
	require.Zero(t, r.prepare(0, false, now).extra, "nothing is leased for a look")
}

// While Redis is known to lack tokens, they are not requested.
func TestShortageEnds(t *testing.T) {
	r := reserveOf(thousand)
	token := r.perToken
	r.learn(2*token, 0, 3, false, 0)
	require.True(t, r.lacks(3, 0))
	require.True(t, r.lacks(4, 0))
	require.False(t, r.lacks(2, 0))
	require.Equal(t, testLease/4, r.shortage.until, "a pause lets tokens gather")
	require.False(t, r.lacks(3, testLease/4))

	r.learn(0, 0, 500, false, 0)
	require.Equal(t, 500*time.Millisecond, r.shortage.until, "the time that they take to flow back")
	slow := reserveOf(senderauth.Limit{Requests: 1, Per: time.Hour, Burst: 10})
	slow.learn(0, 0, 1, false, 0)
	require.Equal(t, time.Second, slow.shortage.until, "another instance may give some back")
	require.InDelta(t, time.Hour, slow.retryAfter(1, 0), float64(time.Second))
	require.InDelta(t, time.Hour-time.Minute, slow.retryAfter(1, time.Minute), float64(time.Second))

	r.learn(token-1, 0, 3, true, 0)
	require.True(t, r.lacks(1, 0), "the last token was taken")
	r.learn(token, 0, 3, true, 0)
	require.False(t, r.lacks(1, 0))
	r.learn(0, 0, 1, false, 0)
	r.empty()
	require.False(t, r.lacks(1, 0), "the bucket was reset")
}

// Tokens leased under another limit are not spent, and go back.
func TestReserveAdoptsALimit(t *testing.T) {
	r := reserveOf(thousand)
	r.add(10, 7, time.Hour, 0)
	r.learn(0, 0, 1, false, 0)
	other := senderauth.PerSecond(10)
	r.adopt(other, scaleOf(other))
	require.Zero(t, r.held(0))
	require.False(t, r.lacks(1, 0))
	require.Equal(t, 10, r.prepare(0, true, 0).settled[0].back)
}

// A reserve is low when less than a quarter is left, if Redis may have more.
func TestLowReserve(t *testing.T) {
	r := reserveOf(thousand)
	r.add(40, 7, time.Hour, 0)
	r.spend(30, 0)
	require.False(t, r.low(0))
	r.spend(1, 0)
	require.True(t, r.low(0))
	r.learn(0, 0, 1, false, 0)
	require.False(t, r.low(0))

	few := reserveOf(thousand)
	few.add(worthwhile-1, 7, time.Hour, 0)
	few.spend(worthwhile-1, 0)
	require.False(t, few.low(0), "the sender is slow")
}
