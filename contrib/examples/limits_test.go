package examples_test

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/senderauth/senderauth/contrib/internal/testservers/redistest"
	"github.com/stretchr/testify/require"
)

// The limit "default" of the programs: burst tokens, and rate a second.
const (
	burst = 50
	rate  = 200. / 60
)

// newPair returns new credentials, because other tests may use the same Redis.
func newPair() (id, key string) { return uuid.NewString(), uuid.NewString() }

// startFleet starts programs that share keys and limits and accept the pair.
func startFleet(t *testing.T, programs []string, redis, id, key string, args ...string) []*process {
	t.Helper()
	args = append([]string{"-redis", redis, "-instances", strconv.Itoa(len(programs))}, args...)
	var fleet []*process
	for _, program := range programs {
		fleet = append(fleet, launch(t, program, pairOf(id, key), args...))
	}
	for _, p := range fleet {
		p.ready(t)
	}
	return fleet
}

// A load sends requests to all programs from many callers until stop is called.
type load struct {
	admitted, refused []atomic.Int64 // by program
	stop              func()

	mu    sync.Mutex
	other []string // all other answers
}

func startLoad(fleet []*process, header []string, callers int) *load {
	l := &load{admitted: make([]atomic.Int64, len(fleet)), refused: make([]atomic.Int64, len(fleet))}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i, p := range fleet {
		for range callers {
			wg.Go(func() {
				c := newClient()
				defer c.CloseIdleConnections()
				for {
					select {
					case <-done:
						return
					case <-time.After(2 * time.Millisecond):
					}
					switch status, err := c.get(p, header); {
					case status == 200 && err == nil:
						l.admitted[i].Add(1)
					case status == 429 && err == nil:
						l.refused[i].Add(1)
					default:
						l.mu.Lock()
						l.other = append(l.other, fmt.Sprint(status, " ", err))
						l.mu.Unlock()
					}
				}
			})
		}
	}
	l.stop = func() { close(done); wg.Wait() }
	return l
}

func sum(of []atomic.Int64) (n int64) {
	for i := range of {
		n += of[i].Load()
	}
	return n
}

// refusedByAll waits until each program has refused n more requests.
func (l *load) refusedByAll(t *testing.T, n int64) {
	t.Helper()
	for i := range l.refused {
		want := l.refused[i].Load() + n
		eventually(t, "a program refuses", func() bool { return l.refused[i].Load() >= want })
	}
}

// shareOneQuota sends requests to all programs at once and checks that they admit
// exactly what one bucket would.
func shareOneQuota(t *testing.T, fleet []*process, id, key string) {
	t.Helper()
	begin := time.Now()
	var full time.Time // the last time at which the bucket may have been full
	for i, p := range fleet {
		require.Equal(t, 200, p.do(t, request{contactsTarget, as(id, key), ""}).StatusCode)
		if i == 0 {
			full = time.Now()
		}
	}
	first := int64(len(fleet)) // admitted so far
	l := startLoad(fleet, as(id, key), 4)
	eventually(t, "the burst is used up", func() bool { return first+sum(l.admitted) >= burst })
	l.refusedByAll(t, 20)
	l.stop()
	require.Empty(t, l.other)

	admitted := first + sum(l.admitted)
	var last time.Time
	for { // until less than one token is left
		last = time.Now()
		if status := fleet[0].do(t, request{contactsTarget, as(id, key), ""}).StatusCode; status != 200 {
			require.Equal(t, 429, status)
			break
		}
		admitted++
	}
	require.LessOrEqual(t, float64(admitted), burst+rate*time.Since(begin).Seconds())
	require.Greater(t, float64(admitted), burst+rate*last.Sub(full).Seconds()-1)
}

// Programs on one Redis share one quota exactly. Their timeout for Redis is long, so
// that none falls back on a busy machine.
func TestFleetSharesOneQuota(t *testing.T) {
	for name, fleet := range map[string][]string{
		"three quickstarts": {"quickstart", "quickstart", "quickstart"},
		"one of each":       programs,
	} {
		t.Run(name, func(t *testing.T) {
			id, key := newPair()
			shareOneQuota(t, startFleet(t, fleet, redistest.URL(t), id, key, "-redis-timeout", "10s"), id, key)
		})
	}
}

