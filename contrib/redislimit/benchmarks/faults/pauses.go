package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
)

// pauseLimit is the limit of the one sender. It sends six times as much, to instances of
// which each is a process.
var pauseLimit = senderauth.Limit{Requests: 500, Per: time.Second, Burst: 500}

// workerEnv holds the port of Redis in the environment of an instance.
const workerEnv = "FAULTS_PORT"

// pauses measures how much of its limit a sender gets while Redis or the instances pause
// again and again for length.
func pauses(length time.Duration) {
	for _, p := range []struct {
		name          string
		every, paused time.Duration
		instances     bool // pause these, not Redis
	}{
		{"nothing pauses", time.Second, 0, false},
		{"Redis pauses for 60 ms every 5 s", 5 * time.Second, 60 * time.Millisecond, false},
		{"Redis pauses for 60 ms every second", time.Second, 60 * time.Millisecond, false},
		{"each instance pauses for 60 ms of each 100 ms", 100 * time.Millisecond, 60 * time.Millisecond, true},
	} {
		if !strings.Contains(p.name, *only) {
			continue
		}
		for _, lease := range []time.Duration{0, 100 * time.Millisecond} {
			s := newServer()
			workers := startWorkers(s.port, lease, length)
			targets := []*exec.Cmd{s.cmd}
			if p.instances {
				targets = workers
			}
			stop := make(chan struct{})
			var pausing sync.WaitGroup
			for i, t := range targets {
				pausing.Go(func() {
					time.Sleep(time.Duration(i) * p.every / time.Duration(len(targets)))
					pauseEvery(t.Process, p.every, p.paused, stop)
				})
			}
			var took time.Duration
			admitted, changes := 0, 0
			for _, w := range workers {
				out := w.Stdout.(*strings.Builder)
				_ = w.Wait()
				var n, m int
				var d time.Duration
				if _, err := fmt.Sscan(out.String(), &n, &m, &d); err != nil {
					log.Fatal(err)
				}
				admitted, changes, took = admitted+n, changes+m, max(took, d)
			}
			close(stop)
			pausing.Wait()
			s.remove()
			allowed := float64(pauseLimit.Burst) + float64(pauseLimit.Requests)*took.Seconds()
			fmt.Printf("%-46s lease %-5v %6d admitted  %5.1f %% of burst + rate x T  %d changes of mode\n",
				p.name, lease, admitted, 100*float64(admitted)/allowed, changes)
		}
	}
}

func pauseEvery(p *os.Process, every, paused time.Duration, stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(every - paused):
		}
		if paused > 0 {
			_ = p.Signal(syscall.SIGSTOP)
			time.Sleep(paused)
			_ = p.Signal(syscall.SIGCONT)
		}
	}
}

func startWorkers(port int, lease, length time.Duration) []*exec.Cmd {
	var workers []*exec.Cmd
	for range instances {
		w := exec.Command(os.Args[0])
		w.Env = append(os.Environ(), fmt.Sprintf("%s=%d %v %v", workerEnv, port, lease, length))
		w.Stdout, w.Stderr = &strings.Builder{}, os.Stderr
		if err := w.Start(); err != nil {
			log.Fatal(err)
		}
		workers = append(workers, w)
	}
	return workers
}

// work is an instance. It prints how many requests it admitted, how often its mode changed,
// and how long it ran.
func work(order string) {
	var s server
	var lease, length string
	if _, err := fmt.Sscan(order, &s.port, &lease, &length); err != nil {
		log.Fatal(err)
	}
	term, _ := time.ParseDuration(lease)
	end, _ := time.ParseDuration(length)
	c := s.client()
	defer c.Close()
	var modes changes
	l, err := redislimit.New(c, redislimit.Config{Instances: instances, Lease: term, OnMode: func(m redislimit.Mode, _ error) { modes.add(string(m)) }})
	if err != nil {
		log.Fatal(err)
	}
	var mu sync.Mutex
	var calls sync.WaitGroup
	admitted := 0
	start := time.Now()
	every := time.Second * instances / time.Duration(6*pauseLimit.Requests)
	for n := 0; time.Since(start) < end; n++ {
		time.Sleep(time.Until(start.Add(time.Duration(n) * every)))
		calls.Go(func() {
			b, err := l.Take(context.Background(), "a", []senderauth.Charge{{Name: "default", Limit: pauseLimit, Cost: 1}})
			if err == nil && !b[0].Refused {
				mu.Lock()
				defer mu.Unlock()
				admitted++
			}
		})
	}
	calls.Wait()
	took := time.Since(start)
	l.Close()
	fmt.Println(admitted, len(modes.all), took.Nanoseconds())
}
