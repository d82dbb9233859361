package sqlkeys_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

const keyNone = "key_aaaaaaaaaaaaaaaa"

func TestIssue(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		sender := s.sender(t)
		before := time.Now().Add(-time.Second)
		a := s.issue(t, sqlkeys.NewKey{SenderID: strings.ToUpper(sender)})
		require.True(t, a.Key.CreatedAt.After(before) && a.Key.CreatedAt.Before(time.Now().Add(time.Second)))
		require.Regexp(t, `^key_[a-z2-7]{16}$`, a.Key.ID)
		require.Equal(t, sqlkeys.Key{
			ID: a.Key.ID, SenderID: sender, State: sqlkeys.Active, Environment: sqlkeys.Production,
			Format: sqlkeys.FormatUUID, CreatedAt: a.Key.CreatedAt,
		}, a.Key)
		u, err := uuid.Parse(a.Credentials.APIKey)
		require.NoError(t, err)
		require.EqualValues(t, 4, u.Version())
		require.Equal(t, sender, a.Credentials.SenderID)

		nextMillisecond()
		starts := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
		b := s.issue(t, sqlkeys.NewKey{
			SenderID: sender, Name: "b", Environment: sqlkeys.Development, Format: sqlkeys.FormatPrefixed,
			NotBefore: starts, ExpiresAt: starts.Add(time.Hour), Metadata: map[string]string{"for": "tests"},
		})
		require.Equal(t, sqlkeys.Key{
			ID: b.Key.ID, SenderID: sender, State: sqlkeys.Pending, Name: "b", Environment: sqlkeys.Development,
			Format: sqlkeys.FormatPrefixed, CreatedAt: b.Key.CreatedAt,
			NotBefore: starts, ExpiresAt: starts.Add(time.Hour), Metadata: map[string]string{"for": "tests"},
		}, b.Key)
		require.Regexp(t, `^sender_[a-z2-7]{39}$`, b.Credentials.APIKey)

		stored, err := s.Key(t.Context(), b.Key.ID)
		require.NoError(t, err)
		require.Equal(t, b.Key, stored)
		other := s.issue(t, sqlkeys.NewKey{})
		require.Equal(t, []sqlkeys.Key{a.Key, b.Key}, keysOf(t, s, sender))
		require.ElementsMatch(t, []sqlkeys.Key{a.Key, b.Key, other.Key}, keysOf(t, s, ""))

		text := fmt.Sprintf("%v %+v %#v %s %q", b, b, b, b, b)
		require.NotContains(t, text, b.Credentials.APIKey)
		require.NotContains(t, text, b.Credentials.APIKey[7:15])
	})
}

// nextMillisecond returns when what is made is younger than what was made, by
// the milliseconds of the database.
func nextMillisecond() { <-time.After(2 * time.Millisecond) }

func keysOf(t *testing.T, s fixture, sender string) []sqlkeys.Key {
	var keys []sqlkeys.Key
	for k, err := range s.Keys(t.Context(), sender) {
		require.NoError(t, err)
		keys = append(keys, k)
	}
	return keys
}

