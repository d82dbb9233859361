package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
)

var lifecycleScenarios = []scenario{
	{id: "F-73", name: "shutdown under load", server: true, run: serverShutsDown},
	{id: "F-74", name: "guards made and closed", run: guardsComeAndGo},
	{id: "F-75", name: "configuration reloaded under load", run: configIsReloaded},
	{id: "F-77", name: "handlers that flush, stream, hijack and abort", run: handlersAreOdd},
}

// A service on PostgreSQL and Redis shuts down under load. Every request that a handler
// has begun gets its answer, and nothing of the service is left.
func serverShutsDown(e *env) {
	p, r := e.postgres(), e.redis()
	keys := p.issue(e, 10, 1)
	files := descriptors()
	i := e.start(config{
		Postgres: p.url(), Watch: true, Redis: r.link.addr(), Lease: 100 * time.Millisecond,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { time.Sleep(20 * time.Millisecond) }),
	})
	perSecond := pick(e, 200, 1000)
	e.held("%d requests/s, 20 ms each", perSecond)
	l := e.startLoad(perSecond, func(n int) request { return request{to: i, credentials: keys[n%len(keys)].Credentials} })
	e.sleep(pick(e, time.Second, 5*time.Second))
	e.until("requests are in flight", func() bool { return i.served.Load() > int64(perSecond)/2 })
	began := time.Now()
	ctx, cancel := context.WithTimeout(e, patience)
	defer cancel()
	e.check(i.server.Shutdown(ctx))
	limiter := i.limiter.(*redislimit.Limiter)
	e.check(i.close())
	closed := time.Since(began)
	e.check(errors.Join(limiter.Close(), i.store.Close(), i.db.Close()))
	e.sleep(200 * time.Millisecond) // requests that come after it find nobody
	answers := l.stop()

	late := only(answers, func(a answer) bool { return a.err != nil })
	e.injected(len(late), "1 shutdown; %d later requests found nobody", len(late))
	e.judge(answers, func(a answer) string {
		switch {
		case a.err == nil:
			return wants(200)(a)
		case a.end().Before(began):
			return "no answer before the shutdown"
		}
		return ""
	})
	e.want(i.served.Load() == int64(len(only(answers, withStatus(200)))), "%d requests were served, and %d answered", i.served.Load(), len(answers)-len(late))
	e.within(5*time.Second, closed, "shutdown")
	e.until("no file is left open", func() bool { return descriptors() <= files })
	e.lose("%d requests that came later", len(late))
}

// Guards with all their parts are made and closed, as a service does that reloads often.
func guardsComeAndGo(e *env) {
	n := pick(e, 300, 10_000)
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", ContextTimeoutEnabled: true})
	e.cleanup(client.Close)
	one := func() {
		limiter, err := redislimit.New(client, redislimit.Config{Instances: 1, Lease: time.Second})
		e.check(err)
		cache, err := senderauth.NewCache(&keyring{senders: 1}, senderauth.CacheConfig{})
		e.check(err)
		for _, l := range []senderauth.Limiter{nil, limiter} {
			guard, err := senderauth.New(cache, senderauth.Config{Limits: map[string]senderauth.Limit{"default": senderauth.Unlimited()}, Limiter: l})
			e.check(err)
			e.count(map[int]int{call(guard.Wrap(http.NotFoundHandler()), good(0)): 1}, http.StatusNotFound)
		}
		e.check(errors.Join(limiter.Close(), limiter.Close()))
	}
	for range 10 {
		one()
	}
	e.held("%d times", n)
	before, goroutines := liveBytes(), runtime.NumGoroutine()
	for range n {
		one()
	}
	grown := liveBytes() - before
	e.injected(n, "%d guards, caches and limiters closed", n)
	e.want(grown <= 1<<20, "%d KiB grown, more than 1 MiB", grown>>10)
	e.want(extraGoroutines(goroutines) == 0, "goroutines are left")
}

