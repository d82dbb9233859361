package sqlkeys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

const (
	connLifetime   = 5 * time.Minute
	connectTimeout = 5 * time.Second
)

// postgres is the engine for PostgreSQL.
type postgres struct{ db *sql.DB }

// openPostgres opens a pool. Its errors never show parts of the URL: what looks
// like a port or a database name may be the end of a password.
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
		cfg.ConnectTimeout = connectTimeout
	}
	db := stdlib.OpenDB(*cfg)
	// A connection may outlive a failover, and hear nothing of the new primary.
	db.SetConnMaxLifetime(connLifetime)
	return db, nil
}

func (p *postgres) translate(query string) string { return query }

func (p *postgres) instant(t time.Time) any {
	if t.IsZero() {
		return (*time.Time)(nil)
	}
	t = t.UTC().Truncate(time.Millisecond)
	return &t
}

func (p *postgres) exact(t time.Time) any { return t }

// classify: 23505 is a violated unique constraint, class 57P a server that
// shuts down, and 0A000 a prepared statement whose columns changed their types.
func (p *postgres) classify(err error) failure {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		switch {
		case refused.Code == "23505":
			return failureDuplicate
		case strings.HasPrefix(refused.Code, "57P") || refused.Code == "0A000":
			return failureStale
		}
		return failureOther
	}
	for _, lost := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, lost) {
			return failureStale
		}
	}
	return failureOther
}

// deadlockTries is how often a transaction may meet a deadlock. Each takes about a second.
const deadlockTries = 5

// transact repeats a transaction that the server has rolled back because of a deadlock. A
// rotation and the deletion of the sender cause one, because they take their locks in
// opposite orders.
func (p *postgres) transact(ctx context.Context, f func(querier) error) (err error) {
	for range deadlockTries {
		err = p.transactOnce(ctx, f)
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.Code != "40P01" || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// transactOnce asks for READ COMMITTED, because the default of the database may be
// stricter: in the stricter levels a statement does not see what the holder of
// a lock committed while it waited.
func (p *postgres) transactOnce(ctx context.Context, f func(querier) error) error {
	t, err := p.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return fmt.Errorf("sqlkeys: begin: %w", err)
	}
	defer t.Rollback() // does nothing after Commit
	if err := f(t); err != nil {
		return err
	}
	if err := t.Commit(); err != nil {
		return fmt.Errorf("sqlkeys: commit: %w", err)
	}
	return nil
}

func (p *postgres) lockStore(ctx context.Context, q querier) error {
	_, err := q.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('sqlkeys', 0))`)
	return err
}

// prepareLookup only runs the query once, to check it. pgx itself prepares queries that it
// runs often, and prepares them again after a column changed its type. A statement of ours
// would fail from then on, and through PgBouncer in transaction mode it would be left on
// a connection that others use.
func (p *postgres) prepareLookup(ctx context.Context, query string, digests int) (lookup, error) {
	row := func(ctx context.Context, digests ...any) *sql.Row {
		return p.db.QueryRowContext(ctx, query, digests...)
	}
	none := slices.Repeat([]any{[]byte{}}, digests) // no key has an empty digest
	if err := row(ctx, none...).Scan(); !errors.Is(err, sql.ErrNoRows) {
		return lookup{}, err
	}
	return lookup{row: row, close: func() error { return nil }}, nil
}

func (p *postgres) newMigrations() (*goose.Provider, error) {
	const everySecond = 1
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(everySecond, uint64(migratePatience/time.Second)))
	if err != nil {
		return nil, err
	}
	return newMigrations(p.db, goose.DialectPostgres, "migrations/postgres", goose.WithSessionLocker(locker))
}

// applyMigrations relies on the session lock of newMigrations.
func (p *postgres) applyMigrations(ctx context.Context, m *goose.Provider) error {
	_, err := m.Up(ctx)
	return err
}

func (p *postgres) schemaVersion(ctx context.Context) (int64, error) {
	return schemaVersion(ctx, p.db, `SELECT to_regclass($1) IS NOT NULL`)
}