// Redis is killed under load and comes back empty. No request gets a 5xx. Each of
// the two changes gives the sender at most one extra burst across the whole fleet.
func TestRedisIsKilled(t *testing.T) {
	server := redistest.New(t)
	id, key := newPair()
	fleet := startFleet(t, []string{"quickstart", "quickstart", "quickstart"}, server.URL(), id, key, "-redis-timeout", "10s")
	logged := func(msg string) {
		for _, p := range fleet {
			p.awaitLog(t, msg)
		}
	}
	begin := time.Now()
	l := startLoad(fleet, as(id, key), 3)
	eventually(t, "the burst is used up", func() bool { return sum(l.admitted) >= burst })
	l.refusedByAll(t, 5)

	require.NoError(t, server.Kill())
	before := sum(l.admitted)
	logged("limits are not shared: Redis is unreachable")
	share := int64(burst / len(fleet))
	eventually(t, "each program admits its share by itself", func() bool { return sum(l.admitted) >= before+share*int64(len(fleet)) })
	l.refusedByAll(t, 5)
	atMost := func(bursts float64) {
		t.Helper()
		n := sum(l.admitted) // read before the clock
		require.LessOrEqual(t, float64(n), bursts*burst+rate*time.Since(begin).Seconds())
	}
	atMost(2)

	changing := time.Now()
	require.NoError(t, server.Start())
	logged("limits are shared again")
	changed := time.Since(changing)
	l.refusedByAll(t, 5)
	// While some programs use Redis again and others still their shares, the buckets of
	// both refill.
	extra := rate * changed.Seconds()
	atMost(3 + extra/burst)
	l.stop()
	require.Empty(t, l.other, "no 5xx, and no other answer")

	for _, p := range fleet {
		require.Equal(t, 1, p.lines("limits are not shared: Redis is unreachable"), "each change is logged once")
		require.Equal(t, 1, p.lines("limits are shared again"))
	}
	id, key = newPair()
	start(t, "quickstart", pairOf(id, key)) // stores the pair
	shareOneQuota(t, fleet, id, key)
}

// A program starts while Redis is down, and uses it once it is up.
func TestStartWithoutRedis(t *testing.T) {
	server := redistest.New(t)
	require.NoError(t, server.Kill())
	id, key := newPair()
	p := startFleet(t, []string{"quickstart"}, server.URL(), id, key)[0]
	l := startLoad([]*process{p}, as(id, key), 1)
	p.awaitLog(t, "limits are not shared: Redis is unreachable")
	require.NoError(t, server.Start())
	p.awaitLog(t, "limits are shared again")
	l.stop()
	require.Empty(t, l.other)
	require.Positive(t, sum(l.admitted))
}

func TestMistakesAboutRedis(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-redis", "http://:hunter2@localhost"}, "-redis: redis: invalid URL scheme: http"},
		{[]string{"-redis", "redis://:hunter2@localhost:port"}, `-redis: invalid port ":port" after host`},
		{[]string{"-redis", "redis://:hunter2@localhost:1/db"}, `-redis: redis: invalid database number: "db"`},
		{[]string{"-redis", "redis://:hunter2@localhost:65536"}, "-redis: address localhost:65536: invalid port"},
		{[]string{"-redis", "redis://one:65536,two:2"}, "-redis: a node of the Cluster: address one:65536: invalid port"},
		{[]string{"-redis", "redis://one:1,two:x"}, "-redis: a node of the Cluster: address two:x: invalid port"},
		{[]string{"-redis", "redis://one:1,two"}, "-redis: a node of the Cluster: address two: missing port in address"},
		{[]string{"-redis", "redis://one:1", "-instances", "0"}, "redislimit: Config.Instances is 0: how many instances share the limits?"},
		{[]string{"-redis", "redis://one:1", "-redis-timeout", "-1s"}, "redislimit: Config.Timeout -1s is below 0"},
		{[]string{"-instances", "3"}, "-instances needs -redis: limits in memory are not shared"},
	} {
		require.Equal(t, "quickstart: "+c.want+"\n", mistake(t, command("quickstart", nil, append(c.args, "-addr", "127.0.0.1:0")...)))
	}
}
