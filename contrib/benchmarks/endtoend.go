package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// loopbackSenders is the number of senders over loopback.
const loopbackSenders = 10_000

// loopbackDemands are the demands that are sent over loopback.
var loopbackDemands = []string{"one", "uniform"}

// connections is the number of connections of the load. Each has one request in flight.
const connections = 32

// endToEnd measures over loopback, with the contenders' servers on one core and the
// load on another.
func (r *results) endToEnd(o options) error {
	serverCore, loadCore := 0, 1
	if _, err := exec.LookPath("taskset"); err != nil || runtime.NumCPU() < 2 {
		serverCore, loadCore = anywhere, anywhere
		fmt.Fprintln(os.Stderr, "end to end: without taskset and two cores, server and load share the machine")
	}
	load, err := start(loadCore, "-loader")
	if err != nil {
		return err
	}
	defer load.stop()
	servers := make(map[*contender]*process)
	defer func() {
		for _, s := range servers {
			s.stop()
		}
	}()
	addresses := make(map[*contender]string)
	var limiting []*contender
	for _, c := range r.contenders {
		if c.kind == check {
			continue
		}
		limiting = append(limiting, c)
		s, err := start(serverCore, "-server", c.id)
		if err != nil {
			return err
		}
		servers[c] = s
		var address string
		if err := s.decoder.Decode(&address); err != nil {
			return fmt.Errorf("%s: %w", c.id, err)
		}
		addresses[c] = address
	}
	for round := range o.rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d over loopback\n", round+1, o.rounds)
		for _, demand := range shuffled(loopbackDemands) {
			for _, c := range shuffled(limiting) {
				var before, after time.Duration
				var s score
				if err := servers[c].ask("cpu", &before); err != nil {
					return err
				}
				if err := load.ask(attack{c.id, addresses[c], demand, o.load}, &s); err != nil {
					return fmt.Errorf("%s over loopback: %w", c.id, err)
				}
				if err := servers[c].ask("cpu", &after); err != nil {
					return err
				}
				s.CPU = after - before
				r.add(c, turn{Scenario: "loopback " + demand, Processors: 1}, s)
			}
		}
	}
	return nil
}

// serve runs the role of a server. It answers each question with the processor time
// that it has used.
func serve(id string) error {
	c, err := find(id)
	if err != nil {
		return err
	}
	w, err := newWorker(c, loopbackSenders)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go http.Serve(listener, w.admit)
	if err := tell(listener.Addr().String()); err != nil {
		return err
	}
	return answer(func(string) (time.Duration, error) { return cpuTime(), nil })
}

// An attack is one turn of the load against one server.
type attack struct {
	Contender, Address, Demand string
	For                        time.Duration
}

// loadServers runs the role of the load. It uses the client of fasthttp, which costs less
// than a server of net/http, so that the server's core is the one that saturates.
func loadServers() error {
	known := make(map[string]map[string]demand)
	return answer(func(a attack) (score, error) {
		c, err := find(a.Contender)
		if err != nil {
			return score{}, err
		}
		kind := "keys"
		if c.token != nil {
			kind = c.id
		}
		if known[kind] == nil {
			known[kind] = demands(c, populate(loopbackSenders))
		}
		return a.run(known[kind][a.Demand])
	})
}

func (a attack) run(d demand) (score, error) {
	client := &fasthttp.HostClient{Addr: a.Address, MaxConns: connections, NoDefaultUserAgentHeader: true}
	defer client.CloseIdleConnections()
	var requests, wrong atomic.Int64
	var failed error
	var once sync.Once
	var all sync.WaitGroup
	began := time.Now()
	for i := range connections {
		all.Go(func() {
			var request fasthttp.Request
			var response fasthttp.Response
			request.SetRequestURI("http://" + a.Address + "/")
			n := 0
			for at := i * d.len() / connections; time.Since(began) < a.For; at++ {
				id, secret := d.at(at % d.len())
				request.Header.Set("X-Sender-Id", id)
				request.Header.Set("X-Api-Key", secret)
				if err := client.Do(&request, &response); err != nil {
					once.Do(func() { failed = err })
					return
				}
				if response.StatusCode() != http.StatusOK {
					wrong.Add(1)
				}
				n++
			}
			requests.Add(int64(n))
		})
	}
	all.Wait()
	s := score{Requests: int(requests.Load()), Elapsed: time.Since(began), Wrong: int(wrong.Load())}
	if failed == nil && s.Requests == 0 {
		failed = fmt.Errorf("no request in %v", a.For)
	}
	if failed == nil && s.Wrong > 0 {
		failed = fmt.Errorf("%d of %d requests were refused", s.Wrong, s.Requests)
	}
	return s, failed
}