// What cannot be is one error, and nothing is written.
func TestIssueInvalid(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		sender := s.sender(t)
		before := auditOf(t, s)
		for _, c := range []struct {
			n    sqlkeys.NewKey
			is   error
			text string
		}{
			{sqlkeys.NewKey{SenderID: "me"}, sqlkeys.ErrInvalid, `sqlkeys: sender "me": invalid: not a UUID of 36 characters, or the nil or max UUID`},
			{sqlkeys.NewKey{SenderID: uuid.Nil.String()}, sqlkeys.ErrInvalid, `sqlkeys: sender "00000000-0000-0000-0000-000000000000": invalid: not a UUID of 36 characters, or the nil or max UUID`},
			{sqlkeys.NewKey{SenderID: "a1de7b4a-3a0e-4d6e-9c2b-000000000001"}, sqlkeys.ErrNotFound, `sqlkeys: sender a1de7b4a-3a0e-4d6e-9c2b-000000000001: not found`},
			{sqlkeys.NewKey{SenderID: sender, Environment: "moon"}, sqlkeys.ErrInvalid, `sqlkeys: new key: invalid: environment "moon" is not one of development, staging and production`},
			{sqlkeys.NewKey{SenderID: sender, Format: "hex"}, sqlkeys.ErrInvalid, `sqlkeys: new key: invalid: format "hex" is not one of uuid and prefixed`},
			{sqlkeys.NewKey{SenderID: sender, ExpiresAt: time.Unix(1e9, 0)}, sqlkeys.ErrInvalid, `sqlkeys: new key: invalid: the expiry 2001-09-09T01:46:40Z is in the past`},
			{sqlkeys.NewKey{SenderID: sender, NotBefore: time.Unix(4e9, 0).UTC(), ExpiresAt: time.Unix(4e9, 0).UTC()}, sqlkeys.ErrInvalid, `sqlkeys: new key: invalid: it would expire at 2096-10-02T07:06:40Z, before it works`},
			{sqlkeys.NewKey{SenderID: sender, Name: strings.Repeat("n", 201)}, sqlkeys.ErrInvalid, `sqlkeys: new key: invalid: the name has 201 bytes; 200 are the most`},
			{sqlkeys.NewKey{SenderID: sender, Name: "\xff"}, sqlkeys.ErrInvalid, `sqlkeys: new key: invalid: the name is not UTF-8 text`},
			{sqlkeys.NewKey{SenderID: sender, Name: "a\x00"}, sqlkeys.ErrInvalid, `sqlkeys: new key: invalid: the name is not UTF-8 text`},
			{sqlkeys.NewKey{SenderID: sender, Metadata: map[string]string{"a": "\xff"}}, sqlkeys.ErrInvalid, `sqlkeys: new key: invalid: metadata "a" is not UTF-8 text`},
			{sqlkeys.NewKey{SenderID: sender, Metadata: map[string]string{"a\x00": ""}}, sqlkeys.ErrInvalid, `sqlkeys: new key: invalid: metadata "a\x00" is not UTF-8 text`},
			{sqlkeys.NewKey{SenderID: sender, Metadata: map[string]string{"a": strings.Repeat("b", 16_377)}}, sqlkeys.ErrInvalid, `sqlkeys: new key: invalid: the metadata has 16385 bytes; 16384 are the most`},
		} {
			// The good one before it is not issued either.
			_, err := s.IssueAll(t.Context(), []sqlkeys.NewKey{{SenderID: sender}, c.n})
			require.ErrorIs(t, err, c.is)
			require.EqualError(t, err, c.text)
		}
		_, err := s.Issue(t.Context(), sqlkeys.NewKey{SenderID: "me", Environment: "moon"})
		require.ErrorContains(t, err, `"me"`)
		require.ErrorContains(t, err, `"moon"`, "every mistake at once")
		require.Empty(t, keysOf(t, s, ""))
		require.Equal(t, before, auditOf(t, s))
	})
}

func TestIssueAll(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		a, b := s.sender(t), s.sender(t)
		ns := make([]sqlkeys.NewKey, 1203)
		for i := range ns {
			ns[i].SenderID = a
		}
		ns[7].SenderID = b
		issued, err := s.IssueAll(t.Context(), ns)
		require.NoError(t, err)
		require.Len(t, issued, len(ns))
		require.Len(t, keysOf(t, s, a), len(ns)-1)
		require.Equal(t, []sqlkeys.Key{issued[7].Key}, keysOf(t, s, b))
		_, err = s.Validate(t.Context(), issued[1202].Credentials)
		require.NoError(t, err)
		require.Len(t, auditOf(t, s), 2+len(ns))
	})
}

func TestRotate(t *testing.T) {
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

		// At once, to another format, without an end.
		third, err := s.Rotate(t.Context(), made.Key.ID, sqlkeys.Rotation{Format: sqlkeys.FormatUUID, ExpiresAt: time.Unix(4e9, 0)})
		require.NoError(t, err)
		require.Equal(t, sqlkeys.FormatUUID, third.Key.Format)
		require.Equal(t, time.Unix(4e9, 0).UTC(), third.Key.ExpiresAt)
		_, err = s.Validate(t.Context(), made.Credentials)
		require.ErrorIs(t, err, senderauth.ErrInvalidKey)
	})
}

