package redislimit_test

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/stretchr/testify/require"
)

// An order tells a worker process to take one token of a sender a number of times, at an
// interval.
type order struct {
	Sender   string
	Limit    senderauth.Limit
	Attempts int
	Every    time.Duration
}

// A report has the start and the end of each admitted attempt, in Unix microseconds.
type report struct {
	Began, Ended []int64
	Error        string
}

const workerEnv = "REDISLIMIT_TEST_WORKER"

func TestMain(m *testing.M) {
	if addr := os.Getenv(workerEnv); addr != "" {
		work(addr)
		return
	}
	testservers.Main(m)
}

func work(addr string) {
	lease, _ := time.ParseDuration(os.Getenv(workerEnv + "_LEASE"))
	c := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true})
	l, err := redislimit.New(c, redislimit.Config{FailClosed: true, Timeout: patient, Lease: lease})
	if err != nil {
		panic(err)
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var o order
		if in.Decode(&o) != nil {
			return
		}
		charges := []senderauth.Charge{{Name: "x", Limit: o.Limit, Cost: 1}}
		var r report
		next := time.Now()
		for range o.Attempts {
			if o.Every > 0 {
				<-time.After(time.Until(next))
				next = next.Add(o.Every)
			}
			began := time.Now().UnixMicro()
			b, err := l.Take(ctx, o.Sender, charges)
			if err != nil {
				r.Error = err.Error()
				break
			}
			if !b[0].Refused {
				r.Began = append(r.Began, began)
				r.Ended = append(r.Ended, time.Now().UnixMicro()+1)
			}
		}
		if out.Encode(r) != nil {
			return
		}
	}
}

type worker struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startWorker(t *testing.T, addr string, lease time.Duration) *worker {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), workerEnv+"="+addr, workerEnv+"_LEASE="+lease.String())
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &worker{cmd: cmd, in: in, out: bufio.NewReader(out)}
}

// tell sends an order to the worker, and hear reads its report.
func (w *worker) tell(t *testing.T, o order) {
	t.Helper()
	require.NoError(t, json.NewEncoder(w.in).Encode(o))
}

func (w *worker) hear(t *testing.T) report {
	t.Helper()
	line, err := w.out.ReadBytes('\n')
	require.NoError(t, err)
	var r report
	require.NoError(t, json.Unmarshal(line, &r))
	require.Empty(t, r.Error)
	return r
}

// within fails the test if more was admitted in any interval than the limit allows. Every
// attempt is decided between its start and its end, so it checks each interval from the
// start of one attempt to the end of another.
func within(t *testing.T, l senderauth.Limit, all []report) {
	t.Helper()
	type event struct{ began, ended int64 }
	var events []event
	for _, r := range all {
		for i := range r.Began {
			events = append(events, event{r.Began[i], r.Ended[i]})
		}
	}
	slices.SortFunc(events, func(a, b event) int { return cmp.Compare(a.ended, b.ended) })
	rate := float64(l.Requests) / float64(l.Per.Microseconds())
	for _, first := range events {
		n := 0
		for _, last := range events {
			if last.began < first.began {
				continue
			}
			if n++; float64(n) > float64(l.Burst)+rate*float64(last.ended-first.began) {
				t.Fatalf("%d admitted in %d us: %.1f allowed", n, last.ended-first.began, float64(l.Burst)+rate*float64(last.ended-first.began))
			}
		}
	}
}

