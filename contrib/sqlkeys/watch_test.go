package sqlkeys_test

import (
	"context"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// told notes what a feed says; "" is a Purge.
type told chan string

func (c told) Forget(id string) { c <- id }
func (c told) Purge()           { c <- "" }

func (c told) next(t testing.TB) string {
	select {
	case id := <-c:
		return id
	case <-time.After(20 * time.Second):
		t.Fatal("the feed says nothing")
		return ""
	}
}

// forgets returns when the feed has said id.
func (c told) forgets(t testing.TB, id string) {
	for c.next(t) != id {
	}
}

// watch follows the store until the test ends.
func watch(t testing.TB, s fixture, c sqlkeys.Forgetter) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Watch(ctx, c) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
}

func TestWatch(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		s := open(t, source, sqlkeys.Config{})
		other := open(t, source, sqlkeys.Config{}) // another process, so to speak
		here, there := make(told, 100), make(told, 100)
		watch(t, s, here)
		watch(t, other, there)
		require.Equal(t, "", here.next(t), "what was before is not known")
		require.Equal(t, "", there.next(t))
		both := func(id string) {
			here.forgets(t, id)
			there.forgets(t, id)
		}

		k := s.issue(t, sqlkeys.NewKey{})
		sender := k.Key.SenderID
		both(sender) // the sender
		both(sender) // the key
		for _, change := range []func() error{
			func() error { return s.Disable(t.Context(), k.Key.ID) },
			func() error { return other.Enable(t.Context(), k.Key.ID) },
			func() error {
				_, err := s.Rotate(t.Context(), k.Key.ID, sqlkeys.Rotation{Grace: time.Hour})
				return err
			},
			func() error { return s.Revoke(t.Context(), k.Key.ID) },
			func() error { return s.DisableSender(t.Context(), sender) },
			func() error { return other.EnableSender(t.Context(), sender) },
			func() error {
				return s.SetLimits(t.Context(), sender, map[string]senderauth.Limit{"default": senderauth.Blocked()})
			},
		} {
			require.NoError(t, change())
			both(sender)
		}
		// By hand.
		for _, query := range []string{
			`UPDATE sqlkeys_senders SET metadata = '{"a":"b"}'`,
			`UPDATE sqlkeys_keys SET name = 'x'`,
			`DELETE FROM sqlkeys_keys`,
			`DELETE FROM sqlkeys_senders`,
		} {
			_, err := other.db.Exec(query)
			require.NoError(t, err)
			both(sender)
		}
		if filepath.Ext(source) != ".db" {
			_, err := s.db.Exec(`TRUNCATE sqlkeys_keys`)
			require.NoError(t, err)
			both("")
			_, err = s.db.Exec(`SELECT pg_notify('sqlkeys_changed', 'nonsense')`)
			require.NoError(t, err)
			both("")
		}
	})
}

// The process of the change does not wait for the next look at the file.
func TestWatchTellsItsOwnProcessAtOnce(t *testing.T) {
	source := filepath.Join(t.TempDir(), "keys.db")
	synctest.Test(t, func(t *testing.T) {
		s, c := open(t, source, sqlkeys.Config{}), make(told, 10)
		watch(t, s, c)
		require.Equal(t, "", c.next(t))
		for range 10 {
			at := time.Now()
			c.forgets(t, s.sender(t))
			require.Zero(t, time.Since(at))
		}
	})
}

// A key that is given to another sender by hand is news of both.
func TestWatchMoves(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		c := make(told, 100)
		watch(t, s, c)
		require.Equal(t, "", c.next(t))
		from, to := s.sender(t), s.sender(t)
		s.issue(t, sqlkeys.NewKey{SenderID: from})
		during := func(query string, args ...any) (ids []string) {
			c.forgets(t, s.sender(t))
			_, err := s.db.Exec(query, args...)
			require.NoError(t, err)
			last := s.sender(t)
			for id := c.next(t); id != last; id = c.next(t) {
				ids = append(ids, id)
			}
			return ids
		}
		require.ElementsMatch(t, []string{from, to}, during(`UPDATE sqlkeys_keys SET sender_id = $1`, to))
		require.Equal(t, []string{to}, during(`UPDATE sqlkeys_keys SET name = 'x'`))
		require.Equal(t, []string{from}, during(`DELETE FROM sqlkeys_senders WHERE id = $1`, from))
		if !s.sqlite() {
			require.Equal(t, []string{""}, during(`TRUNCATE sqlkeys_keys`))
		}
	})
}

// Changes that are deleted by hand were news all the same.
func TestWatchDeletedChanges(t *testing.T) {
	s, c := open(t, filepath.Join(t.TempDir(), "keys.db"), sqlkeys.Config{}), make(told, 100)
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

	// The counting begins again.
	byHand(`DELETE FROM sqlkeys_changes; DELETE FROM sqlite_sequence WHERE name = 'sqlkeys_changes'`)
	require.Equal(t, "", c.next(t))
	byHand(`SELECT 1`)
	require.Equal(t, sender, c.next(t))
	require.Empty(t, c)
}

// More changes at once than the file keeps: everybody is forgotten.
func TestWatchGap(t *testing.T) {
	source := filepath.Join(t.TempDir(), "keys.db")
	s, c := open(t, source, sqlkeys.Config{}), make(told, 20_100)
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

func TestWatchEnds(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		for range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			ended, c := make(chan error, 1), make(told, 10)
			go func() { ended <- s.Watch(ctx, c) }()
			c.next(t)
			require.Equal(t, 1, s.db.Stats().InUse)
			cancel()
			require.NoError(t, <-ended)
			require.Zero(t, s.db.Stats().InUse, "the connection is given back")
		}
		s.db.SetMaxOpenConns(1)
		require.EqualError(t, s.Watch(t.Context(), make(told)), "sqlkeys: Watch needs a connection for itself, and the pool has only one")
	})
}

// A connection of a pool of pgx's own does not go on listening there.
func TestWatchOnPoolOfPgx(t *testing.T) {
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
	ended, c := make(chan error, 1), make(told, 10)
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

// A connection that dies without a word is noticed, and made again.
func TestWatchSilence(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t)
	s, c := open(t, server.URL(t), sqlkeys.Config{}), make(told, 10)
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

// The look-up was prepared on the connection that the feed took.
func TestCloseWhileWatching(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		c := make(told, 10)
		watch(t, s, c)
		require.Equal(t, "", c.next(t))
		closed := make(chan error, 1)
		go func() { closed <- s.Close() }()
		select {
		case err := <-closed:
			require.NoError(t, err)
		case <-time.After(20 * time.Second):
			t.Fatal("it waits for the feed to end")
		}
	})
}

// A feed that is cut while a key is revoked (F-11): the key is refused when
// the feed is back, and none that was refused is accepted again.
func TestWatchReconnects(t *testing.T) {
	t.Parallel()
	s := open(t, pgtest.URL(t), sqlkeys.Config{})
	cache, err := senderauth.NewCache(s, senderauth.CacheConfig{TTL: time.Hour})
	require.NoError(t, err)
	watch(t, s, cache)
	admin := openDB(t, s.source)
	cut := func() {
		require.Eventually(t, func() bool { return cutFeed(t, admin) }, 20*time.Second, 5*time.Millisecond, "nobody listens")
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
