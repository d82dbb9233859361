package main

import (
	"context"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/senderauth/senderauth"
)

// A leaver is a way to leave during a request.
type leaver struct {
	name string
	// noticed says that net/http tells the server. It does not if a body is unread.
	noticed bool
	post    bool
	http2   bool
}

var leavers = []leaver{
	{name: "GET", noticed: true},
	{name: "POST with an unsent body", post: true},
	{name: "HTTP/2", noticed: true, http2: true},
}

// Clients start lookups and leave. The lookups go on for those who stay, no longer than
// their timeout, and those who left are not charged if net/http notices that they left.
func clientsLeave(e *env) {
	each := pick(e, 20, 334)
	const timeout = 2 * time.Second
	takes := pick(e, 500*time.Millisecond, time.Second)
	lookups := &slowLookups{takes: takes}
	keys := &keyring{senders: 1 << 20, fault: lookups.fault}
	i := e.start(config{Validator: keys, Timeout: timeout, MaxLookups: 8192})
	var left atomic.Int64
	var mu sync.Mutex
	var answers []answer
	var all sync.WaitGroup
	e.held("%d clients that leave, %d that stay, lookups of %v", each*len(leavers), each*len(leavers), takes)
	for k, way := range leavers {
		client := way.client()
		e.cleanup(func() error { client.CloseIdleConnections(); return nil })
		for n := range each {
			pair, asked := good(k*each+n), make(chan struct{})
			lookups.started.Store(pair.APIKey, asked)
			ctx, leave := context.WithCancel(e)
			all.Go(func() {
				if err := way.send(ctx, client, i, pair); ctx.Err() != nil && err != nil {
					left.Add(1)
				}
			})
			all.Go(func() {
				defer leave()
				select {
				case <-asked:
				case <-e.Done():
					return
				}
				a := make(chan answer, 1)
				go func() { a <- e.ask(request{to: i, credentials: pair, kind: way.name}) }()
				time.Sleep(50 * time.Millisecond)
				leave()
				mu.Lock()
				defer mu.Unlock()
				answers = append(answers, <-a)
			})
		}
	}
	all.Wait()
	e.injected(int(left.Load()), "%d clients left during the lookup: GET, POST with an unsent body, HTTP/2", left.Load())
	e.want(left.Load() == int64(each*len(leavers)), "only %d of %d clients left", left.Load(), each*len(leavers))
	e.judge(answers, wants(200))
	e.want(keys.asked.Load() == int64(each*len(leavers)), "%d lookups", keys.asked.Load())
	e.within(timeout+100*time.Millisecond, lookups.longest.get(), "longest lookup")
	unnoticed := 0
	for _, way := range leavers {
		if !way.noticed {
			unnoticed += each
		}
	}
	extra := int(i.charged.Load()) - len(answers)
	e.want(extra <= unnoticed, "%d requests were charged whose clients had left, more than %d", extra, unnoticed)
	e.lose("%d charges of POST clients: net/http does not notice that they left", extra)
}

// slowLookups take their time, unless they end before.
type slowLookups struct {
	takes   time.Duration
	longest most
	started sync.Map // by key: a channel that closes when its lookup starts
}

func (s *slowLookups) fault(ctx context.Context, c senderauth.Credentials) error {
	begun := time.Now()
	defer func() { s.longest.add(time.Since(begun)) }()
	if ch, ok := s.started.LoadAndDelete(c.APIKey); ok {
		close(ch.(chan struct{}))
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(s.takes):
		return nil
	}
}

func (l leaver) client() *http.Client {
	t := &http.Transport{MaxIdleConnsPerHost: 1000}
	if l.http2 {
		var only http.Protocols
		only.SetUnencryptedHTTP2(true)
		t.Protocols = &only
	}
	return &http.Client{Transport: t}
}

func (l leaver) send(ctx context.Context, client *http.Client, to *instance, c senderauth.Credentials) error {
	method, body := http.MethodGet, io.Reader(nil)
	if l.post {
		// Nothing is written to the pipe, so the body never comes. The client waits for
		// it even when its context has ended.
		r, w := io.Pipe()
		defer context.AfterFunc(ctx, func() { w.CloseWithError(ctx.Err()) })()
		method, body = http.MethodPost, r
	}
	req, err := http.NewRequestWithContext(ctx, method, to.url, body)
	if err != nil {
		return err
	}
	if l.post {
		req.ContentLength = 1000
	}
	req.Header.Set("X-Sender-Id", c.SenderID)
	req.Header.Set("X-Api-Key", c.APIKey)
	res, err := client.Do(req)
	if err == nil {
		err = res.Body.Close()
	}
	return err
}

// A most is the greatest time that was added to it.
type most struct{ d atomic.Int64 }

func (m *most) add(d time.Duration) {
	for {
		old := m.d.Load()
		if int64(d) <= old || m.d.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

func (m *most) get() time.Duration { return time.Duration(m.d.Load()) }
