package redislimit

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// A simulation runs a fleet against a model of Redis, in simulated time. The decisions are
// the package's own; the scripts and the network are models. Each run is the same.
type simulation struct {
	// The configuration.
	instances int
	senders   int
	reach     int           // number of instances that serve one sender; 0 means all
	demand    float64       // requests a second of all senders, whose shares follow Zipf's law
	lease     time.Duration // 0 means exact mode
	length    time.Duration
	delay     time.Duration // average delay of a message
	loss      float64       // fraction of messages that are lost
	limit     func(rank uint64) senderauth.Limit
	arrivals  func(*simulation) // nil means zipf

	now     time.Duration
	events  events
	random  *rand.Rand
	fleet   []*instance
	buckets map[string]*modelBucket
	ideal   map[uint64]*idealBucket // charged with what was admitted
	oracle  map[uint64]*idealBucket // charged with everything it can admit

	requests, admitted, allowed, commands, waited, lost int
	worst                                               float64 // tokens above the limit
}

type instance struct {
	*Limiter
	table   leaseTable
	waiters map[*fetch][]*arrival
	tended  bool
	frozen  time.Duration // until when the instance gives nothing back
}

// An arrival is a request at an instance.
type arrival struct {
	request
	at     *instance
	rank   uint64
	waited bool
}

// A timer is an action at a time. A sequence number orders timers with the same time.
type timer struct {
	at time.Duration
	n  int
	f  func()
}

type events struct {
	list []timer
	n    int
}

func (e *events) Len() int { return len(e.list) }
func (e *events) Less(i, j int) bool {
	return e.list[i].at < e.list[j].at || e.list[i].at == e.list[j].at && e.list[i].n < e.list[j].n
}
func (e *events) Swap(i, j int) { e.list[i], e.list[j] = e.list[j], e.list[i] }
func (e *events) Push(x any)    { e.list = append(e.list, x.(timer)) }
func (e *events) Pop() any {
	last := e.list[len(e.list)-1]
	e.list[len(e.list)-1] = timer{}
	e.list = e.list[:len(e.list)-1]
	return last
}

func (s *simulation) after(d time.Duration, f func()) {
	s.events.n++
	heap.Push(&s.events, timer{s.now + d, s.events.n, f})
}

// A modelBucket is the state that bucket.lua keeps.
type modelBucket struct {
	scale                       [4]float64 // perToken, perTick, full, tick
	level, last, t1, n1, t2, n2 float64
}

func (b *modelBucket) refill(to, limit float64) {
	if to <= b.last {
		return
	}
	ticks := math.Floor((to - b.last) / b.scale[3])
	b.level += ticks * b.scale[1]
	b.last += ticks * b.scale[3]
	if b.level >= limit {
		b.level, b.last = limit, to
	}
}

func (b *modelBucket) cap() float64 { return max(b.scale[2]-(b.n1+b.n2)*b.scale[0], 0) }

func doubles(arg string) []float64 {
	var d []float64
	for b := []byte(arg); len(b) >= 8; b = b[8:] {
		d = append(d, math.Float64frombits(binary.LittleEndian.Uint64(b)))
	}
	return d
}

// load models that of bucket.lua, without changes of the limit. Callers that change the
// bucket must store it.
func (s *simulation) load(key, arg string) (b modelBucket, rest []float64) {
	clock := float64(s.now.Microseconds())
	if kept := s.buckets[key]; kept != nil {
		b = *kept
	} else {
		d := doubles(arg[:24])
		b = modelBucket{level: d[2], last: clock}
		b.scale = [4]float64{d[0], d[1], d[2], float64(math.Float32frombits(binary.LittleEndian.Uint32([]byte(arg[24:28]))))}
	}
	if fill := math.Ceil(b.scale[2]/b.scale[1]) * b.scale[3]; b.last > clock+fill {
		b.last = clock
		b.t1, b.t2 = min(b.t1, clock+math.Ceil(fill/4)), min(b.t2, clock+math.Ceil(fill/4))
		s.buckets[key] = &b
	}
	if b.n1 > 0 && b.t1 <= clock {
		b.refill(b.t1, b.cap())
		b.n1 = 0
	}
	if b.n2 > 0 && b.t2 <= clock {
		b.refill(b.t2, b.cap())
		b.n2 = 0
	}
	b.refill(clock, b.cap())
	return b, doubles(arg[28:])
}

// take models take.lua for one bucket.
func (s *simulation) take(key, arg string) []int64 {
	b, rest := s.load(key, arg)
	if b.level < rest[0] {
		return []int64{0, int64(b.level), 0}
	}
	b.level -= rest[0]
	s.buckets[key] = &b
	return []int64{1, int64(b.level), 0}
}

