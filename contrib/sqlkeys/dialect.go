package sqlkeys

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// A dialect is what PostgreSQL and SQLite do not have in common. Queries are
// written with the placeholders of PostgreSQL.
type dialect struct {
	name       goose.Dialect
	migrations string // the folder
	hasTable   string // reports whether the table $1 exists
	now        string // the clock, as an expression
	until      string // the earlier of expires_at and grace_until, or NULL
	forUpdate  string
	transact   func(context.Context, *sql.DB, func(querier) error) error
}

var postgresDialect = dialect{
	name:       goose.DialectPostgres,
	migrations: "migrations/postgres",
	hasTable:   `SELECT to_regclass($1) IS NOT NULL`,
	now:        `clock_timestamp()`,
	until:      `least(k.expires_at, k.grace_until)`,
	forUpdate:  ` FOR UPDATE OF `,
	transact:   transactPostgres,
}

var sqliteDialect = dialect{
	name:       goose.DialectSQLite3,
	migrations: "migrations/sqlite",
	hasTable:   `SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = $1)`,
	now:        `CAST(unixepoch('now', 'subsec') * 1000 + 0.5 AS INTEGER)`,
	until:      `coalesce(min(k.expires_at, k.grace_until), k.expires_at, k.grace_until)`,
	transact:   transactSQLite,
}

func dialectOf(db *sql.DB) (*dialect, error) {
	if db == nil {
		return nil, errors.New("sqlkeys: the database is nil")
	}
	switch d := db.Driver().(type) {
	case *stdlib.Driver:
		return &postgresDialect, nil
	case *sqlite.Driver:
		return &sqliteDialect, nil
	default:
		return nil, fmt.Errorf("sqlkeys: the driver %T is neither that of github.com/jackc/pgx/v5/stdlib nor that of modernc.org/sqlite", d)
	}
}

// OpenDB opens a pool on a PostgreSQL URL or a SQLite file. The path of a file
// may be written as a URI with the scheme file, with the parameters of SQLite.
// What looks like the settings of a PostgreSQL that are no URL is not taken for
// the path of a file, and is not shown: it may hold a password.
//
// A file is created where it is missing, readable by its owner only; it is
// used in WAL mode, with a busy timeout of 5 seconds. A pool has at most 16
// connections until the caller says otherwise. PostgreSQL is not contacted
// yet; connecting takes 5 seconds at most, unless the URL says otherwise.
func OpenDB(source string) (*sql.DB, error) {
	scheme, _, hasScheme := strings.Cut(source, "://")
	var db *sql.DB
	var err error
	switch {
	case source == "":
		return nil, errors.New("sqlkeys: no database: give a PostgreSQL URL or the path of a SQLite file")
	case hasScheme && (scheme == "postgres" || scheme == "postgresql"):
		db, err = openPostgres(source)
	case likePostgres.MatchString(source) && !strings.HasPrefix(source, "file:"):
		return nil, fmt.Errorf("sqlkeys: the database: %w: a PostgreSQL is given as postgres://USER:PASSWORD@HOST/DATABASE, and a SQLite file whose path looks like one as file:PATH", ErrInvalid)
	case hasScheme && scheme != "file":
		return nil, fmt.Errorf("sqlkeys: a database of scheme %q is neither a PostgreSQL URL nor the path of a SQLite file", scheme)
	default:
		db, err = openSQLite(source)
	}
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	return db, nil
}

// likePostgres matches a URL without its slashes or without its scheme, and a
// list of settings.
var likePostgres = regexp.MustCompile(`^(?:postgres(?:ql)?:(?:[^/]|/[^/])|[^/:]*:(?:[^/]|/[^/]).*@|\s*\w+\s*=)`)

// openPostgres shows nothing of a URL that is no good: what stands in the place
// of a port or of a database may be the rest of a password.
func openPostgres(source string) (*sql.DB, error) {
	wrong := func(why string) (*sql.DB, error) {
		return nil, fmt.Errorf("sqlkeys: the PostgreSQL URL: %w: %s", ErrInvalid, why)
	}
	const hint = ": is the password percent-encoded?"
	_, place, _ := strings.Cut(source, "://")
	if at := strings.IndexAny(place, "@/"); at >= 0 && place[at] == '@' {
		place = place[at+1:]
	}
	if place, _, _ = strings.Cut(place, "?"); strings.Contains(place, "@") {
		return wrong("an @ in the host or the database" + hint)
	}
	cfg, err := pgx.ParseConfig(source)
	if err != nil {
		cause := fmt.Sprintf(" (%v)", errors.Unwrap(err))
		why := strings.TrimSuffix(err.Error(), cause)
		why = strings.TrimPrefix(why[strings.LastIndexByte(why, '`')+1:], ": ")
		switch {
		case why == "invalid port" || why == "failed to parse as URL":
			why += hint
		case errors.Unwrap(err) != nil:
			why += cause
		}
		return wrong(why)
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 5 * time.Second
	}
	return stdlib.OpenDB(*cfg), nil
}

