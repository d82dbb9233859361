package main

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
)

// A worker is a contender in its own process, so that it shares no heap and no garbage
// collector with others. It takes a turn for each question.
type worker struct {
	contender      *contender
	admit, limited http.Handler
	demands        map[string]demand
	facts          facts
}

// facts are what a worker reports about its contender before the first turn.
type facts struct {
	Held    float64 // bytes for each sender
	HeldKey float64 // those of its credential, or 0 if unknown
	// The responses show the names of the rate fields, the Retry-After and the content
	// type of a 429, and the status for a missing key.
	Fields     []string
	RetryAfter string
	Type       string
	MissingKey int
}

func newWorker(c *contender, size int) (*worker, error) {
	p := populate(size)
	w := &worker{contender: c, demands: demands(c, p)}
	s := site{store: newKeyStore(p), quota: scarce, visit: visit}
	scarceHandlers, err := c.build(s)
	if err != nil {
		return nil, err
	}
	s.quota = ample
	h, err := c.build(s)
	if err != nil {
		return nil, err
	}
	w.admit, w.limited = h.full, scarceHandlers.full
	if err := w.fill(p, h); err != nil {
		return nil, err
	}
	w.probe()
	return w, nil
}

// visit is the work of the handler: it reads the sender.
func visit(sender string) {
	if len(sender) != idWidth {
		panic("no sender")
	}
}

// fill sends one request of every sender, so that every contender has all its state
// before the first turn, and measures the heap that it keeps. It copies the headers,
// because a server makes new strings for each request.
func (w *worker) fill(p *population, h handlers) error {
	secrets := p.secrets(w.contender)
	a := newCaller(w.contender)
	round := func(h http.Handler) (float64, error) {
		before := heap()
		for i, id := range p.ids {
			if status := a.call(h, strings.Clone(id), strings.Clone(secrets[i])); status != http.StatusOK {
				return 0, fmt.Errorf("%s: the first request of a sender got status %d", w.contender.id, status)
			}
		}
		a.call(h, p.ids[0], strings.Clone(secrets[0])) // release the other senders' strings
		return (float64(heap()) - float64(before)) / float64(len(p.ids)), nil
	}
	var err error
	if h.authenticate != nil {
		if w.facts.HeldKey, err = round(h.authenticate); err != nil {
			return err
		}
	}
	w.facts.Held, err = round(h.full)
	w.facts.Held += w.facts.HeldKey
	runtime.KeepAlive(p)
	runtime.KeepAlive(secrets)
	return err
}

func heap() uint64 {
	runtime.GC()
	runtime.GC() // completes the sweep of the first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// probe sends the request that the limit admits, one over the limit and one without a
// key, and records facts about the responses.
func (w *worker) probe() {
	a := newCaller(w.contender)
	id, secret := w.demands["limited"].at(0)
	a.call(w.limited, id, secret)
	for name := range a.writer.header {
		if strings.Contains(strings.ToLower(name), "ratelimit") {
			w.facts.Fields = append(w.facts.Fields, name)
		}
	}
	if a.call(w.limited, id, secret) == http.StatusTooManyRequests {
		w.facts.RetryAfter = a.writer.header.Get("Retry-After")
		w.facts.Type = a.writer.header.Get("Content-Type")
	}
	id, _ = w.demands["no key"].at(0)
	w.facts.MissingKey = a.call(w.admit, id, "")
}

// take takes a turn.
func (w *worker) take(t turn) (score, error) {
	h, want := w.admit, http.StatusOK
	switch t.Scenario {
	case "limited":
		h, want = w.limited, http.StatusTooManyRequests
	case "no key":
		want = w.facts.MissingKey
	case "bad key":
		want = http.StatusUnauthorized
	}
	s := t.run(w.contender, h, w.demands[t.Scenario], want)
	if s.Wrong > 0 {
		return s, fmt.Errorf("%s, %s: %d responses without status %d", w.contender.id, t.Scenario, s.Wrong, want)
	}
	return s, nil
}
