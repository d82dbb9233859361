package sqlkeys

import (
	"context"
	"database/sql"
	"fmt"
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
