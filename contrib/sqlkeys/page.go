package sqlkeys

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"
)

// Paging selects a page of a list. The zero value selects the first 100 items.
type Paging struct {
	_ [0]func()

	// After is Next of the page before. Empty selects the first page.
	After string
	// Limit is the largest number of items, at most 1,000. Zero means 100.
	Limit int
	// Reverse reverses the order of the list.
	Reverse bool
}

// A Page is a part of a list. The store holds no connection between two pages. If rows
// change in between, later pages show it.
type Page[T any] struct {
	Items []T
	Next  string // After of the next page; empty if this is the last one
}

const standardLimit, maxLimit = 100, 1000

// walkLimit is the size of the pages that iterators read.
const walkLimit = 1000

// A list is a query with an order that an index serves.
type list[T any] struct {
	query
	group    string                        // follows the conditions; may be empty
	name     string                        // of the order, so that a cursor only fits lists that have it
	order    []column                      // no two rows are equal in all of them
	scan     func(scanner) (T, error)      // returns ErrUnreadable with what can be read
	position func(row T) ([]string, error) // the row's values of order
}

// A column of an order.
type column struct {
	sql   string
	parse func(e engine, text string) (any, bool) // reads a value of a cursor
}

func instantColumn(name string) column { return column{name, parseInstant} }
func textColumn(name string) column    { return column{name, parseText} }
func senderColumn(name string) column  { return column{name, parseSenderID} }
func numberColumn(name string) column  { return column{name, parseNumber} }

// cursorInstant writes an instant with all digits that the column may have. It fails for an
// infinite instant, which somebody may have written to PostgreSQL by hand.
func cursorInstant(t time.Time) (string, error) {
	if t.IsZero() {
		return "", errors.New("sqlkeys: the list cannot go on after a row that was created at infinity")
	}
	return strconv.FormatInt(t.UnixMicro(), 10), nil
}

func parseInstant(e engine, text string) (any, bool) {
	micro, err := strconv.ParseInt(text, 10, 64)
	t := time.UnixMicro(micro).UTC()
	return e.exact(t), err == nil && t.Year() >= 1 && t.Year() <= 9999
}

func parseText(_ engine, text string) (any, bool) { return text, isText(text) }

func parseSenderID(_ engine, text string) (any, bool) {
	id, err := canonicalSenderID(text)
	return id, err == nil
}

func parseNumber(_ engine, text string) (any, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
}

// cursor returns the After of the page that follows row.
func (l *list[T]) cursor(row T) (string, error) {
	position, err := l.position(row)
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(append([]string{l.name}, position...))
	if err != nil {
		return "", fmt.Errorf("sqlkeys: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b), nil
}

var errCursor = fmt.Errorf("sqlkeys: Paging.After: %w: not a Next of this list", ErrInvalid)

// parseCursor returns the values of the order that a page starts after.
func (l *list[T]) parseCursor(e engine, cursor string) ([]any, error) {
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return nil, errCursor
	}
	var texts []string
	if err := json.Unmarshal(b, &texts); err != nil || len(texts) != len(l.order)+1 || texts[0] != l.name {
		return nil, errCursor
	}
	values := make([]any, len(l.order))
	for i, c := range l.order {
		var ok bool
		if values[i], ok = c.parse(e, texts[i+1]); !ok {
			return nil, errCursor
		}
	}
	return values, nil
}

// paged returns the query of one page and, to tell whether it is the last, one row more.
func (l *list[T]) paged(e engine, p Paging) (query, error) {
	columns := make([]string, len(l.order))
	for i, c := range l.order {
		columns[i] = c.sql
	}
	compare, direction := ">", ""
	if p.Reverse {
		compare, direction = "<", " DESC"
	}
	q := query{l.text, append([]any(nil), l.args...)}
	if p.After != "" {
		values, err := l.parseCursor(e, p.After)
		if err != nil {
			return query{}, err
		}
		q.text += fmt.Sprintf(` AND (%s) %s (%s)`, strings.Join(columns, ", "), compare, placeholders(len(q.args)+1, len(values)))
		q.args = append(q.args, values...)
	}
	// A number and not a parameter, so that the planner knows that few rows are wanted.
	q.text += fmt.Sprintf(`%s ORDER BY %s%s LIMIT %d`, l.group, strings.Join(columns, direction+", "), direction, p.Limit+1)
	return q, nil
}

// A row of a list. If it cannot be read in full, err says why.
type row[T any] struct {
	value T
	err   error
}

// read returns the rows of a page, and the cursor of the next one.
func (l *list[T]) read(ctx context.Context, s *Store, p Paging) (page []row[T], next string, err error) {
	q, err := l.paged(s.engine, p)
	if err != nil {
		return nil, "", err
	}
	rows, err := s.db.QueryContext(ctx, s.engine.translate(q.text), q.args...)
	if err != nil {
		return nil, "", fmt.Errorf("sqlkeys: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		if len(page) == p.Limit {
			next, err := l.cursor(page[p.Limit-1].value)
			return page, next, err
		}
		v, err := l.scan(rows)
		if err != nil && !errors.Is(err, ErrUnreadable) {
			return nil, "", err
		}
		page = append(page, row[T]{v, err})
	}
	if err := rows.Err(); err != nil {
		return nil, "", fmt.Errorf("sqlkeys: %w", err)
	}
	return page, "", nil
}

// page returns a page. If rows cannot be read in full, the page comes with the joined errors.
func (l *list[T]) page(ctx context.Context, s *Store, p Paging) (Page[T], error) {
	if p.Limit < 0 || p.Limit > maxLimit {
		return Page[T]{}, fmt.Errorf("sqlkeys: Paging.Limit: %w: %d, not in 0..%d", ErrInvalid, p.Limit, maxLimit)
	}
	if p.Limit == 0 {
		p.Limit = standardLimit
	}
	rows, next, err := l.read(ctx, s, p)
	if err != nil {
		return Page[T]{}, err
	}
	made := Page[T]{Items: make([]T, len(rows)), Next: next}
	var errs []error
	for i, r := range rows {
		made.Items[i] = r.value
		errs = append(errs, r.err)
	}
	return made, errors.Join(errs...)
}

// walk yields all rows, page by page. It goes on after rows that cannot be read in full.
func (l *list[T]) walk(ctx context.Context, s *Store) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		p := Paging{Limit: walkLimit}
		for {
			rows, next, err := l.read(ctx, s, p)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, r := range rows {
				if !yield(r.value, r.err) {
					return
				}
			}
			if next == "" {
				return
			}
			p.After = next
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
