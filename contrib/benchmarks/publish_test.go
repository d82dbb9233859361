package main

import (
	"encoding/xml"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestChartHasEveryContenderThatLimits(t *testing.T) {
	r := newResults(contenders())
	for i, c := range r.contenders {
		r.add(c, turn{Scenario: "one", Processors: 1}, score{Requests: 1, CPU: time.Duration(100 * (i + 1))})
	}
	of := chart{"one.svg", "One", []cell{{nil, "one", 1}}, nanoseconds(1)}
	svg, err := r.draw(of)
	require.NoError(t, err)
	require.NoError(t, xml.Unmarshal(svg, new(any)))
	for _, name := range []string{"senderauth" + margin, "key check + httprate" + margin} {
		assert.Contains(t, string(svg), name)
	}
	assert.NotContains(t, string(svg), jwtHMAC.name)

	of.cells[0].scenario = "zipf"
	svg, err = r.draw(of)
	require.NoError(t, err)
	assert.Nil(t, svg, "nothing was measured")
}
