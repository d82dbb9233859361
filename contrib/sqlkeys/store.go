package sqlkeys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	lru "github.com/hashicorp/golang-lru/v2"
)

// Config configures [Open], which reads it once. The zero value works.
type Config struct {
	_ [0]func()

	// Migrate creates the schema or brings it up to date first, as the
	// function [Migrate] does.
	Migrate bool
	// Peppers are secrets of at least 16 bytes. The store mixes one into the
	// digest of each key, so that a copy of the database is not enough to test
	// guessed keys. New keys use the first pepper. A lookup tries all of them
	// in one query. To rotate, put the new pepper first, and remove the old one
	// when all keys issued under it are gone. An empty pepper stands for
	// digests without one. Without Peppers the store uses none.
	Peppers [][]byte
	// Prefix is the part of a FormatPrefixed key before the underscore: at most
	// 32 ASCII letters and digits. Empty means sender.
	Prefix string
	// AcceptKey reports whether a key may be one of another form than the store issues, such
	// as an imported one (see [Store.Import]). The store looks it up as it is. A key that is
	// a UUID is always accepted, in lower case. Nil accepts no other form.
	AcceptKey func(key string) bool
	// Actor is the name that the audit records for changes whose context
	// carries none (see [WithActor]). Empty means unknown.
	Actor string
	// Logger receives a record when Watch loses or regains its feed, and when
	// a Recorder cannot write. Nil discards them.
	Logger *slog.Logger
}

// validate reports every mistake, in the order of the fields.
func (cfg *Config) validate() error {
	var errs []error
	for i, p := range cfg.Peppers {
		if len(p) > 0 && len(p) < 16 {
			errs = append(errs, fmt.Errorf("sqlkeys: Config.Peppers[%d]: %w: %d bytes, fewer than 16", i, ErrInvalid, len(p)))
		}
		if slices.ContainsFunc(cfg.Peppers[:i], func(q []byte) bool { return string(p) == string(q) }) {
			errs = append(errs, fmt.Errorf("sqlkeys: Config.Peppers[%d]: %w: it repeats an earlier pepper", i, ErrInvalid))
		}
	}
	if len(cfg.Peppers) > 8 {
		errs = append(errs, fmt.Errorf("sqlkeys: Config.Peppers: %w: %d peppers, more than 8", ErrInvalid, len(cfg.Peppers)))
	}
	if cfg.Prefix != "" && !validPrefix(cfg.Prefix) {
		errs = append(errs, fmt.Errorf("sqlkeys: Config.Prefix %q: %w: not 1 to 32 ASCII letters and digits", cfg.Prefix, ErrInvalid))
	}
	return errors.Join(errs...)
}

// rememberedRevocations take about 1 MiB.
const rememberedRevocations = 10_000

// A Store keeps senders and keys in a database. Its methods are safe for
// concurrent use.
type Store struct {
	db     *sql.DB
	engine engine
	lookup lookup

	peppers [][]byte
	prefix  string
	accept  func(key string) bool        // may be nil
	revoked *lru.Cache[string, struct{}] // IDs of keys that this store has refused as revoked
	feeds   feeds
	actor   string
	log     *slog.Logger
}

// Open returns a store on db, a pool of the drivers that [OpenDB] uses, under
// any name. The pool stays the caller's: the store neither closes it nor
// changes its limits. Open reports every mistake in cfg at once. It returns
// [ErrSchemaMissing], [ErrSchemaOlder] or [ErrSchemaNewer] if the database has
// another schema than this package needs.
func Open(ctx context.Context, db *sql.DB, cfg Config) (*Store, error) {
	e, err := engineOf(db)
	if err := errors.Join(err, cfg.validate()); err != nil {
		return nil, err
	}
	if cfg.Migrate {
		err = Migrate(ctx, db)
	} else {
		err = checkSchema(ctx, e)
	}
	if err != nil {
		return nil, err
	}

	s := &Store{db: db, engine: e, prefix: cfg.Prefix, accept: cfg.AcceptKey, actor: cfg.Actor, log: cfg.Logger}
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
	if s.revoked, err = lru.New[string, struct{}](rememberedRevocations); err != nil {
		return nil, err
	}
	if s.lookup, err = e.prepareLookup(ctx, e.translate(lookupQuery(len(s.peppers))), len(s.peppers)); err != nil {
		return nil, fmt.Errorf("sqlkeys: prepare the lookup: %w", err)
	}
	return s, nil
}

// Close releases the statement that the store has prepared on connections of
// the pool. The pool stays open.
func (s *Store) Close() error { return s.lookup.close() }
