package sqlkeys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config configures [Open]. It is read once, and its zero value is good.
type Config struct {
	_ [0]func()

	// Migrate brings an older or missing schema up to date first, as [Migrate]
	// does.
	Migrate bool
	// Peppers are secrets of 16 bytes and more that are mixed into the digest
	// of a key, so that a copy of the database alone does not tell whether a
	// key is right. New keys get the first; a look-up tries all of them, in
	// one query. To rotate a pepper put the new one in front, and drop the old
	// one when the keys issued under it are gone. An empty one stands for
	// digests without a pepper. None: no pepper.
	Peppers [][]byte
	// Prefix is what keys of FormatPrefixed start with, up to the underscore
	// that follows it: letters and digits, at most 32. "": sender.
	Prefix string
	// Actor is who the audit names where the context names nobody. "":
	// unknown.
	Actor string
	// Logger is told when the feed of Watch is lost and when it is back, and
	// when a Recorder cannot write. Nil: nobody is told.
	Logger *slog.Logger
}

// A Store keeps senders and keys in a database. Its methods are safe for
// concurrent use.
type Store struct {
	db      *sql.DB
	dialect *dialect
	lookup  func(ctx context.Context, digests ...any) *sql.Row
	close   func() error

	peppers [][]byte
	prefix  string
	actor   string
	log     *slog.Logger

	local broadcast
}

// Open returns a store in db, whose driver is that of [OpenDB], or the same
// under another name. The pool stays the caller's: no method closes it, and
// its limits are those that the caller has set. Every mistake in cfg is
// reported at once. A database with another schema is [ErrSchemaMissing],
// [ErrSchemaOlder] or [ErrSchemaNewer].
func Open(ctx context.Context, db *sql.DB, cfg Config) (*Store, error) {
	d, err := dialectOf(db)
	errs := []error{err}
	for i, p := range cfg.Peppers {
		if len(p) > 0 && len(p) < 16 {
			errs = append(errs, fmt.Errorf("sqlkeys: Config.Peppers[%d] has %d bytes; 16 are the least", i, len(p)))
		}
		if slices.ContainsFunc(cfg.Peppers[:i], func(q []byte) bool { return string(p) == string(q) }) {
			errs = append(errs, fmt.Errorf("sqlkeys: Config.Peppers[%d] is given twice", i))
		}
	}
	if len(cfg.Peppers) > 8 {
		errs = append(errs, fmt.Errorf("sqlkeys: Config.Peppers: %d are more than 8", len(cfg.Peppers)))
	}
	if cfg.Prefix != "" && !validPrefix(cfg.Prefix) {
		errs = append(errs, fmt.Errorf("sqlkeys: Config.Prefix: %q is not 1 to 32 ASCII letters and digits", cfg.Prefix))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}

	if cfg.Migrate {
		if err := Migrate(ctx, db); err != nil {
			return nil, err
		}
	} else if err := d.checkSchema(ctx, db); err != nil {
		return nil, err
	}

	s := &Store{db: db, dialect: d, prefix: cfg.Prefix, actor: cfg.Actor, log: cfg.Logger}
	for _, p := range cfg.Peppers {
		s.peppers = append(s.peppers, slices.Clone(p))
	}
	if s.peppers == nil {
		s.peppers = [][]byte{nil}
	}
	if s.prefix == "" {
		s.prefix = "sender"
	}
	if s.actor == "" {
		s.actor = "unknown"
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	query := d.lookupSQL(len(s.peppers))
	stmt, err := db.PrepareContext(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("sqlkeys: prepare the look-up: %w", err)
	}
	s.lookup, s.close = stmt.QueryRowContext, stmt.Close
	if d == &postgresDialect {
		// pgx prepares what it is asked often by itself, and does so anew
		// after the type of a column has changed, which would break a
		// statement of ours until the end of its connection.
		if err := stmt.Close(); err != nil {
			return nil, fmt.Errorf("sqlkeys: prepare the look-up: %w", err)
		}
		s.lookup = func(ctx context.Context, digests ...any) *sql.Row {
			return db.QueryRowContext(ctx, query, digests...)
		}
		s.close = func() error { return nil }
	}
	return s, nil
}

// Close gives back what the store holds on the connections of its pool. The
// pool itself stays open.
func (s *Store) Close() error { return s.close() }

type actorKey struct{}

// WithActor returns a context that names who makes a change, for the audit.
func WithActor(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, actorKey{}, who)
}

// A querier is a connection inside of a transaction.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// change runs f in a transaction: all of it, or nothing. Watchers of this
// process are told.
func (s *Store) change(ctx context.Context, f func(*tx) error) error {
	err := s.dialect.transact(ctx, s.db, func(q querier) error {
		t := &tx{querier: q, store: s, ctx: ctx}
		return f(t)
	})
	if err == nil {
		s.local.tell()
	}
	return err
}

// A tx is a change under way.
type tx struct {
	querier
	store *Store
	ctx   context.Context
	at    time.Time // of the change, once now has been asked
}

func (t *tx) exec(query string, args ...any) (changed int64, err error) {
	res, err := t.ExecContext(t.ctx, t.store.dialect.rewrite(query), args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (t *tx) row(query string, args ...any) *sql.Row {
	return t.QueryRowContext(t.ctx, t.store.dialect.rewrite(query), args...)
}

// A broadcast wakes all who wait for it.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *broadcast) tell() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}

// values returns the placeholders of a multi-row INSERT. SQLite finds numbered
// ones in a list, the longer the slower.
func (d *dialect) values(rows, columns int) string {
	var b strings.Builder
	for i := range rows * columns {
		switch {
		case i == 0:
			b.WriteByte('(')
		case i%columns == 0:
			b.WriteString("),(")
		default:
			b.WriteByte(',')
		}
		if d == &sqliteDialect {
			b.WriteByte('?')
		} else {
			fmt.Fprintf(&b, "$%d", i+1)
		}
	}
	b.WriteByte(')')
	return b.String()
}