// leaseScript models lease.lua for one bucket.
func (s *simulation) leaseScript(key, arg string) []int64 {
	b, rest := s.load(key, arg)
	clock := float64(s.now.Microseconds())
	need, owed, extra, term := rest[0], rest[1], rest[2], rest[3]
	changed := false
	for ; len(rest) >= 7; rest = rest[3:] {
		t, spent, back := rest[4], rest[5], rest[6]
		switch {
		case spent+back == 0:
			continue
		case b.n1 > 0 && t == b.t1:
			b.n1 = max(b.n1-spent-back, 0)
		case b.n2 > 0 && t == b.t2:
			b.n2 = max(b.n2-spent-back, 0)
		default:
			continue
		}
		b.level = min(b.level+back*b.scale[0], b.cap())
		changed = true
	}
	if owed > 0 {
		b.level = max(b.level-owed, 0)
		changed = true
	}
	took, leased, lapse := int64(0), 0.0, 0.0
	if b.level >= need*b.scale[0] {
		took = 1
		b.level -= need * b.scale[0]
		leased = min(extra, math.Floor(b.level/b.scale[0]))
		changed = changed || need+leased > 0
	}
	if leased > 0 {
		b.level -= leased * b.scale[0]
		switch {
		case b.n2 == 0:
			b.t2, b.n2 = clock+term, leased
			if b.n1 > 0 {
				b.t2 = max(b.t2, b.t1)
			}
		case b.t2 >= clock+term/2:
			b.n2 += leased
		default:
			b.t1, b.n1 = b.t2, b.n1+b.n2
			b.t2, b.n2 = max(clock+term, b.t1), leased
		}
		lapse = b.t2
	}
	if changed {
		s.buckets[key] = &b
	}
	return []int64{took, int64(clock), int64(b.level), int64(clock - b.last), int64(leased), int64(lapse)}
}

// An idealBucket checks that no more than burst + rate x T is admitted.
type idealBucket struct {
	level float64
	last  time.Duration
}

func (s *simulation) idealTake(m map[uint64]*idealBucket, rank uint64) *idealBucket {
	l := s.limit(rank)
	b := m[rank]
	if b == nil {
		b = &idealBucket{level: float64(l.Burst), last: s.now}
		m[rank] = b
	}
	b.level = min(b.level+float64(s.now-b.last)*float64(l.Requests)/float64(l.Per), float64(l.Burst))
	b.last = s.now
	return b
}

// admit counts a request that is admitted now.
func (s *simulation) admit(rank uint64) {
	s.admitted++
	b := s.idealTake(s.ideal, rank)
	b.level--
	// The clock of Redis counts whole microseconds.
	l := s.limit(rank)
	s.worst = max(s.worst, -b.level-float64(l.Requests)*float64(time.Microsecond)/float64(l.Per))
}

// travel carries a message to Redis and the reply back, or loses one of them.
func (s *simulation) travel(there func() []int64, back func([]int64)) {
	s.commands++
	way := func() time.Duration {
		return s.delay/2 + time.Duration(s.random.ExpFloat64()*float64(s.delay)/2)
	}
	const timeout = 50 * time.Millisecond
	sent := s.now
	if s.random.Float64() < s.loss {
		s.after(timeout, func() { back(nil) })
		return
	}
	s.after(way(), func() {
		reply := there()
		if s.random.Float64() < s.loss {
			s.after(sent+timeout-s.now, func() { back(nil) })
			return
		}
		s.after(way(), func() { back(reply) })
	})
}

func (s *simulation) run() {
	s.random = rand.New(rand.NewPCG(1, 2))
	s.buckets, s.ideal, s.oracle = map[string]*modelBucket{}, map[uint64]*idealBucket{}, map[uint64]*idealBucket{}
	s.fleet = make([]*instance, s.instances)
	for i := range s.fleet {
		l := &Limiter{head: keyHead("s"), scales: scales{lease: s.lease}}
		s.fleet[i] = &instance{Limiter: l, table: newLeaseTable(), waiters: map[*fetch][]*arrival{}}
	}
	if s.arrivals == nil {
		s.arrivals = (*simulation).zipf
	}
	s.arrivals(s)
	for len(s.events.list) > 0 {
		t := heap.Pop(&s.events).(timer)
		s.now = t.at
		t.f()
	}
}

// zipf lets requests of many senders arrive at random, with Zipf's law.
func (s *simulation) zipf() {
	zipf := rand.NewZipf(s.random, 1.1, 1, uint64(s.senders-1))
	var arrive func()
	arrive = func() {
		if s.now >= s.length {
			return
		}
		rank := zipf.Uint64()
		n := s.random.IntN(s.instances)
		if s.reach > 0 {
			n = int((rank*7919 + uint64(s.random.IntN(s.reach))) % uint64(s.instances))
		}
		s.request(s.fleet[n], rank)
		s.after(time.Duration(s.random.ExpFloat64()/s.demand*float64(time.Second)), arrive)
	}
	s.after(0, arrive)
}

