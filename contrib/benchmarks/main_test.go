package main

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A figure counts only if the contender really authenticates and limits.
func TestEveryContenderAdmitsAndRefuses(t *testing.T) {
	p := populate(3)
	for _, c := range contenders() {
		t.Run(c.id, func(t *testing.T) {
			var visited []string
			s := site{store: newKeyStore(p), quota: quota{requests: 2, per: ample.per}, visit: func(sender string) { visited = append(visited, sender) }}
			h, err := c.build(s)
			require.NoError(t, err)
			secrets := p.secrets(c)
			a := newCaller(c)

			assert.Equal(t, http.StatusOK, a.call(h.full, p.ids[1], secrets[1]))
			assert.Equal(t, []string{p.ids[1]}, visited, "the sender that the handler sees")
			if c.kind == floor {
				return
			}
			assert.Equal(t, http.StatusUnauthorized, a.call(h.full, p.ids[1], forge(secrets[1], 0)), "a bad key")
			if c.token == nil {
				assert.Equal(t, http.StatusUnauthorized, a.call(h.full, p.ids[2], secrets[1]), "another sender's key")
			}
			assert.Len(t, visited, 1)
			if c.limit == "" {
				return
			}
			assert.Equal(t, http.StatusOK, a.call(h.full, p.ids[1], secrets[1]), "the second of two")
			assert.Equal(t, http.StatusTooManyRequests, a.call(h.full, p.ids[1], secrets[1]), "over the limit")
			assert.Equal(t, http.StatusOK, a.call(h.full, p.ids[2], secrets[2]), "another sender")
			assert.Equal(t, []string{p.ids[1], p.ids[1], p.ids[2]}, visited)
			assert.NotEqual(t, http.StatusOK, a.call(h.full, p.ids[1], ""), "no key")
		})
	}
}
