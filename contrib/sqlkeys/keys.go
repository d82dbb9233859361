package sqlkeys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"time"
)

// An Environment says what a key is for. It is a label without any effect.
type Environment string

const (
	Development Environment = "development"
	Staging     Environment = "staging"
	Production  Environment = "production"
)

// A State is the condition of a key by the clock of the database. Only Active
// and Retiring keys are accepted.
type State string

const (
	Active   State = "active"
	Pending  State = "pending"  // before its NotBefore
	Retiring State = "retiring" // rotated, and within its grace period
	Rotated  State = "rotated"  // rotated, and past its grace period
	Disabled State = "disabled"
	Expired  State = "expired"
	Revoked  State = "revoked"
)

const stateSQL = `CASE
	WHEN k.revoked_at IS NOT NULL THEN 'revoked'
	WHEN k.expires_at <= clock_timestamp() THEN 'expired'
	WHEN k.grace_until <= clock_timestamp() THEN 'rotated'
	WHEN k.disabled_at IS NOT NULL THEN 'disabled'
	WHEN k.not_before > clock_timestamp() THEN 'pending'
	WHEN k.grace_until IS NOT NULL THEN 'retiring'
	ELSE 'active' END`

// worksSQL tells whether a key works now.
const worksSQL = `(` + stateSQL + `) IN ('active', 'retiring')`

// endSQL is the end of a key, or NULL.
const endSQL = `least(k.expires_at, k.grace_until)`

// A Key describes a key without the secret itself. Instants that do not apply
// are zero.
type Key struct {
	ID          string // the public name, safe to log
	SenderID    string
	State       State
	Name        string
	Environment Environment
	Format      Format
	Metadata    map[string]string
	Scopes      []string       // nil only if unreadable
	Networks    []netip.Prefix // nil means any, or unreadable
	CreatedAt   time.Time
	NotBefore   time.Time
	ExpiresAt   time.Time
	GraceUntil  time.Time // set by rotation
	ReplacedBy  string    // the ID of the key that replaced it in a rotation
	DisabledAt  time.Time
	RevokedAt   time.Time
	LastUsedAt  time.Time // accurate to 15 minutes; see [Recorder]
}

// Ends returns the instant at which the key stops working: the earlier of ExpiresAt
// and GraceUntil. The zero time means never.
func (k Key) Ends() time.Time {
	if k.ExpiresAt.IsZero() || !k.GraceUntil.IsZero() && k.GraceUntil.Before(k.ExpiresAt) {
		return k.GraceUntil
	}
	return k.ExpiresAt
}

const selectKeys = `SELECT k.id, k.sender_id, ` + stateSQL + `, k.name, k.environment, k.format, k.metadata, k.scopes, k.networks,
	k.created_at, k.not_before, k.expires_at, k.grace_until, coalesce(k.replaced_by, ''), k.disabled_at, k.revoked_at, u.last_used_at
	FROM sqlkeys_keys k LEFT JOIN sqlkeys_last_used u ON u.key_id = k.id`

func scanKey(row scanner) (Key, error) {
	var k Key
	var metadata, scopes, networks string
	err := row.Scan(&k.ID, &k.SenderID, &k.State, &k.Name, &k.Environment, &k.Format, &metadata, &scopes, &networks,
		scannedTime{&k.CreatedAt}, scannedTime{&k.NotBefore}, scannedTime{&k.ExpiresAt}, scannedTime{&k.GraceUntil},
		&k.ReplacedBy, scannedTime{&k.DisabledAt}, scannedTime{&k.RevokedAt}, scannedTime{&k.LastUsedAt})
	if err != nil {
		return Key{}, fmt.Errorf("sqlkeys: read a key: %w", err)
	}
	var errs [3]error
	k.Metadata, errs[0] = decodeMap(metadata)
	k.Scopes, errs[1] = decodeScopes(scopes)
	k.Networks, errs[2] = decodeNetworks(networks)
	return k, inRow("key "+k.ID, errs[:], "metadata", "scopes", "networks")
}

