package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTextThatWouldMoveOtherColumnsIsEscaped(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		const name = "a\tb\nc\x1b[2J\u202ed\u200b\u2067 é世'\"\\"
		const shown = `a\tb\nc\x1b[2J\u202ed\u200b\u2067 é世'"\`
		sender := strings.TrimSpace(s.ok("sender", "create", "-limit", name+"=5/1m"))
		r := s.with("", "key", "issue", "-sender", sender, "-name", name, "-meta", "to="+name)
		require.Zero(t, r.code, r.err)
		id := r.err[:20]

		list := s.ok("key", "list")
		require.Contains(t, list, id+"  "+sender+"  active  "+shown+"  production  ")
		require.Equal(t, 2, strings.Count(list, "\n"))
		require.Contains(t, s.ok("sender", "list"), sender+"  active  "+shown+"=5/1m0s  ")
		require.Contains(t, s.ok("key", "show", id), "name         "+shown+"\n")
		require.Contains(t, s.ok("key", "show", id), "metadata     to="+shown+"\n")
		require.Contains(t, s.ok("audit"), "  limit."+shown+"=5/1m0s\n")
		require.Contains(t, s.with("n\n", "key", "revoke", id).err, `a\tb\nc\x1b[2J\u202ed\u200b\u2067 é世'\"\\`)
	})
}