func openSQLite(source string) (*sql.DB, error) {
	path, params, _ := strings.Cut(source, "?")
	path, isURI := strings.CutPrefix(path, "file:")
	if !isURI {
		path, params = source, ""
	}
	if strings.Contains(source, ":memory:") || strings.Contains(params, "mode=memory") {
		return nil, errors.New("sqlkeys: SQLite in memory gives each connection of a pool a database of its own: use a file")
	}
	if isURI {
		var err error
		if path, err = url.PathUnescape(strings.TrimPrefix(path, "//")); err != nil {
			return nil, fmt.Errorf("sqlkeys: the URI of the SQLite file: %w", err)
		}
	}
	// SQLite opens a file late, and says little about why it cannot.
	if !strings.Contains(params, "mode=ro") {
		create := os.O_CREATE
		if strings.Contains(params, "mode=rw") && !strings.Contains(params, "mode=rwc") {
			create = 0
		}
		f, err := os.OpenFile(path, os.O_RDWR|create, 0o600)
		if err != nil {
			return nil, fmt.Errorf("sqlkeys: the SQLite file: %w", err)
		}
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("sqlkeys: the SQLite file: %w", err)
		}
	}
	query := "_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_txlock=immediate"
	if params != "" {
		query = "_pragma=busy_timeout(5000)&_pragma=foreign_keys(1)&_txlock=immediate&" + params
		if !strings.Contains(params, "mode=ro") && !strings.Contains(params, "journal_mode") {
			query += "&_pragma=journal_mode(WAL)"
		}
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: filepath.ToSlash(path)}).EscapedPath()+"?"+query)
	if err != nil {
		return nil, fmt.Errorf("sqlkeys: %w", err)
	}
	return db, nil
}

// rewrite turns a query into the dialect's.
func (d *dialect) rewrite(query string) string {
	query = strings.ReplaceAll(query, "{now}", d.now)
	query = strings.ReplaceAll(query, "{until}", d.until)
	if d == &sqliteDialect {
		query = strings.ReplaceAll(query, "$", "?")
	}
	return query
}

// instant is a time as the dialect stores it; the zero time is NULL.
func (d *dialect) instant(t time.Time) any {
	switch {
	case t.IsZero():
		return nil
	case d == &sqliteDialect:
		return t.UnixMilli()
	}
	return t.UTC().Truncate(time.Millisecond)
}

// A scannedTime reads what instant writes.
type scannedTime struct{ *time.Time }

func (t scannedTime) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*t.Time = time.Time{}
	case int64:
		*t.Time = time.UnixMilli(v).UTC()
	case time.Time:
		*t.Time = v.UTC()
	default:
		return fmt.Errorf("sqlkeys: an instant is stored as %T", v)
	}
	return nil
}

// transactPostgres asks for the isolation in which who has waited for a lock
// sees what the other has done: the default may be another.
func transactPostgres(ctx context.Context, db *sql.DB, f func(querier) error) error {
	t, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return fmt.Errorf("sqlkeys: begin: %w", err)
	}
	if err := f(t); err != nil {
		t.Rollback()
		return err
	}
	if err := t.Commit(); err != nil {
		return fmt.Errorf("sqlkeys: commit: %w", err)
	}
	return nil
}

// transactSQLite takes the lock for writing at once: a transaction that reads
// first and writes after fails where another has written in between. The
// caller's pool may not have asked for that, nor for a busy timeout.
func transactSQLite(ctx context.Context, db *sql.DB, f func(querier) error) (err error) {
	c, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("sqlkeys: connect: %w", err)
	}
	defer c.Close()
	if _, err := c.ExecContext(ctx, "PRAGMA busy_timeout = 5000"); err != nil {
		return fmt.Errorf("sqlkeys: begin: %w", err)
	}
	if _, err := c.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return fmt.Errorf("sqlkeys: begin: %w", err)
	}
	if err = f(c); err == nil {
		if _, err = c.ExecContext(ctx, "COMMIT"); err == nil {
			return nil
		}
		err = fmt.Errorf("sqlkeys: commit: %w", err)
	}
	// SQLite has rolled back by itself after some errors; a connection that is
	// still in a transaction otherwise must not go back to the pool.
	if _, rollback := c.ExecContext(context.WithoutCancel(ctx), "ROLLBACK"); rollback != nil {
		c.Raw(func(any) error { return driver.ErrBadConn })
	}
	return err
}

// isDuplicate reports the violation of a unique constraint.
func isDuplicate(err error) bool {
	var pg *pgconn.PgError
	var lite *sqlite.Error
	switch {
	case errors.As(err, &pg):
		return pg.Code == "23505"
	case errors.As(err, &lite):
		return lite.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || lite.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
	}
	return false
}

