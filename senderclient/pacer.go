package senderclient

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// A pacer keeps requests back that would find a limit empty. A nil pacer keeps none
// back.
type pacer struct {
	names   func(*http.Request) []string
	maxWait time.Duration

	mu      sync.Mutex
	buckets map[string]*bucket
}

// A bucket is what the server last said about a limit, and what has been sent since.
type bucket struct {
	known    bool
	tokens   int64 // below 0: as many requests wait for tokens to come
	inFlight int64
	next     time.Time     // when the next token comes
	every    time.Duration // time between tokens; 0: unknown
	burst    int64
}

func newPacer(names func(*http.Request) []string, maxWait time.Duration) *pacer {
	return &pacer{names: names, maxWait: maxWait, buckets: make(map[string]*bucket)}
}

// A turn is the right to send one request.
type turn struct {
	pacer *pacer // nil: without pacing
	names []string
}

// wait returns when it is r's turn.
func (p *pacer) wait(r *http.Request) (turn, error) {
	if p == nil {
		return turn{}, nil
	}
	t := turn{p, p.names(r)}
	delay, err := p.take(r.Context(), t.names)
	if err != nil || delay == 0 {
		return t, err
	}
	if err := sleep(r.Context(), delay); err != nil {
		t.giveBack()
		return turn{}, err
	}
	return t, nil
}

// take takes a token of each bucket and returns how long it takes until all of them are
// there. It takes none if that is too long.
func (p *pacer) take(ctx context.Context, names []string) (time.Duration, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	var delay time.Duration
	for _, name := range names {
		b := p.buckets[name]
		if b == nil {
			b = &bucket{}
			p.buckets[name] = b
		}
		delay = max(delay, b.delay(now))
	}
	switch {
	case delay > 0 && !endsInTime(ctx, delay):
		return 0, &RateLimitError{Delay: delay, cause: context.DeadlineExceeded}
	case delay > p.maxWait:
		return 0, &RateLimitError{Delay: delay}
	}
	for _, name := range names {
		p.buckets[name].tokens--
		p.buckets[name].inFlight++
	}
	return delay, nil
}

// delay returns how long it takes until the next token that nobody waits for. If that should
// be there already, it is not above 0.
func (b *bucket) delay(now time.Time) time.Duration {
	b.refill(now)
	if !b.known || b.tokens > 0 {
		return 0
	}
	return b.next.Sub(now) + time.Duration(-b.tokens)*b.every
}

// refill adds the tokens that have come until now.
func (b *bucket) refill(now time.Time) {
	if !b.known || b.every == 0 || now.Before(b.next) {
		return
	}
	n := now.Sub(b.next)/b.every + 1
	b.tokens = min(b.tokens+int64(n), b.burst)
	b.next = b.next.Add(n * b.every)
}

// giveBack ends a turn whose request was not sent.
func (t turn) giveBack() {
	if t.pacer == nil {
		return
	}
	t.pacer.mu.Lock()
	defer t.pacer.mu.Unlock()
	for _, name := range t.names {
		t.pacer.buckets[name].tokens++
		t.pacer.buckets[name].inFlight--
	}
}

// end ends a turn and learns from the response, which is nil if there was none.
func (t turn) end(res *http.Response) {
	if t.pacer == nil {
		return
	}
	var states, policies []item
	if res != nil {
		states, policies = parseItems(res.Header, "Ratelimit"), parseItems(res.Header, "Ratelimit-Policy")
	}
	t.pacer.mu.Lock()
	defer t.pacer.mu.Unlock()
	for _, name := range t.names {
		b := t.pacer.buckets[name]
		b.inFlight--
		if state := find(states, name); state != nil {
			b.learn(state, find(policies, name), t.pacer.maxWait)
		}
	}
}

// learn takes over what the server says. Requests in flight may not have been charged
// yet. No claim keeps requests back for longer than maxWait.
func (b *bucket) learn(state, policy map[string]int64, maxWait time.Duration) {
	r, hasR := state["r"]
	t, hasT := state["t"]
	if !hasR || r < 0 || t < 0 {
		return
	}
	now := time.Now()
	b.known, b.every, b.burst = true, 0, r
	if q, w := policy["q"], policy["w"]; q > 0 && w > 0 {
		b.every, b.burst = min(seconds(w)/time.Duration(q), maxWait), q
	}
	if !hasT && r == 0 {
		b.known = false // nothing says when a token comes
	}
	b.tokens = min(r, b.burst) - b.inFlight
	b.next = now.Add(b.every)
	if hasT {
		b.next = now.Add(min(seconds(t), maxWait))
	}
}

// seconds returns s seconds, a century at most.
func seconds(s int64) time.Duration {
	const century = 100 * 365 * 24 * 60 * 60
	return time.Duration(min(s, century)) * time.Second
}

func find(items []item, name string) map[string]int64 {
	for _, i := range items {
		if i.name == name {
			return i.params
		}
	}
	return nil
}
