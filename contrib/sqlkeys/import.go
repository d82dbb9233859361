package sqlkeys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// An ImportKey describes a key that was issued elsewhere, by its digest.
type ImportKey struct {
	_ [0]func()

	// SHA256 is the digest of the key. Digest a key that is a UUID in lower case.
	SHA256   [32]byte
	SenderID string // the sender is created if it is missing
	// The rest means what it means in NewKey. Format is that of the key that replaces this
	// one in a rotation.
	ID          string
	Name        string
	Environment Environment
	Format      Format
	NotBefore   time.Time
	ExpiresAt   time.Time
	Metadata    map[string]string
	Scopes      []string
	Networks    []netip.Prefix
}

// An ImportResult says what became of one ImportKey.
type ImportResult struct {
	KeyID   string // the new key, or the one that has the digest already
	Created bool   // false if the sender had the key already; it was not changed
	Err     error  // why the key was not imported
}

// Import stores keys that were issued elsewhere, in one transaction. It leaves out keys that
// are wrong, and keys that exist already: these stay as they are, so a revoked key stays
// revoked, and an import may be repeated. The results are in the order of the keys. With
// dryRun, Import changes nothing and returns what it would have done, but KeyIDs of new keys
// are not those that another call makes.
//
// The digests have no pepper, so Import returns [ErrInvalid] if [Config.Peppers] is set
// without an empty pepper. Import does not see that a key is stored with a pepper already. The
// key then stays that of the older row, and is refused as soon as one of the rows is.
//
// A service that accepts keys of another form than this store issues needs
// [Config.AcceptKey].
func (s *Store) Import(ctx context.Context, keys []ImportKey, dryRun bool) ([]ImportResult, error) {
	if !s.acceptsPlain() {
		return nil, fmt.Errorf("sqlkeys: Config.Peppers: %w: imported keys have no pepper: add an empty one", ErrInvalid)
	}
	var results []ImportResult
	err := s.change(ctx, func(t *tx) (err error) {
		if err := t.lockStore(); err != nil {
			return err
		}
		results, err = t.importAll(keys)
		if err == nil && dryRun {
			err = errDryRun
		}
		return err
	})
	if err != nil && !errors.Is(err, errDryRun) {
		return nil, err
	}
	return results, nil
}

var errDryRun = errors.New("dry run") // rolls the transaction back

// acceptsPlain reports whether the store looks for digests without a pepper.
func (s *Store) acceptsPlain() bool {
	for _, p := range s.peppers {
		if len(p) == 0 {
			return true
		}
	}
	return false
}

func (t *tx) importAll(keys []ImportKey) ([]ImportResult, error) {
	results := make([]ImportResult, len(keys))
	known := make(map[string]bool) // senders that exist
	var drafts []draft
	planned := make(map[[32]byte]draft)
	ids := make(map[string]bool) // of planned keys
	for i, k := range keys {
		d, err := t.importDraft(k)
		if err != nil {
			results[i].Err = err
			continue
		}
		id, owner, err := t.owner(k.SHA256)
		if err != nil {
			return nil, err
		}
		if p, twice := planned[k.SHA256]; twice {
			id, owner = p.key.ID, p.key.SenderID
		}
		switch {
		case owner == d.key.SenderID:
			results[i].KeyID = id
			continue
		case owner != "":
			results[i].Err = fmt.Errorf("sqlkeys: import: the key belongs to another sender: %w", ErrDuplicate)
			continue
		}
		if taken, err := t.exists(`sqlkeys_keys`, d.key.ID); err != nil {
			return nil, err
		} else if taken || ids[d.key.ID] {
			results[i].Err = fmt.Errorf("sqlkeys: key %s: %w", d.key.ID, ErrDuplicate)
			continue
		}
		if err := t.requireOrCreate(d.key.SenderID, known); err != nil {
			return nil, err
		}
		planned[k.SHA256], ids[d.key.ID] = d, true
		drafts = append(drafts, d)
		results[i] = ImportResult{KeyID: d.key.ID, Created: true}
	}
	if len(drafts) == 0 {
		return results, nil
	}
	_, err := t.issue(drafts, "key.import")
	return results, err
}

// importDraft checks one key.
func (t *tx) importDraft(k ImportKey) (draft, error) {
	d, err := t.store.draft(NewKey{SenderID: k.SenderID, ID: k.ID, Name: k.Name, Environment: k.Environment, Format: k.Format,
		NotBefore: k.NotBefore, ExpiresAt: k.ExpiresAt, Metadata: k.Metadata, Scopes: k.Scopes, Networks: k.Networks}, "unknown")
	if err != nil {
		return draft{}, err
	}
	now, err := t.now()
	if err != nil {
		return draft{}, err
	}
	if !d.key.ExpiresAt.IsZero() && !d.key.ExpiresAt.After(now) {
		return draft{}, pastExpiry(d.key.ExpiresAt)
	}
	d.secret, d.digest = "", k.SHA256[:]
	return d, nil
}

// owner returns the key with that digest and its sender, or nothing.
func (t *tx) owner(sha256 [32]byte) (id, senderID string, err error) {
	err = t.row(`SELECT id, sender_id FROM sqlkeys_keys WHERE digest = $1`, sha256[:]).Scan(&id, &senderID)
	if errors.Is(err, sql.ErrNoRows) {
		return "", "", nil
	}
	if err != nil {
		return "", "", fmt.Errorf("sqlkeys: import: %w", err)
	}
	return id, senderID, nil
}

func (t *tx) exists(table, id string) (yes bool, err error) {
	if err := t.row(`SELECT EXISTS (SELECT 1 FROM `+table+` WHERE id = $1)`, id).Scan(&yes); err != nil {
		return false, fmt.Errorf("sqlkeys: import: %w", err)
	}
	return yes, nil
}

func (t *tx) requireOrCreate(senderID string, known map[string]bool) error {
	if known[senderID] {
		return nil
	}
	known[senderID] = true
	exists, err := t.exists(`sqlkeys_senders`, senderID)
	if err != nil || exists {
		return err
	}
	_, err = t.createSender(NewSender{ID: senderID})
	return err
}
