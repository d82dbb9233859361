package sqlkeys_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// The connections of database/sql may come from a pool of pgx.
func TestWatchLeavesNoListeningConnection(t *testing.T) {
	t.Parallel()
	source := pgtest.URL(t)
	pool, err := pgxpool.New(t.Context(), source)
	require.NoError(t, err)
	defer pool.Close()
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	s, err := sqlkeys.Open(t.Context(), db, sqlkeys.Config{Migrate: true})
	require.NoError(t, err)
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended, c := make(chan error, 1), make(reports, 10)
	go func() { ended <- s.Watch(ctx, c) }()
	require.Equal(t, "", c.next(t))
	cancel()
	require.NoError(t, <-ended)
	admin := openDB(t, source)
	require.Eventually(t, func() bool {
		var n int
		require.NoError(t, admin.QueryRow(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'`).Scan(&n))
		return n == 0
	}, 5*time.Second, 10*time.Millisecond)
}

func TestWatchNoticesASilentConnection(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t)
	s, c := open(t, server.URL(t), sqlkeys.Config{}), make(reports, 10)
	watch(t, s, c)
	require.Equal(t, "", c.next(t))
	var backend int
	require.NoError(t, s.db.QueryRow(`SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND pid <> pg_backend_pid()`).Scan(&backend))
	require.NoError(t, syscall.Kill(backend, syscall.SIGSTOP))
	defer syscall.Kill(backend, syscall.SIGCONT)
	k := s.issue(t, sqlkeys.NewKey{})
	require.Equal(t, "", c.next(t))
	require.NoError(t, s.Revoke(t.Context(), k.Key.ID))
	require.Equal(t, k.Key.SenderID, c.next(t))
}

// The feed is cut while a key is revoked.
func TestWatchPurgesAfterReconnecting(t *testing.T) {
	t.Parallel()
	s := open(t, pgtest.URL(t), sqlkeys.Config{})
	cache, err := senderauth.NewCache(s, senderauth.CacheConfig{TTL: time.Hour})
	require.NoError(t, err)
	watch(t, s, cache)
	admin := openDB(t, s.source)
	cut := func() {
		require.Eventually(t, func() bool { return cutFeed(t, admin) }, 20*time.Second, 5*time.Millisecond, "no connection listens")
	}
	for range 5 {
		k := s.issue(t, sqlkeys.NewKey{})
		require.Eventually(t, func() bool {
			_, err := cache.Validate(t.Context(), k.Credentials)
			return err == nil
		}, 20*time.Second, time.Millisecond)
		cut()
		_, err := admin.Exec(`UPDATE sqlkeys_keys SET revoked_at = now() WHERE id = $1`, k.Key.ID)
		require.NoError(t, err)
		refused := time.Now()
		require.Eventually(t, func() bool {
			_, err := cache.Validate(t.Context(), k.Credentials)
			return err != nil
		}, 20*time.Second, time.Millisecond)
		t.Logf("refused %v after the commit", time.Since(refused).Round(time.Millisecond))
		for range 100 {
			_, err := cache.Validate(t.Context(), k.Credentials)
			require.ErrorIs(t, err, senderauth.ErrInvalidKey)
		}
	}
}

// A handler of the pool would take the notifications from Watch.
func TestWatchRefusesAPoolWithItsOwnHandler(t *testing.T) {
	cfg, err := pgx.ParseConfig(pgtest.URL(t))
	require.NoError(t, err)
	cfg.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) {}
	db := stdlib.OpenDB(*cfg)
	defer db.Close()
	s, err := sqlkeys.Open(t.Context(), db, sqlkeys.Config{Migrate: true})
	require.NoError(t, err)
	defer s.Close()
	require.EqualError(t, s.Watch(t.Context(), make(reports, 10)), "sqlkeys: Watch needs a pool without OnNotification")
}
