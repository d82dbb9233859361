package sqlkeys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	sqlitedriver "modernc.org/sqlite"
)

// An engine is PostgreSQL or SQLite. Only the two implementations know what the
// systems do differently.
type engine interface {
	// translate returns a query in the SQL of the engine. Queries are written
	// in that of PostgreSQL.
	translate(query string) string
	// instant returns t as a column stores it. The zero time becomes NULL.
	instant(t time.Time) any
	// exact returns t with every digit that a column may have, to compare with.
	exact(t time.Time) any
	// classify tells the errors apart that a store reacts to.
	classify(err error) failure

	// transact runs f in a transaction, and rolls back if f fails. Once f has
	// locked a row it sees what earlier holders of the lock committed. It may run f
	// again after a rollback.
	transact(ctx context.Context, f func(querier) error) error
	// insert adds rows within the transaction of q.
	insert(ctx context.Context, q querier, b bulk) error
	// receipt names the transaction of q for committed, which reports whether
	// it was committed if the answer to the commit was lost.
	receipt(ctx context.Context, q querier) (receipt, error)
	committed(ctx context.Context, r receipt) (bool, error)
	// lockStore makes every other transaction that calls it wait until the
	// one of q ends.
	lockStore(ctx context.Context, q querier) error
	// prepareLookup prepares a translated query with this number of digests.
	prepareLookup(ctx context.Context, query string, digests int) (lookup, error)
	// follow reports changes to f until ctx ends or the connection fails.
	follow(ctx context.Context, f feed) error

	// schemaVersion returns 0 if there is no schema.
	schemaVersion(ctx context.Context) (int64, error)
	newMigrations() (*goose.Provider, error)
	// applyMigrations may run in several processes at once.
	applyMigrations(ctx context.Context, m *goose.Provider) error
}

// engineOf returns the engine behind the driver of db.
func engineOf(db *sql.DB) (engine, error) {
	if db == nil {
		return nil, errors.New("sqlkeys: the database is nil")
	}
	switch d := db.Driver().(type) {
	case *stdlib.Driver:
		return &postgres{db: db}, nil
	case *sqlitedriver.Driver:
		return &sqlite{db: db}, nil
	default:
		return nil, fmt.Errorf("sqlkeys: the driver %T is neither github.com/jackc/pgx/v5/stdlib nor modernc.org/sqlite", d)
	}
}

// A failure is a kind of database error.
type failure int

const (
	failureOther     failure = iota
	failureDuplicate         // a unique constraint is violated
	failureStale             // the connection is older than a restart or a schema change: try another one
	failureBusy              // another connection holds the lock of the SQLite file
)

// A querier is a connection inside a transaction.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// A lookup runs the query that finds a key by its digests.
type lookup struct {
	row   func(ctx context.Context, digests ...any) *sql.Row
	close func() error
}

// A scannedTime scans what engine.instant returns.
type scannedTime struct{ *time.Time }

func (i scannedTime) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*i.Time = time.Time{}
	case int64:
		*i.Time = time.UnixMilli(v).UTC()
	case time.Time:
		*i.Time = v.UTC()
	case string:
		// What PostgreSQL has for an instant that never comes or always has
		// been, if somebody has set it by hand.
		if v != "infinity" && v != "-infinity" {
			return fmt.Errorf("sqlkeys: cannot read the instant %q", v)
		}
		*i.Time = time.Time{}
	default:
		return fmt.Errorf("sqlkeys: cannot read an instant from %T", v)
	}
	return nil
}