func TestRotateInvalid(t *testing.T) {
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

func TestDisableEnableRevoke(t *testing.T) {
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
			require.EqualError(t, err, "sqlkeys: key ID: invalid: it does not look like key_ and 16 characters", "whoever mixes them up does not see the key in a log")
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

func auditOf(t *testing.T, s fixture) []sqlkeys.AuditEntry {
	var entries []sqlkeys.AuditEntry
	for e, err := range s.Audit(t.Context(), sqlkeys.AuditFilter{}) {
		require.NoError(t, err)
		entries = append(entries, e)
	}
	return entries
}

func TestAudit(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		ctx := sqlkeys.WithActor(t.Context(), "alice")
		sender, err := s.CreateSender(ctx, sqlkeys.NewSender{Limits: map[string]senderauth.Limit{"default": senderauth.PerMinute(5)}})
		require.NoError(t, err)
		k, err := s.Issue(ctx, sqlkeys.NewKey{SenderID: sender.ID})
		require.NoError(t, err)
		made, err := s.Rotate(ctx, k.Key.ID, sqlkeys.Rotation{Grace: time.Minute})
		require.NoError(t, err)
		for _, change := range []func() error{
			func() error { return s.Disable(ctx, made.Key.ID) },
			func() error { return s.Disable(ctx, made.Key.ID) },
			func() error { return s.Enable(ctx, made.Key.ID) },
			func() error { return s.Revoke(ctx, made.Key.ID) },
			func() error { return s.DisableSender(ctx, sender.ID) },
			func() error { return s.DisableSender(ctx, sender.ID) },
			func() error { return s.EnableSender(ctx, sender.ID) },
			func() error { return s.SetLimits(t.Context(), sender.ID, nil) },
		} {
			require.NoError(t, change())
		}
		entries := auditOf(t, s)
		var said []string
		for i, e := range entries {
			require.NotZero(t, e.At)
			if i > 0 {
				require.Greater(t, e.ID, entries[i-1].ID)
			}
			require.Equal(t, sender.ID, e.SenderID)
			said = append(said, strings.TrimSpace(e.Actor+" "+e.Action+" "+e.KeyID))
		}
		require.Equal(t, []string{
			"alice sender.create",
			"alice key.issue " + k.Key.ID,
			"alice key.issue " + made.Key.ID,
			"alice key.rotate " + k.Key.ID,
			"alice key.disable " + made.Key.ID,
			"alice key.enable " + made.Key.ID,
			"alice key.revoke " + made.Key.ID,
			"alice sender.disable",
			"alice sender.enable",
			"tests sender.limits",
		}, said)
		require.Equal(t, map[string]string{"limit.default": "5/1m0s"}, entries[0].Detail)
		require.Equal(t, made.Key.ID, entries[3].Detail["replaced_by"])

		var some []sqlkeys.AuditEntry
		for e, err := range s.Audit(t.Context(), sqlkeys.AuditFilter{SenderID: strings.ToUpper(sender.ID), KeyID: made.Key.ID, After: entries[2].ID}) {
			require.NoError(t, err)
			some = append(some, e)
		}
		require.Equal(t, entries[4:7], some)

		some = nil
		for e, err := range s.Audit(t.Context(), sqlkeys.AuditFilter{SenderID: strings.ToUpper(sender.ID)}) {
			require.NoError(t, err)
			some = append(some, e)
		}
		require.Equal(t, entries, some)
		for _, wrong := range []sqlkeys.AuditFilter{{SenderID: "me"}, {KeyID: "mine"}} {
			for _, err := range s.Audit(t.Context(), wrong) {
				require.ErrorIs(t, err, sqlkeys.ErrInvalid)
			}
		}
	})
}

