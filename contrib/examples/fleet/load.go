package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// The limit of a sender, as package demo sets it.
const perMinute, burst = 200, 50

// Each steady sender sends two requests a second, which is below its limit. The greedy one
// sends as many as all of them. Together they send perSecond.
const steadySenders, perSecond = 20, 80

// keys are those of the load.
type keys struct {
	steady []senderauth.Credentials
	greedy senderauth.Credentials
}

func issue(ctx context.Context, store *sqlkeys.Store) (keys, error) {
	var wanted []sqlkeys.NewKey
	for range steadySenders + 1 {
		s, err := store.CreateSender(ctx, sqlkeys.NewSender{})
		if err != nil {
			return keys{}, err
		}
		wanted = append(wanted, sqlkeys.NewKey{SenderID: s.ID})
	}
	issued, err := store.IssueAll(ctx, wanted)
	if err != nil {
		return keys{}, err
	}
	var k keys
	for _, i := range issued[1:] {
		k.steady = append(k.steady, i.Credentials)
	}
	k.greedy = issued[0].Credentials
	return k, nil
}

// A load sends requests at an even rate, to each instance in turn.
type load struct {
	client *http.Client
	start  time.Time
	cancel context.CancelFunc
	ended  chan struct{}
	greedy atomic.Int64 // admitted requests of the greedy sender
}

func startLoad(ctx context.Context, to []*instance, k keys) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{client: newClient(), start: time.Now(), cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(l.ended)
		var requests sync.WaitGroup
		defer requests.Wait()
		for n := 0; pause(ctx, time.Until(l.start.Add(time.Duration(n)*time.Second/perSecond))) == nil; n++ {
			requests.Go(func() { l.request(to, k, n) })
		}
	}()
	return l
}

// request sends the n-th request. Every other one is the greedy sender's.
func (l *load) request(to []*instance, k keys, n int) {
	turn := n / 2
	i := to[turn%len(to)]
	if n%2 == 0 {
		a := send(l.client, i, k.greedy)
		if a.status == http.StatusOK {
			l.greedy.Add(1)
		}
		i.seen.add(a, false)
		return
	}
	i.seen.add(send(l.client, i, k.steady[turn%len(k.steady)]), true)
}

// stop waits for the answers of all requests, and returns for how long the load ran.
func (l *load) stop() time.Duration {
	took := time.Since(l.start)
	l.cancel()
	<-l.ended
	l.client.CloseIdleConnections()
	return took
}

func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: perSecond}, Timeout: patience}
}

// An answer is what the client of a request got: a status or an error.
type answer struct {
	status int
	took   time.Duration
	err    error
}

func send(c *http.Client, to *instance, k senderauth.Credentials) answer {
	began := time.Now()
	r, err := http.NewRequest(http.MethodGet, "http://"+to.addr+"/v1/contacts", nil)
	if err != nil {
		return answer{err: err}
	}
	r.Header.Set("X-Sender-Id", k.SenderID)
	r.Header.Set("X-Api-Key", k.APIKey)
	res, err := c.Do(r)
	if err != nil {
		return answer{err: err, took: time.Since(began)}
	}
	_, err = io.Copy(io.Discard, res.Body)
	res.Body.Close()
	return answer{status: res.StatusCode, took: time.Since(began), err: err}
}

// A tally counts the answers of an instance.
type tally struct {
	mu                sync.Mutex
	admitted, refused int
	wrong             []string        // answers that break a promise
	took              []time.Duration // of the last answers, in a ring
	next              int
}

// add counts an answer. A steady sender must be admitted.
func (t *tally) add(a answer, steady bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case a.err != nil:
		t.wrong = append(t.wrong, a.err.Error())
	case a.status == http.StatusOK:
		t.admitted++
	case a.status == http.StatusTooManyRequests && !steady:
		t.refused++
	case steady:
		t.wrong = append(t.wrong, fmt.Sprintf("%d for a sender below its limit", a.status))
	default:
		t.wrong = append(t.wrong, fmt.Sprintf("%d for the sender above its limit", a.status))
	}
	const most = 10_000
	if len(t.took) < most {
		t.took = append(t.took, a.took)
		return
	}
	t.took[t.next%most] = a.took
	t.next++
}

// counts returns how many requests were admitted and refused, and the wrong answers.
func (t *tally) counts() (admitted, refused int, wrong []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.admitted, t.refused, t.wrong
}

// quantiles returns the times within which half and 99 % of the last answers came.
func (t *tally) quantiles() (p50, p99 time.Duration) {
	t.mu.Lock()
	took := slices.Sorted(slices.Values(t.took))
	t.mu.Unlock()
	if len(took) == 0 {
		return 0, 0
	}
	return took[len(took)/2], took[len(took)*99/100]
}
