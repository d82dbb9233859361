package sqlkeys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/senderauth/senderauth"
)

// An Environment is what a key is for. It is a label: it decides nothing here.
type Environment string

const (
	Development Environment = "development"
	Staging     Environment = "staging"
	Production  Environment = "production"
)

// A State is what a key is at an instant of the database's clock. Active and
// Retiring keys work.
type State string

const (
	Active   State = "active"
	Pending  State = "pending"  // its NotBefore is to come
	Retiring State = "retiring" // rotated, and within its grace period
	Rotated  State = "rotated"  // rotated, and past its grace period
	Disabled State = "disabled"
	Expired  State = "expired"
	Revoked  State = "revoked"
)

const stateSQL = `CASE
	WHEN k.revoked_at IS NOT NULL THEN 'revoked'
	WHEN k.expires_at <= {now} THEN 'expired'
	WHEN k.grace_until <= {now} THEN 'rotated'
	WHEN k.disabled_at IS NOT NULL THEN 'disabled'
	WHEN k.not_before > {now} THEN 'pending'
	WHEN k.grace_until IS NOT NULL THEN 'retiring'
	ELSE 'active' END`

// A Key is all that is known of a key, which is not the key itself. Instants
// that do not apply are zero.
type Key struct {
	ID          string // the public name; safe to log
	SenderID    string
	State       State
	Name        string
	Environment Environment
	Format      Format
	Metadata    map[string]string
	CreatedAt   time.Time
	NotBefore   time.Time
	ExpiresAt   time.Time
	GraceUntil  time.Time // of a key that was rotated
	ReplacedBy  string    // the ID of the key that it was rotated to
	DisabledAt  time.Time
	RevokedAt   time.Time
	LastUsedAt  time.Time // to within 15 minutes; see [Recorder]
}

// NewKey is what [Store.Issue] needs to know. Instants are kept to the
// millisecond.
type NewKey struct {
	_ [0]func()

	SenderID    string
	Name        string            // 200 bytes at most
	Environment Environment       // "": Production
	Format      Format            // "": FormatUUID
	NotBefore   time.Time         // zero: works at once
	ExpiresAt   time.Time         // zero: never
	Metadata    map[string]string // 16 KiB at most, as JSON
}

// Issued is a new key. Its Credentials hold the one copy of it that there is:
// they print, log and marshal without it.
type Issued struct {
	Key         Key
	Credentials senderauth.Credentials
}

// Issue makes a key for a sender that exists.
func (s *Store) Issue(ctx context.Context, n NewKey) (Issued, error) {
	issued, err := s.IssueAll(ctx, []NewKey{n})
	if err != nil {
		return Issued{}, err
	}
	return issued[0], nil
}

// IssueAll makes all keys in one transaction, or none.
func (s *Store) IssueAll(ctx context.Context, ns []NewKey) ([]Issued, error) {
	drafts := make([]draft, len(ns))
	var errs []error
	for i, n := range ns {
		var err error
		if drafts[i], err = s.draft(n, ""); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	var issued []Issued
	err := s.change(ctx, func(t *tx) (err error) {
		issued, err = t.issue(drafts, "key.issue")
		return err
	})
	return issued, err
}

// A draft is a key that is not stored yet.
type draft struct {
	key    Key
	secret string
}

// draft checks n and fills in what it leaves out. secret is a key of the
// caller's; "": a random one.
func (s *Store) draft(n NewKey, secret string) (draft, error) {
	var errs []error
	report := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("sqlkeys: new key: %w: "+format, append([]any{ErrInvalid}, args...)...))
	}
	id, err := senderID(n.SenderID)
	if err != nil {
		errs = append(errs, err)
	}
	if n.Environment == "" {
		n.Environment = Production
	}
	if !slices.Contains([]Environment{Development, Staging, Production}, n.Environment) {
		report("environment %q is not one of %s, %s and %s", n.Environment, Development, Staging, Production)
	}
	if n.Format == "" {
		n.Format = FormatUUID
	}
	if n.Format != FormatUUID && n.Format != FormatPrefixed {
		report("format %q is not one of %s and %s", n.Format, FormatUUID, FormatPrefixed)
	}
	if !n.ExpiresAt.IsZero() && !n.ExpiresAt.After(n.NotBefore) {
		report("it would expire at %s, before it works", n.ExpiresAt.Format(time.RFC3339))
	}
	if len(n.Name) > 200 {
		report("the name has %d bytes; 200 are the most", len(n.Name))
	}
	if !keepable(n.Name) {
		report("the name is not UTF-8 text")
	}
	if err := checkMetadata(n.Metadata); err != nil {
		report("%w", err)
	}
	if err := errors.Join(errs...); err != nil {
		return draft{}, err
	}
	if secret == "" {
		if secret, err = s.newKey(n.Format); err != nil {
			return draft{}, err
		}
	}
	return draft{
		key: Key{
			ID:          newKeyID(),
			SenderID:    id,
			Name:        n.Name,
			Environment: n.Environment,
			Format:      n.Format,
			Metadata:    n.Metadata,
			NotBefore:   millisecond(n.NotBefore),
			ExpiresAt:   millisecond(n.ExpiresAt),
		},
		secret: secret,
	}, nil
}

