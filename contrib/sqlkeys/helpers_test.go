package sqlkeys_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers"
	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestMain(m *testing.M) { testservers.Main(m) }

// onBoth runs a test on PostgreSQL and on SQLite. source is an empty database.
func onBoth(t *testing.T, f func(t *testing.T, source string)) {
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		f(t, pgtest.URL(t))
	})
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		f(t, filepath.Join(t.TempDir(), "keys.db"))
	})
}

func openDB(t testing.TB, source string) *sql.DB {
	db, err := sqlkeys.OpenDB(source)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// A fixture is a migrated store with its database, for changes by hand.
type fixture struct {
	*sqlkeys.Store
	db     *sql.DB
	source string
}

func open(t testing.TB, source string, cfg sqlkeys.Config) fixture {
	db := openDB(t, source)
	cfg.Migrate = true
	s, err := sqlkeys.Open(t.Context(), db, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return fixture{s, db, source}
}

func onBothStores(t *testing.T, f func(t *testing.T, s fixture)) {
	onBoth(t, func(t *testing.T, source string) { f(t, open(t, source, sqlkeys.Config{Actor: "tests"})) })
}

func (s fixture) sender(t testing.TB) string {
	made, err := s.CreateSender(context.Background(), sqlkeys.NewSender{})
	require.NoError(t, err)
	return made.ID
}

func (s fixture) issue(t testing.TB, n sqlkeys.NewKey) sqlkeys.Issued {
	if n.SenderID == "" {
		n.SenderID = s.sender(t)
	}
	issued, err := s.Issue(context.Background(), n)
	require.NoError(t, err)
	return issued
}

// byHand sets a column of a key to an instant relative to the clock of the
// database.
func (s fixture) byHand(t testing.TB, keyID, column string, milliseconds int) {
	query := `UPDATE sqlkeys_keys SET ` + column + ` = clock_timestamp() + $2 * interval '1 millisecond' WHERE id = $1`
	if s.sqlite() {
		query = `UPDATE sqlkeys_keys SET ` + column + ` = CAST(unixepoch('now', 'subsec') * 1000 AS INTEGER) + ?2 WHERE id = ?1`
	}
	res, err := s.db.Exec(query, keyID, milliseconds)
	require.NoError(t, err)
	n, err := res.RowsAffected()
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
}

func (s fixture) sqlite() bool { return filepath.Ext(s.source) == ".db" }

const keyNone = "key_aaaaaaaaaaaaaaaa"

func keysOf(t *testing.T, s fixture, sender string) []sqlkeys.Key {
	var keys []sqlkeys.Key
	for k, err := range s.Keys(t.Context(), sqlkeys.KeyFilter{SenderID: sender}) {
		require.NoError(t, err)
		keys = append(keys, k)
	}
	return keys
}

func auditOf(t *testing.T, s fixture) []sqlkeys.AuditEntry {
	var entries []sqlkeys.AuditEntry
	for e, err := range s.Audit(t.Context(), sqlkeys.AuditFilter{}) {
		require.NoError(t, err)
		entries = append(entries, e)
	}
	return entries
}

// nextMillisecond waits until whatever is created next has a later timestamp.
func nextMillisecond() { <-time.After(2 * time.Millisecond) }

func isRefusal(err error) bool {
	return errors.Is(err, senderauth.ErrInvalidKey) || errors.Is(err, senderauth.ErrKeyMismatch) || errors.Is(err, senderauth.ErrInvalidSender)
}

// A lockedBuffer is a buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
