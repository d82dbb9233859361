package sqlkeys

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A bulk is an INSERT of any number of rows.
type bulk struct {
	into       string   // the table and its columns
	types      []string // of the columns, as PostgreSQL calls them
	rows       [][]any
	onConflict string // follows the rows; may be empty
}

// insert passes each column as one array. So the text of the statement does not
// depend on the number of rows: a connection keeps a prepared statement for
// each text that it has seen.
func (p *postgres) insert(ctx context.Context, q querier, b bulk) error {
	arrays := make([]string, len(b.types))
	args := make([]any, len(b.types))
	for i, name := range b.types {
		arrays[i] = fmt.Sprintf("$%d::%s[]", i+1, name)
		args[i] = array(name, b.rows, i)
	}
	_, err := q.ExecContext(ctx, `INSERT INTO `+b.into+` SELECT * FROM unnest(`+strings.Join(arrays, ", ")+`) `+b.onConflict, args...)
	return err
}

// array returns column i of the rows as a slice that pgx can send without
// asking the server for the type.
func array(name string, rows [][]any, i int) any {
	switch name {
	case "bigint":
		return collect[int64](rows, i)
	case "bytea":
		return collect[[]byte](rows, i)
	case "timestamptz":
		return collect[*time.Time](rows, i)
	default: // text, uuid and jsonb
		return collect[string](rows, i)
	}
}

func collect[T any](rows [][]any, i int) []T {
	values := make([]T, len(rows))
	for n, row := range rows {
		values[n] = row[i].(T)
	}
	return values
}

// sqliteRows is the number of rows in one INSERT. SQLite takes at most 32,766
// parameters.
const sqliteRows = 500

// insert uses plain question marks. SQLite searches a list for each numbered
// placeholder, so thousands of those are slow.
func (l *sqlite) insert(ctx context.Context, q querier, b bulk) error {
	row := "(?" + strings.Repeat(",?", len(b.types)-1) + ")"
	for chunk := range slices.Chunk(b.rows, sqliteRows) {
		query := `INSERT INTO ` + b.into + ` VALUES ` + row + strings.Repeat(","+row, len(chunk)-1) + ` ` + l.translate(b.onConflict)
		if _, err := q.ExecContext(ctx, query, slices.Concat(chunk...)...); err != nil {
			return err
		}
	}
	return nil
}
