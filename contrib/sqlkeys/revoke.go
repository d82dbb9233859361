package sqlkeys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Disable makes the store refuse a key until [Store.Enable]. A revoked key
// cannot be changed any more.
func (s *Store) Disable(ctx context.Context, keyID string) error {
	return s.changeKey(ctx, keyID, func(t *tx, now time.Time, k lockedKey) error {
		if err := k.refuse(Revoked); err != nil || k.disabled {
			return err
		}
		return t.update(k.entry("key.disable"), `UPDATE sqlkeys_keys SET disabled_at = $2 WHERE id = $1`, k.id, t.instant(now))
	})
}

// Enable makes the store accept a key again that [Store.Disable] has disabled.
func (s *Store) Enable(ctx context.Context, keyID string) error {
	return s.changeKey(ctx, keyID, func(t *tx, _ time.Time, k lockedKey) error {
		if err := k.refuse(Revoked, Expired, Rotated); err != nil || !k.disabled {
			return err
		}
		return t.update(k.entry("key.enable"), `UPDATE sqlkeys_keys SET disabled_at = NULL WHERE id = $1`, k.id)
	})
}

// Revoke ends a key for good. Its row stays, for the audit.
func (s *Store) Revoke(ctx context.Context, keyID string) error {
	return s.changeKey(ctx, keyID, func(t *tx, now time.Time, k lockedKey) error {
		if err := k.refuse(Revoked); err != nil {
			return err
		}
		return t.update(k.entry("key.revoke"), `UPDATE sqlkeys_keys SET revoked_at = $2 WHERE id = $1`, k.id, t.instant(now))
	})
}

// A lockedKey is what a change needs to know of a key. It leaves out what
// cannot be read if somebody edited the row by hand, such as the metadata: even
// such a key can be revoked.
type lockedKey struct {
	id, senderID string
	state        State
	disabled     bool
}

// refuse returns an error if the key is in one of the states.
func (k lockedKey) refuse(states ...State) error {
	if !slices.Contains(states, k.state) {
		return nil
	}
	why := map[State]error{Revoked: ErrRevoked, Expired: ErrExpired, Rotated: ErrRotated, Retiring: ErrRotated, Disabled: ErrDisabled}
	return fmt.Errorf("sqlkeys: key %s: %w", k.id, why[k.state])
}

// entry describes an action on the key, for the audit.
func (k lockedKey) entry(action string) AuditEntry {
	return AuditEntry{Action: action, SenderID: k.senderID, KeyID: k.id}
}

// changeKey runs f while nobody else can change the key.
func (s *Store) changeKey(ctx context.Context, id string, f func(t *tx, now time.Time, k lockedKey) error) error {
	if err := checkKeyID(id); err != nil {
		return err
	}
	return s.change(ctx, func(t *tx) error {
		// Lock first. A query computes the state for the time when it began,
		// and this one may have to wait.
		var locked string
		err := t.row(`SELECT id FROM sqlkeys_keys WHERE id = $1 FOR UPDATE`, id).Scan(&locked)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("sqlkeys: key %s: %w", id, ErrNotFound)
		}
		if err != nil {
			return fmt.Errorf("sqlkeys: lock a key: %w", err)
		}
		var k lockedKey
		err = t.row(`SELECT k.id, k.sender_id, `+stateSQL+`, k.disabled_at IS NOT NULL FROM sqlkeys_keys k WHERE k.id = $1`, id).
			Scan(&k.id, &k.senderID, &k.state, &k.disabled)
		if err != nil {
			return fmt.Errorf("sqlkeys: read a key: %w", err)
		}
		now, err := t.now()
		if err != nil {
			return err
		}
		return f(t, now, k)
	})
}
