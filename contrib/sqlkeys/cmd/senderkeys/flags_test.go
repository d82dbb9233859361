package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDateBeginsAtMidnightUTC(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		sender := strings.TrimSpace(s.ok("sender", "create"))
		var key map[string]any
		issued := s.ok("key", "issue", "-sender", sender, "-not-before", "2999-01-01", "-expires", "2999-12-31", "-json")
		require.NoError(t, json.Unmarshal([]byte(issued), &key))
		require.Equal(t, "2999-01-01T00:00:00Z", key["not_before"])
		require.Equal(t, "2999-12-31T00:00:00Z", key["expires_at"])
		require.Equal(t, "[]\n", s.ok("usage", "-since", "2026-01-01", "-json"))
	})
}
