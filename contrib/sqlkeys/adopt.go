package sqlkeys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/internal/uuid"
)

// Adopt stores credentials that come from elsewhere, such as environment
// variables. It creates the sender and the key if they are missing, and leaves
// them unchanged if they exist, so a revoked key stays revoked. Every instance
// may call it at each start, and several may at once. [Store.CheckKey] must accept
// the key. Adopt returns [ErrDuplicate] if the key belongs to another sender.
//
// Adopt returns [ErrPepperMissing] if it does not find the key, and the sender has a
// refused key whose pepper is not in [Config.Peppers] or not recorded. The two may be
// the same key, and a refused key must not work again.
func (s *Store) Adopt(ctx context.Context, c senderauth.Credentials) (Key, error) {
	secret, ok := s.canonicalKey(c.APIKey)
	if !ok {
		return Key{}, fmt.Errorf("sqlkeys: adopt: %w: the key is neither a UUID nor a prefixed key with the right checksum", ErrInvalid)
	}
	n := NewKey{SenderID: c.SenderID, Name: "adopted", Format: FormatPrefixed}
	if _, ok := uuid.Canonical(secret); ok {
		n.Format = FormatUUID
	}
	d, err := s.draft(n, secret)
	if err != nil {
		return Key{}, err
	}
	var key Key
	err = s.change(ctx, func(t *tx) error {
		if err := t.lockStore(); err != nil {
			return err
		}
		key, err = t.adopt(d)
		return err
	})
	if err != nil {
		return Key{}, err
	}
	return key, nil
}

func (t *tx) adopt(d draft) (Key, error) {
	key, err := scanKey(t.row(selectKeys+` WHERE `+byDigest(len(t.store.peppers)), t.store.digests(d.secret)...))
	if err == nil && key.SenderID != d.key.SenderID {
		return Key{}, fmt.Errorf("sqlkeys: adopt: the key belongs to another sender: %w", ErrDuplicate)
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return key, err
	}
	if err := t.mayBeNew(d.key.SenderID); err != nil {
		return Key{}, err
	}
	var exists bool
	err = t.row(`SELECT EXISTS (SELECT 1 FROM sqlkeys_senders WHERE id = $1)`, d.key.SenderID).Scan(&exists)
	if err != nil {
		return Key{}, fmt.Errorf("sqlkeys: adopt: %w", err)
	}
	if !exists {
		if _, err := t.createSender(NewSender{ID: d.key.SenderID}); err != nil {
			return Key{}, err
		}
	}
	issued, err := t.issue([]draft{d}, "key.adopt")
	if err != nil {
		return Key{}, err
	}
	return issued[0].Key, nil
}

// mayBeNew returns an error if a key that no configured pepper finds may be one of the
// sender's refused keys, which must not work again.
func (t *tx) mayBeNew(senderID string) error {
	peppers := t.store.pepperIDs()
	var id, state string
	var recorded bool
	err := t.row(`SELECT k.id, `+stateSQL+` AS state, k.pepper IS NOT NULL FROM sqlkeys_keys k WHERE k.sender_id = $1
		AND `+stateSQL+` NOT IN ('active', 'retiring', 'pending')
		AND (k.pepper IS NULL OR k.pepper NOT IN (`+placeholders(2, len(peppers))+`)) ORDER BY k.created_at, k.id LIMIT 1`,
		append([]any{senderID}, peppers...)...).Scan(&id, &state, &recorded)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sqlkeys: adopt: %w", err)
	}
	why := "not in Config.Peppers"
	if !recorded {
		why = "not recorded"
	}
	return fmt.Errorf("sqlkeys: adopt: sender %s: the key may be %s (%s), whose pepper is %s: %w", senderID, id, state, why, ErrPepperMissing)
}

// IssueFirst makes a sender with one key if the store has no sender, and
// reports whether it did. If several instances call it at once, one does.
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
		if err := t.lockStore(); err != nil {
			return err
		}
		var some bool
		if err := t.row(`SELECT EXISTS (SELECT 1 FROM sqlkeys_senders)`).Scan(&some); err != nil || some {
			return err
		}
		if _, err := t.createSender(NewSender{ID: id}); err != nil {
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
