package sqlkeys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/senderauth/senderauth"
)

// NewKey describes a key for [Store.Issue] to make. Instants are truncated to
// milliseconds.
type NewKey struct {
	_ [0]func()

	SenderID string
	// ID is the public name of the key: key_ and 16 characters of a-z and 2-7.
	// Empty means a random one. A program that derives it from a request makes no
	// second key if the request is repeated: Issue returns [ErrDuplicate].
	ID          string
	Name        string            // at most 200 bytes
	Environment Environment       // empty means Production
	Format      Format            // empty means FormatUUID
	NotBefore   time.Time         // zero means that the key works at once
	ExpiresAt   time.Time         // zero means never
	Metadata    map[string]string // at most 16 KiB as JSON; every lookup reads it
	// Scopes is what the key may do: see Scopes of [senderauth.Sender]. Nil means
	// [senderauth.AllScopes]. Empty and not nil means nothing that requires a scope. Each
	// is a scope-token of RFC 6749 section 3.3: printable ASCII without space, quote and
	// backslash. There are at most 64, of 2,048 bytes together with the spaces between.
	Scopes []string
	// Networks are the only addresses from which the key works: see Networks of
	// [senderauth.Sender]. Empty means any address. There are at most 64. An IPv4
	// address is written as one, and no bit is set after those that count.
	Networks []netip.Prefix
}

// Issued is a new key. Its Credentials hold the only copy of the secret, and do
// not reveal it when they are printed, logged or marshaled.
type Issued struct {
	Key         Key
	Credentials senderauth.Credentials
}

// Issue makes a key for an existing sender. It returns [ErrDuplicate] if the ID is
// taken.
func (s *Store) Issue(ctx context.Context, n NewKey) (Issued, error) {
	issued, err := s.IssueAll(ctx, []NewKey{n})
	if err != nil {
		return Issued{}, err
	}
	return issued[0], nil
}

// IssueAll makes all of the keys in one transaction, or none.
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

// A draft is a key before it is stored.
type draft struct {
	key                        Key
	metadata, scopes, networks string // as the columns store them
	secret                     string
	digest                     []byte // of an imported key, whose secret is unknown
}

// draft checks n and fills in the defaults. An empty secret means a random one.
func (s *Store) draft(n NewKey, secret string) (draft, error) {
	id, err := canonicalSenderID(n.SenderID)
	if n.Environment == "" {
		n.Environment = Production
	}
	if n.Format == "" {
		n.Format = FormatUUID
	}
	if n.Scopes == nil {
		n.Scopes = []string{senderauth.AllScopes}
	}
	if err := errors.Join(err, n.validate()); err != nil {
		return draft{}, err
	}
	if n.ID == "" {
		n.ID = newKeyID()
	}
	if secret == "" {
		if secret, err = s.newKey(n.Format); err != nil {
			return draft{}, err
		}
	}
	return draft{
		key: Key{
			ID:          n.ID,
			SenderID:    id,
			Name:        n.Name,
			Environment: n.Environment,
			Format:      n.Format,
			Metadata:    n.Metadata,
			Scopes:      slices.Clone(n.Scopes),
			Networks:    slices.Clone(n.Networks),
			NotBefore:   millisecond(n.NotBefore),
			ExpiresAt:   millisecond(n.ExpiresAt),
		},
		metadata: encodeMap(n.Metadata),
		scopes:   encodeScopes(n.Scopes),
		networks: encodeNetworks(n.Networks),
		secret:   secret,
	}, nil
}

// validate reports every mistake but the sender's.
func (n *NewKey) validate() error {
	var errs []error
	report := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("sqlkeys: new key: %w: "+format, append([]any{ErrInvalid}, args...)...))
	}
	if n.ID != "" && checkKeyID(n.ID) != nil {
		report("the ID is not key_ and 16 characters of a-z and 2-7")
	}
	if !slices.Contains([]Environment{Development, Staging, Production}, n.Environment) {
		report("environment %q is not one of %s, %s and %s", n.Environment, Development, Staging, Production)
	}
	if n.Format != FormatUUID && n.Format != FormatPrefixed {
		report("format %q is not one of %s and %s", n.Format, FormatUUID, FormatPrefixed)
	}
	if !n.ExpiresAt.IsZero() && !n.ExpiresAt.After(n.NotBefore) {
		report("it would expire at %s, before it works", n.ExpiresAt.Format(time.RFC3339))
	}
	if len(n.Name) > maxName {
		report("the name has %d bytes, more than %d", len(n.Name), maxName)
	}
	if !isText(n.Name) {
		report("the name is not UTF-8 text")
	}
	for _, err := range []error{checkMetadata(n.Metadata), checkScopes(n.Scopes), checkNetworks(n.Networks)} {
		if err != nil {
			report("%w", err)
		}
	}
	return errors.Join(errs...)
}

