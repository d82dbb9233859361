package sqlkeys_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestRotationReplacesAKey(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		old := s.issue(t, sqlkeys.NewKey{
			Name: "n", Environment: sqlkeys.Staging, Format: sqlkeys.FormatPrefixed,
			ExpiresAt: time.Now().Add(90 * 24 * time.Hour), Metadata: map[string]string{"a": "b"},
		})
		made, err := s.Rotate(t.Context(), old.Key.ID, sqlkeys.Rotation{Grace: time.Hour})
		require.NoError(t, err)
		require.NotEqual(t, old.Credentials.APIKey, made.Credentials.APIKey)
		require.Equal(t, old.Key.ExpiresAt.Sub(old.Key.CreatedAt), made.Key.ExpiresAt.Sub(made.Key.CreatedAt),
			"the new key is given as long as the old one was")
		want := old.Key
		want.ID, want.CreatedAt, want.ExpiresAt = made.Key.ID, made.Key.CreatedAt, made.Key.ExpiresAt
		require.Equal(t, want, made.Key)

		for _, k := range []sqlkeys.Issued{old, made} {
			_, err := s.Validate(t.Context(), k.Credentials)
			require.NoError(t, err, "both work during the grace")
		}
		stored, err := s.Key(t.Context(), old.Key.ID)
		require.NoError(t, err)
		require.Equal(t, sqlkeys.Retiring, stored.State)
		require.Equal(t, made.Key.ID, stored.ReplacedBy)
		require.Equal(t, made.Key.CreatedAt.Add(time.Hour), stored.GraceUntil)

		_, err = s.Rotate(t.Context(), old.Key.ID, sqlkeys.Rotation{})
		require.ErrorIs(t, err, sqlkeys.ErrRotated)
		s.byHand(t, old.Key.ID, "grace_until", 0)
		_, err = s.Rotate(t.Context(), old.Key.ID, sqlkeys.Rotation{})
		require.ErrorIs(t, err, sqlkeys.ErrRotated)
		require.ErrorIs(t, s.Enable(t.Context(), old.Key.ID), sqlkeys.ErrRotated)
		_, err = s.Validate(t.Context(), old.Credentials)
		require.ErrorIs(t, err, senderauth.ErrInvalidKey)

		// Rotate without a grace period, to another format, with a far expiry.
		third, err := s.Rotate(t.Context(), made.Key.ID, sqlkeys.Rotation{Format: sqlkeys.FormatUUID, ExpiresAt: time.Unix(4e9, 0)})
		require.NoError(t, err)
		require.Equal(t, sqlkeys.FormatUUID, third.Key.Format)
		require.Equal(t, time.Unix(4e9, 0).UTC(), third.Key.ExpiresAt)
		_, err = s.Validate(t.Context(), made.Credentials)
		require.ErrorIs(t, err, senderauth.ErrInvalidKey)
	})
}

func TestRotationIsRefused(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		k := s.issue(t, sqlkeys.NewKey{})
		id := k.Key.ID
		_, err := s.Rotate(t.Context(), id, sqlkeys.Rotation{Grace: -time.Second})
		require.EqualError(t, err, "sqlkeys: rotate: invalid: the grace -1s is below 0")
		_, err = s.Rotate(t.Context(), id, sqlkeys.Rotation{ExpiresAt: time.Unix(1e9, 0)})
		require.ErrorIs(t, err, sqlkeys.ErrInvalid)
		_, err = s.Rotate(t.Context(), keyNone, sqlkeys.Rotation{})
		require.EqualError(t, err, "sqlkeys: key "+keyNone+": not found")
		require.NoError(t, s.Disable(t.Context(), id))
		_, err = s.Rotate(t.Context(), id, sqlkeys.Rotation{})
		require.EqualError(t, err, "sqlkeys: key "+id+": disabled")
		s.byHand(t, id, "expires_at", 0)
		_, err = s.Rotate(t.Context(), id, sqlkeys.Rotation{})
		require.EqualError(t, err, "sqlkeys: key "+id+": expired")
		require.ErrorIs(t, err, sqlkeys.ErrExpired)
		require.Len(t, keysOf(t, s, ""), 1, "nothing half-written")
	})
}

// Somebody may have edited the row by hand.
func TestRotationCopiesUnreadableMetadata(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		k := s.issue(t, sqlkeys.NewKey{})
		for _, damaged := range []string{`{"a": 1}`, `[]`} {
			_, err := s.db.Exec(`UPDATE sqlkeys_keys SET metadata = $1 WHERE id = $2`, damaged, k.Key.ID)
			require.NoError(t, err)
			made, err := s.Rotate(t.Context(), k.Key.ID, sqlkeys.Rotation{})
			require.NoError(t, err)
			var copied string
			require.NoError(t, s.db.QueryRow(`SELECT metadata FROM sqlkeys_keys WHERE id = $1`, made.Key.ID).Scan(&copied))
			require.Equal(t, damaged, copied)
			k = made
		}
	})
}
