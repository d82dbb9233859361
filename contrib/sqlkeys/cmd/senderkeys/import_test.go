package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
)

const (
	importedSender = "7a1de7b4-3a0e-4d6e-9c2b-000000000001"
	importedKey    = "6c1f7f7e-2d5c-4b07-8d0a-3f2f6f1f9b11" // as another system has issued it
)

var importedCSV = "sha256,sender,name,expires,environment,scopes\n" + digestOf(importedKey) + "," + importedSender + ",web,2099-01-31,staging,orders:read orders:write\n"

func digestOf(key string) string {
	d := sha256.Sum256([]byte(key))
	return hex.EncodeToString(d[:])
}

func TestImportedKeyWorks(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		pair := senderauth.Credentials{SenderID: importedSender, APIKey: importedKey}
		require.Equal(t, result{0, "would be imported: 1\nexist already: 0\nwrong: 0\n", ""}, s.with(importedCSV, "key", "import", "-dry-run"))
		require.Equal(t, "[]\n", s.ok("key", "list", "-json"))
		require.Equal(t, "[]\n", s.ok("sender", "list", "-json"))
		require.Equal(t, result{0, "imported: 1\nexist already: 0\nwrong: 0\n", ""}, s.with(importedCSV, "key", "import"))
		require.NoError(t, s.validate(pair))
		var keys []map[string]any
		require.NoError(t, json.Unmarshal([]byte(s.ok("key", "list", "-json")), &keys))
		require.Len(t, keys, 1)
		id := keys[0]["key_id"].(string)
		require.Equal(t, map[string]any{"sender_id": importedSender, "key_id": id, "state": "active", "name": "web", "environment": "staging",
			"format": "uuid", "scopes": []any{"orders:read", "orders:write"}, "networks": nil, "created_at": keys[0]["created_at"], "expires_at": "2099-01-31T00:00:00Z", "last_used_at": nil}, keys[0])

		s.ok("key", "revoke", id, "-yes")
		for _, in := range []string{importedCSV, `{"sha256":"` + strings.ToUpper(digestOf(importedKey)) + `","sender":"` + strings.ToUpper(importedSender) + `"}`} {
			require.Equal(t, result{0, "imported: 0\nexist already: 1\nwrong: 0\n", ""}, s.with(in, "key", "import"))
		}
		require.ErrorIs(t, s.validate(pair), senderauth.ErrInvalidKey, "a repeated import does not revive a revoked key")
	})
}

