package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPrune(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		s.issue(strings.TrimSpace(s.ok("sender", "create")))
		require.Equal(t, "audit entries would be deleted: 2\nusage rows would be deleted: 0\n", s.ok("prune", "-audit-older-than", "0s", "-usage-older-than", "90d", "-dry-run"))
		require.Equal(t, "{\n  \"audit\": 0,\n  \"usage\": 0,\n  \"dry_run\": false\n}\n", s.ok("prune", "-audit-older-than", "400d", "-json"))
		require.Equal(t, "audit entries deleted: 2\nusage rows deleted: 0\n", s.ok("prune", "-audit-older-than", "0s"))
		require.Equal(t, "[]\n", s.ok("audit", "-json"))
		require.Equal(t, result{2, "", "senderkeys: prune: invalid: give -audit-older-than, -usage-older-than or both\n"}, s.with("", "prune"))
		require.Equal(t, result{2, "", "senderkeys: -usage-older-than \"-1d\": invalid: it is in the future\n"}, s.with("", "prune", "-usage-older-than", "-1d"))
	})
}
