package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

func TestChangesPrintJSON(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		object := func(args ...string) (v map[string]any) {
			t.Helper()
			require.NoError(t, json.Unmarshal([]byte(s.ok(append(args, "-json")...)), &v))
			return v
		}
		require.Equal(t, map[string]any{"migrated": true}, object("migrate"))
		sender := object("sender", "create")["sender_id"].(string)
		require.Equal(t, map[string]any{"default": "5/1m0s"}, object("sender", "limit", sender, "-limit", "default=5/1m")["limits"])
		require.Equal(t, "disabled", object("sender", "disable", sender)["state"])
		require.Equal(t, "active", object("sender", "enable", sender)["state"])
		key := s.issue(sender)
		require.Equal(t, "disabled", object("key", "disable", key)["state"])
		require.Equal(t, "active", object("key", "enable", key)["state"])
		require.Equal(t, "revoked", object("key", "revoke", key, "-yes")["state"])
	})
}

func TestHelpOfACommand(t *testing.T) {
	s := shell{t: t}
	for _, args := range [][]string{{"help", "key", "issue"}, {"key", "issue", "-h"}, {"key", "issue", "--help"}} {
		require.Contains(t, s.ok(args...), "senderkeys key issue [flags]")
	}
}

// commands yields cmd and the commands below it that work on a store.
func commands(cmd *cobra.Command, yield func(*cobra.Command)) {
	for _, c := range cmd.Commands() {
		if c.Name() != "completion" && c.Name() != "help" {
			commands(c, yield)
		}
	}
	if !cmd.HasSubCommands() {
		yield(cmd)
	}
}

func TestExamplesInTheHelpWork(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		t.Chdir(t.TempDir())
		s.ok("migrate")
		commands(new(app).command(), func(cmd *cobra.Command) {
			require.NotEmpty(t, cmd.Example, cmd.CommandPath())
			for line := range strings.Lines(cmd.Example) {
				sender := strings.TrimSpace(s.ok("sender", "create"))
				line = strings.NewReplacer("SENDER", sender, "KEYID", s.issue(sender)).Replace(line)
				line, _, _ = strings.Cut(line, " -db ")
				line, file, _ := strings.Cut(line, " < ")
				in := map[string]string{"": "y\n", "leaked.txt": s.pair().APIKey, "keys.csv": importedCSV}[strings.TrimSpace(file)]
				require.NotEmpty(t, in, file)
				args := strings.Fields(line)
				require.Equal(t, "senderkeys", args[0])
				r := s.with(in, args[1:]...)
				require.Zero(t, r.code, "%s: %s", line, r.err)
			}
		})
	})
}

func TestVersion(t *testing.T) {
	s := shell{t: t}
	for _, flag := range []string{"-version", "--version"} {
		require.Regexp(t, `^senderkeys (\(devel\)|v\d.*)\n$`, s.ok(flag))
	}
}

func TestSenderShow(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		sender := strings.TrimSpace(s.ok("sender", "create", "-limit", "default=5/1m", "-meta", "plan=free"))
		s.ok("sender", "disable", sender)
		require.Regexp(t, "^sender    "+sender+"\nstate     disabled\nlimits    default=5/1m0s\ncreated   [0-9TZ:-]+\ndisabled  [0-9TZ:-]+\nmetadata  plan=free\n$",
			s.ok("sender", "show", sender))
		var x map[string]any
		require.NoError(t, json.Unmarshal([]byte(s.ok("sender", "show", sender, "-json")), &x))
		require.Equal(t, map[string]any{"plan": "free"}, x["metadata"])
		require.Equal(t, exitNotFound, s.with("", "sender", "show", "7a1de7b4-3a0e-4d6e-9c2b-000000000001").code)
	})
}
