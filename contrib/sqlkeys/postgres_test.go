package sqlkeys_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestLookupSurvivesATerminatedConnection(t *testing.T) {
	s := open(t, pgtest.URL(t), sqlkeys.Config{})
	s.db.SetMaxOpenConns(1)
	k := s.issue(t, sqlkeys.NewKey{})
	admin := openDB(t, s.source)
	for range 10 {
		_, err := s.Validate(t.Context(), k.Credentials)
		require.NoError(t, err)
		_, err = admin.Exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()`)
		require.NoError(t, err)
		_, err = s.Validate(t.Context(), k.Credentials)
		require.NoError(t, err)
	}
}

func TestLookupSurvivesAPoolOfDeadConnections(t *testing.T) {
	t.Parallel()
	s := open(t, pgtest.URL(t), sqlkeys.Config{})
	k := s.issue(t, sqlkeys.NewKey{})
	admin := openDB(t, s.source)
	require.NoError(t, admin.Ping())
	conns := make([]*sql.Conn, 10)
	for range 2 { // the pool does not ping a connection that it used within the last second
		for i := range conns {
			var err error
			conns[i], err = s.db.Conn(t.Context())
			require.NoError(t, err)
		}
		for _, c := range conns {
			require.NoError(t, c.Close())
		}
	}
	const others = ` FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`
	var n int
	require.NoError(t, admin.QueryRow(`SELECT count(pg_terminate_backend(pid))`+others).Scan(&n))
	require.Equal(t, len(conns), n)
	require.Eventually(t, func() bool {
		require.NoError(t, admin.QueryRow(`SELECT count(*)`+others).Scan(&n))
		return n == 0
	}, 20*time.Second, time.Millisecond)
	_, err := s.Validate(t.Context(), k.Credentials)
	require.NoError(t, err)
}

func TestLookupWithoutDeadlineTimesOut(t *testing.T) {
	s := open(t, pgtest.URL(t), sqlkeys.Config{})
	k := s.issue(t, sqlkeys.NewKey{})
	locker, err := openDB(t, s.source).Begin()
	require.NoError(t, err)
	_, err = locker.Exec(`LOCK TABLE sqlkeys_keys`)
	require.NoError(t, err)
	unlock := time.AfterFunc(20*time.Second, func() { locker.Rollback() })
	_, err = s.Validate(context.Background(), k.Credentials)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	if unlock.Stop() {
		require.NoError(t, locker.Rollback())
	}
}

func TestLookupSurvivesAColumnTypeChange(t *testing.T) {
	s := open(t, pgtest.URL(t), sqlkeys.Config{})
	k := s.issue(t, sqlkeys.NewKey{})
	for _, kind := range []string{"varchar(20)", "text"} {
		for range 3 {
			_, err := s.Validate(t.Context(), k.Credentials)
			require.NoError(t, err)
		}
		_, err := s.db.Exec(`ALTER TABLE sqlkeys_keys ALTER COLUMN environment TYPE ` + kind)
		require.NoError(t, err)
	}
	_, err := s.Validate(t.Context(), k.Credentials)
	require.NoError(t, err)
}
