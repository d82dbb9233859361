package sqlkeys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// A receipt names a transaction, to ask later whether it was committed. The
// zero receipt is that of an engine whose commits are never in doubt.
type receipt int64

// receipt also gives the transaction its number, so that it is one that
// committed knows.
func (p *postgres) receipt(ctx context.Context, q querier) (r receipt, err error) {
	if err := q.QueryRowContext(ctx, `SELECT txid_current()`).Scan(&r); err != nil {
		return 0, fmt.Errorf("sqlkeys: read the number of a transaction: %w", err)
	}
	return r, nil
}

// committed fails while the server has not decided. 22023 means a number that
// the server has not reached: it has been replaced by a replica that never
// received the transaction.
func (p *postgres) committed(ctx context.Context, r receipt) (bool, error) {
	var status sql.NullString // NULL means too old to know
	err := p.db.QueryRowContext(ctx, `SELECT txid_status($1)`, int64(r)).Scan(&status)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "22023" {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("sqlkeys: ask whether a transaction was committed: %w", err)
	}
	if status.String == "in progress" {
		return false, errors.New("sqlkeys: the server has yet to decide about a transaction")
	}
	return status.String == "committed", nil
}

// A commit of SQLite succeeds or fails within the process.
func (l *sqlite) receipt(context.Context, querier) (receipt, error) { return 0, nil }

func (l *sqlite) committed(context.Context, receipt) (bool, error) { return false, nil }
