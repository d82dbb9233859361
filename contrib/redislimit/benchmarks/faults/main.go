// Command faults measures what the clients of a fleet see while Redis dies, hangs, or is
// slow, and with -pauses how much a sender gets while Redis or the instances pause again and
// again. It starts its own redis-server:
//
//	go run ./faults
//	go run ./faults -pauses 20s
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
)

var (
	only    = flag.String("only", "", "run only faults whose name contains this")
	rate    = flag.Int("rate", 1000, "requests a second, from 100 senders to 3 instances")
	timeout = flag.Duration("timeout", 50*time.Millisecond, "timeout of a decision")
	phase   = flag.Duration("phase", 5*time.Second, "length of each phase")
	pausing = flag.Duration("pauses", 0, "measure pauses instead, each for this long")
	limit   = senderauth.Limit{Requests: 5, Per: time.Second, Burst: 30}
)

const (
	instances = 3
	senders   = 100
)

func main() {
	log.SetFlags(0)
	redis.SetLogger(quiet{})
	if order := os.Getenv(workerEnv); order != "" {
		work(order)
		return
	}
	flag.Parse()
	if *pausing > 0 {
		pauses(*pausing)
		return
	}
	for _, f := range []fault{
		{name: "kill -9, then started again empty", begin: (*server).kill, end: (*server).start},
		{name: "kill -9, and FailClosed", begin: (*server).kill, end: (*server).start, closed: true},
		{name: "SIGSTOP, then SIGCONT", begin: func(s *server) { s.signal(syscall.SIGSTOP) }, end: func(s *server) { s.signal(syscall.SIGCONT) }},
		{name: "20 ms slower, half as many requests again", begin: func(s *server) { s.delay.Store(int64(20 * time.Millisecond)) }, end: func(s *server) { s.delay.Store(0) }, load: 1.5},
		{name: "SCRIPT FLUSH", begin: func(s *server) { s.client().ScriptFlush(context.Background()) }},
		{name: "FLUSHALL", begin: func(s *server) { s.client().FlushAll(context.Background()) }},
	} {
		if !strings.Contains(f.name, *only) {
			continue
		}
		for _, lease := range []time.Duration{0, 100 * time.Millisecond} {
			run(f, lease)
		}
	}
}

type fault struct {
	name       string
	begin, end func(s *server) // end may be nil
	closed     bool
	load       float64 // factor of -rate; zero means 1
}

type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// A server is a redis-server on a free port.
type server struct {
	dir   string
	port  int
	cmd   *exec.Cmd
	delay atomic.Int64 // nanoseconds to delay each answer
}

func newServer() *server {
	dir, err := os.MkdirTemp("", "faults")
	if err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	s := &server{dir: dir, port: l.Addr().(*net.TCPAddr).Port}
	l.Close()
	s.start()
	return s
}

func (s *server) remove() {
	s.kill()
	os.RemoveAll(s.dir)
}

// A slowConn delays what it reads.
type slowConn struct {
	net.Conn
	delay *atomic.Int64
}

func (c slowConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	time.Sleep(time.Duration(c.delay.Load()))
	return n, err
}

func (s *server) client() *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)), ContextTimeoutEnabled: true, PoolSize: 10,
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, addr)
			return slowConn{c, &s.delay}, err
		},
	})
}

func (s *server) start() {
	s.cmd = exec.Command("redis-server", "--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--dir", s.dir, "--save", "")
	if err := s.cmd.Start(); err != nil {
		log.Fatal(err)
	}
	c := s.client()
	defer c.Close()
	for c.Ping(context.Background()).Err() != nil {
		time.Sleep(10 * time.Millisecond)
	}
}

func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

func (s *server) signal(sig syscall.Signal) { _ = s.cmd.Process.Signal(sig) }

// run lets clients send requests during three phases of equal length: before, during and
// after the fault. It then prints what they saw.
func run(f fault, lease time.Duration) {
	s := newServer()
	defer s.remove()
	var modes changes
	start := time.Now()
	fleet, closeFleet := newFleet(s, lease, f.closed, func(instance int, m redislimit.Mode) {
		modes.add(fmt.Sprintf("%d %s at %.2f s", instance, m, time.Since(start).Seconds()))
	})
	defer closeFleet()
	go func() {
		time.Sleep(*phase)
		f.begin(s)
		time.Sleep(*phase)
		if f.end != nil {
			f.end(s)
		}
	}()
	events := send(fleet, start, float64(*rate)*cmp.Or(f.load, 1))

	mode := "exact mode"
	if lease > 0 {
		mode = "lease mode"
	}
	fmt.Printf("\n%s, %s\n", f.name, mode)
	printPhases(events)
	fmt.Printf("  most admitted above burst + rate x T of all three phases: %d of a burst of %d\n  %v\n", worst(events), limit.Burst, modes.all)
}

