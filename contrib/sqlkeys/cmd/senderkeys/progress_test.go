package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestProgressRewritesOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var screen bytes.Buffer
		p := newProgress(&screen, true, "Deleting", "rows")
		printed := func() string {
			p.mu.Lock()
			defer p.mu.Unlock()
			defer screen.Reset()
			return screen.String()
		}
		time.Sleep(progressDelay - time.Nanosecond)
		synctest.Wait()
		require.Empty(t, printed(), "a fast command shows nothing")
		p.add(1000)
		p.add(234)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.Equal(t, "\rDeleting: 1234 rows, 1s\x1b[K", printed())
		time.Sleep(progressInterval)
		synctest.Wait()
		require.Equal(t, "\rDeleting: 1234 rows, 1s\x1b[K", printed())
		fmt.Fprintln(p, "a warning")
		fmt.Fprintln(p, "another one")
		require.Equal(t, "\r\x1b[Ka warning\nanother one\n", printed())
		p.end()
		require.Empty(t, printed(), "nothing is left to remove")
	})
}

func TestProgressIsRemovedAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var screen bytes.Buffer
		p := newProgress(&screen, true, "Migrating", "")
		time.Sleep(2900 * time.Millisecond)
		p.end()
		p.end()
		require.True(t, strings.HasSuffix(screen.String(), "\rMigrating: 2s\x1b[K\r\x1b[K"), "%q", screen.String())
		length := screen.Len()
		time.Sleep(time.Minute)
		require.Equal(t, length, screen.Len())
	})
}

func TestProgressIsSilentUnlessLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		p := newProgress(&log, false, "Deleting", "rows")
		p.add(1)
		time.Sleep(time.Minute)
		fmt.Fprintln(p, "a warning")
		p.end()
		require.Equal(t, "a warning\n", log.String())
	})
}

// held returns a database that makes a command wait until it is released.
func held(t *testing.T, command string) (source string, release func()) {
	source = pgtest.URL(t)
	db, err := sqlkeys.OpenDB(source)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	require.NoError(t, sqlkeys.Migrate(t.Context(), db))
	lock, err := db.Begin()
	require.NoError(t, err)
	t.Cleanup(func() { lock.Rollback() })
	reads := map[string]string{
		"migrate": "sqlkeys_schema", "key list": "sqlkeys_last_used",
		"key import": "sqlkeys_audit", "prune -usage-older-than 90d": "sqlkeys_usage",
	}
	_, err = lock.Exec(`LOCK TABLE ` + reads[command] + ` IN ACCESS EXCLUSIVE MODE`)
	require.NoError(t, err)
	return source, func() { require.NoError(t, lock.Commit()) }
}

// A person looks at the terminal that a command has as its standard error.
func TestProgressOnATerminal(t *testing.T) {
	for command, want := range map[string]string{
		"migrate": "Migrating: 1s", "key list": "Reading: 0 rows, 1s",
		"key import": "Importing: 0 keys, 1s", "prune -usage-older-than 90d": "Pruning: 1s",
	} {
		t.Run(command, func(t *testing.T) {
			source, release := held(t, command)
			cmd := process(t, source, strings.Fields(command)...)
			cmd.Env = append(cmd.Env, "TERM=xterm")
			screen, terminal, err := pty.Open()
			require.NoError(t, err)
			defer screen.Close()
			var out bytes.Buffer
			cmd.Stdin = strings.NewReader("sha256,sender\n" + strings.Repeat("0", 64) + ",7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11\n")
			cmd.Stdout, cmd.Stderr = &out, terminal
			require.NoError(t, cmd.Start())
			require.NoError(t, terminal.Close())
			seen := readUntil(t, screen, want)
			release()
			rest, _ := io.ReadAll(screen) // ends with EIO when the command does
			require.NoError(t, cmd.Wait())
			require.True(t, strings.HasSuffix(seen+string(rest), "\r\x1b[K"), "%q", seen+string(rest))
			require.NotContains(t, seen+string(rest), "\n")
			require.NotContains(t, out.String(), "1s")
		})
	}
}

// readUntil reads a terminal until it has shown a text.
func readUntil(t *testing.T, screen *os.File, text string) string {
	t.Helper()
	var seen []byte
	buffer := make([]byte, 1024)
	for !bytes.Contains(seen, []byte(text)) {
		n, err := screen.Read(buffer)
		seen = append(seen, buffer[:n]...)
		require.NoError(t, err, "%q", seen)
	}
	return string(seen)
}

// The command runs for longer than it takes until a terminal shows a line.
func TestNoProgressInAPipeOrOnADumbTerminal(t *testing.T) {
	source, release := held(t, "migrate")
	keys, releaseKeys := held(t, "key list")
	var log bytes.Buffer
	piped := process(t, source, "migrate")
	piped.Stderr = &log
	dumb := process(t, source, "migrate")
	dumb.Env = append(dumb.Env, "TERM=dumb")
	rows := process(t, keys, "key", "list") // the rows themselves show how far it is
	rows.Env = append(rows.Env, "TERM=xterm")
	var terminals []*os.File
	for _, cmd := range []*exec.Cmd{dumb, rows} {
		screen, terminal, err := pty.Open()
		require.NoError(t, err)
		defer screen.Close()
		cmd.Stderr = terminal
		if cmd == rows {
			cmd.Stdout = terminal
		}
		terminals = append(terminals, screen, terminal)
	}
	for _, cmd := range []*exec.Cmd{piped, dumb, rows} {
		require.NoError(t, cmd.Start())
	}
	shown := process(t, source, "migrate")
	shown.Env = append(shown.Env, "TERM=xterm")
	screen, err := pty.Start(shown)
	require.NoError(t, err)
	defer screen.Close()
	readUntil(t, screen, "Migrating: 2s")
	release()
	releaseKeys()
	for _, cmd := range []*exec.Cmd{piped, dumb, rows, shown} {
		require.NoError(t, cmd.Wait())
	}
	require.Empty(t, log.String())
	for i := 0; i < len(terminals); i += 2 {
		require.NoError(t, terminals[i+1].Close())
		text, _ := io.ReadAll(terminals[i])
		require.NotContains(t, string(text), "\x1b")
		require.NotContains(t, string(text), "Migrating")
		require.NotContains(t, string(text), "Reading")
	}
}