// hoard makes all instances hot for a sender, lets each take one token when the bucket is
// full again, and later lets them spend everything at once. Half of them are frozen in
// between and then try to spend what they hold, lapsed or not.
func (s *simulation) hoard() {
	var at time.Duration
	each := func(n int, every time.Duration) {
		for k := range n {
			for _, i := range s.fleet {
				s.after(at+time.Duration(k)*every, func() { s.request(i, 0) })
			}
		}
		at += time.Duration(n) * every
	}
	for at < s.length {
		each(300, 20*time.Microsecond)
		at += 1300 * time.Millisecond
		each(1, 0)
		begin := at + 10*time.Millisecond
		at = begin + time.Duration(s.random.Int64N(int64(2*s.lease)))
		each(4000, 5*time.Microsecond)
		until := at
		for _, i := range s.fleet[:len(s.fleet)/2] {
			s.after(begin, func() { i.frozen = until })
		}
		at += time.Duration(s.random.Int64N(int64(5 * time.Second)))
	}
}

func (s *simulation) request(i *instance, rank uint64) {
	s.requests++
	if o := s.idealTake(s.oracle, rank); o.level >= 1 {
		o.level--
		s.allowed++
	}
	a := &arrival{at: i, rank: rank, request: request{
		sender:   strconv.FormatUint(rank, 10),
		charges:  []senderauth.Charge{{Name: "x", Limit: s.limit(rank), Cost: 1}},
		balances: make([]senderauth.Balance, 1),
	}}
	if !a.plan(&i.scales) {
		panic("not a limit")
	}
	if !a.leasable() {
		s.exact(a)
		return
	}
	s.decide(a, false)
}

func (s *simulation) exact(a *arrival) {
	s.wait(a)
	key, arg := a.at.key(a.sender, "x"), packTake(a.asked[0].scale, a.asked[0].need, 0)
	taken := false
	s.travel(func() []int64 {
		reply := s.take(key, arg)
		if taken = reply[0] == 1; taken {
			s.admit(a.rank)
		}
		return reply
	}, func(reply []int64) { s.done(reply, taken) })
}

func (s *simulation) wait(a *arrival) {
	if !a.waited {
		a.waited = true
		s.waited++
	}
}

// done ends a request that Redis decided. Without a reply it is not admitted.
func (s *simulation) done(reply []int64, taken bool) {
	if reply == nil {
		s.lost++
		if taken {
			s.admitted--
		}
	}
}

// decide corresponds to Limiter.leased.
func (s *simulation) decide(a *arrival, joined bool) {
	i := a.at
	h := i.table.open(a.sender, s.now)
	if joined {
		h.leave(&a.request)
	}
	switch d := h.decide(&a.request, s.now); d.verdict {
	case decided:
		if !a.balances[0].Refused {
			s.admit(a.rank)
		}
		if h.low(&a.request, s.now) {
			s.send(i, h.refill(s.now), nil)
		}
	case direct:
		s.exact(a)
	case send:
		s.wait(a)
		s.send(i, d.fetch, a)
	case join:
		s.wait(a)
		i.waiters[d.fetch] = append(i.waiters[d.fetch], a)
	}
}

// send corresponds to Limiter.send, for an arrival or in the background.
func (s *simulation) send(i *instance, f *fetch, a *arrival) {
	taken := false
	key, arg := i.key(f.sender, f.orders[0].name), packOrder(&f.orders[0])
	s.travel(func() []int64 {
		reply := s.leaseScript(key, arg)
		if taken = a != nil && reply[0] == 1; taken {
			s.admit(a.rank)
		}
		return reply
	}, func(reply []int64) {
		i.table.land(f, reply, s.now)
		s.tend(i)
		if a != nil {
			s.done(reply, taken)
		}
		waiters := i.waiters[f]
		delete(i.waiters, f)
		for _, w := range waiters {
			if reply == nil {
				i.table.open(w.sender, s.now).leave(&w.request)
				s.lost++
				continue
			}
			s.decide(w, true)
		}
	})
}

// tend corresponds to Limiter.tend, as long as the instance holds tokens.
func (s *simulation) tend(i *instance) {
	if i.tended || len(i.table.holders) == 0 {
		return
	}
	i.tended = true
	s.after(max(s.lease/10, i.frozen-s.now), func() {
		i.tended = false
		if s.now >= i.frozen {
			for _, f := range i.table.tend(s.now, func(string) bool { return true }) {
				s.send(i, f, nil)
			}
		}
		s.tend(i)
	})
}