// changes records the changes of mode.
type changes struct {
	mu  sync.Mutex
	all []string
}

func (c *changes) add(change string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, change)
}

func newFleet(s *server, lease time.Duration, failClosed bool, onMode func(instance int, m redislimit.Mode)) (fleet []*redislimit.Limiter, done func()) {
	var clients []*redis.Client
	for i := range instances {
		c := s.client()
		l, err := redislimit.New(c, redislimit.Config{
			Instances: instances, Timeout: *timeout, Lease: lease, FailClosed: failClosed,
			OnMode: func(m redislimit.Mode, _ error) { onMode(i, m) },
		})
		if err != nil {
			log.Fatal(err)
		}
		clients, fleet = append(clients, c), append(fleet, l)
	}
	return fleet, func() {
		for i := range fleet {
			fleet[i].Close()
			clients[i].Close()
		}
	}
}

// An event is one request. Its times are relative to the start of the run.
type event struct {
	at, took time.Duration
	sender   int
	admitted bool
	err      error
}

// send sends requests at an even rate until all three phases are over.
func send(fleet []*redislimit.Limiter, start time.Time, perSecond float64) []event {
	var mu sync.Mutex
	var events []event
	var wg sync.WaitGroup
	every := time.Duration(float64(time.Second) / perSecond)
	for n := 0; time.Since(start) < 3**phase; n++ {
		time.Sleep(time.Until(start.Add(time.Duration(n) * every)))
		wg.Go(func() {
			sender := n % senders
			began := time.Now()
			b, err := fleet[n%len(fleet)].Take(context.Background(), strconv.Itoa(sender), []senderauth.Charge{{Name: "default", Limit: limit, Cost: 1}})
			e := event{began.Sub(start), time.Since(began), sender, err == nil && !b[0].Refused, err}
			mu.Lock()
			defer mu.Unlock()
			events = append(events, e)
		})
	}
	wg.Wait()
	return events
}

func printPhases(events []event) {
	for _, part := range []struct {
		name     string
		from, to time.Duration
	}{
		{"before", *phase / 2, *phase},
		{"first second of the fault", *phase, *phase + time.Second},
		{"rest of it", *phase + time.Second, 2 * *phase},
		{"first two seconds after", 2 * *phase, 2**phase + 2*time.Second},
		{"rest", 2**phase + 2*time.Second, 3 * *phase},
	} {
		var took []time.Duration
		paid, failed, admitted := 0, 0, 0
		for _, e := range events {
			if e.at < part.from || e.at >= part.to {
				continue
			}
			took = append(took, e.took)
			if e.took >= *timeout {
				paid++
			}
			if e.err != nil {
				failed++
			}
			if e.err != nil && !errors.Is(e.err, redislimit.ErrUnavailable) {
				log.Fatal(e.err)
			}
			if e.admitted {
				admitted++
			}
		}
		if len(took) == 0 {
			continue
		}
		slices.Sort(took)
		fmt.Printf("  %-26s %6d requests  %d errors  p50 %-10v p99 %-10v max %-10v %4d paid the timeout  admitted %.0f/s of %d/s\n",
			part.name, len(took), failed, took[len(took)/2].Round(time.Microsecond), took[len(took)*99/100].Round(time.Microsecond),
			took[len(took)-1].Round(time.Microsecond), paid, float64(admitted)/(part.to-part.from).Seconds(), senders*limit.Requests)
	}
}

// worst returns by how much the sender that got the most exceeded its limit over the
// whole run, or 0.
func worst(events []event) int {
	var admitted [senders]int
	for _, e := range events {
		if e.admitted {
			admitted[e.sender]++
		}
	}
	allowed := limit.Burst + int(float64(limit.Requests)*3*phase.Seconds())
	return max(slices.Max(admitted[:])-allowed, 0)
}
