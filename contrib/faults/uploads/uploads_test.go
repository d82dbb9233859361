package main

import (
	"os/exec"
	"testing"

	"github.com/senderauth/senderauth/contrib/internal/testservers"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { testservers.Main(m) }

// Every client gets the refusal of its upload, directly and through each proxy. The
// exception is a client or proxy that reads late and sends more than the guard drains.
func TestRefusalOfAnUploadIsRead(t *testing.T) {
	for _, program := range programs() {
		if _, err := exec.LookPath(program); err != nil {
			testservers.Missing(t, err.Error())
		}
	}
	s, err := start(t.TempDir())
	require.NoError(t, err)
	defer s.end()
	for _, r := range s.run(t.Context(), quick, guarded) {
		if r.load.size > 256<<10 && r.readsLate() {
			continue
		}
		c := r.counts[guarded]
		if c.answered != r.load.n {
			t.Errorf("%s, proxy %s, %s, %s: %d of %d answers, others: %+v", r.client.name, r.path.name, size(r.load.size), r.load.pace.name, c.answered, r.load.n, c.others)
		}
	}
}
