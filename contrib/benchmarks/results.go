package main

import (
	"math/rand/v2"
	"slices"
	"time"
)

// results are the scores of a run.
type results struct {
	contenders []*contender
	facts      map[*contender]facts
	scores     map[cell][]score // one for each round
	options    options
	took       time.Duration
}

// A cell is one cell of the tables.
type cell struct {
	contender  *contender
	scenario   string
	processors int
}

func newResults(all []*contender) *results {
	return &results{contenders: all, facts: make(map[*contender]facts), scores: make(map[cell][]score)}
}

func (r *results) add(c *contender, t turn, s score) {
	at := cell{c, t.Scenario, t.Processors}
	r.scores[at] = append(r.scores[at], s)
}

// A measure computes the figure that a table shows from a score.
type measure func(score) float64

// nanoseconds measures the time of a request. On one processor it is the processor time
// of the process, to which other processes on the core add nothing. On several it is the
// wall-clock time between two requests, because waiting for a lock counts.
func nanoseconds(processors int) measure {
	return func(s score) float64 {
		if processors == 1 {
			return float64(s.CPU) / float64(s.Requests)
		}
		return float64(s.Elapsed) / float64(s.Requests)
	}
}

// A spread is the median, the minimum and the maximum of some values.
type spread struct{ median, least, most float64 }

func spreadOf(values []float64) (spread, bool) {
	if len(values) == 0 {
		return spread{}, false
	}
	v := slices.Sorted(slices.Values(values))
	middle := v[len(v)/2]
	if len(v)%2 == 0 {
		middle = (v[len(v)/2-1] + middle) / 2
	}
	return spread{middle, v[0], v[len(v)-1]}, true
}

// at returns the spread of a cell over the rounds.
func (r *results) at(c cell, m measure) (spread, bool) {
	var values []float64
	for _, s := range r.scores[c] {
		values = append(values, m(s))
	}
	return spreadOf(values)
}

// ratio returns the spread of c's values, each divided by the value of another contender
// in the same round.
func (r *results) ratio(c cell, to *contender, m measure) (spread, bool) {
	base := r.scores[cell{to, c.scenario, c.processors}]
	var values []float64
	for i, s := range r.scores[c] {
		if i < len(base) {
			values = append(values, m(s)/m(base[i]))
		}
	}
	return spreadOf(values)
}

// fastestPeer returns the peer with the smallest median among those that send at least
// this many rate fields.
func (r *results) fastestPeer(scenario string, processors, fields int) *contender {
	var fastest *contender
	var least float64
	for _, c := range r.contenders {
		if c.kind != peer || len(r.facts[c].Fields) < fields {
			continue
		}
		s, ok := r.at(cell{c, scenario, processors}, nanoseconds(processors))
		if ok && (fastest == nil || s.median < least) {
			fastest, least = c, s.median
		}
	}
	return fastest
}

// share returns the fraction of a core that the processes had in their serial turns. It
// is 1 on an idle machine.
func (r *results) share() (spread, bool) {
	var values []float64
	for c, scores := range r.scores {
		if c.processors == 1 && slices.Contains(demandNames, c.scenario) {
			for _, s := range scores {
				values = append(values, float64(s.CPU)/float64(s.Elapsed))
			}
		}
	}
	return spreadOf(values)
}

func shuffled[T any](in []T) []T {
	out := slices.Clone(in)
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}
