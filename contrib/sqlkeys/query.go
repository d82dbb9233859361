package sqlkeys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
)

// A query selects rows.
type query struct {
	text string
	args []any
}

// and adds a condition on one column to the WHERE clause that ends the text.
func (q *query) and(column, operator string, arg any) {
	q.args = append(q.args, arg)
	q.text += fmt.Sprintf(` AND %s %s $%d`, column, operator, len(q.args))
}

// A scanner is one row of a result.
type scanner interface{ Scan(dest ...any) error }

// row runs a query outside a transaction.
func (s *Store) row(ctx context.Context, text string, args ...any) *sql.Row {
	return s.db.QueryRowContext(ctx, s.engine.translate(text), args...)
}

// stream yields the rows of q. It holds a connection until the loop ends. It
// goes on after rows that cannot be read in full.
func stream[T any](ctx context.Context, s *Store, q query, scan func(scanner) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		rows, err := s.db.QueryContext(ctx, s.engine.translate(q.text), q.args...)
		if err != nil {
			yield(none, fmt.Errorf("sqlkeys: %w", err))
			return
		}
		defer rows.Close()
		for rows.Next() {
			v, err := scan(rows)
			if !yield(v, err) || err != nil && !errors.Is(err, ErrUnreadable) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(none, fmt.Errorf("sqlkeys: %w", err))
		}
	}
}

// failed yields nothing but an error.
func failed[T any](err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		yield(none, err)
	}
}
