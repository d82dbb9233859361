package sqlkeys_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestIdentifyFindsAKeyInAnyState(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		pepper := []byte("0123456789abcdef")
		s := open(t, source, sqlkeys.Config{Peppers: [][]byte{pepper}, Prefix: "acme"})
		k := s.issue(t, sqlkeys.NewKey{Name: "web"})
		require.NoError(t, s.Revoke(t.Context(), k.Key.ID))
		want, err := s.Key(t.Context(), k.Key.ID)
		require.NoError(t, err)
		got, err := s.Identify(t.Context(), strings.ToUpper(k.Credentials.APIKey))
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Equal(t, sqlkeys.Revoked, got.State)

		p := s.issue(t, sqlkeys.NewKey{Format: sqlkeys.FormatPrefixed})
		other := open(t, source, sqlkeys.Config{Peppers: [][]byte{[]byte("fedcba9876543210"), pepper}})
		got, err = other.Identify(t.Context(), p.Credentials.APIKey)
		require.NoError(t, err, "it need not know the prefix")
		require.Equal(t, p.Key, got)
		for _, unknown := range []string{"", "what?", uuid.NewString(), k.Key.ID} {
			_, err = other.Identify(t.Context(), unknown)
			require.ErrorIs(t, err, sqlkeys.ErrNotFound)
			require.EqualError(t, err, "sqlkeys: a key with that secret and one of the peppers: not found")
		}
		_, err = open(t, source, sqlkeys.Config{}).Identify(t.Context(), p.Credentials.APIKey)
		require.ErrorIs(t, err, sqlkeys.ErrNotFound)
	})
}

func TestPeppersAndPrefixFitTheKeysThatWork(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		first, second := []byte("0123456789abcdef"), []byte("fedcba9876543210")
		with := func(prefix string, peppers ...[]byte) fixture {
			return open(t, source, sqlkeys.Config{Peppers: peppers, Prefix: prefix})
		}
		s := with("acme", first)
		require.NoError(t, s.CheckPeppers(t.Context()), "there is no key")
		require.NoError(t, s.CheckPrefix(t.Context()))
		u := s.issue(t, sqlkeys.NewKey{})
		require.NoError(t, with("other", second, first).CheckPrefix(t.Context()), "there is no prefixed key")
		p := s.issue(t, sqlkeys.NewKey{Format: sqlkeys.FormatPrefixed})

		require.NoError(t, s.CheckPeppers(t.Context()))
		require.NoError(t, s.CheckPrefix(t.Context()))
		require.NoError(t, with("acme", second, first).CheckPeppers(t.Context()))
		for _, wrong := range []fixture{with("acme"), with("acme", second)} {
			err := wrong.CheckPeppers(t.Context())
			require.ErrorIs(t, err, sqlkeys.ErrInvalid)
			require.EqualError(t, err, "sqlkeys: Config.Peppers: invalid: no key that works was made with one of them")
		}
		err := with("", first).CheckPrefix(t.Context())
		require.ErrorIs(t, err, sqlkeys.ErrInvalid)
		require.EqualError(t, err, `sqlkeys: Config.Prefix "sender": invalid: no key that works starts with it`)

		require.NoError(t, s.Revoke(t.Context(), p.Key.ID))
		require.NoError(t, with("", first).CheckPrefix(t.Context()), "a revoked key needs no prefix")
		s.byHand(t, s.issue(t, sqlkeys.NewKey{ExpiresAt: time.Now().Add(time.Hour)}).Key.ID, "expires_at", -1)
		require.NoError(t, s.Disable(t.Context(), u.Key.ID))
		require.Error(t, with("", second).CheckPeppers(t.Context()), "a disabled key may work again")
		_, err = s.db.Exec(`UPDATE sqlkeys_keys SET pepper = NULL`)
		require.NoError(t, err)
		require.NoError(t, with("", second).CheckPeppers(t.Context()), "nobody knows")
	})
}
