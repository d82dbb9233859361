package sqlkeys

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

type actorKey struct{}

// WithActor returns a context that names the person or program behind a
// change, for the audit.
func WithActor(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, actorKey{}, name)
}

// change runs f in a transaction that commits only if f succeeds. It may run f again after a
// rollback.
func (s *Store) change(ctx context.Context, f func(*tx) error) error {
	return s.engine.transact(ctx, func(q querier) error {
		return f(&tx{querier: q, store: s, ctx: ctx})
	})
}

// A tx is the transaction of one change.
type tx struct {
	querier
	store *Store
	ctx   context.Context
	at    time.Time // what now has returned
}

func (t *tx) exec(query string, args ...any) error {
	_, err := t.ExecContext(t.ctx, t.store.engine.translate(query), args...)
	return err
}

func (t *tx) row(query string, args ...any) *sql.Row {
	return t.QueryRowContext(t.ctx, t.store.engine.translate(query), args...)
}

// insert adds rows in one statement text for each table.
func (t *tx) insert(b bulk) error { return t.store.engine.insert(t.ctx, t.querier, b) }

// update runs an UPDATE and records it.
func (t *tx) update(entry AuditEntry, query string, args ...any) error {
	if err := t.exec(query, args...); err != nil {
		return fmt.Errorf("sqlkeys: %s: %w", entry.Action, err)
	}
	return t.record(entry)
}

func (t *tx) isDuplicate(err error) bool { return t.store.engine.classify(err) == failureDuplicate }

// instant returns v as a column stores it.
func (t *tx) instant(v time.Time) any { return t.store.engine.instant(v) }

// now returns the clock of the database, always the same within a transaction.
func (t *tx) now() (time.Time, error) {
	if t.at.IsZero() {
		if err := t.row(`SELECT clock_timestamp()`).Scan(scannedTime{&t.at}); err != nil {
			return time.Time{}, fmt.Errorf("sqlkeys: read the clock: %w", err)
		}
		t.at = t.at.Truncate(time.Millisecond)
	}
	return t.at, nil
}

// lockStore keeps other instances from doing at the same time what must happen
// once.
func (t *tx) lockStore() error {
	if err := t.store.engine.lockStore(t.ctx, t.querier); err != nil {
		return fmt.Errorf("sqlkeys: lock the store: %w", err)
	}
	return nil
}
