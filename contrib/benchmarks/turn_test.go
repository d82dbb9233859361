package main

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestTurnCountsRequestsAndWrongAnswers(t *testing.T) {
	p := populate(3)
	d := demands(guardAll, p)["uniform"]
	teapot := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	for _, processors := range []int{1, 3} {
		s := turn{Processors: processors, Least: time.Millisecond}.run(guardAll, teapot, d, http.StatusTeapot)
		assert.Positive(t, s.Requests)
		assert.Positive(t, s.Elapsed)
		assert.Zero(t, s.Wrong)
		s = turn{Processors: processors, Least: time.Millisecond}.run(guardAll, teapot, d, http.StatusOK)
		assert.GreaterOrEqual(t, s.Wrong, s.Requests)
	}
}

func TestDemandReturnsItsRequests(t *testing.T) {
	p := populate(3)
	for _, c := range []*contender{guardAll, jwtEd25519} {
		all := demands(c, p)
		secrets := p.secrets(c)
		for _, name := range demandNames {
			d := all[name]
			for i := range d.len() {
				id, secret := d.at(i)
				assert.Contains(t, p.ids, id)
				assert.Contains(t, secrets, secret)
				if i > 100 {
					break
				}
			}
		}
		_, bad := all["bad key"].at(0)
		assert.NotContains(t, secrets, bad)
		assert.Len(t, bad, len(secrets[0]))
		_, none := all["no key"].at(0)
		assert.Empty(t, none)
	}
}