// Of many who change one key at once, each sees what the others did, whatever
// isolation the database gives who does not ask.
func TestConcurrentChanges(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		if filepath.Ext(source) != ".db" {
			_, err := openDB(t, source).Exec(`DO $$ BEGIN
				EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', current_database());
			END $$`)
			require.NoError(t, err)
		}
		s := open(t, source, sqlkeys.Config{})
		k := s.issue(t, sqlkeys.NewKey{})
		errs := make([]error, 8)
		var all sync.WaitGroup
		for i := range errs {
			all.Go(func() {
				if i%2 == 0 {
					_, errs[i] = s.Rotate(t.Context(), k.Key.ID, sqlkeys.Rotation{Grace: time.Hour})
				} else {
					errs[i] = s.Revoke(t.Context(), k.Key.ID)
				}
			})
		}
		all.Wait()
		var rotated, revoked int
		for i, err := range errs {
			switch {
			case err == nil && i%2 == 0:
				rotated++
			case err == nil:
				revoked++
			case i%2 != 0:
				require.ErrorIs(t, err, sqlkeys.ErrRevoked)
			default:
				require.True(t, strings.HasSuffix(err.Error(), "revoked") || strings.HasSuffix(err.Error(), "rotated already"), err)
			}
		}
		require.Equal(t, 1, revoked)
		require.LessOrEqual(t, rotated, 1)
		require.Len(t, keysOf(t, s, k.Key.SenderID), 1+rotated)
	})
}

// Who has waited for another change decides by what it has left.
func TestChangeWaits(t *testing.T) {
	s := open(t, pgtest.URL(t), sqlkeys.Config{})
	k := s.issue(t, sqlkeys.NewKey{})
	other, err := openDB(t, s.source).Begin()
	require.NoError(t, err)
	defer other.Rollback()
	_, err = other.Exec(`UPDATE sqlkeys_keys SET revoked_at = now()`)
	require.NoError(t, err)
	rotated := make(chan error, 1)
	go func() {
		_, err := s.Rotate(context.Background(), k.Key.ID, sqlkeys.Rotation{})
		rotated <- err
	}()
	require.Eventually(t, func() bool {
		var waits bool
		require.NoError(t, other.QueryRow(`SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted)`).Scan(&waits))
		return waits
	}, 20*time.Second, time.Millisecond)
	require.NoError(t, other.Commit())
	require.ErrorIs(t, <-rotated, sqlkeys.ErrRevoked)
	require.Len(t, keysOf(t, s, ""), 1)
}

// There is no change without its row of the audit, and no row without its
// change.
func TestAuditInTransaction(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		k := s.issue(t, sqlkeys.NewKey{})
		before := auditOf(t, s)
		_, err := s.db.Exec(`ALTER TABLE sqlkeys_audit RENAME TO sqlkeys_away`)
		require.NoError(t, err)
		require.ErrorContains(t, s.Revoke(t.Context(), k.Key.ID), "sqlkeys: write the audit: ")
		_, err = s.Validate(t.Context(), k.Credentials)
		require.NoError(t, err)
		_, err = s.db.Exec(`ALTER TABLE sqlkeys_away RENAME TO sqlkeys_audit`)
		require.NoError(t, err)

		if s.sqlite() {
			return // it has no trigger that waits for the commit
		}
		_, err = s.db.Exec(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; END $$;
			CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON sqlkeys_keys DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()`)
		require.NoError(t, err)
		require.ErrorContains(t, s.Revoke(t.Context(), k.Key.ID), "sqlkeys: commit: ")
		require.Equal(t, before, auditOf(t, s))
	})
}

// A change that waited for another sees what that did.
func TestChangeAfterWaiting(t *testing.T) {
	t.Parallel()
	s := open(t, pgtest.URL(t), sqlkeys.Config{})
	k := s.issue(t, sqlkeys.NewKey{})
	first, err := s.db.Begin()
	require.NoError(t, err)
	_, err = first.Exec(`UPDATE sqlkeys_keys SET revoked_at = now() WHERE id = $1`, k.Key.ID)
	require.NoError(t, err)
	second := make(chan error, 1)
	go func() {
		_, err := s.Rotate(t.Context(), k.Key.ID, sqlkeys.Rotation{})
		second <- err
	}()
	require.Eventually(t, func() (waits bool) {
		require.NoError(t, s.db.QueryRow(`SELECT EXISTS (SELECT 1 FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waits))
		return waits
	}, 20*time.Second, time.Millisecond)
	require.NoError(t, first.Commit())
	require.ErrorIs(t, <-second, sqlkeys.ErrRevoked)
	require.Len(t, keysOf(t, s, ""), 1)
}
