package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestSpreadIsMedianMinimumAndMaximum(t *testing.T) {
	s, ok := spreadOf([]float64{3, 1, 2})
	assert.True(t, ok)
	assert.Equal(t, spread{2, 1, 3}, s)
	s, _ = spreadOf([]float64{4, 1, 2, 3})
	assert.Equal(t, spread{2.5, 1, 4}, s)
	_, ok = spreadOf(nil)
	assert.False(t, ok)
}

func TestRatiosAreOfTheSameRound(t *testing.T) {
	r := newResults([]*contender{guardAll, httprateKeys})
	for _, round := range [][2]int{{10, 20}, {100, 50}, {30, 40}} {
		for i, c := range r.contenders {
			cpu := time.Duration(round[i]) * time.Microsecond
			r.add(c, turn{Scenario: "one", Processors: 1}, score{Requests: 1000, CPU: cpu, Elapsed: 2 * cpu})
		}
	}
	one := cell{guardAll, "one", 1}
	s, _ := r.ratio(one, httprateKeys, nanoseconds(1))
	assert.Equal(t, spread{0.75, 0.5, 2}, s)
	s, _ = r.at(one, nanoseconds(1))
	assert.Equal(t, spread{30, 10, 100}, s)
}

func TestFastestPeerSendsRateFields(t *testing.T) {
	r := newResults([]*contender{guardAll, tollboothKeys, httprateKeys, throttledKeys})
	for i, c := range r.contenders {
		r.add(c, turn{Scenario: "one", Processors: 1}, score{Requests: 1, CPU: time.Duration(i + 1)})
	}
	r.facts[guardAll] = facts{Fields: []string{"a", "b", "c"}}
	r.facts[httprateKeys] = facts{Fields: []string{"a", "b"}}
	r.facts[throttledKeys] = facts{Fields: []string{"a", "b", "c"}}
	assert.Equal(t, httprateKeys, r.fastestPeer("one", 1, 1))
	assert.Equal(t, throttledKeys, r.fastestPeer("one", 1, 3))
	assert.Nil(t, r.fastestPeer("zipf", 1, 1))
}

func TestNumberHasThreeSignificantDigits(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 41.26: "41", 7.14: "7.1", 1234: "1230", 99950: "100000", 528: "528"} {
		assert.Equal(t, want, number(v), "%v", v)
	}
}
