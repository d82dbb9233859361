package sqlkeys

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPrefixedKeyHasAChecksum(t *testing.T) {
	for range 1000 {
		key := newPrefixed("sender")
		require.Len(t, key, 46)
		require.True(t, checkPrefixed("sender", key))
		require.False(t, checkPrefixed("other", key))
		require.False(t, checkPrefixed("other", "other"+key[6:]), "the checksum covers the prefix")
	}
	key := newPrefixed("sender")
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567ABC_- 019"
	for i := range key {
		for _, c := range alphabet {
			if wrong := key[:i] + string(c) + key[i+1:]; wrong != key {
				require.False(t, checkPrefixed("sender", wrong), "one character is wrong")
			}
		}
	}
	for i := 8; i < len(key)-1; i++ {
		if key[i] != key[i+1] {
			require.False(t, checkPrefixed("sender", key[:i]+key[i+1:i+2]+key[i:i+1]+key[i+2:]), "two characters are swapped")
		}
	}
	for _, wrong := range []string{"", "sender_", key + "a", key[:45], strings.ToUpper(key), " " + key, key + "="} {
		require.False(t, checkPrefixed("sender", wrong))
	}
}

// A guard finds this method on the validator that it is given.
var _ interface{ CheckKey(key string) bool } = (*Store)(nil)

func TestCheckKeyAcceptsBothFormats(t *testing.T) {
	s := &Store{prefix: "acme"}
	const id = "7a1de7b4-3a0e-4d6e-9c2b-00000000000a"
	for _, key := range []string{id, strings.ToUpper(id), newPrefixed("acme")} {
		require.True(t, s.CheckKey(key), key)
	}
	for _, key := range []string{"", "{" + id[1:35] + "}", "urn:uuid:" + id, newPrefixed("sender"), strings.ToUpper(newPrefixed("acme")),
		"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"} {
		require.False(t, s.CheckKey(key), key)
	}
}

func FuzzCheckKey(f *testing.F) {
	f.Add("7a1de7b4-3a0e-4d6e-9c2b-000000000001")
	f.Add("{7a1de7b4-3a0e-4d6e-9c2b-00000000000}")
	f.Add("urn:uuid:7a1de7b4-3a0e-4d6e-9c2b-000")
	f.Add(newPrefixed("sender"))
	s := &Store{prefix: "sender"}
	f.Fuzz(func(t *testing.T, key string) {
		canonical, ok := s.canonicalKey(key)
		if !ok {
			return
		}
		require.True(t, len(key) == 36 || len(key) == 46)
		again, ok := s.canonicalKey(canonical)
		require.True(t, ok)
		require.Equal(t, canonical, again)
		require.True(t, strings.EqualFold(canonical, key))
	})
}
