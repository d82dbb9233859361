package sqlkeys_test

import (
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// Keys of another system may have any form.
func TestImportedKeyOfAnotherFormIsAccepted(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		const old = "live_0a1b2c3d4e5f"
		s := open(t, source, sqlkeys.Config{AcceptKey: func(key string) bool { return strings.HasPrefix(key, "live_") }})
		key := sqlkeys.ImportKey{SHA256: sha256.Sum256([]byte(old)), SenderID: "7a1de7b4-3a0e-4d6e-9c2b-000000000001", Metadata: map[string]string{"from": "old"}}
		results, err := s.Import(t.Context(), []sqlkeys.ImportKey{key, key}, false)
		require.NoError(t, err)
		require.Equal(t, []sqlkeys.ImportResult{{KeyID: results[0].KeyID, Created: true}, {KeyID: results[0].KeyID}}, results)
		require.True(t, s.CheckKey(old))
		require.False(t, s.CheckKey("test_0a1b2c3d4e5f"))
		x, err := s.Validate(t.Context(), senderauth.Credentials{SenderID: key.SenderID, APIKey: old})
		require.NoError(t, err)
		require.Equal(t, results[0].KeyID, x.KeyID)
		_, err = s.Validate(t.Context(), senderauth.Credentials{SenderID: key.SenderID, APIKey: "live_"})
		require.ErrorIs(t, err, senderauth.ErrInvalidKey)
		actions := []string{}
		for _, e := range auditOf(t, s) {
			actions = append(actions, e.Action)
		}
		require.Equal(t, []string{"sender.create", "key.import"}, actions)
		made, err := s.Rotate(t.Context(), x.KeyID, sqlkeys.Rotation{})
		require.NoError(t, err, "a rotation moves the client to a key of this store")
		require.Equal(t, key.Metadata, made.Key.Metadata)
	})
}

func TestImportedKeyHasItsScopes(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		key := sqlkeys.ImportKey{SHA256: sha256.Sum256([]byte("x")), SenderID: "7a1de7b4-3a0e-4d6e-9c2b-000000000001", Scopes: []string{"orders:read"}}
		results, err := s.Import(t.Context(), []sqlkeys.ImportKey{key}, false)
		require.NoError(t, err)
		k, err := s.Key(t.Context(), results[0].KeyID)
		require.NoError(t, err)
		require.Equal(t, key.Scopes, k.Scopes)
	})
}

// An import knows only the digest without a pepper, so it cannot see that the key is there with
// one.
func TestImportMovesNoKeyThatIsStoredWithAPepper(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		s := open(t, source, sqlkeys.Config{Peppers: [][]byte{[]byte("0123456789abcdef"), nil}})
		first, other := s.sender(t), s.sender(t)
		for range 12 { // the order of the two digests is by chance
			k := s.issue(t, sqlkeys.NewKey{SenderID: first, Scopes: []string{"orders:read"}})
			nextMillisecond()
			results, err := s.Import(t.Context(), []sqlkeys.ImportKey{{SHA256: sha256.Sum256([]byte(k.Credentials.APIKey)), SenderID: other}}, false)
			require.NoError(t, err)
			require.True(t, results[0].Created)

			x, err := s.Validate(t.Context(), senderauth.Credentials{APIKey: k.Credentials.APIKey})
			require.NoError(t, err)
			require.Equal(t, first, x.ID)
			require.Equal(t, k.Key.ID, x.KeyID)
			require.Equal(t, k.Key.Scopes, x.Scopes)
			found, err := s.Identify(t.Context(), k.Credentials.APIKey)
			require.NoError(t, err)
			require.Equal(t, k.Key.ID, found.ID)
			require.NoError(t, s.Revoke(t.Context(), results[0].KeyID))
			_, err = s.Validate(t.Context(), k.Credentials)
			require.ErrorIs(t, err, senderauth.ErrInvalidKey, "either refuses the key")
		}
	})
}