// Four processes become hot for a sender, take one token each, which leases them more,
// wait until the bucket has refilled, and spend everything at once. Then one process is
// frozen while it holds leases, and another is killed.
func TestAdversary(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		t.Parallel()
		s := startServer(t, "redis-server")
		workers := make([]*worker, 4)
		for i := range workers {
			workers[i] = startWorker(t, s.Addr(), 10*lease)
		}
		limit := senderauth.Limit{Requests: 1000, Per: time.Second, Burst: 4000}
		everything := 4000
		if lease == 0 {
			everything = 1200
		}
		var all []report
		hear := func() (admitted int) {
			for _, w := range workers {
				r := w.hear(t)
				all = append(all, r)
				admitted += len(r.Began)
			}
			return admitted
		}
		run := func(attempts int) {
			for _, w := range workers {
				w.tell(t, order{Sender: "a", Limit: limit, Attempts: attempts})
			}
		}
		run(300)
		require.Equal(t, 1200, hear())
		<-time.After(1300 * time.Millisecond)
		run(1)
		require.Equal(t, 4, hear())
		<-time.After(150 * time.Millisecond)
		run(everything)
		admitted := hear()
		first, last := int64(1<<62), int64(0)
		for _, r := range all[len(all)-4:] {
			first, last = min(first, r.Began[0]), max(last, r.Ended[len(r.Ended)-1])
		}
		t.Logf("%d of %d admitted at once, in %d us", admitted, limit.Burst, last-first)
		require.Greater(t, admitted, limit.Burst/2)
		within(t, limit, all)

		all = nil
		<-time.After(time.Second)
		run(200)
		hear()
		require.NoError(t, workers[0].cmd.Process.Signal(syscall.SIGSTOP))
		require.NoError(t, workers[3].cmd.Process.Kill())
		workers = workers[:3]
		<-time.After(1500 * time.Millisecond)
		run(everything)
		require.NoError(t, workers[0].cmd.Process.Signal(syscall.SIGCONT))
		require.Greater(t, hear(), 1000)
		within(t, limit, all)
	})
}

// However many processes serve one sender, below, at and above its limit, they admit what
// the limit allows.
func TestInstances(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		t.Parallel()
		s := startServer(t, "redis-server")
		workers := make([]*worker, 9)
		for i := range workers {
			workers[i] = startWorker(t, s.Addr(), lease)
			workers[i].tell(t, order{Sender: "warm", Limit: hourly(1), Attempts: 1})
			workers[i].hear(t)
		}
		limit := senderauth.Limit{Requests: 500, Per: time.Second, Burst: 50}
		for _, n := range []int{1, 3, 5, 9} {
			for _, share := range []float64{0.9, 1, 2} {
				perWorker := float64(limit.Requests) * share / float64(n)
				attempts := int(perWorker) // for a second, ten times as long as the bucket takes to fill
				for _, w := range workers[:n] {
					w.tell(t, order{
						Sender: fmt.Sprint(n, share), Limit: limit,
						Attempts: attempts, Every: time.Duration(float64(time.Second) / perWorker),
					})
				}
				var all []report
				admitted, first, last := 0, int64(1<<62), int64(0)
				for _, w := range workers[:n] {
					r := w.hear(t)
					all = append(all, r)
					admitted += len(r.Began)
					first, last = min(first, r.Began[0]), max(last, r.Ended[len(r.Ended)-1])
				}
				within(t, limit, all)
				allowed := float64(limit.Burst) + float64(limit.Requests)*float64(last-first)/1e6
				asked := min(float64(attempts*n), allowed)
				t.Logf("%d instances, %.1f x the limit: %d admitted, %.0f allowed and asked for: %.1f %%", n, share, admitted, asked, 100*float64(admitted)/asked)
				require.Positive(t, admitted, "how many depends on the processor; TestSimulation bounds it")
			}
		}
	})
}

// FLUSHALL gives a sender one extra burst at most.
func TestFlush(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		c := startServer(t, "redis-server").client()
		defer c.Close()
		l := open(t, c, redislimit.Config{Lease: lease, Timeout: patient})
		admitted := 0
		for i := range 500 {
			if i == 200 {
				require.NoError(t, c.FlushAll(ctx).Err())
			}
			if b := take(t, l, "a", charge("x", hourly(100), 1)); !b[0].Refused {
				admitted++
			}
		}
		require.LessOrEqual(t, admitted, 200)
		require.GreaterOrEqual(t, admitted, 100)
	})
}
