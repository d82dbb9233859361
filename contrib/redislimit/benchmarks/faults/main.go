// Command faults measures what a fleet's clients see while Redis dies, hangs,
// or is slow, with a redis-server of its own:
//
//	go run ./faults
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
)

var (
	rate      = flag.Int("rate", 1000, "requests a second, of 100 senders, at 3 instances")
	timeout   = flag.Duration("timeout", 50*time.Millisecond, "of a decision")
	phase     = flag.Duration("phase", 5*time.Second, "length of each phase")
	instances = 3
	limit     = senderauth.Limit{Requests: 5, Per: time.Second, Burst: 30}
)

func main() {
	flag.Parse()
	log.SetFlags(0)
	redis.SetLogger(quiet{})
	for _, f := range []struct {
		name        string
		fault, mend func(s *server)
	}{
		{"kill -9, then started again empty", (*server).kill, (*server).start},
		{"SIGSTOP, then SIGCONT", func(s *server) { s.signal(syscall.SIGSTOP) }, func(s *server) { s.signal(syscall.SIGCONT) }},
		{"SCRIPT FLUSH", func(s *server) { s.client().ScriptFlush(context.Background()) }, func(*server) {}},
	} {
		for _, lease := range []time.Duration{0, 100 * time.Millisecond} {
			run(f.name, f.fault, f.mend, lease)
		}
	}
}

type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

type server struct {
	dir  string
	port int
	cmd  *exec.Cmd
}

func (s *server) client() *redis.Client {
	return redis.NewClient(&redis.Options{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)), ContextTimeoutEnabled: true})
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

type event struct {
	at, took time.Duration
	sender   int
	admitted bool
	err      error
}

func run(name string, fault, mend func(*server), lease time.Duration) {
	dir, err := os.MkdirTemp("", "faults")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	s := &server{dir: dir, port: l.Addr().(*net.TCPAddr).Port}
	l.Close()
	s.start()
	defer s.kill()

	var mu sync.Mutex
	var events []event
	var modes []string
	start := time.Now()
	var fleet []*redislimit.Limiter
	for i := range instances {
		c := s.client()
		defer c.Close()
		l, err := redislimit.New(c, redislimit.Config{
			Instances: instances, Timeout: *timeout, Lease: lease,
			OnMode: func(m redislimit.Mode, _ error) {
				mu.Lock()
				defer mu.Unlock()
				modes = append(modes, fmt.Sprintf("%d %s at %.2f s", i, m, time.Since(start).Seconds()))
			},
		})
		if err != nil {
			log.Fatal(err)
		}
		defer l.Close()
		fleet = append(fleet, l)
	}
	go func() {
		time.Sleep(*phase)
		fault(s)
		time.Sleep(*phase)
		mend(s)
	}()
	var wg sync.WaitGroup
	tick := time.NewTicker(time.Second / time.Duration(*rate))
	defer tick.Stop()
	for n := 0; time.Since(start) < 3**phase; n++ {
		<-tick.C
		wg.Go(func() {
			sender := n % 100
			began := time.Now()
			b, err := fleet[n%instances].Take(context.Background(), strconv.Itoa(sender), []senderauth.Charge{{Name: "default", Limit: limit, Cost: 1}})
			e := event{began.Sub(start), time.Since(began), sender, err == nil && !b[0].Refused, err}
			mu.Lock()
			defer mu.Unlock()
			events = append(events, e)
		})
	}
	wg.Wait()

	mode := "exact mode"
	if lease > 0 {
		mode = "lease mode"
	}
	fmt.Printf("\n%s, %s\n", name, mode)
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
			if e.admitted {
				admitted++
			}
		}
		slices.Sort(took)
		fmt.Printf("  %-26s %6d requests  %d errors  p50 %-10v p99 %-10v max %-10v %4d paid the timeout  admitted %.0f/s of %d/s\n",
			part.name, len(took), failed, took[len(took)/2].Round(time.Microsecond), took[len(took)*99/100].Round(time.Microsecond),
			took[len(took)-1].Round(time.Microsecond), paid, float64(admitted)/(part.to-part.from).Seconds(), 100*limit.Requests)
	}
	worst := 0
	for sender := range 100 {
		n := 0
		for _, e := range events {
			if e.sender == sender && e.admitted {
				n++
			}
		}
		worst = max(worst, n-limit.Burst-int(float64(limit.Requests)*3*phase.Seconds()))
	}
	fmt.Printf("  most admitted above burst + rate x T of all three phases: %d of a burst of %d\n  %v\n", worst, limit.Burst, modes)
}