func millisecond(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Millisecond)
}

// issue stores the drafts and records the action for each of them.
func (t *tx) issue(drafts []draft, action string) ([]Issued, error) {
	now, err := t.now()
	if err != nil {
		return nil, err
	}
	if err := t.requireSenders(drafts); err != nil {
		return nil, err
	}
	issued := make([]Issued, len(drafts))
	entries := make([]AuditEntry, len(drafts))
	for i := range drafts {
		k := &drafts[i].key
		if !k.ExpiresAt.IsZero() && !k.ExpiresAt.After(now) {
			return nil, pastExpiry(k.ExpiresAt)
		}
		k.CreatedAt, k.State = now, Active
		if k.NotBefore.After(now) {
			k.State = Pending
		}
		issued[i] = Issued{Key: *k, Credentials: senderauth.Credentials{SenderID: k.SenderID, APIKey: drafts[i].secret}}
		entries[i] = AuditEntry{Action: action, SenderID: k.SenderID, KeyID: k.ID, Detail: drafts[i].restrictions()}
	}
	if err := t.insertKeys(drafts); err != nil {
		return nil, err
	}
	return issued, t.record(entries...)
}

// restrictions returns what the key is good for, for the audit. It is empty for a key that
// is good for everything.
func (d *draft) restrictions() map[string]string {
	detail := make(map[string]string)
	if d.scopes != senderauth.AllScopes {
		detail["scopes"] = d.scopes
	}
	if d.networks != "" {
		detail["networks"] = d.networks
	}
	return detail
}

func pastExpiry(at time.Time) error {
	return fmt.Errorf("sqlkeys: new key: %w: the expiry %s is in the past", ErrInvalid, at.Format(time.RFC3339))
}

// requireSenders checks that the senders of the drafts exist.
func (t *tx) requireSenders(drafts []draft) error {
	checked := make(map[string]bool)
	for _, d := range drafts {
		id := d.key.SenderID
		if checked[id] {
			continue
		}
		checked[id] = true
		var one int
		err := t.row(`SELECT 1 FROM sqlkeys_senders WHERE id = $1`, id).Scan(&one)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("sqlkeys: sender %s: %w", id, ErrNotFound)
		}
		if err != nil {
			return fmt.Errorf("sqlkeys: issue: %w", err)
		}
	}
	return nil
}

func (t *tx) insertKeys(drafts []draft) error {
	rows := make([][]any, len(drafts))
	for i, d := range drafts {
		k := d.key
		stored, pepper, prefix := d.digest, pepperID(nil), ""
		if stored == nil {
			current := t.store.peppers[0]
			stored, pepper, prefix = digest(current, d.secret), pepperID(current), t.prefixOf(d.secret)
		}
		rows[i] = []any{k.ID, k.SenderID, stored, pepper, prefix, string(k.Format), k.Name,
			string(k.Environment), d.metadata, d.scopes, d.networks, t.instant(k.CreatedAt), t.instant(k.NotBefore), t.instant(k.ExpiresAt)}
	}
	err := t.insert(bulk{
		into:  `sqlkeys_keys (id, sender_id, digest, pepper, prefix, format, name, environment, metadata, scopes, networks, created_at, not_before, expires_at)`,
		types: []string{"text", "uuid", "bytea", "text", "text", "text", "text", "text", "jsonb", "text", "text", "timestamptz", "timestamptz", "timestamptz"},
		rows:  rows,
	})
	if t.isDuplicate(err) {
		return fmt.Errorf("sqlkeys: the key: %w", ErrDuplicate)
	}
	if err != nil {
		return fmt.Errorf("sqlkeys: issue: %w", err)
	}
	return nil
}
