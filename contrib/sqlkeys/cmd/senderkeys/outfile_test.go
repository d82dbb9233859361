package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
)

// pairIn reads the lines of a .env file.
func pairIn(t *testing.T, file string) (c senderauth.Credentials) {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	lines := strings.Split(string(text), "\n")
	require.Len(t, lines, 3)
	c.SenderID = strings.TrimPrefix(lines[0], "SENT_SENDER_ID=")
	c.APIKey = strings.TrimPrefix(lines[1], "SENT_API_KEY=")
	return c
}

func TestOutWritesThePairToAPrivateFile(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		sender := strings.TrimSpace(s.ok("sender", "create"))
		dir := t.TempDir()

		env := filepath.Join(dir, ".env")
		r := s.with("", "key", "issue", "-sender", sender, "-out", env)
		require.Equal(t, result{exitOK, "", r.err}, r)
		require.Regexp(t, `^key_[a-z2-7]{16} \(production, does not expire\) is in `+env+`\. The key is not shown again\.\n$`, r.err)
		require.NoError(t, s.validate(pairIn(t, env)))
		info, err := os.Stat(env)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode())

		next := filepath.Join(dir, "next.env")
		shown := s.ok("key", "rotate", r.err[:20], "-out", next, "-json")
		require.NoError(t, s.validate(pairIn(t, next)))
		require.NotContains(t, shown, pairIn(t, next).APIKey)
		var key map[string]any
		require.NoError(t, json.Unmarshal([]byte(shown), &key))
		require.Equal(t, "active", key["state"])
	})
}

func TestOutChangesNothingIfTheFileCannotBeMade(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		sender := strings.TrimSpace(s.ok("sender", "create"))
		dir := t.TempDir()
		kept := filepath.Join(dir, "kept")
		require.NoError(t, os.WriteFile(kept, []byte("A=B\n"), 0o644))
		link := filepath.Join(dir, "link")
		require.NoError(t, os.Symlink(filepath.Join(dir, "target"), link))

		for _, file := range []string{kept, link} {
			require.Equal(t, result{exitConflict, "", `senderkeys: -out "` + file + `": the file exists already` + "\n"},
				s.with("", "key", "issue", "-sender", sender, "-out", file))
		}
		text, err := os.ReadFile(kept)
		require.NoError(t, err)
		require.Equal(t, "A=B\n", string(text))
		nowhere := filepath.Join(dir, "nowhere", "file")
		require.Equal(t, result{exitFailed, "", "senderkeys: -out: open " + nowhere + ": no such file or directory\n"},
			s.with("", "key", "issue", "-sender", sender, "-out", nowhere))
		require.Empty(t, s.states())

		unused := filepath.Join(dir, "unused")
		require.Equal(t, exitNotFound, s.with("", "key", "rotate", "key_aaaaaaaaaaaaaaaa", "-out", unused).code)
		require.NoFileExists(t, unused)
	})
}
