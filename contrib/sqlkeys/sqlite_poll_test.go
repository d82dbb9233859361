package sqlkeys_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestWatchPurgesIfChangesAreDeleted(t *testing.T) {
	s, c := open(t, filepath.Join(t.TempDir(), "keys.db"), sqlkeys.Config{}), make(reports, 100)
	sender := s.sender(t)
	watch(t, s, c)
	require.Equal(t, "", c.next(t))
	byHand := func(query string) {
		tx, err := s.db.Begin()
		require.NoError(t, err)
		for _, q := range []string{`UPDATE sqlkeys_senders SET metadata = '{}'`, query} {
			_, err = tx.Exec(q)
			require.NoError(t, err)
		}
		require.NoError(t, tx.Commit())
	}
	byHand(`DELETE FROM sqlkeys_changes`)
	require.Equal(t, "", c.next(t))
	byHand(`UPDATE sqlkeys_changes SET seq = seq - 1`)
	require.Equal(t, "", c.next(t))
	c.forgets(t, sender)

	// The IDs of changes start again at 1.
	byHand(`DELETE FROM sqlkeys_changes; DELETE FROM sqlite_sequence WHERE name = 'sqlkeys_changes'`)
	require.Equal(t, "", c.next(t))
	byHand(`SELECT 1`)
	require.Equal(t, sender, c.next(t))
	require.Empty(t, c)
}

func TestWatchPurgesIfChangesAreTrimmed(t *testing.T) {
	source := filepath.Join(t.TempDir(), "keys.db")
	s, c := open(t, source, sqlkeys.Config{}), make(reports, 20_100)
	watch(t, s, c)
	require.Equal(t, "", c.next(t))
	_, err := s.db.Exec(`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10050)
		INSERT INTO sqlkeys_changes (sender_id) SELECT 'x' FROM n`)
	require.NoError(t, err)
	require.Equal(t, "", c.next(t))
	require.Equal(t, "x", c.next(t))
	var kept int
	require.NoError(t, s.db.QueryRow(`SELECT count(*) FROM sqlkeys_changes`).Scan(&kept))
	require.Equal(t, 10_000, kept)
}
