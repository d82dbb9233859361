package main

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// counts are what the soak has seen. Their methods are safe for concurrent use.
type counts struct {
	revoked, rotated, expired, disabled atomic.Int64 // keys
	retried                             atomic.Int64 // changes, because PostgreSQL was down
	unavailable                         atomic.Int64 // answers 503

	mu       sync.Mutex
	answers  map[outcome]int
	last503  time.Time
	took     [][]time.Duration // of answers 200, by minute
	began    time.Time
	delays   []time.Duration // from a revocation to the refusal by the slowest instance
	wrong    int
	examples []string // of wrong answers
}

type outcome struct {
	kind   kind
	status int
}

func (c *counts) add(a answer) {
	if a.status == 503 {
		c.unavailable.Add(1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answers == nil {
		c.answers, c.began = map[outcome]int{}, a.sent
	}
	c.answers[outcome{a.kind, a.status}]++
	if a.status == 503 {
		c.last503 = latest(c.last503, a.got)
	}
	if a.status == 200 {
		minute := int(a.sent.Sub(c.began) / time.Minute)
		for len(c.took) <= max(minute, 0) {
			c.took = append(c.took, nil)
		}
		c.took[max(minute, 0)] = append(c.took[max(minute, 0)], a.got.Sub(a.sent))
	}
}

// lastUnavailable returns when the last 503 came.
func (c *counts) lastUnavailable() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last503
}

// told notes how long the instances took to refuse a key.
func (c *counts) told(after time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.delays = append(c.delays, after)
}

// wrongly notes a wrong answer.
func (c *counts) wrongly(a answer, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wrong++; c.wrong <= 20 {
		c.examples = append(c.examples, fmt.Sprintf("%s: %v", why, a))
	}
}

// of returns how many answers with a status there were, whatever the key.
func (c *counts) of(status int) (n int) {
	for o, answers := range c.answers {
		if o.status == status {
			n += answers
		}
	}
	return n
}

func (c *counts) total() (n int) {
	for _, answers := range c.answers {
		n += answers
	}
	return n
}
