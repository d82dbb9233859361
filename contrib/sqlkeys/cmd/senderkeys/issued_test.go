package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// mute runs the command with a standard output that cannot be written.
func (s shell) mute(args ...string) result {
	s.t.Helper()
	out, err := os.Open(os.DevNull)
	require.NoError(s.t, err)
	defer out.Close()
	var stderr bytes.Buffer
	a := app{in: strings.NewReader(""), out: out, err: &stderr, env: s.getenv}
	code := a.run(context.Background(), args)
	return result{code, "", stderr.String()}
}

func TestKeyThatCannotBePrintedIsRevoked(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		sender := strings.TrimSpace(s.ok("sender", "create"))
		const failure = `^senderkeys: cannot print the new key: write /dev/null: bad file descriptor: key_[a-z2-7]{16} is revoked`

		for _, json := range [][]string{nil, {"-json"}} {
			r := s.mute(append(json, "key", "issue", "-sender", sender)...)
			require.Equal(t, exitFailed, r.code)
			require.Regexp(t, failure+`\n$`, r.err)
		}
		require.Equal(t, []string{"revoked", "revoked"}, s.states())

		id := s.issue(sender)
		r := s.mute("key", "rotate", id)
		require.Equal(t, exitFailed, r.code)
		require.Regexp(t, failure+`; `+id+` stays rotated: issue another key\n$`, r.err)
		require.Equal(t, []string{"revoked", "revoked", "retiring", "revoked"}, s.states())

		require.Equal(t, result{exitFailed, "", "senderkeys: write /dev/null: bad file descriptor\n"}, s.mute("sender", "create"))
	})
}

// The shell runs "senderkeys key issue | true".
func TestKeyPrintedToAClosedPipeIsRevoked(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		cmd := s.process("key", "issue", "-sender", strings.TrimSpace(s.ok("sender", "create")))
		r, w, err := os.Pipe()
		require.NoError(t, err)
		require.NoError(t, r.Close())
		var stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = w, &stderr
		require.Error(t, cmd.Run())
		require.NoError(t, w.Close())
		require.Equal(t, exitFailed, cmd.ProcessState.ExitCode())
		require.Regexp(t, `broken pipe: key_[a-z2-7]{16} is revoked\n$`, stderr.String())
		require.Equal(t, []string{"revoked"}, s.states())
	})
}

func TestKeyOfADisabledSenderComesWithAWarning(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		sender := strings.TrimSpace(s.ok("sender", "create"))
		id := s.issue(sender)
		s.ok("sender", "disable", sender)
		warning := "Sender " + sender + " is disabled: its keys are refused until you enable it.\n"
		r := s.with("", "key", "issue", "-sender", sender)
		require.Zero(t, r.code)
		require.True(t, strings.HasSuffix(r.err, "The key is not shown again.\n"+warning), r.err)
		r = s.with("", "key", "rotate", id, "-json")
		require.Equal(t, result{exitOK, r.out, warning}, r)
	})
}

// In a terminal, standard output and standard error are the same.
func TestPairIsPrintedBeforeTheNote(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		sender := strings.TrimSpace(s.ok("sender", "create"))
		id := s.issue(sender)
		for _, args := range [][]string{{"key", "issue", "-sender", sender}, {"key", "rotate", id}} {
			shown, err := s.process(args...).CombinedOutput()
			require.NoError(t, err)
			require.Regexp(t, `^SENT_SENDER_ID=.*\nSENT_API_KEY=.*\nkey_.*The key is not shown again\.\n$`, string(shown))
		}
	})
}

// The key would otherwise be active, and nobody would know it.
func TestCtrlCWhileAKeyIsMadeStillPrintsIt(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		sender := strings.TrimSpace(s.ok("sender", "create"))
		db, err := sqlkeys.OpenDB(s.source)
		require.NoError(t, err)
		defer db.Close()
		store, err := sqlkeys.Open(t.Context(), db, sqlkeys.Config{})
		require.NoError(t, err)
		defer store.Close()

		var out, stderr bytes.Buffer
		a := app{out: &out, err: &stderr}
		ctx, interrupt := context.WithCancel(t.Context())
		require.NoError(t, a.deliver(ctx, store, func(ctx context.Context) (sqlkeys.Issued, error) {
			interrupt()
			return store.Issue(ctx, sqlkeys.NewKey{SenderID: sender})
		}))
		require.Regexp(t, `^SENT_SENDER_ID=.*\nSENT_API_KEY=.*\n$`, out.String())
		require.Equal(t, []string{"active"}, s.states())
	})
}
