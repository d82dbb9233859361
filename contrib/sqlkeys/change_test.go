package sqlkeys_test

import (
	"context"
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

// A stricter default isolation level of the database makes no difference.
func TestConcurrentChangesSeeEachOther(t *testing.T) {
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

func TestChangeDecidesAfterWaitingForAnother(t *testing.T) {
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

// A change holds one connection and waits for no other: it ends on a pool that has no more.
func TestChangesNeedOneConnection(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		s.db.SetMaxOpenConns(1)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		first, ok, err := s.IssueFirst(ctx)
		require.NoError(t, err)
		require.True(t, ok)
		sender := first.Key.SenderID
		_, err = s.Adopt(ctx, senderauth.Credentials{SenderID: uuid.NewString(), APIKey: uuid.NewString()})
		require.NoError(t, err)
		_, err = s.CreateSender(ctx, sqlkeys.NewSender{})
		require.NoError(t, err)
		k, err := s.Issue(ctx, sqlkeys.NewKey{SenderID: sender})
		require.NoError(t, err)
		_, err = s.Rotate(ctx, k.Key.ID, sqlkeys.Rotation{Grace: time.Hour})
		require.NoError(t, err)
		require.NoError(t, s.SetLimits(ctx, sender, map[string]senderauth.Limit{"default": senderauth.PerSecond(1)}))
		for _, change := range []func(context.Context, string) error{s.DisableSender, s.EnableSender} {
			require.NoError(t, change(ctx, sender))
		}
		for _, change := range []func(context.Context, string) error{s.Disable, s.Enable, s.Revoke} {
			require.NoError(t, change(ctx, first.Key.ID))
		}
		r, err := s.NewRecorder(sqlkeys.RecorderConfig{})
		require.NoError(t, err)
		r.Observe(ctx, senderauth.Event{Outcome: senderauth.Admitted, Sender: senderauth.Sender{ID: sender, KeyID: k.Key.ID}})
		require.NoError(t, r.Close(ctx))
		require.EqualValues(t, 1, r.Stats().Written)
		require.NoError(t, sqlkeys.Migrate(ctx, s.db))
	})
}