// Key returns one key, or [ErrNotFound]. If it returns [ErrUnreadable], the key
// has what can be read.
func (s *Store) Key(ctx context.Context, id string) (Key, error) {
	if err := checkKeyID(id); err != nil {
		return Key{}, err
	}
	k, err := scanKey(s.row(ctx, selectKeys+` WHERE k.id = $1`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return Key{}, fmt.Errorf("sqlkeys: key %s: %w", id, ErrNotFound)
	}
	return k, err
}

// KeyFilter selects keys. The zero filter selects all of them, including revoked
// ones.
type KeyFilter struct {
	_ [0]func()

	SenderID string
	// State selects keys in one state. Empty selects keys in any state.
	State State
	// EndsBefore selects keys that are active or retiring and have an end before that
	// instant; see [Key.Ends]. Zero selects keys in any state.
	EndsBefore time.Time
}

// Keys yields keys by sender, the oldest first. With EndsBefore or the state Expired it
// yields those first whose end comes first. It reads page by page and holds no
// connection in between. It goes on after [ErrUnreadable], which comes with what can be
// read of a key, and stops after any other error.
func (s *Store) Keys(ctx context.Context, f KeyFilter) iter.Seq2[Key, error] {
	l, err := s.keyList(f)
	if err != nil {
		return failed[Key](err)
	}
	return l.walk(ctx, s)
}

// KeysPage returns a page of what [Store.Keys] yields. If it returns [ErrUnreadable],
// the page has what can be read.
func (s *Store) KeysPage(ctx context.Context, f KeyFilter, p Paging) (Page[Key], error) {
	l, err := s.keyList(f)
	if err != nil {
		return Page[Key]{}, err
	}
	return l.page(ctx, s, p)
}

// impliedSQL has for each state what a key in it always meets. An index covers the keys
// that meet it, so that the others need not be read.
var impliedSQL = map[State]string{
	Active:   `k.revoked_at IS NULL`,
	Pending:  `k.not_before IS NOT NULL`,
	Retiring: `k.grace_until IS NOT NULL`,
	Rotated:  `k.grace_until IS NOT NULL`,
	Disabled: `k.disabled_at IS NOT NULL`,
	Expired:  endSQL + ` <= (SELECT clock_timestamp()) AND k.revoked_at IS NULL`,
	Revoked:  `k.revoked_at IS NOT NULL`,
}

func (s *Store) keyList(f KeyFilter) (*list[Key], error) {
	l := &list[Key]{query: query{text: selectKeys + ` WHERE 1 = 1`}, scan: scanKey}
	l.name, l.order, l.position = orderKeys(f.SenderID != "", f.State == Expired || !f.EndsBefore.IsZero())
	if f.SenderID != "" {
		id, err := canonicalSenderID(f.SenderID)
		if err != nil {
			return nil, err
		}
		l.and(`k.sender_id`, `=`, id)
	}
	if f.State != "" {
		implied, ok := impliedSQL[f.State]
		if !ok {
			return nil, fmt.Errorf("sqlkeys: KeyFilter.State: %w: there is no state %q", ErrInvalid, f.State)
		}
		l.text += ` AND ` + implied
		l.and(stateSQL, `=`, string(f.State))
	}
	if !f.EndsBefore.IsZero() {
		l.and(endSQL, `<`, s.engine.instant(f.EndsBefore))
		l.text += ` AND ` + endSQL + ` > (SELECT clock_timestamp()) AND k.revoked_at IS NULL AND ` + worksSQL
	}
	return l, nil
}

// orderKeys chooses the order of a list of keys.
func orderKeys(ofOne, byEnd bool) (name string, order []column, position func(Key) ([]string, error)) {
	switch {
	case byEnd:
		return "keys by end", []column{instantColumn(endSQL), textColumn(`k.id`)}, func(k Key) ([]string, error) {
			end, err := cursorInstant(k.Ends())
			return []string{end, k.ID}, err
		}
	case ofOne:
		return "keys", []column{instantColumn(`k.created_at`), textColumn(`k.id`)}, func(k Key) ([]string, error) {
			created, err := cursorInstant(k.CreatedAt)
			return []string{created, k.ID}, err
		}
	}
	return "keys by sender", []column{senderColumn(`k.sender_id`), instantColumn(`k.created_at`), textColumn(`k.id`)}, func(k Key) ([]string, error) {
		created, err := cursorInstant(k.CreatedAt)
		return []string{k.SenderID, created, k.ID}, err
	}
}
