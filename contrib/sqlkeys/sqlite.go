package sqlkeys

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	sqlitedriver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// sqlite is the engine for SQLite.
type sqlite struct {
	db      *sql.DB
	changed broadcast // wakes the feed after each commit of this process
}

// openSQLite opens a pool on a path, or on a URI with the scheme file.
func openSQLite(source string) (*sql.DB, error) {
	path, params, _ := strings.Cut(source, "?")
	path, isURI := strings.CutPrefix(path, "file:")
	if !isURI {
		path, params = source, ""
	}
	if strings.Contains(source, ":memory:") || strings.Contains(params, "mode=memory") {
		return nil, fmt.Errorf("sqlkeys: the database: %w: SQLite in memory gives each connection of a pool a database of its own: use a file", ErrInvalid)
	}
	if isURI {
		var err error
		if path, err = url.PathUnescape(strings.TrimPrefix(path, "//")); err != nil {
			return nil, fmt.Errorf("sqlkeys: the URI of the SQLite file: %w: %w", ErrInvalid, err)
		}
	}
	if err := checkSQLiteFile(path, params); err != nil {
		return nil, fmt.Errorf("sqlkeys: the SQLite file: %w", err)
	}
	query := "_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_txlock=immediate"
	if params != "" {
		query = "_pragma=busy_timeout(5000)&_pragma=foreign_keys(1)&_txlock=immediate&" + params
		if !strings.Contains(params, "mode=ro") && !strings.Contains(params, "journal_mode") {
			query += "&_pragma=journal_mode(WAL)"
		}
	}
	// Connections are opened later, perhaps in another folder. filepath.Abs would take
	// the folder before a .. out of the path, even if it is a symbolic link.
	if !filepath.IsAbs(path) {
		folder, err := os.Getwd()
		if err != nil {
			return nil, fmt.Errorf("sqlkeys: the SQLite file: %w", err)
		}
		path = folder + string(filepath.Separator) + path
	}
	dsn := "file:" + (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath() + "?" + query
	return sql.OpenDB(&sqliteFile{dsn: dsn, path: path}), nil
}

// checkSQLiteFile opens the file for writing and creates it if the parameters
// allow that. SQLite itself opens the file late, and says little about why it
// cannot.
func checkSQLiteFile(path, params string) error {
	if strings.Contains(params, "mode=ro") {
		return nil
	}
	create := os.O_CREATE
	if strings.Contains(params, "mode=rw") && !strings.Contains(params, "mode=rwc") {
		create = 0
	}
	f, err := os.OpenFile(path, os.O_RDWR|create, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// forSQLite holds every construct of the queries that SQLite writes otherwise.
// FOR UPDATE has no counterpart, because a transaction locks the whole file.
// The 0 takes the affinity from the clock, so that the index on the end of keys serves.
var forSQLite = strings.NewReplacer(
	`(SELECT clock_timestamp())`, `(0 + CAST(unixepoch('now', 'subsec') * 1000 + 0.5 AS INTEGER))`,
	daysLeftSQL, `(e.ends - CAST(unixepoch('now', 'subsec') * 1000 + 0.5 AS INTEGER)) / 86400000`,
	`clock_timestamp()`, `CAST(unixepoch('now', 'subsec') * 1000 + 0.5 AS INTEGER)`,
	`least(k.expires_at, k.grace_until)`, `coalesce(min(k.expires_at, k.grace_until), k.expires_at, k.grace_until)`,
	`interval '15 minutes'`, `900000`,
	` FOR UPDATE`, ``,
	`$`, `?`,
)

func (l *sqlite) translate(query string) string { return forSQLite.Replace(query) }

func (l *sqlite) instant(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMilli()
}

func (l *sqlite) exact(t time.Time) any { return t.UnixMilli() }

func (l *sqlite) classify(err error) failure {
	var failed *sqlitedriver.Error
	if !errors.As(err, &failed) {
		return failureOther
	}
	switch failed.Code() {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
		return failureDuplicate
	}
	switch failed.Code() & 0xff { // without the extension
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_SCHEMA:
		return failureBusy
	}
	return failureOther
}

// transact takes the write lock first: a transaction that reads before it
// writes fails if another one has written in between. It sets the busy timeout
// because the pool may be the caller's own.
func (l *sqlite) transact(ctx context.Context, f func(querier) error) error {
	c, err := l.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("sqlkeys: connect: %w", err)
	}
	defer c.Close()
	// If ctx ends during BEGIN, the driver returns an error although the
	// transaction may have begun. So every way out but a commit rolls back.
	committed := false
	defer func() {
		if !committed {
			rollback(c)
		}
	}()
	for _, query := range []string{"PRAGMA busy_timeout = 5000", "BEGIN IMMEDIATE"} {
		if _, err := c.ExecContext(ctx, query); err != nil {
			return fmt.Errorf("sqlkeys: begin: %w", err)
		}
	}
	if err := f(c); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("sqlkeys: commit: %w", err)
	}
	// Do not cancel the commit with ctx: the caller must learn whether it succeeded.
	if _, err := c.ExecContext(context.WithoutCancel(ctx), "COMMIT"); err != nil {
		return fmt.Errorf("sqlkeys: commit: %w", err)
	}
	committed = true
	l.changed.tell()
	return nil
}

// rollback ends the transaction of c, or else makes the pool drop c. ROLLBACK
// fails if no transaction has begun, or if SQLite has already rolled back.
func rollback(c *sql.Conn) {
	if _, err := c.ExecContext(context.Background(), "ROLLBACK"); err != nil {
		c.Raw(func(any) error { return driver.ErrBadConn })
	}
}

// lockStore has nothing to do, because every transaction locks the file.
func (l *sqlite) lockStore(context.Context, querier) error { return nil }

func (l *sqlite) prepareLookup(ctx context.Context, query string, _ int) (lookup, error) {
	stmt, err := l.db.PrepareContext(ctx, query)
	if err != nil {
		return lookup{}, err
	}
	return lookup{row: stmt.QueryRowContext, close: stmt.Close}, nil
}

func (l *sqlite) newMigrations() (*goose.Provider, error) {
	return newMigrations(l.db, goose.DialectSQLite3, "migrations/sqlite")
}

// applyMigrations creates the table of versions as goose does, but with a
// unique constraint. SQLite has no lock that outlives a transaction, so several
// processes may apply the same migration. All but one of them then violate the
// constraint and roll back.
func (l *sqlite) applyMigrations(ctx context.Context, m *goose.Provider) error {
	err := l.transact(ctx, func(q querier) error {
		_, err := q.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS `+versionTable+` (
			id INTEGER PRIMARY KEY AUTOINCREMENT,
			version_id INTEGER NOT NULL UNIQUE,
			is_applied INTEGER NOT NULL,
			tstamp TIMESTAMP DEFAULT (datetime('now'))
		);
		INSERT OR IGNORE INTO `+versionTable+` (version_id, is_applied) VALUES (0, 1)`)
		return err
	})
	if err != nil {
		return err
	}
	_, err = m.Up(ctx)
	return err
}

func (l *sqlite) schemaVersion(ctx context.Context) (int64, error) {
	return schemaVersion(ctx, l.db, `SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?)`)
}
