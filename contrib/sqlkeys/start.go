package sqlkeys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/senderauth/senderauth"
)

// Adopt takes a pair into the store that was made elsewhere: in an environment
// variable, say. What is missing is made, the sender, the key or both, and
// what is there is left as it is: a key that was revoked stays revoked. So
// every instance can do it at every start, and several at once. The key must
// be one that [Store.CheckKey] accepts; one that another sender has is
// [ErrDuplicate].
func (s *Store) Adopt(ctx context.Context, c senderauth.Credentials) (Key, error) {
	secret, ok := s.canonicalKey(c.APIKey)
	if !ok {
		return Key{}, fmt.Errorf("sqlkeys: adopt: %w: the key is neither a UUID nor a prefixed key with the right checksum", ErrInvalid)
	}
	n := NewKey{SenderID: c.SenderID, Name: "adopted", Format: FormatPrefixed}
	if _, ok := canonicalUUID(secret); ok {
		n.Format = FormatUUID
	}
	d, err := s.draft(n, secret)
	if err != nil {
		return Key{}, err
	}
	var key Key
	err = s.change(ctx, func(t *tx) error {
		if err := t.alone(); err != nil {
			return err
		}
		for _, p := range s.peppers {
			key, err = scanKey(t.row(selectKeys+` WHERE k.digest = $1`, digest(p, secret)))
			if err == nil && key.SenderID != d.key.SenderID {
				return fmt.Errorf("sqlkeys: adopt: the key of another sender: %w", ErrDuplicate)
			}
			if !errors.Is(err, sql.ErrNoRows) {
				return err
			}
		}
		_, err := scanSender(t.row(selectSenders+` WHERE s.id = $1`, d.key.SenderID))
		if errors.Is(err, sql.ErrNoRows) {
			_, err = t.createSender(d.key.SenderID, nil, nil)
		}
		if err != nil {
			return err
		}
		issued, err := t.issue([]draft{d}, "key.adopt")
		if err != nil {
			return err
		}
		key = issued[0].Key
		return nil
	})
	if err != nil {
		return Key{}, err
	}
	return key, nil
}

// IssueFirst makes a sender and a key for it where the store has no sender at
// all, and reports whether it did. Of several instances at once one does.
func (s *Store) IssueFirst(ctx context.Context) (issued Issued, first bool, err error) {
	id, err := newUUID()
	if err != nil {
		return Issued{}, false, err
	}
	d, err := s.draft(NewKey{SenderID: id, Name: "first"}, "")
	if err != nil {
		return Issued{}, false, err
	}
	err = s.change(ctx, func(t *tx) error {
		if err := t.alone(); err != nil {
			return err
		}
		var some bool
		if err := t.row(`SELECT EXISTS (SELECT 1 FROM sqlkeys_senders)`).Scan(&some); err != nil || some {
			return err
		}
		if _, err := t.createSender(id, nil, nil); err != nil {
			return err
		}
		made, err := t.issue([]draft{d}, "key.issue")
		if err != nil {
			return err
		}
		issued, first = made[0], true
		return nil
	})
	if err != nil {
		return Issued{}, false, err
	}
	return issued, first, nil
}

// alone keeps other instances out of what must happen once.
func (t *tx) alone() error {
	if t.store.dialect == &sqliteDialect {
		return nil // so is every transaction
	}
	_, err := t.exec(`SELECT pg_advisory_xact_lock(hashtextextended('sqlkeys', 0))`)
	if err != nil {
		return fmt.Errorf("sqlkeys: lock: %w", err)
	}
	return nil
}
