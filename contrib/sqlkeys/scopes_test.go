package sqlkeys_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

var (
	all  = []string{senderauth.AllScopes}
	none = []string{}
)

func prefixes(texts ...string) (networks []netip.Prefix) {
	for _, text := range texts {
		networks = append(networks, netip.MustParsePrefix(text))
	}
	return networks
}

// columns returns what a person with SQL sees.
func (s fixture) columns(t testing.TB, keyID string) (scopes, networks string) {
	require.NoError(t, s.db.QueryRow(`SELECT scopes, networks FROM sqlkeys_keys WHERE id = $1`, keyID).Scan(&scopes, &networks))
	return scopes, networks
}

func TestKeyHasScopesAndNetworks(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		for _, c := range []struct {
			name             string
			scopes           []string
			networks         []netip.Prefix
			want             []string
			column, prefixes string
			detail           map[string]string
		}{
			{"neither", nil, nil, all, "*", "", nil},
			{"no scopes", none, nil, none, "", "", map[string]string{"scopes": ""}},
			{"all scopes", all, prefixes(), all, "*", "", nil},
			{"both", []string{"orders:read", "a!#[]~"}, prefixes("10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32", "0.0.0.0/0"),
				[]string{"orders:read", "a!#[]~"}, "orders:read a!#[]~", "10.0.0.0/8 2001:db8::/32 192.0.2.1/32 0.0.0.0/0",
				map[string]string{"scopes": "orders:read a!#[]~", "networks": "10.0.0.0/8 2001:db8::/32 192.0.2.1/32 0.0.0.0/0"}},
			{"as many as there may be", numbered(64, 31), slices.Repeat(prefixes("2001:db8::/32"), 64), numbered(64, 31),
				strings.Join(numbered(64, 31), " "), strings.Repeat(" 2001:db8::/32", 64)[1:],
				map[string]string{"scopes": strings.Join(numbered(64, 31), " "), "networks": strings.Repeat(" 2001:db8::/32", 64)[1:]}},
		} {
			t.Run(c.name, func(t *testing.T) {
				k := s.issue(t, sqlkeys.NewKey{Scopes: c.scopes, Networks: c.networks})
				require.Equal(t, c.want, k.Key.Scopes)
				require.Equal(t, c.networks, k.Key.Networks)
				stored, err := s.Key(t.Context(), k.Key.ID)
				require.NoError(t, err)
				require.Equal(t, k.Key, stored)
				scopes, networks := s.columns(t, k.Key.ID)
				require.Equal(t, c.column, scopes)
				require.Equal(t, c.prefixes, networks)
				sender, err := s.Validate(t.Context(), k.Credentials)
				require.NoError(t, err)
				require.Equal(t, c.want, sender.Scopes)
				require.Equal(t, c.networks, sender.Networks)
				audit := auditOf(t, s)
				require.Equal(t, c.detail, audit[len(audit)-1].Detail)

				for range 2 { // a key of a key
					k, err = s.Rotate(t.Context(), k.Key.ID, sqlkeys.Rotation{})
					require.NoError(t, err)
					require.Equal(t, c.want, k.Key.Scopes)
					require.Equal(t, c.networks, k.Key.Networks)
					stored, err = s.Key(t.Context(), k.Key.ID)
					require.NoError(t, err)
					require.Equal(t, k.Key, stored)
				}
			})
		}
	})
}

// numbered returns n different scopes of a length.
func numbered(n, length int) []string {
	scopes := make([]string, n)
	for i := range scopes {
		scopes[i] = fmt.Sprintf("%0*d", length, i)
	}
	return scopes
}