//go:embed migrations
var embedded embed.FS

var migrations fs.FS = embedded // a test adds to them

const versionTable = "sqlkeys_schema"

// Migrate brings the schema up to date. Several instances may do so at once:
// each migration is applied once.
func Migrate(ctx context.Context, db *sql.DB) error {
	d, err := dialectOf(db)
	if err != nil {
		return err
	}
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		moved, err := d.migrate(ctx, db)
		if err == nil || ctx.Err() != nil || time.Since(began) > migratePatience || !moved && !isBusy(err) {
			return err
		}
	}
}

// migratePatience is how long others may be at it.
const migratePatience = time.Minute

// migrate tries once. moved reports that it failed and another instance has
// applied a migration meanwhile.
func (d *dialect) migrate(ctx context.Context, db *sql.DB) (moved bool, err error) {
	err = d.checkSchema(ctx, db)
	if !errors.Is(err, ErrSchemaMissing) && !errors.Is(err, ErrSchemaOlder) {
		return false, err
	}
	p, err := d.provider(db)
	if err != nil {
		return false, fmt.Errorf("sqlkeys: migrate: %w", err)
	}
	if d == &sqliteDialect {
		if err := prepareSQLite(ctx, db); err != nil {
			return false, fmt.Errorf("sqlkeys: migrate: %w", err)
		}
	}
	before, _, err := d.versions(ctx, db)
	if err != nil {
		return false, err
	}
	if _, err := p.Up(ctx); err != nil {
		after, _, unknown := d.versions(ctx, db)
		return unknown == nil && after > before, fmt.Errorf("sqlkeys: migrate: %w", err)
	}
	return false, nil
}

// prepareSQLite makes the table of versions as goose does, but unique: SQLite
// has no lock that outlives a transaction, so that of several instances that
// apply the same migration all but one must fail and roll back.
func prepareSQLite(ctx context.Context, db *sql.DB) error {
	return transactSQLite(ctx, db, func(q querier) error {
		_, err := q.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS `+versionTable+` (
			id INTEGER PRIMARY KEY AUTOINCREMENT,
			version_id INTEGER NOT NULL UNIQUE,
			is_applied INTEGER NOT NULL,
			tstamp TIMESTAMP DEFAULT (datetime('now'))
		);
		INSERT OR IGNORE INTO `+versionTable+` (version_id, is_applied) VALUES (0, 1)`)
		return err
	})
}

// isBusy reports that another connection to the SQLite file was in the way.
func isBusy(err error) bool {
	var lite *sqlite.Error
	return errors.As(err, &lite) && (lite.Code()&0xff == sqlite3.SQLITE_BUSY || lite.Code()&0xff == sqlite3.SQLITE_SCHEMA)
}

func (d *dialect) provider(db *sql.DB) (*goose.Provider, error) {
	dir, err := fs.Sub(migrations, d.migrations)
	if err != nil {
		return nil, err
	}
	opts := []goose.ProviderOption{
		goose.WithTableName(versionTable),
		goose.WithDisableGlobalRegistry(true),
		goose.WithLogger(goose.NopLogger()),
	}
	if d == &postgresDialect {
		// Every second.
		l, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, uint64(migratePatience/time.Second)))
		if err != nil {
			return nil, err
		}
		opts = append(opts, goose.WithSessionLocker(l))
	}
	return goose.NewProvider(d.name, db, dir, opts...)
}

// versions returns the version of the schema, -1 where there is none, and the
// one that this program needs.
func (d *dialect) versions(ctx context.Context, db *sql.DB) (current, target int64, err error) {
	p, err := d.provider(db)
	if err != nil {
		return 0, 0, fmt.Errorf("sqlkeys: %w", err)
	}
	sources := p.ListSources()
	target = sources[len(sources)-1].Version
	var exists bool
	if err := db.QueryRowContext(ctx, d.rewrite(d.hasTable), versionTable).Scan(&exists); err != nil {
		return 0, 0, fmt.Errorf("sqlkeys: read the schema: %w", err)
	}
	if !exists {
		return -1, target, nil
	}
	if err := db.QueryRowContext(ctx, `SELECT coalesce(max(version_id), 0) FROM `+versionTable).Scan(&current); err != nil {
		return 0, 0, fmt.Errorf("sqlkeys: read the schema: %w", err)
	}
	return current, target, nil
}

func (d *dialect) checkSchema(ctx context.Context, db *sql.DB) error {
	current, target, err := d.versions(ctx, db)
	switch {
	case err != nil:
		return err
	case current <= 0:
		return fmt.Errorf("sqlkeys: %w", ErrSchemaMissing)
	case current < target:
		return fmt.Errorf("sqlkeys: version %d, not %d: %w", current, target, ErrSchemaOlder)
	case current > target:
		return fmt.Errorf("sqlkeys: version %d, not %d: %w", current, target, ErrSchemaNewer)
	}
	return nil
}