func millisecond(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Millisecond)
}

// insertRows is how many rows go into one INSERT: PostgreSQL takes 65,535
// parameters, SQLite 32,766.
const insertRows = 500

// issue stores the drafts.
func (t *tx) issue(drafts []draft, action string) ([]Issued, error) {
	now, err := t.now()
	if err != nil {
		return nil, err
	}
	bySender := make(map[string][]string)
	for _, d := range drafts {
		if !d.key.ExpiresAt.IsZero() && !d.key.ExpiresAt.After(now) {
			return nil, fmt.Errorf("sqlkeys: new key: %w: the expiry %s is in the past", ErrInvalid, d.key.ExpiresAt.Format(time.RFC3339))
		}
		bySender[d.key.SenderID] = append(bySender[d.key.SenderID], d.key.ID)
	}
	for sender := range bySender {
		var one int
		err := t.row(`SELECT 1 FROM sqlkeys_senders WHERE id = $1`, sender).Scan(&one)
		if errors.Is(err, sql.ErrNoRows) {
			return nil, fmt.Errorf("sqlkeys: sender %s: %w", sender, ErrNotFound)
		}
		if err != nil {
			return nil, fmt.Errorf("sqlkeys: issue: %w", err)
		}
	}
	issued := make([]Issued, 0, len(drafts))
	for some := range slices.Chunk(drafts, insertRows) {
		args := make([]any, 0, 10*len(some))
		for _, d := range some {
			k := &d.key
			k.CreatedAt = now
			if k.State = Active; k.NotBefore.After(now) {
				k.State = Pending
			}
			in := t.store.dialect.instant
			args = append(args, k.ID, k.SenderID, digest(t.store.peppers[0], d.secret), string(k.Format), k.Name,
				string(k.Environment), encodeMap(k.Metadata), in(now), in(k.NotBefore), in(k.ExpiresAt))
			issued = append(issued, Issued{
				Key:         *k,
				Credentials: senderauth.Credentials{SenderID: k.SenderID, APIKey: d.secret},
			})
		}
		_, err := t.exec(`INSERT INTO sqlkeys_keys (id, sender_id, digest, format, name, environment, metadata, created_at, not_before, expires_at) VALUES `+
			t.store.dialect.values(len(some), 10), args...)
		if isDuplicate(err) {
			return nil, fmt.Errorf("sqlkeys: the key: %w", ErrDuplicate)
		}
		if err != nil {
			return nil, fmt.Errorf("sqlkeys: issue: %w", err)
		}
	}
	for sender, ids := range bySender {
		for some := range slices.Chunk(ids, insertRows) {
			if err := t.recordAll(now, action, sender, some, nil); err != nil {
				return nil, err
			}
		}
	}
	return issued, nil
}