func TestScopesAndNetworksChange(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		k := s.issue(t, sqlkeys.NewKey{})
		id, before := k.Key.ID, len(auditOf(t, s))
		want := k.Key
		check := func() {
			t.Helper()
			stored, err := s.Key(t.Context(), id)
			require.NoError(t, err)
			require.Equal(t, want, stored)
		}
		require.NoError(t, s.SetScopes(t.Context(), id, []string{"orders:read", "orders:write"}))
		want.Scopes = []string{"orders:read", "orders:write"}
		check()
		require.NoError(t, s.SetNetworks(t.Context(), id, prefixes("10.0.0.0/8", "::1/128")))
		want.Networks = prefixes("10.0.0.0/8", "::1/128")
		check()
		require.NoError(t, s.SetScopes(t.Context(), id, nil))
		want.Scopes = none
		check()
		require.NoError(t, s.SetNetworks(t.Context(), id, nil))
		want.Networks = nil
		check()
		require.NoError(t, s.SetScopes(t.Context(), id, all))
		want.Scopes = all
		check()

		entries := auditOf(t, s)[before:]
		require.Len(t, entries, 5)
		for i, e := range []sqlkeys.AuditEntry{
			{Action: "key.scopes", Detail: map[string]string{"scopes": "orders:read orders:write"}},
			{Action: "key.networks", Detail: map[string]string{"networks": "10.0.0.0/8 ::1/128"}},
			{Action: "key.scopes", Detail: map[string]string{"scopes": ""}},
			{Action: "key.networks", Detail: map[string]string{"networks": ""}},
			{Action: "key.scopes", Detail: map[string]string{"scopes": "*"}},
		} {
			e.ID, e.At, e.Actor, e.SenderID, e.KeyID = entries[i].ID, entries[i].At, "tests", k.Key.SenderID, id
			require.Equal(t, e, entries[i])
		}

		require.ErrorIs(t, s.SetScopes(t.Context(), keyNone, all), sqlkeys.ErrNotFound)
		require.ErrorIs(t, s.SetNetworks(t.Context(), keyNone, nil), sqlkeys.ErrNotFound)
		require.NoError(t, s.Revoke(t.Context(), id))
		require.EqualError(t, s.SetScopes(t.Context(), id, none), "sqlkeys: key "+id+": revoked")
		require.EqualError(t, s.SetNetworks(t.Context(), id, nil), "sqlkeys: key "+id+": revoked")
	})
}

