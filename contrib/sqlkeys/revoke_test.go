package sqlkeys_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestDisabledKeyCanBeEnabledAndRevokedOneCannot(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		k := s.issue(t, sqlkeys.NewKey{})
		id := k.Key.ID
		ctx := sqlkeys.WithActor(t.Context(), "alice")
		for range 2 {
			require.NoError(t, s.Disable(ctx, id))
			_, err := s.Validate(ctx, k.Credentials)
			require.ErrorIs(t, err, senderauth.ErrInvalidKey)
		}
		for range 2 {
			require.NoError(t, s.Enable(ctx, id))
			_, err := s.Validate(ctx, k.Credentials)
			require.NoError(t, err)
		}
		require.NoError(t, s.Revoke(ctx, id))
		_, err := s.Validate(ctx, k.Credentials)
		require.ErrorIs(t, err, senderauth.ErrInvalidKey)

		for _, change := range []func() error{
			func() error { return s.Revoke(ctx, id) },
			func() error { return s.Disable(ctx, id) },
			func() error { return s.Enable(ctx, id) },
			func() error { _, err := s.Rotate(ctx, id, sqlkeys.Rotation{}); return err },
		} {
			err := change()
			require.ErrorIs(t, err, sqlkeys.ErrRevoked)
			require.EqualError(t, err, "sqlkeys: key "+id+": revoked")
		}
		for _, change := range []func() error{
			func() error { return s.Revoke(ctx, keyNone) },
			func() error { return s.Disable(ctx, keyNone) },
			func() error { return s.Enable(ctx, keyNone) },
			func() error { _, err := s.Key(ctx, keyNone); return err },
		} {
			require.ErrorIs(t, change(), sqlkeys.ErrNotFound)
		}
		for _, notAnID := range []string{k.Credentials.APIKey, "", "key_", keyNone + "a", "key_AAAAAAAAAAAAAAAA"} {
			err := s.Revoke(ctx, notAnID)
			require.ErrorIs(t, err, sqlkeys.ErrInvalid)
			require.EqualError(t, err, "sqlkeys: key ID: invalid: not key_ and 16 characters", "whoever mixes them up does not see the key in a log")
			_, err = s.Key(ctx, notAnID)
			require.ErrorIs(t, err, sqlkeys.ErrInvalid)
		}
		stored, err := s.Key(ctx, id)
		require.NoError(t, err)
		require.Equal(t, sqlkeys.Revoked, stored.State)
		require.NotZero(t, stored.RevokedAt, "a tombstone stays")

		expired := s.issue(t, sqlkeys.NewKey{})
		require.NoError(t, s.Disable(ctx, expired.Key.ID))
		s.byHand(t, expired.Key.ID, "expires_at", 0)
		require.ErrorIs(t, s.Enable(ctx, expired.Key.ID), sqlkeys.ErrExpired)
	})
}

// Somebody may have edited the row by hand.
func TestKeyWithUnreadableMetadataCanBeRevoked(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		k := s.issue(t, sqlkeys.NewKey{})
		_, err := s.db.Exec(`UPDATE sqlkeys_keys SET metadata = '{"a":1}'`)
		require.NoError(t, err)
		got, err := s.Key(t.Context(), k.Key.ID)
		require.ErrorIs(t, err, sqlkeys.ErrUnreadable)
		require.EqualError(t, err, "sqlkeys: key "+k.Key.ID+`: metadata: unreadable: "a" is not a string`)
		require.Equal(t, k.Key.ID, got.ID)
		require.NoError(t, s.Disable(t.Context(), k.Key.ID))
		require.NoError(t, s.Enable(t.Context(), k.Key.ID))
		require.NoError(t, s.Revoke(t.Context(), k.Key.ID))
		_, err = s.Validate(t.Context(), k.Credentials)
		require.ErrorIs(t, err, senderauth.ErrInvalidKey)
	})
}
