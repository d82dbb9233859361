package sqlkeys_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestKeyCanBeEdited(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		k := s.issue(t, sqlkeys.NewKey{Name: "web", Metadata: map[string]string{"a": "1", "b": "2"}, NotBefore: time.Now().Add(-time.Hour)}).Key
		name, expires := "api", time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
		require.NoError(t, s.EditKey(t.Context(), k.ID, sqlkeys.KeyEdit{Name: &name, ExpiresAt: &expires,
			SetMetadata: map[string]string{"b": "3", "c": "4"}, UnsetMetadata: []string{"a", "none"}}))
		want := k
		want.Name, want.ExpiresAt, want.Metadata = name, expires, map[string]string{"b": "3", "c": "4"}
		got, err := s.Key(t.Context(), k.ID)
		require.NoError(t, err)
		require.Equal(t, want, got)

		require.NoError(t, s.EditKey(t.Context(), k.ID, sqlkeys.KeyEdit{ExpiresAt: new(time.Time)}))
		want.ExpiresAt = time.Time{}
		got, err = s.Key(t.Context(), k.ID)
		require.NoError(t, err)
		require.Equal(t, want, got)
		entries := auditOf(t, s)
		require.Equal(t, "key.edit", entries[2].Action)
		require.Equal(t, map[string]string{"name": "api", "expires_at": expires.Format(time.RFC3339Nano), "metadata_set": "b c", "metadata_unset": "a none"}, entries[2].Detail)
		require.Equal(t, map[string]string{"expires_at": "never"}, entries[3].Detail)
	})
}

func TestKeyEditIsRefused(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		name, later, past := "x", time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
		edit := func(id string, e sqlkeys.KeyEdit) error { return s.EditKey(t.Context(), id, e) }
		revoked := s.issue(t, sqlkeys.NewKey{}).Key.ID
		require.NoError(t, s.Revoke(t.Context(), revoked))
		require.ErrorIs(t, edit(revoked, sqlkeys.KeyEdit{Name: &name}), sqlkeys.ErrRevoked)
		expired := s.issue(t, sqlkeys.NewKey{ExpiresAt: later}).Key.ID
		s.byHand(t, expired, "expires_at", -1)
		require.ErrorIs(t, edit(expired, sqlkeys.KeyEdit{ExpiresAt: &later}), sqlkeys.ErrExpired)
		require.NoError(t, edit(expired, sqlkeys.KeyEdit{Name: &name}))
		rotated := s.issue(t, sqlkeys.NewKey{}).Key.ID
		_, err := s.Rotate(t.Context(), rotated, sqlkeys.Rotation{})
		require.NoError(t, err)
		require.ErrorIs(t, edit(rotated, sqlkeys.KeyEdit{ExpiresAt: new(time.Time)}), sqlkeys.ErrRotated)
		pending := s.issue(t, sqlkeys.NewKey{NotBefore: time.Now().Add(2 * time.Hour)}).Key.ID
		require.ErrorContains(t, edit(pending, sqlkeys.KeyEdit{ExpiresAt: &later}), "before it works")
		require.ErrorContains(t, edit(pending, sqlkeys.KeyEdit{ExpiresAt: &past}), "is in the past")

		long, bad := strings.Repeat("x", 201), "\xff"
		require.EqualError(t, edit(pending, sqlkeys.KeyEdit{Name: &long}), "sqlkeys: invalid: the name has 201 bytes, more than 200")
		require.EqualError(t, edit(pending, sqlkeys.KeyEdit{Name: &bad}), "sqlkeys: invalid: the name is not UTF-8 text")
		require.EqualError(t, edit(pending, sqlkeys.KeyEdit{}), "sqlkeys: edit: invalid: nothing to change")
		require.EqualError(t, edit(pending, sqlkeys.KeyEdit{SetMetadata: map[string]string{"a": bad}}), "sqlkeys: key "+pending+`: invalid: metadata "a" is not UTF-8 text`)
		require.ErrorIs(t, edit(pending, sqlkeys.KeyEdit{SetMetadata: map[string]string{"a": strings.Repeat("x", 16<<10)}}), sqlkeys.ErrInvalid)
		require.ErrorIs(t, edit(keyNone, sqlkeys.KeyEdit{Name: &name}), sqlkeys.ErrNotFound)
		_, err = s.db.Exec(`UPDATE sqlkeys_keys SET metadata = '{"a":1}' WHERE id = '` + pending + `'`)
		require.NoError(t, err)
		require.ErrorIs(t, edit(pending, sqlkeys.KeyEdit{UnsetMetadata: []string{"a"}}), sqlkeys.ErrUnreadable)
		require.NoError(t, edit(pending, sqlkeys.KeyEdit{Name: &name}))
	})
}

