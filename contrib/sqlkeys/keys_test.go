package sqlkeys_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// Keys about to end are those that work now and whose expiry or grace period ends in time.
func TestKeysThatEndSoonAreListed(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		now := time.Now()
		one := s.issue(t, sqlkeys.NewKey{Name: "soon", ExpiresAt: now.Add(10 * day)})
		sender := one.Key.SenderID
		s.issue(t, sqlkeys.NewKey{Name: "later", ExpiresAt: now.Add(20 * day)})
		s.issue(t, sqlkeys.NewKey{Name: "never"})
		s.issue(t, sqlkeys.NewKey{Name: "pending", NotBefore: now.Add(day), ExpiresAt: now.Add(10 * day)})
		disabled := s.issue(t, sqlkeys.NewKey{Name: "disabled", ExpiresAt: now.Add(10 * day)})
		require.NoError(t, s.Disable(t.Context(), disabled.Key.ID))
		revoked := s.issue(t, sqlkeys.NewKey{Name: "revoked", ExpiresAt: now.Add(10 * day)})
		require.NoError(t, s.Revoke(t.Context(), revoked.Key.ID))
		expired := s.issue(t, sqlkeys.NewKey{Name: "expired", ExpiresAt: now.Add(day)})
		s.byHand(t, expired.Key.ID, "expires_at", -1)
		for _, r := range []struct {
			name    string
			expires time.Time
		}{{"retiring", now.Add(90 * day)}, {"retiring, without expiry", time.Time{}}} {
			old := s.issue(t, sqlkeys.NewKey{Name: r.name, ExpiresAt: r.expires})
			made, err := s.Rotate(t.Context(), old.Key.ID, sqlkeys.Rotation{Grace: 13 * day})
			require.NoError(t, err)
			stored, err := s.Key(t.Context(), old.Key.ID)
			require.NoError(t, err)
			require.Equal(t, stored.GraceUntil, stored.Ends())
			require.Equal(t, made.Key.ExpiresAt, made.Key.Ends())
		}
		short := s.issue(t, sqlkeys.NewKey{Name: "retiring, ends before its grace", ExpiresAt: now.Add(2 * day)})
		_, err := s.Rotate(t.Context(), short.Key.ID, sqlkeys.Rotation{Grace: day, ExpiresAt: now.Add(90 * day)})
		require.NoError(t, err)

		names := func(f sqlkeys.KeyFilter) (names []string) {
			for k, err := range s.Keys(t.Context(), f) {
				require.NoError(t, err)
				names = append(names, k.Name)
			}
			return names
		}
		want := []string{"soon", "retiring", "retiring, without expiry", "retiring, ends before its grace"}
		require.ElementsMatch(t, want, names(sqlkeys.KeyFilter{EndsBefore: now.Add(14 * day)}))
		require.Equal(t, []string{"soon"}, names(sqlkeys.KeyFilter{SenderID: sender, EndsBefore: now.Add(14 * day)}))
		require.Empty(t, names(sqlkeys.KeyFilter{EndsBefore: now.Add(-day)}))
	})
}