func (s *simulation) String() string {
	mode := "exact"
	if s.lease > 0 {
		mode = "lease " + s.lease.String()
	}
	reach := "all"
	if s.reach > 0 {
		reach = strconv.Itoa(s.reach)
	}
	return fmt.Sprintf("%-10s sender reaches %-4s requests/s %8.0f  commands/s %8.0f  commands/request %.4f  waited %5.1f %%  admitted %.2f %% of what was allowed and asked for  above the limit %.3f",
		mode, reach, float64(s.requests)/s.length.Seconds(), float64(s.commands)/s.length.Seconds(), float64(s.commands)/float64(s.requests),
		100*float64(s.waited)/float64(s.requests), 100*float64(s.admitted)/float64(s.allowed), s.worst)
}

// plans gives the first hundred senders large limits, and the others a small one.
func plans(rank uint64) senderauth.Limit {
	if rank < 100 {
		return senderauth.Limit{Requests: 5000, Per: time.Second, Burst: 5000}
	}
	return senderauth.Limit{Requests: 50, Per: time.Second, Burst: 100}
}

func TestSimulation(t *testing.T) {
	for _, s := range []*simulation{
		{},
		{lease: 100 * time.Millisecond},
		{lease: time.Second},
		{lease: time.Second, reach: 2, loss: 0.05, delay: 10 * time.Millisecond},
	} {
		s.instances, s.senders, s.demand, s.length = 8, 1000, 10_000, time.Second
		s.delay, s.loss = max(s.delay, 200*time.Microsecond), max(s.loss, 0.001)
		s.limit = func(rank uint64) senderauth.Limit {
			return senderauth.Limit{Requests: 400, Per: time.Second, Burst: 400}
		}
		s.run()
		t.Log(s)
		require.Less(t, s.worst, 1e-6, "tokens above the limit")
		require.Greater(t, float64(s.admitted), 0.8*float64(s.allowed))
		again := *s
		again.now, again.events, again.worst = 0, events{}, 0
		again.requests, again.admitted, again.allowed, again.commands, again.waited, again.lost = 0, 0, 0, 0, 0, 0
		again.run()
		require.Equal(t, s.String(), again.String(), "it is the same each time")
	}
}

// A hot sender hardly ever waits, because more tokens are fetched before the held ones are
// gone.
func TestSimulatedHotSender(t *testing.T) {
	s := &simulation{
		instances: 2, senders: 1, demand: 20_000, lease: 100 * time.Millisecond, length: 2 * time.Second,
		delay: 200 * time.Microsecond,
		limit: func(uint64) senderauth.Limit {
			return senderauth.Limit{Requests: 100_000, Per: time.Second, Burst: 100_000}
		},
	}
	s.run()
	t.Log(s)
	require.Less(t, s.waited, s.requests/200)
	require.Less(t, s.commands, s.requests/50)
	require.Equal(t, s.requests, s.admitted)
	require.Less(t, s.worst, 1e-6, "tokens above the limit")
}

// However long the adversary waits, leases never admit more than the limit.
func TestSimulatedAdversary(t *testing.T) {
	for _, lease := range []time.Duration{100 * time.Millisecond, time.Second} {
		s := &simulation{
			instances: 4, senders: 1, lease: lease, length: 15 * time.Second,
			delay: 200 * time.Microsecond, loss: 0.001, arrivals: (*simulation).hoard,
			limit: func(uint64) senderauth.Limit {
				return senderauth.Limit{Requests: 1000, Per: time.Second, Burst: 4000}
			},
		}
		s.run()
		t.Log(s)
		require.Less(t, s.worst, 1e-6, "tokens above the limit")
		require.Greater(t, float64(s.admitted), 0.9*float64(s.allowed))
	}
}

// BenchmarkSimulation simulates 1,000 instances and a million senders:
//
//	go test -run '^$' -bench Simulation -benchtime 1x .
func BenchmarkSimulation(b *testing.B) {
	for _, s := range []simulation{
		{},
		{lease: 100 * time.Millisecond},
		{lease: time.Second},
		{reach: 4},
		{lease: 100 * time.Millisecond, reach: 4},
		{lease: time.Second, reach: 4},
	} {
		s.instances, s.senders, s.demand, s.length = 1000, 1_000_000, 200_000, 5*time.Second
		s.delay, s.loss, s.limit = 200*time.Microsecond, 0.0001, plans
		b.Run(fmt.Sprintf("lease=%v/reach=%d", s.lease, s.reach), func(b *testing.B) {
			for range b.N {
				s := s
				s.run()
				b.Log(&s)
				if s.worst > 1e-6 {
					b.Fatalf("%.3f tokens above the limit", s.worst)
				}
				b.ReportMetric(float64(s.commands)/s.length.Seconds(), "commands/s")
				b.ReportMetric(float64(s.commands)/float64(s.requests), "commands/request")
				b.ReportMetric(100*float64(s.waited)/float64(s.requests), "waited-%")
				b.ReportMetric(100*float64(s.admitted)/float64(s.allowed), "admitted-%")
			}
		})
	}
}