// Rotation is how [Store.Rotate] replaces a key.
type Rotation struct {
	_ [0]func()

	// Grace is how long the old key goes on working, at most until its own
	// expiry. 0: it stops at once.
	Grace time.Duration
	// ExpiresAt is the expiry of the new key. Zero: after as long as the old
	// one was given, or never where that never expires.
	ExpiresAt time.Time
	// Format of the new key. "": that of the old one.
	Format Format
}

// Rotate issues a key in the place of another, with its name, environment and
// metadata. The new one works at once. A key that is rotated already, disabled
// or expired cannot be rotated, nor one that is revoked.
func (s *Store) Rotate(ctx context.Context, keyID string, r Rotation) (Issued, error) {
	if r.Grace < 0 {
		return Issued{}, fmt.Errorf("sqlkeys: rotate: %w: the grace %v is below 0", ErrInvalid, r.Grace)
	}
	var issued Issued
	err := s.changeKey(ctx, keyID, func(t *tx, now time.Time, old Key) error {
		if err := old.changeable(Revoked, Expired, Rotated, Retiring, Disabled); err != nil {
			return err
		}
		n := NewKey{
			SenderID:    old.SenderID,
			Name:        old.Name,
			Environment: old.Environment,
			Format:      r.Format,
			ExpiresAt:   r.ExpiresAt,
			Metadata:    old.Metadata,
		}
		if n.Format == "" {
			n.Format = old.Format
		}
		if n.ExpiresAt.IsZero() && !old.ExpiresAt.IsZero() {
			n.ExpiresAt = now.Add(old.ExpiresAt.Sub(old.CreatedAt))
		}
		d, err := s.draft(n, "")
		if err != nil {
			return err
		}
		made, err := t.issue([]draft{d}, "key.issue")
		if err != nil {
			return err
		}
		issued = made[0]
		grace := now.Add(r.Grace).Truncate(time.Millisecond)
		_, err = t.exec(`UPDATE sqlkeys_keys SET grace_until = $2, replaced_by = $3 WHERE id = $1`,
			old.ID, s.dialect.instant(grace), issued.Key.ID)
		if err != nil {
			return fmt.Errorf("sqlkeys: rotate: %w", err)
		}
		return t.record(now, "key.rotate", old.SenderID, old.ID, map[string]string{
			"replaced_by": issued.Key.ID,
			"grace_until": grace.Format(time.RFC3339Nano),
		})
	})
	if err != nil {
		return Issued{}, err
	}
	return issued, nil
}

// Disable refuses a key until it is enabled again. A key that is revoked
// cannot be changed any more.
func (s *Store) Disable(ctx context.Context, keyID string) error {
	return s.changeKey(ctx, keyID, func(t *tx, now time.Time, old Key) error {
		if err := old.changeable(Revoked); err != nil {
			return err
		}
		if !old.DisabledAt.IsZero() {
			return nil
		}
		return t.setKey(now, old, "key.disable", "disabled_at", s.dialect.instant(now))
	})
}

// Enable ends what Disable began.
func (s *Store) Enable(ctx context.Context, keyID string) error {
	return s.changeKey(ctx, keyID, func(t *tx, now time.Time, old Key) error {
		if err := old.changeable(Revoked, Expired, Rotated); err != nil {
			return err
		}
		if old.DisabledAt.IsZero() {
			return nil
		}
		return t.setKey(now, old, "key.enable", "disabled_at", nil)
	})
}

// Revoke ends a key for good. It stays as a tombstone, for the audit.
func (s *Store) Revoke(ctx context.Context, keyID string) error {
	return s.changeKey(ctx, keyID, func(t *tx, now time.Time, old Key) error {
		if err := old.changeable(Revoked); err != nil {
			return err
		}
		return t.setKey(now, old, "key.revoke", "revoked_at", s.dialect.instant(now))
	})
}

