package sqlkeys

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Rotation configures [Store.Rotate]. The zero value works.
type Rotation struct {
	_ [0]func()

	// Grace is how long the old key is still accepted, but never beyond its
	// own expiry. Zero means that it stops at once.
	Grace time.Duration
	// ExpiresAt is the expiry of the new key. Zero means that the new key lives
	// as long as the old one was issued for, and forever if that never expires.
	ExpiresAt time.Time
	// Format is the format of the new key. Empty means that of the old one.
	Format Format
}

// Rotate replaces a key by a new one with the same name, environment, metadata,
// scopes and networks, which works at once. It copies what it cannot read of these
// unchanged. It rejects a key that is revoked, expired, disabled or already rotated.
func (s *Store) Rotate(ctx context.Context, keyID string, r Rotation) (Issued, error) {
	if r.Grace < 0 {
		return Issued{}, fmt.Errorf("sqlkeys: rotate: %w: the grace %v is below 0", ErrInvalid, r.Grace)
	}
	var issued Issued
	err := s.changeKey(ctx, keyID, func(t *tx, now time.Time, k lockedKey) (err error) {
		if err := k.refuse(Revoked, Expired, Rotated, Retiring, Disabled); err != nil {
			return err
		}
		issued, err = t.rotate(now, k, r)
		return err
	})
	if err != nil {
		return Issued{}, err
	}
	return issued, nil
}

func (t *tx) rotate(now time.Time, k lockedKey, r Rotation) (Issued, error) {
	old, err := scanKey(t.row(selectKeys+` WHERE k.id = $1`, k.id))
	if err != nil && !errors.Is(err, ErrUnreadable) {
		return Issued{}, err
	}
	d, err := t.store.draft(successor(old, r, now), "")
	if err != nil {
		return Issued{}, err
	}
	d.key.Scopes, d.key.Networks = old.Scopes, old.Networks
	err = t.row(`SELECT metadata, scopes, networks FROM sqlkeys_keys WHERE id = $1`, k.id).Scan(&d.metadata, &d.scopes, &d.networks)
	if err != nil {
		return Issued{}, fmt.Errorf("sqlkeys: read a key: %w", err)
	}
	issued, err := t.issue([]draft{d}, "key.issue")
	if err != nil {
		return Issued{}, err
	}
	grace := now.Add(r.Grace).Truncate(time.Millisecond)
	entry := k.entry("key.rotate")
	entry.Detail = map[string]string{
		"replaced_by": issued[0].Key.ID,
		"grace_until": grace.Format(time.RFC3339Nano),
	}
	return issued[0], t.update(entry, `UPDATE sqlkeys_keys SET grace_until = $2, replaced_by = $3 WHERE id = $1`,
		k.id, t.instant(grace), issued[0].Key.ID)
}

// successor describes the key that replaces old.
func successor(old Key, r Rotation, now time.Time) NewKey {
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
	return n
}
