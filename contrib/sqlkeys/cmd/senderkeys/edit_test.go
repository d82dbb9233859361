package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEdit(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		object := func(args ...string) (v map[string]any) {
			t.Helper()
			require.NoError(t, json.Unmarshal([]byte(s.ok(append(args, "-json")...)), &v))
			return v
		}
		s.ok("migrate")
		sender := strings.TrimSpace(s.ok("sender", "create", "-name", "Acme", "-meta", "plan=free"))
		key := s.issue(sender)

		require.Empty(t, s.ok("key", "edit", key, "-name", "web", "-expires", "2099-01-31", "-meta", "team=api", "-meta", "owner=me"))
		edited := object("key", "edit", key, "-meta", "team=ops", "-unset", "owner")
		require.Equal(t, []any{"web", "2099-01-31T00:00:00Z", map[string]any{"team": "ops"}}, []any{edited["name"], edited["expires_at"], edited["metadata"]})
		edited = object("key", "edit", key, "-name", "", "-expires", "never")
		require.Equal(t, []any{"", nil}, []any{edited["name"], edited["expires_at"]})
		edited = object("sender", "edit", sender, "-name", "Acme Corp", "-meta", "plan=pro")
		require.Equal(t, []any{"Acme Corp", map[string]any{"plan": "pro"}}, []any{edited["name"], edited["metadata"]})
		require.Contains(t, s.ok("sender", "show", sender), "name      Acme Corp\n")
		require.Regexp(t, `(?m)^`+sender+`  active  -  .*  Acme Corp$`, strings.Join(strings.Split(s.ok("sender", "list"), "       "), "  "))

		for _, c := range []struct {
			args string
			want result
		}{
			{"key edit " + key, result{2, "", "senderkeys: edit: invalid: nothing to change\n"}},
			{"sender edit " + sender, result{2, "", "senderkeys: edit: invalid: nothing to change\n"}},
			{"key edit key_aaaaaaaaaaaaaaaa -name x", result{3, "", "senderkeys: key key_aaaaaaaaaaaaaaaa: not found\n"}},
			{"key edit " + key + " -expires 2001-09-09", result{2, "", "senderkeys: key " + key + ": invalid: the expiry 2001-09-09T00:00:00Z is in the past\n"}},
			{"key edit " + key + " -expires soon", result{2, "", "senderkeys: -expires \"soon\": invalid: want a duration such as 90d or 12h, a date such as 2027-01-31, or an RFC 3339 time\n"}},
			{"key edit " + key + " -meta x", result{2, "", "senderkeys: -meta \"x\": invalid: want NAME=VALUE, each name once\n"}},
		} {
			require.Equal(t, c.want, s.with("", strings.Fields(c.args)...), c.args)
		}
	})
}

func TestDeleteSender(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		sender := strings.TrimSpace(s.ok("sender", "create", "-name", "Acme"))
		s.issue(sender)
		other := s.issue(strings.TrimSpace(s.ok("sender", "create")))
		question := `Delete sender ` + sender + ` "Acme", its keys (1) and their usage for good? [y/N] `
		require.Equal(t, result{1, "", question + "senderkeys: not confirmed: nothing was changed\n"}, s.with("", "sender", "delete", sender))
		require.Equal(t, []string{"active", "active"}, s.states())
		require.Equal(t, result{0, "", question}, s.with("y\n", "sender", "delete", sender))
		require.Equal(t, result{3, "", "senderkeys: sender " + sender + ": not found\n"}, s.with("", "sender", "delete", sender, "-yes"))
		require.Equal(t, []string{"active"}, s.states())
		require.Contains(t, s.ok("key", "list"), other)
		require.Contains(t, s.ok("audit", "-sender", sender), "sender.delete  "+sender+"                        keys=1 name=Acme\n")
	})
}