func (t *tx) setKey(now time.Time, k Key, action, column string, value any) error {
	if _, err := t.exec(`UPDATE sqlkeys_keys SET `+column+` = $2 WHERE id = $1`, k.ID, value); err != nil {
		return fmt.Errorf("sqlkeys: %s: %w", action, err)
	}
	return t.record(now, action, k.SenderID, k.ID, nil)
}

// changeable reports that a key in one of these states cannot be changed.
func (k *Key) changeable(not ...State) error {
	if !slices.Contains(not, k.State) {
		return nil
	}
	why := map[State]error{Revoked: ErrRevoked, Expired: ErrExpired, Rotated: ErrRotated, Retiring: ErrRotated, Disabled: ErrDisabled}
	return fmt.Errorf("sqlkeys: key %s: %w", k.ID, why[k.State])
}

// changeKey runs f on a key that nobody else changes meanwhile.
func (s *Store) changeKey(ctx context.Context, id string, f func(t *tx, now time.Time, old Key) error) error {
	if err := checkKeyID(id); err != nil {
		return err
	}
	return s.change(ctx, func(t *tx) error {
		// The lock first: the state that the query tells is that of the time
		// when it began, and it may have waited.
		var locked string
		err := t.row(`SELECT k.id FROM sqlkeys_keys k WHERE k.id = $1`+s.dialect.lock("k"), id).Scan(&locked)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("sqlkeys: key %s: %w", id, ErrNotFound)
		}
		if err != nil {
			return fmt.Errorf("sqlkeys: lock a key: %w", err)
		}
		old, err := scanKey(t.row(selectKeys+` WHERE k.id = $1`, id))
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

const selectKeys = `SELECT k.id, k.sender_id, ` + stateSQL + `, k.name, k.environment, k.format, k.metadata,
	k.created_at, k.not_before, k.expires_at, k.grace_until, coalesce(k.replaced_by, ''), k.disabled_at, k.revoked_at, u.last_used_at
	FROM sqlkeys_keys k LEFT JOIN sqlkeys_last_used u ON u.key_id = k.id`

func scanKey(row interface{ Scan(...any) error }) (Key, error) {
	var k Key
	var metadata string
	err := row.Scan(&k.ID, &k.SenderID, &k.State, &k.Name, &k.Environment, &k.Format, &metadata,
		scannedTime{&k.CreatedAt}, scannedTime{&k.NotBefore}, scannedTime{&k.ExpiresAt}, scannedTime{&k.GraceUntil},
		&k.ReplacedBy, scannedTime{&k.DisabledAt}, scannedTime{&k.RevokedAt}, scannedTime{&k.LastUsedAt})
	if err == nil {
		k.Metadata, err = decodeMap(metadata)
	}
	if err != nil {
		return Key{}, fmt.Errorf("sqlkeys: read a key: %w", err)
	}
	return k, nil
}

// Key returns one key, or [ErrNotFound].
func (s *Store) Key(ctx context.Context, id string) (Key, error) {
	if err := checkKeyID(id); err != nil {
		return Key{}, err
	}
	k, err := scanKey(s.db.QueryRowContext(ctx, s.dialect.rewrite(selectKeys+` WHERE k.id = $1`), id))
	if errors.Is(err, sql.ErrNoRows) {
		return Key{}, fmt.Errorf("sqlkeys: key %s: %w", id, ErrNotFound)
	}
	return k, err
}

// Keys are the keys of a sender, revoked ones included, the oldest first; with
// "" those of all senders. It holds a connection until the loop ends; an error
// ends it.
func (s *Store) Keys(ctx context.Context, ofSender string) iter.Seq2[Key, error] {
	if ofSender == "" {
		return stream(ctx, s, selectKeys+` ORDER BY k.sender_id, k.created_at, k.id`, nil, scanKey)
	}
	id, err := senderID(ofSender)
	if err != nil {
		return failed[Key](err)
	}
	return stream(ctx, s, selectKeys+` WHERE k.sender_id = $1 ORDER BY k.created_at, k.id`, []any{id}, scanKey)
}
