package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/senderauth/senderauth"
)

// A request is a GET of a load. Kind tells the requests of a scenario apart.
type request struct {
	to          *instance
	credentials senderauth.Credentials // an empty one sends no header
	kind        string
}

// An answer is what the client of a request got: a status or an error.
type answer struct {
	request
	at         time.Time
	took       time.Duration
	status     int
	retryAfter string
	err        error
}

func (a answer) String() string {
	if a.err != nil {
		return fmt.Sprintf("%s: %v after %v", a.kind, a.err, a.took.Round(time.Millisecond))
	}
	return fmt.Sprintf("%s: %d after %v", a.kind, a.status, a.took.Round(time.Millisecond))
}

// end returns when the client had its answer.
func (a answer) end() time.Time { return a.at.Add(a.took) }

// newClient returns a client for many requests at once.
func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000}, Timeout: patience}
}

// send sends one request.
func send(ctx context.Context, c *http.Client, r request) answer {
	a := answer{request: r, at: time.Now()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.to.url, nil)
	if err != nil {
		a.err = err
		return a
	}
	if id := r.credentials.SenderID; id != "" {
		req.Header.Set("X-Sender-Id", id)
	}
	if key := r.credentials.APIKey; key != "" {
		req.Header.Set("X-Api-Key", key)
	}
	res, err := c.Do(req)
	if err == nil {
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		a.status, a.retryAfter = res.StatusCode, res.Header.Get("Retry-After")
	}
	a.took, a.err = time.Since(a.at), err
	return a
}

// ask sends one request on a connection of its own.
func (e *env) ask(r request) answer {
	client := newClient()
	defer client.CloseIdleConnections()
	return send(e, client, r)
}

// A load sends requests until it is stopped.
type load struct {
	cancel context.CancelFunc
	ended  chan struct{}
	client *http.Client

	mu      sync.Mutex
	answers []answer
}

// startLoad sends perSecond requests a second at an even rate, whether or not earlier ones
// have been answered.
func (e *env) startLoad(perSecond int, next func(n int) request) *load {
	ctx, cancel := context.WithCancel(e)
	l := &load{cancel: cancel, ended: make(chan struct{}), client: newClient()}
	e.cleanup(func() error { l.stop(); return nil })
	go func() {
		defer close(l.ended)
		var requests sync.WaitGroup
		defer requests.Wait()
		start := time.Now()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Until(start.Add(time.Duration(n) * time.Second / time.Duration(perSecond)))):
			}
			r := next(n)
			requests.Go(func() {
				a := send(context.WithoutCancel(ctx), l.client, r)
				l.mu.Lock()
				defer l.mu.Unlock()
				l.answers = append(l.answers, a)
			})
		}
	}()
	return l
}

// stop waits for the answers of all requests and returns them in the order in which they
// were sent.
func (l *load) stop() []answer {
	l.cancel()
	<-l.ended
	l.client.CloseIdleConnections()
	slices.SortFunc(l.answers, func(a, b answer) int { return a.at.Compare(b.at) })
	return l.answers
}

// burst sends n requests at once and returns all answers.
func (e *env) burst(n int, next func(n int) request) []answer {
	client := newClient()
	defer client.CloseIdleConnections()
	answers := make([]answer, n)
	var requests sync.WaitGroup
	for i := range n {
		r := next(i)
		requests.Go(func() { answers[i] = send(e, client, r) })
	}
	requests.Wait()
	return answers
}

// only returns the answers for which f is true.
func only(answers []answer, f func(a answer) bool) []answer {
	var some []answer
	for _, a := range answers {
		if f(a) {
			some = append(some, a)
		}
	}
	return some
}

// of selects the answers of a kind.
func of(kind string) func(answer) bool { return func(a answer) bool { return a.kind == kind } }

// withStatus selects the answers with a status.
func withStatus(status int) func(answer) bool {
	return func(a answer) bool { return a.status == status }
}

// quantile returns the time within which the share q of the answers came.
func quantile(answers []answer, q float64) time.Duration {
	if len(answers) == 0 {
		return 0
	}
	var took []time.Duration
	for _, a := range answers {
		took = append(took, a.took)
	}
	slices.Sort(took)
	return took[min(int(q*float64(len(took))), len(took)-1)]
}

func slowest(answers []answer) time.Duration { return quantile(answers, 1) }

// repeat calls do from several goroutines, each with a client of its own, until d has
// passed, and returns what they were answered.
func (e *env) repeat(goroutines int, d time.Duration, do func(ask func(request) answer)) []answer {
	var mu sync.Mutex
	var all []answer
	var clients sync.WaitGroup
	end := time.Now().Add(d)
	for range goroutines {
		clients.Go(func() {
			client := newClient()
			defer client.CloseIdleConnections()
			for time.Now().Before(end) && e.Err() == nil {
				do(func(r request) answer {
					a := send(e, client, r)
					mu.Lock()
					defer mu.Unlock()
					all = append(all, a)
					return a
				})
			}
		})
	}
	clients.Wait()
	return all
}

// servedOr503 judges a request that a lookup may have failed.
func servedOr503(a answer) string {
	switch {
	case a.status == 503 && a.retryAfter == "":
		return "503 without Retry-After"
	case a.status != 200 && a.status != 503:
		return "neither 200 nor 503"
	}
	return ""
}

// untilServed repeats a request until it is served. Until then a lookup may fail.
func (e *env) untilServed(r request) {
	e.until("the request is served", func() bool {
		a := e.ask(r)
		e.judge([]answer{a}, servedOr503)
		return a.status == 200
	})
}

// warm sends n requests until all of them are served, from then on from caches.
func (e *env) warm(n int, next func(n int) request) {
	e.until("all requests are served", func() bool { return len(only(e.burst(n, next), withStatus(200))) == n })
}
