package sqlkeys_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// A rotation locks the key and then the sender, a deletion the other way round.
func TestChangeIsRepeatedAfterADeadlock(t *testing.T) {
	s := open(t, pgtest.URL(t), sqlkeys.Config{})
	key := s.issue(t, sqlkeys.NewKey{}).Key
	rotation, err := s.db.Begin()
	require.NoError(t, err)
	defer rotation.Rollback()
	for _, query := range []string{
		`SET LOCAL deadlock_timeout = '1min'`, // the server fails the deletion
		`SELECT id FROM sqlkeys_keys WHERE id = '` + key.ID + `' FOR UPDATE`,
	} {
		_, err := rotation.Exec(query)
		require.NoError(t, err)
	}
	deleted := make(chan error, 1)
	go func() { deleted <- s.DeleteSender(t.Context(), key.SenderID) }()
	require.Eventually(t, func() bool {
		var waits bool
		err := s.db.QueryRow(`SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waits)
		return err == nil && waits
	}, 20*time.Second, time.Millisecond)
	_, err = rotation.Exec(`SELECT id FROM sqlkeys_senders WHERE id = '` + key.SenderID + `' FOR KEY SHARE`)
	require.NoError(t, err)
	require.NoError(t, rotation.Commit())
	require.NoError(t, <-deleted)
	_, err = s.Key(t.Context(), key.ID)
	require.ErrorIs(t, err, sqlkeys.ErrNotFound)
	entries := auditOf(t, s)
	require.Equal(t, "sender.delete", entries[len(entries)-1].Action)
	require.Len(t, entries, 3)
}
