package sqlkeys_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestEveryChangeIsAudited(t *testing.T) {
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

func TestNoChangeWithoutAuditEntry(t *testing.T) {
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
			return // SQLite has no trigger that runs at the commit
		}
		_, err = s.db.Exec(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; END $$;
			CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON sqlkeys_keys DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()`)
		require.NoError(t, err)
		require.ErrorContains(t, s.Revoke(t.Context(), k.Key.ID), "sqlkeys: commit: ")
		require.Equal(t, before, auditOf(t, s))
	})
}

func TestAnyActorCanMakeAChange(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		_, err := s.CreateSender(sqlkeys.WithActor(t.Context(), "J\xfcrgen\x00"), sqlkeys.NewSender{})
		require.NoError(t, err)
		require.Equal(t, "J\uFFFDrgen\uFFFD", auditOf(t, s)[0].Actor)
	})
}
