package main

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Ctrl-C sends SIGINT. Standard input stays open and silent, as a terminal does.
func TestCtrlCAtTheQuestionEndsTheCommandAndChangesNothing(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		id := s.issue(strings.TrimSpace(s.ok("sender", "create")))
		cmd := s.process("key", "revoke", id)
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		defer in.Close()
		stderr, err := cmd.StderrPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())

		var shown bytes.Buffer
		for buf := make([]byte, 256); !strings.HasSuffix(shown.String(), "[y/N] "); {
			n, err := stderr.Read(buf)
			require.NoError(t, err, shown.String())
			shown.Write(buf[:n])
		}
		require.NoError(t, cmd.Process.Signal(os.Interrupt))
		rest, err := io.ReadAll(stderr)
		require.NoError(t, err)
		require.Error(t, cmd.Wait())
		require.Equal(t, exitFailed, cmd.ProcessState.ExitCode())
		require.Equal(t, "\nsenderkeys: interrupted: nothing was changed\n", string(rest))
		require.Equal(t, []string{"active"}, s.states())
	})
}
