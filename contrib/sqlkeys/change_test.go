package sqlkeys_test

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
