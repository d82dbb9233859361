package main

import (
	"encoding/json"
	"testing"

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