func TestSenderCanBeEdited(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		made, err := s.CreateSender(t.Context(), sqlkeys.NewSender{Name: "Acme", Metadata: map[string]string{"plan": "free"}})
		require.NoError(t, err)
		name := "Acme Corp"
		require.NoError(t, s.EditSender(t.Context(), strings.ToUpper(made.ID), sqlkeys.SenderEdit{Name: &name, SetMetadata: map[string]string{"plan": "pro"}}))
		made.Name, made.Metadata = name, map[string]string{"plan": "pro"}
		got, err := s.Sender(t.Context(), made.ID)
		require.NoError(t, err)
		require.Equal(t, made, got)
		require.NoError(t, s.EditSender(t.Context(), made.ID, sqlkeys.SenderEdit{UnsetMetadata: []string{"plan"}}))
		got, err = s.Sender(t.Context(), made.ID)
		require.NoError(t, err)
		require.Empty(t, got.Metadata)
		require.Equal(t, map[string]string{"name": name, "metadata_set": "plan"}, auditOf(t, s)[1].Detail)
		require.Equal(t, map[string]string{"metadata_unset": "plan"}, auditOf(t, s)[2].Detail)
		require.EqualError(t, s.EditSender(t.Context(), made.ID, sqlkeys.SenderEdit{}), "sqlkeys: edit: invalid: nothing to change")
		err = s.EditSender(t.Context(), made.ID, sqlkeys.SenderEdit{UnsetMetadata: []string{"a\x00"}})
		require.EqualError(t, err, "sqlkeys: sender "+made.ID+`: invalid: metadata "a\x00" is not UTF-8 text`)
		require.ErrorIs(t, err, sqlkeys.ErrInvalid)
		_, err = s.CreateSender(t.Context(), sqlkeys.NewSender{Name: strings.Repeat("x", 201)})
		require.EqualError(t, err, "sqlkeys: invalid: the name has 201 bytes, more than 200")
	})
}

// The cache learns of edits and of the deletion from the feed.
func TestDeletedSenderIsGoneWithAllThatBelongsToIt(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		s := newInstance(t, source, senderauth.CacheConfig{TTL: time.Hour})
		gone, stays := s.issue(t, sqlkeys.NewKey{}), s.issue(t, sqlkeys.NewKey{})
		r := recorder(t, s.fixture, sqlkeys.RecorderConfig{})
		for _, k := range []sqlkeys.Issued{gone, stays} {
			r.Observe(t.Context(), senderauth.Event{Outcome: senderauth.Admitted, Sender: senderauth.Sender{KeyID: k.Key.ID}})
		}
		require.NoError(t, r.Close(t.Context()))
		s.settle(t)
		metadata := func() map[string]string {
			x, err := s.Validate(t.Context(), gone.Credentials)
			require.NoError(t, err)
			return x.Detail.(sqlkeys.Detail).Metadata
		}
		require.Empty(t, metadata())
		require.NoError(t, s.EditSender(t.Context(), gone.Key.SenderID, sqlkeys.SenderEdit{SetMetadata: map[string]string{"a": "b"}}))
		require.Eventually(t, func() bool { return metadata()["a"] == "b" }, 20*time.Second, time.Millisecond)

		require.NoError(t, s.DeleteSender(t.Context(), strings.ToUpper(gone.Key.SenderID)))
		require.Eventually(t, func() bool {
			_, err := s.Validate(t.Context(), gone.Credentials)
			return err != nil && isRefusal(err)
		}, 20*time.Second, time.Millisecond)
		_, err := s.Validate(t.Context(), stays.Credentials)
		require.NoError(t, err)
		for table, want := range map[string]int{"senders": 2, "keys": 1, "usage": 1, "last_used": 1} { // settle made a sender
			var n int
			require.NoError(t, s.db.QueryRow(`SELECT count(*) FROM sqlkeys_`+table).Scan(&n))
			require.Equal(t, want, n, table)
		}
		entries := everything(t, s.Audit(t.Context(), sqlkeys.AuditFilter{SenderID: gone.Key.SenderID}))
		require.Len(t, entries, 4)
		require.Equal(t, "sender.delete", entries[3].Action)
		require.Equal(t, map[string]string{"keys": "1"}, entries[3].Detail)
		require.ErrorIs(t, s.DeleteSender(t.Context(), gone.Key.SenderID), sqlkeys.ErrNotFound)
	})
}
