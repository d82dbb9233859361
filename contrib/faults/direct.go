package main

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/senderauth/senderauth"
)

// A sink is a ResponseWriter that keeps the header and the status only.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header { return s.header }

func (s *sink) WriteHeader(status int) {
	if s.status == 0 {
		s.status = status
	}
}

func (s *sink) Write(b []byte) (int, error) {
	s.WriteHeader(http.StatusOK)
	return len(b), nil
}

// call calls a handler without a network and returns the status. A flood takes this way,
// because a client that sends as much over HTTP needs more of the machine than the guard.
func call(h http.Handler, c senderauth.Credentials) int { return serve(h, newRequest(c)) }

func newRequest(c senderauth.Credentials) *http.Request {
	r, _ := http.NewRequest(http.MethodGet, "/", nil)
	r.Header["X-Sender-Id"], r.Header["X-Api-Key"] = []string{c.SenderID}, []string{c.APIKey}
	return r
}

func serve(h http.Handler, r *http.Request) int {
	s := sink{header: http.Header{}}
	h.ServeHTTP(&s, r)
	return s.status
}

// A flood calls a handler from several goroutines.
type flood struct {
	sent   atomic.Int64
	mu     sync.Mutex
	status map[int]int
	quit   atomic.Bool
	ended  sync.WaitGroup
}

// startFlood calls h perSecond times a second, or as often as it can.
func (e *env) startFlood(h http.Handler, perSecond int, next func(n int) senderauth.Credentials) *flood {
	const callers = 64
	f := &flood{status: map[int]int{}}
	e.cleanup(func() error { f.stop(); return nil })
	start := time.Now()
	for range callers {
		f.ended.Go(func() {
			mine := map[int]int{}
			for !f.quit.Load() {
				n := f.sent.Add(1) - 1
				if ahead := time.Until(start.Add(time.Duration(n) * time.Second / time.Duration(perSecond))); ahead > time.Millisecond {
					time.Sleep(ahead)
				}
				mine[call(h, next(int(n)))]++
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			for status, n := range mine {
				f.status[status] += n
			}
		})
	}
	return f
}

// stop ends the flood and returns how many answers had each status.
func (f *flood) stop() map[int]int {
	f.quit.Store(true)
	f.ended.Wait()
	return f.status
}

// count judges the answers of a flood: all of them must have one of the statuses.
func (e *env) count(answers map[int]int, statuses ...int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	right := 0
	for _, s := range statuses {
		right += answers[s]
	}
	total := 0
	for _, n := range answers {
		total += n
	}
	e.requests += total
	e.wrong += total - right
}
