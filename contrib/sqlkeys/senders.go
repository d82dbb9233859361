package sqlkeys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/google/uuid"
	"github.com/senderauth/senderauth"
)

// A Sender is a tenant, and the owner of keys.
type Sender struct {
	ID         string                      // a UUID in lower case
	Limits     map[string]senderauth.Limit // its plan: what becomes [senderauth.Sender.Limits]
	Metadata   map[string]string           // the application's own
	CreatedAt  time.Time
	DisabledAt time.Time // zero: enabled
}

// NewSender is what [Store.CreateSender] needs to know.
type NewSender struct {
	_ [0]func()

	ID       string // "": a random one
	Limits   map[string]senderauth.Limit
	Metadata map[string]string // 16 KiB at most, as JSON: each look-up reads it
}

// CreateSender adds a sender, enabled and without keys. An ID that is taken is
// [ErrDuplicate].
func (s *Store) CreateSender(ctx context.Context, n NewSender) (Sender, error) {
	id, err := senderID(n.ID)
	if n.ID == "" {
		id, err = newUUID()
	}
	if err := errors.Join(err, invalid(checkLimits(n.Limits)), invalid(checkMetadata(n.Metadata))); err != nil {
		return Sender{}, err
	}
	var made Sender
	err = s.change(ctx, func(t *tx) error {
		made, err = t.createSender(id, n.Limits, n.Metadata)
		return err
	})
	return made, err
}

func (t *tx) createSender(id string, limits map[string]senderauth.Limit, metadata map[string]string) (Sender, error) {
	now, err := t.now()
	if err != nil {
		return Sender{}, err
	}
	_, err = t.exec(`INSERT INTO sqlkeys_senders (id, limits, metadata, created_at) VALUES ($1, $2, $3, $4)`,
		id, encodeLimits(limits), encodeMap(metadata), t.store.dialect.instant(now))
	if isDuplicate(err) {
		return Sender{}, fmt.Errorf("sqlkeys: sender %s: %w", id, ErrDuplicate)
	}
	if err != nil {
		return Sender{}, fmt.Errorf("sqlkeys: create sender: %w", err)
	}
	made := Sender{ID: id, Limits: limits, Metadata: metadata, CreatedAt: now}
	return made, t.record(now, "sender.create", id, "", limitDetail(limits))
}

func limitDetail(limits map[string]senderauth.Limit) map[string]string {
	d := make(map[string]string, len(limits))
	for name, l := range limits {
		d["limit."+name] = FormatLimit(l)
	}
	return d
}

// SetLimits replaces the plan of a sender.
func (s *Store) SetLimits(ctx context.Context, id string, limits map[string]senderauth.Limit) error {
	if err := invalid(checkLimits(limits)); err != nil {
		return err
	}
	return s.changeSender(ctx, id, func(t *tx, now time.Time, old Sender) error {
		if _, err := t.exec(`UPDATE sqlkeys_senders SET limits = $2 WHERE id = $1`, old.ID, encodeLimits(limits)); err != nil {
			return err
		}
		return t.record(now, "sender.limits", old.ID, "", limitDetail(limits))
	})
}

// DisableSender refuses every request of a sender until it is enabled again.
// Its keys stay as they are.
func (s *Store) DisableSender(ctx context.Context, id string) error {
	return s.changeSender(ctx, id, func(t *tx, now time.Time, old Sender) error {
		if !old.DisabledAt.IsZero() {
			return nil
		}
		if _, err := t.exec(`UPDATE sqlkeys_senders SET disabled_at = $2 WHERE id = $1`, old.ID, t.store.dialect.instant(now)); err != nil {
			return err
		}
		return t.record(now, "sender.disable", old.ID, "", nil)
	})
}

// EnableSender ends what DisableSender began.
func (s *Store) EnableSender(ctx context.Context, id string) error {
	return s.changeSender(ctx, id, func(t *tx, now time.Time, old Sender) error {
		if old.DisabledAt.IsZero() {
			return nil
		}
		if _, err := t.exec(`UPDATE sqlkeys_senders SET disabled_at = NULL WHERE id = $1`, old.ID); err != nil {
			return err
		}
		return t.record(now, "sender.enable", old.ID, "", nil)
	})
}