func TestWrongScopesAndNetworksAreRefused(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		k := s.issue(t, sqlkeys.NewKey{})
		before := auditOf(t, s)
		const form = " is not printable ASCII without space, quote and backslash"
		for _, c := range []struct {
			scopes   []string
			networks []netip.Prefix
			text     string
		}{
			{scopes: []string{"a", ""}, text: `scope ""` + form},
			{scopes: []string{"a b"}, text: `scope "a b"` + form},
			{scopes: []string{`"`, "b", `\`}, text: `scope "\""` + form + "\n" + `scope "\\"` + form},
			{scopes: []string{"é"}, text: `scope "é"` + form},
			{scopes: []string{"a\x7f"}, text: `scope "a\x7f"` + form},
			{scopes: numbered(65, 2), text: "65 scopes, more than 64"},
			{scopes: append(numbered(63, 31), strings.Repeat("b", 33)), text: "the scopes have 2049 bytes, more than 2048"},
			{networks: make([]netip.Prefix, 1), text: "networks[0] is not a valid prefix"},
			{networks: prefixes("10.0.0.0/8", "10.1.2.3/8", "::ffff:10.0.0.0/104"), text: "network 10.1.2.3/8 has bits after its first 8: write 10.0.0.0/8\n" +
				"network ::ffff:10.0.0.0/104 matches no address: write it as IPv4"},
			{networks: slices.Repeat(prefixes("::1/128"), 65), text: "65 networks, more than 64"},
		} {
			_, err := s.Issue(t.Context(), sqlkeys.NewKey{SenderID: k.Key.SenderID, Scopes: c.scopes, Networks: c.networks})
			require.ErrorIs(t, err, sqlkeys.ErrInvalid)
			require.EqualError(t, err, "sqlkeys: new key: invalid: "+c.text)
			if c.scopes != nil {
				err = s.SetScopes(t.Context(), k.Key.ID, c.scopes)
			} else {
				err = s.SetNetworks(t.Context(), k.Key.ID, c.networks)
			}
			require.ErrorIs(t, err, sqlkeys.ErrInvalid)
			require.EqualError(t, err, "sqlkeys: invalid: "+c.text)
		}
		require.Equal(t, []sqlkeys.Key{k.Key}, keysOf(t, s, ""))
		require.Equal(t, before, auditOf(t, s))
	})
}

func TestParseNetwork(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/8":    "10.0.0.0/8",
		"10.1.2.3":      "10.1.2.3/32",
		"2001:db8::/32": "2001:db8::/32",
		"2001:DB8::1":   "2001:db8::1/128",
	} {
		n, err := sqlkeys.ParseNetwork(text)
		require.NoError(t, err)
		require.Equal(t, want, n.String())
	}
	for text, want := range map[string]string{
		"":                    `sqlkeys: network "": invalid: want a prefix such as 10.0.0.0/8, or an address`,
		"office":              `sqlkeys: network "office": invalid: want a prefix such as 10.0.0.0/8, or an address`,
		"10.0.0.0/33":         `sqlkeys: network "10.0.0.0/33": invalid: want a prefix such as 10.0.0.0/8, or an address`,
		"fe80::1%eth0":        `sqlkeys: network "fe80::1%eth0": invalid: want a prefix such as 10.0.0.0/8, or an address`,
		"10.1.2.3/8":          `sqlkeys: invalid: network 10.1.2.3/8 has bits after its first 8: write 10.0.0.0/8`,
		"::ffff:10.0.0.1":     `sqlkeys: invalid: network ::ffff:10.0.0.1/128 matches no address: write it as IPv4`,
		"::ffff:10.0.0.0/104": `sqlkeys: invalid: network ::ffff:10.0.0.0/104 matches no address: write it as IPv4`,
	} {
		_, err := sqlkeys.ParseNetwork(text)
		require.ErrorIs(t, err, sqlkeys.ErrInvalid)
		require.EqualError(t, err, want)
	}
}

// A key that the store cannot read the rights of is neither unrestricted nor unknown.
func TestRightsThatCannotBeReadAreAnOutage(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		guard, err := senderauth.New(s, senderauth.Config{Limits: map[string]senderauth.Limit{"default": senderauth.Unlimited()}})
		require.NoError(t, err)
		for _, c := range []struct{ column, damaged, wrong string }{
			{"scopes", " ", `scopes: unreadable: scope "" is not printable ASCII without space, quote and backslash` + "\n" +
				`scope "" is not printable ASCII without space, quote and backslash`},
			{"scopes", "a,b\nc", `scopes: unreadable: scope "a,b\nc" is not printable ASCII without space, quote and backslash`},
			{"scopes", strings.Repeat("a", 2049), `scopes: unreadable: the scopes have 2049 bytes, more than 2048`},
			{"networks", " ", `networks: unreadable: "" is not a prefix such as 10.0.0.0/8`},
			{"networks", "10.0.0.0/8,11.0.0.0/8", `networks: unreadable: "10.0.0.0/8,11.0.0.0/8" is not a prefix such as 10.0.0.0/8`},
			{"networks", "10.1.2.3/8", `networks: unreadable: network 10.1.2.3/8 has bits after its first 8: write 10.0.0.0/8`},
			{"metadata", `{"a":1}`, `metadata: unreadable: "a" is not a string`},
		} {
			k := s.issue(t, sqlkeys.NewKey{Scopes: []string{"a"}, Networks: prefixes("10.0.0.0/8")})
			id := k.Key.ID
			_, err := s.db.Exec(`UPDATE sqlkeys_keys SET `+c.column+` = $1 WHERE id = $2`, c.damaged, id)
			require.NoError(t, err)
			text := "sqlkeys: key " + id + ": " + c.wrong

			_, err = s.Validate(t.Context(), k.Credentials)
			require.EqualError(t, err, text)
			require.ErrorIs(t, err, sqlkeys.ErrUnreadable)
			require.False(t, isRefusal(err))
			require.Equal(t, 503, status(guard, k.Credentials))

			stored, err := s.Key(t.Context(), id)
			require.EqualError(t, err, text)
			require.Equal(t, "production", string(stored.Environment), "the rest is there")
			require.Equal(t, c.column == "scopes", stored.Scopes == nil)
			require.Equal(t, c.column == "networks", stored.Networks == nil)

			made, err := s.Rotate(t.Context(), id, sqlkeys.Rotation{})
			require.NoError(t, err)
			require.Equal(t, c.column == "scopes", made.Key.Scopes == nil)
			require.Equal(t, 503, status(guard, made.Credentials), "the new key is not unrestricted either")
			if c.column != "metadata" {
				require.NoError(t, s.SetScopes(t.Context(), made.Key.ID, all))
				require.NoError(t, s.SetNetworks(t.Context(), made.Key.ID, nil))
				require.Equal(t, 200, status(guard, made.Credentials), "it is repaired")
			}
		}
	})
}

// status sends a request through the guard.
func status(guard *senderauth.Guard, c senderauth.Credentials) int {
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("x-sender-id", c.SenderID)
	r.Header.Set("x-api-key", c.APIKey)
	w := httptest.NewRecorder()
	guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
	return w.Code
}

// httptest sends requests from 192.0.2.1.
func TestChangedRightsReachEveryCache(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		admin := open(t, source, sqlkeys.Config{})
		k := admin.issue(t, sqlkeys.NewKey{Scopes: []string{"orders:read"}})
		var guards []*senderauth.Guard
		for range 2 {
			i := newInstance(t, source, senderauth.CacheConfig{TTL: time.Hour})
			i.settle(t)
			guard, err := senderauth.New(i.Cache, senderauth.Config{Limits: map[string]senderauth.Limit{"default": senderauth.Unlimited()}})
			require.NoError(t, err)
			guards = append(guards, guard.Requiring("orders:read"))
		}
		answer := func(want int) {
			t.Helper()
			for _, guard := range guards {
				require.Eventually(t, func() bool { return status(guard, k.Credentials) == want }, 20*time.Second, time.Millisecond)
			}
		}
		answer(200)
		require.NoError(t, admin.SetScopes(t.Context(), k.Key.ID, []string{"orders:write"}))
		answer(403)
		require.NoError(t, admin.SetScopes(t.Context(), k.Key.ID, []string{"orders:read"}))
		answer(200)
		require.NoError(t, admin.SetNetworks(t.Context(), k.Key.ID, prefixes("10.0.0.0/8")))
		answer(401)
		require.NoError(t, admin.SetNetworks(t.Context(), k.Key.ID, prefixes("192.0.2.0/24")))
		answer(200)
	})
}

func TestAdoptedAndFirstKeysHaveAllScopes(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		first, made, err := s.IssueFirst(t.Context())
		require.NoError(t, err)
		require.True(t, made)
		c := senderauth.Credentials{SenderID: uuid.NewString(), APIKey: uuid.NewString()}
		adopted, err := s.Adopt(t.Context(), c)
		require.NoError(t, err)
		for _, k := range []sqlkeys.Key{first.Key, adopted} {
			require.Equal(t, all, k.Scopes)
			require.Nil(t, k.Networks)
		}
		require.NoError(t, s.SetScopes(t.Context(), adopted.ID, none))
		again, err := s.Adopt(t.Context(), c)
		require.NoError(t, err)
		require.Equal(t, none, again.Scopes, "adopting a key again gives it nothing back")
	})
}