// The limits change ten times a second. No request fails, and the bucket of a limit that
// does not change keeps its level.
func configIsReloaded(e *env) {
	limit := senderauth.Limit{Requests: 50, Per: time.Second, Burst: 25}
	limiter := senderauth.NewMemoryLimiter(senderauth.MemoryLimiterConfig{})
	cache, err := senderauth.NewCache(&keyring{senders: 1}, senderauth.CacheConfig{})
	e.check(err)
	var current atomic.Pointer[http.Handler]
	reloads := 0
	reload := func() {
		guard, err := senderauth.New(cache, senderauth.Config{
			Limits: map[string]senderauth.Limit{"default": limit, "other": senderauth.PerSecond(1000 + reloads%2)}, Limiter: limiter,
		})
		e.check(err)
		h := guard.Charging("default", "other").Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
		current.Store(&h)
		reloads++
	}
	reload()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*current.Load()).ServeHTTP(w, r) }))
	e.cleanup(func() error { server.Close(); return nil })
	to := &instance{url: server.URL}
	began := time.Now()
	l := e.startLoad(4*limit.Requests, func(int) request { return request{to: to, credentials: good(0)} })
	for length := pick(e, 2*time.Second, time.Minute); time.Since(began) < length; e.sleep(100 * time.Millisecond) {
		reload()
	}
	held := time.Since(began)
	answers := l.stop()
	e.held("%d requests/s against a limit of %d", 4*limit.Requests, limit.Requests)
	e.injected(reloads, "%d reloads", reloads)
	e.judge(answers, func(a answer) string {
		if a.status != 200 && a.status != 429 {
			return "neither 200 nor 429"
		}
		return ""
	})
	admitted := len(only(answers, withStatus(200)))
	rate := float64(limit.Requests)
	allowed := float64(limit.Burst) + rate*time.Since(began).Seconds() + 1
	e.want(float64(admitted) <= allowed, "%d admitted, more than %.0f", admitted, allowed)
	if e.long {
		e.want(float64(admitted) >= 0.99*(float64(limit.Burst)+rate*held.Seconds()), "%d admitted of %.0f", admitted, allowed)
	}
}

// A conversation is what a client gets from a handler: everything that it reads, in the
// pieces that the handler waits for, and how it ends.
type conversation struct {
	status int
	bytes  int64
	text   string // the first bytes
	failed bool
}

// Handlers do all that they may do with their ResponseWriter. Clients cannot tell a
// guarded handler from a bare one, and each request is charged once.
func handlersAreOdd(e *env) {
	size := pick(e, int64(16<<20), 1<<30)
	handlers := map[string]http.HandlerFunc{
		"/flush":  flushInPieces,
		"/stream": func(w http.ResponseWriter, r *http.Request) { io.CopyN(w, zeros{}, size) },
		"/hijack": hijack,
		"/abort": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "begun")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
		"/panic": func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
	}
	mux := http.NewServeMux()
	for path, h := range handlers {
		mux.Handle(path, h)
	}
	i := e.start(config{Validator: &keyring{senders: 1}, Handler: mux})
	bare := httptest.NewServer(mux)
	e.cleanup(func() error { bare.Close(); return nil })
	rounds := pick(e, 3, 10)
	e.held("%d requests to each of %d handlers, streams of %d MiB", rounds, len(handlers), size>>20)
	client := newClient()
	defer client.CloseIdleConnections()
	for path := range handlers {
		for range rounds {
			want, got := e.converse(client, bare.URL+path), e.converse(client, i.url+path)
			e.want(got == want, "%s: %+v guarded, %+v bare", path, got, want)
			e.count(map[int]int{got.status: 1}, want.status)
		}
	}
	e.injected(2*rounds, "%d handlers panicked, %d hijacked, %d streamed", 2*rounds, rounds, rounds)
	e.want(i.charged.Load() == int64(rounds*len(handlers)), "%d were charged of %d", i.charged.Load(), rounds*len(handlers))
}

func (e *env) converse(client *http.Client, url string) (c conversation) {
	r, err := http.NewRequestWithContext(e, http.MethodGet, url, nil)
	e.check(err)
	r.Header["X-Sender-Id"], r.Header["X-Api-Key"] = []string{good(0).SenderID}, []string{good(0).APIKey}
	res, err := client.Do(r)
	if err != nil {
		return conversation{failed: true}
	}
	defer res.Body.Close()
	c.status = res.StatusCode
	in := bufio.NewReader(res.Body)
	start, err := in.Peek(5)
	c.text, c.failed = string(start), err != nil
	n, err := io.Copy(io.Discard, in)
	c.bytes, c.failed = n, c.failed || err != nil
	return c
}

// flushInPieces sends a piece, and the next one when the client can have read it.
func flushInPieces(w http.ResponseWriter, r *http.Request) {
	for n := range 3 {
		fmt.Fprintf(w, "piece %d\n", n)
		if err := http.NewResponseController(w).Flush(); err != nil {
			panic(err)
		}
	}
}

func hijack(w http.ResponseWriter, r *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 8\r\n\r\nhijacked")
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