// changeSender runs f on a sender that nobody else changes meanwhile.
func (s *Store) changeSender(ctx context.Context, id string, f func(t *tx, now time.Time, old Sender) error) error {
	id, err := senderID(id)
	if err != nil {
		return err
	}
	return s.change(ctx, func(t *tx) error {
		old, err := scanSender(t.row(selectSenders+` WHERE s.id = $1`+s.dialect.lock("s"), id))
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("sqlkeys: sender %s: %w", id, ErrNotFound)
		}
		if err != nil {
			return err
		}
		now, err := t.now()
		if err != nil {
			return err
		}
		return f(t, now, old)
	})
}

const selectSenders = `SELECT s.id, s.limits, s.metadata, s.created_at, s.disabled_at FROM sqlkeys_senders s`

func scanSender(row interface{ Scan(...any) error }) (Sender, error) {
	var s Sender
	var limits, metadata string
	err := row.Scan(&s.ID, &limits, &metadata, scannedTime{&s.CreatedAt}, scannedTime{&s.DisabledAt})
	if err != nil {
		return Sender{}, fmt.Errorf("sqlkeys: read a sender: %w", err)
	}
	if s.Limits, err = decodeLimits(limits); err != nil {
		return Sender{}, fmt.Errorf("sqlkeys: sender %s: %w", s.ID, err)
	}
	if s.Metadata, err = decodeMap(metadata); err != nil {
		return Sender{}, fmt.Errorf("sqlkeys: sender %s: %w", s.ID, err)
	}
	return s, nil
}

// Sender returns one sender, or [ErrNotFound].
func (s *Store) Sender(ctx context.Context, id string) (Sender, error) {
	id, err := senderID(id)
	if err != nil {
		return Sender{}, err
	}
	found, err := scanSender(s.db.QueryRowContext(ctx, s.dialect.rewrite(selectSenders+` WHERE s.id = $1`), id))
	if errors.Is(err, sql.ErrNoRows) {
		return Sender{}, fmt.Errorf("sqlkeys: sender %s: %w", id, ErrNotFound)
	}
	return found, err
}

// Senders are all senders, the oldest first. It holds a connection until the
// loop ends; an error ends it.
func (s *Store) Senders(ctx context.Context) iter.Seq2[Sender, error] {
	return stream(ctx, s, selectSenders+` ORDER BY s.created_at, s.id`, nil, scanSender)
}

// stream yields the rows of a query.
func stream[T any](ctx context.Context, s *Store, query string, args []any, scan func(interface{ Scan(...any) error }) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		rows, err := s.db.QueryContext(ctx, s.dialect.rewrite(query), args...)
		if err != nil {
			yield(none, fmt.Errorf("sqlkeys: %w", err))
			return
		}
		defer rows.Close()
		for rows.Next() {
			v, err := scan(rows)
			if !yield(v, err) || err != nil {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(none, fmt.Errorf("sqlkeys: %w", err))
		}
	}
}

// failed yields an error alone.
func failed[T any](err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		yield(none, err)
	}
}

// now is the clock of the database, when it was first asked for.
func (t *tx) now() (time.Time, error) {
	if t.at.IsZero() {
		if err := t.row(`SELECT {now}`).Scan(scannedTime{&t.at}); err != nil {
			return time.Time{}, fmt.Errorf("sqlkeys: read the clock: %w", err)
		}
		t.at = t.at.Truncate(time.Millisecond)
	}
	return t.at, nil
}

// lock keeps others from changing the rows of a table until the transaction
// ends. SQLite locks the whole database.
func (d *dialect) lock(table string) string {
	if d.forUpdate == "" {
		return ""
	}
	return d.forUpdate + table
}

func invalid(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("sqlkeys: %w: %w", ErrInvalid, err)
}

// canonicalUUID returns a UUID of 36 characters in lower case, neither the nil
// nor the max UUID. The package uuid alone accepts other forms as well.
func canonicalUUID(s string) (string, bool) {
	if len(s) != 36 {
		return "", false
	}
	u, err := uuid.Parse(s)
	if err != nil || u == uuid.Nil || u == uuid.Max {
		return "", false
	}
	return u.String(), true
}

func senderID(s string) (string, error) {
	id, ok := canonicalUUID(s)
	if !ok {
		if len(s) > 36 {
			s = "…" // it may be a key
		}
		return "", fmt.Errorf("sqlkeys: sender %q: %w: not a UUID of 36 characters, or the nil or max UUID", s, ErrInvalid)
	}
	return id, nil
}

func newUUID() (string, error) {
	u, err := uuid.NewRandom()
	if err != nil {
		return "", fmt.Errorf("sqlkeys: %w", err)
	}
	return u.String(), nil
}
