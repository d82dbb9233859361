package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestScopesAndNetworksOfAKey(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		sender := strings.TrimSpace(s.ok("sender", "create"))
		// rights returns the two lists after a command that prints the key.
		rights := func(args ...string) (scopes, networks any) {
			t.Helper()
			var v map[string]any
			require.NoError(t, json.Unmarshal([]byte(s.ok(append(args, "-json")...)), &v))
			return v["scopes"], v["networks"]
		}
		want := func(wantScopes, wantNetworks any, args ...string) {
			t.Helper()
			scopes, networks := rights(args...)
			require.Equal(t, wantScopes, scopes)
			require.Equal(t, wantNetworks, networks)
		}
		all, none := []any{"*"}, []any{}
		want(all, nil, "key", "issue", "-sender", sender)
		want(none, nil, "key", "issue", "-sender", sender, "-no-scopes")
		want([]any{"orders:read", "a,b"}, []any{"10.0.0.0/8", "2001:db8::1/128"}, "key", "issue", "-sender", sender,
			"-scope", "orders:read", "-scope", "a,b", "-network", "10.0.0.0/8", "-network", "2001:db8::1")

		id := s.issue(sender)
		want([]any{"orders:read", "orders:write"}, nil, "key", "scope", id, "orders:read", "orders:write")
		want([]any{"orders:read", "orders:write"}, []any{"10.0.0.0/8", "192.0.2.1/32"}, "key", "network", id, "10.0.0.0/8", "192.0.2.1")
		require.Contains(t, s.ok("key", "show", id), "scopes       orders:read orders:write\nnetworks     10.0.0.0/8 192.0.2.1/32\n")
		require.Regexp(t, regexp.MustCompile("(?m)^"+id+" .* -          orders:read orders:write  10.0.0.0/8 192.0.2.1/32$"), s.ok("key", "list"))
		want([]any{"orders:read", "orders:write"}, []any{"10.0.0.0/8", "192.0.2.1/32"}, "key", "rotate", id)

		id = s.issue(sender)
		want(none, nil, "key", "scope", id, "-none")
		require.Contains(t, s.ok("key", "show", id), "scopes       (no scopes)\ncreated ")
		want(all, nil, "key", "scope", id, "-all")
		want(all, []any{"10.0.0.0/8"}, "key", "network", id, "10.0.0.0/8")
		want(all, nil, "key", "network", id, "-any")
		require.Empty(t, s.ok("key", "scope", id, "orders:read"), "a change prints nothing without -json")
		require.Contains(t, s.ok("audit", "-key", id), "key.scopes    "+sender+"  "+id+"  scopes=orders:read\n")

		s.exec(`UPDATE sqlkeys_keys SET scopes = 'a  b', networks = 'office' WHERE id = '` + id + `'`)
		wrong := "senderkeys: key " + id + `: scopes: unreadable: scope "" is not printable ASCII without space, quote and backslash` + "\n" +
			"key " + id + `: networks: unreadable: "office" is not a prefix such as 10.0.0.0/8` + "\n"
		r := s.with("", "key", "show", id)
		require.Equal(t, result{1, r.out, wrong}, r)
		require.Contains(t, r.out, "scopes       (unreadable)\n")
		s.ok("key", "scope", id, "-all")
		s.ok("key", "network", id, "-any")
		want(all, nil, "key", "show", id)
	})
}

func TestWrongScopesAndNetworksChangeNothing(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		sender := strings.TrimSpace(s.ok("sender", "create"))
		id := s.issue(sender)
		s.ok("key", "scope", id, "orders:read")
		s.ok("key", "network", id, "10.0.0.0/8")
		before := s.ok("key", "list", "-json")
		const scopes = "senderkeys key scope takes KEYID [SCOPE]..., or a flag in place of the list"
		const networks = "senderkeys key network takes KEYID [PREFIX]..., or a flag in place of the list"
		for _, c := range []struct {
			args []string
			code int
			err  string
		}{
			{[]string{"key", "scope"}, 2, scopes},
			{[]string{"key", "scope", id}, 2, scopes},
			{[]string{"key", "scope", "-all"}, 2, scopes},
			{[]string{"key", "scope", id, "a", "-all"}, 2, scopes},
			{[]string{"key", "scope", id, "-none", "-all"}, 2, scopes},
			{[]string{"key", "scope", id, ""}, 2, `invalid: scope "" is not printable ASCII without space, quote and backslash`},
			{[]string{"key", "scope", id, "a b"}, 2, `invalid: scope "a b" is not printable ASCII without space, quote and backslash`},
			{[]string{"key", "scope", "key_aaaaaaaaaaaaaaaa", "a"}, 3, `key key_aaaaaaaaaaaaaaaa: not found`},
			{[]string{"key", "network", id}, 2, networks},
			{[]string{"key", "network", id, "-any", "::1"}, 2, networks},
			{[]string{"key", "network", id, "", "10.1.2.3/8"}, 2, `network "": invalid: want a prefix such as 10.0.0.0/8, or an address` + "\n" +
				`invalid: network 10.1.2.3/8 has bits after its first 8: write 10.0.0.0/8`},
			{[]string{"key", "issue", "-sender", sender, "-scope", ""}, 2, `new key: invalid: scope "" is not printable ASCII without space, quote and backslash`},
			{[]string{"key", "issue", "-sender", sender, "-network", "office"}, 2, `network "office": invalid: want a prefix such as 10.0.0.0/8, or an address`},
			{[]string{"key", "issue", "-sender", sender, "-scope", "a", "-no-scopes"}, 2,
				`if any flags in the group [scope no-scopes] are set none of the others can be; [no-scopes scope] were all set`},
		} {
			require.Equal(t, result{c.code, "", "senderkeys: " + c.err + "\n"}, s.with("", c.args...), c.args)
		}
		require.Equal(t, before, s.ok("key", "list", "-json"))
		s.ok("key", "revoke", id, "-yes")
		require.Equal(t, result{4, "", "senderkeys: key " + id + ": revoked\n"}, s.with("", "key", "scope", id, "-all"))
	})
}
