package sqlkeys_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
	"github.com/senderauth/senderauth/senderauthtest"
)

// Each state comes of what the store itself does, but that an hour passes at
// once.
func TestValidator(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		keys := make(map[senderauthtest.State]senderauth.Credentials)
		add := func(state senderauthtest.State, n sqlkeys.NewKey) sqlkeys.Issued {
			k := s.issue(t, n)
			keys[state] = k.Credentials
			return k
		}
		const hour = 3_600_000
		active := add(senderauthtest.Active, sqlkeys.NewKey{})
		add(senderauthtest.Second, sqlkeys.NewKey{SenderID: active.Key.SenderID})
		add(senderauthtest.Other, sqlkeys.NewKey{})
		retiring := add(senderauthtest.Expiring, sqlkeys.NewKey{})
		_, err := s.Rotate(t.Context(), retiring.Key.ID, sqlkeys.Rotation{Grace: time.Hour})
		require.NoError(t, err)
		disabled := add(senderauthtest.Disabled, sqlkeys.NewKey{})
		require.NoError(t, s.Disable(t.Context(), disabled.Key.ID))
		rotated := add(senderauthtest.Rotated, sqlkeys.NewKey{})
		_, err = s.Rotate(t.Context(), rotated.Key.ID, sqlkeys.Rotation{})
		require.NoError(t, err)
		expired := add(senderauthtest.Expired, sqlkeys.NewKey{ExpiresAt: time.Now().Add(time.Hour)})
		s.byHand(t, expired.Key.ID, "expires_at", -hour)
		add(senderauthtest.NotYet, sqlkeys.NewKey{NotBefore: time.Now().Add(time.Hour)})
		revoked := add(senderauthtest.Deleted, sqlkeys.NewKey{})
		require.NoError(t, s.Revoke(t.Context(), revoked.Key.ID))
		off := add(senderauthtest.DisabledSender, sqlkeys.NewKey{})
		require.NoError(t, s.DisableSender(t.Context(), off.Key.SenderID))
		both := add(senderauthtest.DisabledBoth, sqlkeys.NewKey{})
		require.NoError(t, s.Disable(t.Context(), both.Key.ID))
		require.NoError(t, s.DisableSender(t.Context(), both.Key.SenderID))

		cache, err := senderauth.NewCache(s, senderauth.CacheConfig{})
		require.NoError(t, err)
		for name, v := range map[string]senderauth.Validator{"store": s, "cached": cache} {
			t.Run(name, func(t *testing.T) {
				senderauthtest.TestValidator(t, senderauthtest.ValidatorConfig{Validator: v, Keys: keys})
			})
		}
	})
}