func TestWrongLinesOfAnImportAreReportedAndLeftOut(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		d := func(key string) string { return digestOf(key) }
		const other = "7a1de7b4-3a0e-4d6e-9c2b-000000000002"
		secret := uuid.NewString()
		in := "\ufeffsha256,sender,name,expires,environment,key_id\r\n" + strings.Join([]string{
			d("1") + "," + importedSender + ",\"a\nb\",,,",
			secret + "," + importedSender + ",,,,",
			d("2") + "," + secret[:35] + ",,,,",
			d("3") + "," + importedSender + ",,,moon,",
			d("4") + "," + importedSender + ",,2001-09-09,,",
			d("5") + "," + importedSender + ",,soon,,",
			d("6") + "," + importedSender,
			d("1") + "," + other + ",,,,",
			d("7") + "," + importedSender + ",,,,key_aaaaaaaaaaaaaaaa",
			d("8") + "," + importedSender + ",,,,key_aaaaaaaaaaaaaaaa",
			d("9") + "," + importedSender + ",,,,mine",
			d("1") + "," + importedSender + ",again,,,",
			"\"" + d("1"),
		}, "\r\n")
		r := s.with(in, "key", "import", "-json")
		require.Equal(t, 2, r.code)
		require.JSONEq(t, `{"imported":2,"existed":1,"wrong":10,"dry_run":false}`, r.out)
		require.Equal(t, `senderkeys: line 4: sha256: invalid: not 64 hexadecimal digits
senderkeys: line 5: sender: invalid: not a UUID
senderkeys: line 6: environment: invalid: not one of development, staging, production
senderkeys: line 8: expires: invalid: want a date such as 2027-01-31 or an RFC 3339 time
senderkeys: line 9: invalid: wrong number of fields
senderkeys: line 15: invalid: extraneous or missing " in quoted-field
senderkeys: line 7: new key: invalid: the expiry 2001-09-09T00:00:00Z is in the past
senderkeys: line 10: import: the key belongs to another sender: exists already
senderkeys: line 12: key key_aaaaaaaaaaaaaaaa: exists already
senderkeys: line 13: new key: invalid: the ID is not key_ and 16 characters of a-z and 2-7
senderkeys: lines that are invalid: 10
`, r.err)
		require.NotContains(t, r.out+r.err, secret[:8])
		require.Len(t, s.states(), 2)

		in = `{"sha256":"` + d("a") + `","sender":"` + importedSender + `"}` + "\n\nnonsense\n" + `{"sha256":"` + d("b") + `","sender":"` + importedSender + `","note":"x"}` + "\n" + `{"sha256":1}` + "\n" +
			`{"sha256":"` + d("c") + `","sender":"` + importedSender + `","scopes":null}`
		require.Equal(t, result{2, "imported: 1\nexist already: 0\nwrong: 4\n", `senderkeys: line 3: invalid: not a JSON object of strings
senderkeys: line 4: field 1: invalid: not one of sha256, sender, name, expires, environment, key_id, scopes
senderkeys: line 5: invalid: not a JSON object of strings
senderkeys: line 6: invalid: not a JSON object of strings: one is null
senderkeys: lines that are invalid: 4
`}, s.with(in, "key", "import"))
		for in, want := range map[string]string{
			"":                  "standard input: invalid: want CSV with a header, or JSON lines",
			secret + ",x\n":     "line 1: field 1: invalid: not one of sha256, sender, name, expires, environment, key_id, scopes",
			"sha256,\"sender\n": "line 1: invalid: extraneous or missing \" in quoted-field",
		} {
			require.Equal(t, result{2, "", "senderkeys: " + want + "\n"}, s.with(in, "key", "import"))
		}
		s.env["SENDERAUTH_PEPPERS"] = "MDEyMzQ1Njc4OWFiY2RlZg=="
		require.Equal(t, result{2, "", "senderkeys: SENDERAUTH_PEPPERS: invalid: imported keys have no pepper: add an empty one\n"}, s.with(importedCSV, "key", "import"))
	})
}

func TestImportOfManyKeys(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		var in strings.Builder
		in.WriteString("sender,sha256\n")
		for range 2500 {
			in.WriteString(importedSender + "," + digestOf(uuid.NewString()) + "\n")
		}
		require.Equal(t, result{0, "imported: 2500\nexist already: 0\nwrong: 0\n", ""}, s.with(in.String(), "key", "import"))
		require.Equal(t, result{0, "imported: 0\nexist already: 2500\nwrong: 0\n", ""}, s.with(in.String(), "key", "import"))
	})
}

func TestDryRunOfAnImportKnowsItsEarlierTransactions(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		const other = "7a1de7b4-3a0e-4d6e-9c2b-000000000002"
		var in strings.Builder
		in.WriteString("sender,sha256,key_id\n")
		line := func(sender, key, id string) { in.WriteString(sender + "," + digestOf(key) + "," + id + "\n") }
		line(importedSender, "1", "")
		line(importedSender, "2", "key_aaaaaaaaaaaaaaaa")
		for range 998 { // the first transaction
			line(importedSender, uuid.NewString(), "")
		}
		line(strings.ToUpper(importedSender), "1", "")
		line(other, "1", "")
		line(other, "3", "key_aaaaaaaaaaaaaaaa")
		for _, verb := range []string{"would be imported", "imported"} {
			args := []string{"key", "import", "-dry-run"}
			if verb == "imported" {
				args = args[:2]
			}
			require.Equal(t, result{2, verb + ": 1000\nexist already: 1\nwrong: 2\n", `senderkeys: line 1003: import: the key belongs to another sender: exists already
senderkeys: line 1004: key key_aaaaaaaaaaaaaaaa: exists already
senderkeys: lines that are invalid: 2
`}, s.with(in.String(), args...))
		}
	})
}
