// Command uploads counts how many clients can read the refusal of an upload. Two servers
// answer every request with the same 401: a plain net/http handler, and one behind a
// guard. curl, Go, node and Python upload to them, directly and through nginx, HAProxy,
// Apache and Varnish, which the command starts. All traffic stays on 127.0.0.1.
//
//	go run ./uploads [-quick] [-v]
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strings"
	"sync"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers"
)

// A load is n uploads of one size at one pace, by each client on each path to each
// server.
type load struct {
	pace pace
	size int
	n    int
}

const kB, MB = 1000, 1000 * 1000

var (
	quick = []load{{fast, kB, 1}, {fast, 100 * kB, 1}, {fast, 5 * MB, 1}, {slow, 200 * kB, 1}}
	whole = []load{
		{fast, kB, 8}, {fast, 16 * kB, 8}, {fast, 100 * kB, 8}, {fast, 300 * kB, 8}, {fast, MB, 8}, {fast, 5 * MB, 8}, {fast, 50 * MB, 2},
		{slow, 16 * kB, 8}, {slow, 100 * kB, 8}, {slow, 200 * kB, 8}, {slow, MB, 4}, {slow, 5 * MB, 2},
		{trickle, 100 * kB, 2}, {trickle, 200 * kB, 2},
	}
)

func main() {
	short := flag.Bool("quick", false, "run only the loads of the test, in less than a minute instead of ten")
	verbose := flag.Bool("v", false, "print what clients got instead of the answer of the guarded server")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *short, *verbose); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, short, verbose bool) error {
	dir, err := os.MkdirTemp("", "senderauth-uploads-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := start(dir)
	if err != nil {
		return err
	}
	defer s.end()
	loads := whole
	if short {
		loads = quick
	}
	results := s.run(ctx, loads, plain, guarded)
	if verbose {
		for _, r := range results {
			for _, a := range r.counts[guarded].others {
				fmt.Fprintf(os.Stderr, "%s, %s, %s %s: %+v\n", r.path.name, r.client.name, r.load.pace.name, size(r.load.size), a)
			}
		}
	}
	table(os.Stdout, s.paths, loads, results)
	return ctx.Err()
}

// A scene holds the two servers and the proxies in front of them.
type scene struct {
	dir     string
	want    answer // what every client should read
	paths   []path
	servers [2]*httptest.Server
	proxies []*testservers.Process
}

func start(dir string) (*scene, error) {
	s := &scene{dir: dir}
	if err := writeScripts(dir); err != nil {
		return nil, err
	}
	v, err := senderauth.Static(senderauth.Credentials{SenderID: "7a1de7b4-3a0e-4d6e-9c2b-000000000001", APIKey: "0b9d3c1e-6f52-4c8a-b1d7-000000000001"})
	if err != nil {
		return nil, err
	}
	guard, err := senderauth.New(v, senderauth.Config{Limits: map[string]senderauth.Limit{"default": senderauth.PerSecond(1)}})
	if err != nil {
		return nil, err
	}
	h := guard.Wrap(http.NotFoundHandler())
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", nil))
	s.want = answer{Status: w.Code, Body: w.Body.String()}
	s.servers[guarded] = httptest.NewServer(h)
	s.servers[plain] = httptest.NewServer(http.HandlerFunc(func(to http.ResponseWriter, _ *http.Request) {
		for name, values := range w.Header() {
			to.Header()[name] = values
		}
		to.WriteHeader(w.Code)
		io.WriteString(to, s.want.Body)
	}))
	s.paths = []path{{name: direct}}
	for _, p := range proxies {
		process, paths, err := p.start(dir, s.servers[plain].Listener.Addr().String(), s.servers[guarded].Listener.Addr().String())
		if err != nil {
			s.end()
			return nil, err
		}
		s.proxies = append(s.proxies, process)
		s.paths = append(s.paths, paths...)
	}
	return s, nil
}

func (s *scene) end() {
	for _, p := range s.proxies {
		p.End("")
	}
	for _, server := range s.servers {
		server.CloseClientConnections()
		server.Close()
	}
}

// Indexes of scene.servers and result.counts.
const (
	plain = iota
	guarded
)

// url returns the URL of a server on a path.
func (s *scene) url(p path, server int) string {
	addr := p.addr
	if addr == "" {
		addr = s.servers[server].Listener.Addr().String()
	}
	return "http://" + addr + []string{"/plain", "/guarded"}[server]
}

// A count counts the uploads of a client that ended with the answer, and keeps what the
// client got instead.
type count struct {
	answered int
	others   []answer
}

// A result is what one client got on one path.
type result struct {
	path   path
	load   load
	client client
	counts [2]count // by server
}

// readsLate reports whether the client or the proxy reads nothing until it has sent the
// whole upload. If the upload is larger than what a server reads, the answer is lost.
func (r *result) readsLate() bool {
	switch r.path.name {
	case "Apache", "Varnish":
		return true
	case direct, "HAProxy":
		return r.client.name == "Python"
	}
	return false
}

// run runs the loads against these servers. Only two fast uploads run at once, so that
// the machine is not overloaded, and up to 40 slow ones.
func (s *scene) run(ctx context.Context, loads []load, servers ...int) []result {
	var results []result
	for _, l := range loads {
		for _, p := range s.paths {
			for _, c := range clients {
				if c.sends(l.pace) {
					results = append(results, result{path: p, load: l, client: c})
				}
			}
		}
	}
	for _, at := range []struct {
		fast   bool
		places int
	}{{true, 2}, {false, 40}} {
		var wg sync.WaitGroup
		places := make(chan struct{}, at.places)
		for i := range results {
			r := &results[i]
			if (r.load.pace == fast) != at.fast {
				continue
			}
			for _, server := range servers {
				places <- struct{}{}
				wg.Go(func() {
					s.upload(ctx, r, server)
					<-places
				})
			}
		}
		wg.Wait()
	}
	return results
}

func (s *scene) upload(ctx context.Context, r *result, server int) {
	c := &r.counts[server]
	for _, a := range r.client.upload(ctx, s.dir, s.url(r.path, server), r.load.size, r.load.pace, r.load.n) {
		if a.Status == s.want.Status && a.Body == s.want.Body {
			c.answered++
		} else {
			c.others = append(c.others, a)
		}
	}
}

// table prints the results as one Markdown table for each pace. A cell counts the answers
// that were read from the plain and the guarded server, out of all uploads on the path.
func table(w io.Writer, paths []path, loads []load, results []result) {
	for len(loads) > 0 {
		n := 1
		for n < len(loads) && loads[n].pace == loads[0].pace {
			n++
		}
		fmt.Fprintf(w, "| %s |", loads[0].pace.name)
		for _, l := range loads[:n] {
			fmt.Fprintf(w, " %s |", size(l.size))
		}
		fmt.Fprint(w, "\n|---|", strings.Repeat("--:|", n))
		for _, p := range paths {
			fmt.Fprintf(w, "\n| %s |", p.name)
			for _, l := range loads[:n] {
				var answered [2]int
				all := 0
				for _, r := range results {
					if r.path == p && r.load == l {
						answered[plain] += r.counts[plain].answered
						answered[guarded] += r.counts[guarded].answered
						all += l.n
					}
				}
				fmt.Fprintf(w, " %d, %d of %d |", answered[plain], answered[guarded], all)
			}
		}
		fmt.Fprint(w, "\n\n")
		loads = loads[n:]
	}
}

func size(n int) string {
	if n < MB {
		return fmt.Sprint(n/kB, " KB")
	}
	return fmt.Sprint(n/MB, " MB")
}
