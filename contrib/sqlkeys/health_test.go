package sqlkeys_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestFeedIsHealthyWhileWatchFollows(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		const none = "sqlkeys: the feed of changes: no Watch runs"
		require.EqualError(t, s.CheckFeed(), none)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		purged := make(reports, 10)
		go func() { ended <- s.Watch(ctx, purged) }()
		purged.next(t)
		require.Eventually(t, func() bool { return s.CheckFeed() == nil }, 20*time.Second, time.Millisecond)
		stop()
		require.NoError(t, <-ended)
		require.EqualError(t, s.CheckFeed(), none)
	})
}

func (s fixture) feedBecomes(t *testing.T, healthy bool) {
	t.Helper()
	require.Eventually(t, func() bool { return (s.CheckFeed() == nil) == healthy }, 30*time.Second, time.Millisecond)
}

func TestLostFeedIsUnhealthyUntilItIsBack(t *testing.T) {
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		server := pgtest.New(t)
		s := open(t, server.URL(t), sqlkeys.Config{})
		watch(t, s, make(reports, 100))
		s.feedBecomes(t, true)
		require.NoError(t, server.Kill())
		s.feedBecomes(t, false)
		require.ErrorContains(t, s.CheckFeed(), "sqlkeys: the feed of changes is lost: ")
		require.NoError(t, server.Start())
		s.feedBecomes(t, true)
	})
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		s := open(t, t.TempDir()+"/keys.db", sqlkeys.Config{})
		watch(t, s, make(reports, 100))
		s.feedBecomes(t, true)
		_, err := s.db.Exec(`ALTER TABLE sqlkeys_changes RENAME TO away`)
		require.NoError(t, err)
		s.feedBecomes(t, false)
		_, err = s.db.Exec(`ALTER TABLE away RENAME TO sqlkeys_changes`)
		require.NoError(t, err)
		s.feedBecomes(t, true)
	})
}
