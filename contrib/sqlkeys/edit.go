package sqlkeys

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// A KeyEdit says what [Store.EditKey] changes. A field that is nil or empty changes
// nothing.
type KeyEdit struct {
	_ [0]func()

	Name      *string    // at most 200 bytes
	ExpiresAt *time.Time // in the future; the zero time means never
	// SetMetadata adds values to the metadata, or replaces those of the same names.
	SetMetadata   map[string]string
	UnsetMetadata []string // names to remove
}

// EditKey changes the name, the expiry and the metadata of a key. The audit gets the name,
// the expiry and the names in the metadata, but not their values. EditKey rejects a revoked
// key, and an expiry for a key that has ended, because it does not bring a key back. It
// returns [ErrUnreadable] if it should change metadata that cannot be read.
func (s *Store) EditKey(ctx context.Context, keyID string, e KeyEdit) error {
	if err := e.validate(); err != nil {
		return err
	}
	return s.changeKey(ctx, keyID, func(t *tx, now time.Time, k lockedKey) error {
		if err := k.refuse(Revoked); err != nil {
			return err
		}
		u := edit{tx: t, table: "sqlkeys_keys", id: k.id}
		u.name(e.Name)
		if e.ExpiresAt != nil {
			if err := k.refuse(Expired, Rotated); err != nil {
				return err
			}
			if err := u.expiry(now, *e.ExpiresAt); err != nil {
				return err
			}
		}
		if err := u.metadata(e.SetMetadata, e.UnsetMetadata); err != nil {
			return fmt.Errorf("sqlkeys: key %s: %w", k.id, err)
		}
		return u.run(k.entry("key.edit"))
	})
}

func (e *KeyEdit) validate() error {
	if e.Name == nil && e.ExpiresAt == nil && len(e.SetMetadata) == 0 && len(e.UnsetMetadata) == 0 {
		return errNoEdit
	}
	return invalid(checkName(e.Name))
}

// A SenderEdit says what [Store.EditSender] changes. A field that is nil or empty changes
// nothing.
type SenderEdit struct {
	_ [0]func()

	Name *string // at most 200 bytes
	// SetMetadata adds values to the metadata, or replaces those of the same names.
	SetMetadata   map[string]string
	UnsetMetadata []string // names to remove
}

// EditSender changes what a sender is called and its metadata. The audit gets the name and
// the names in the metadata, but not their values. EditSender returns [ErrUnreadable] if it
// should change metadata that cannot be read.
func (s *Store) EditSender(ctx context.Context, id string, e SenderEdit) error {
	if e.Name == nil && len(e.SetMetadata) == 0 && len(e.UnsetMetadata) == 0 {
		return errNoEdit
	}
	if err := invalid(checkName(e.Name)); err != nil {
		return err
	}
	return s.changeSender(ctx, id, func(t *tx, _ time.Time, l lockedSender) error {
		u := edit{tx: t, table: "sqlkeys_senders", id: l.id}
		u.name(e.Name)
		if err := u.metadata(e.SetMetadata, e.UnsetMetadata); err != nil {
			return fmt.Errorf("sqlkeys: sender %s: %w", l.id, err)
		}
		return u.run(AuditEntry{Action: "sender.edit", SenderID: l.id})
	})
}

var errNoEdit = fmt.Errorf("sqlkeys: edit: %w: nothing to change", ErrInvalid)

func checkName(name *string) error {
	switch {
	case name == nil:
		return nil
	case len(*name) > maxName:
		return fmt.Errorf("the name has %d bytes, more than %d", len(*name), maxName)
	case !isText(*name):
		return errors.New("the name is not UTF-8 text")
	}
	return nil
}

// maxName is the length in bytes of the longest name of a key or a sender.
const maxName = 200

// An edit collects the columns of a row that change, and what the audit says about them.
type edit struct {
	*tx
	table, id string
	sets      []string
	args      []any
	detail    map[string]string
}

func (e *edit) set(column string, value any, name, said string) {
	if e.detail == nil {
		e.detail = make(map[string]string)
	}
	e.detail[name] = said
	if column != "" {
		e.args = append(e.args, value)
		e.sets = append(e.sets, fmt.Sprintf("%s = $%d", column, len(e.args)+1))
	}
}

func (e *edit) name(name *string) {
	if name != nil {
		e.set("name", *name, "name", *name)
	}
}

func (e *edit) expiry(now, at time.Time) error {
	var begins time.Time
	if err := e.row(`SELECT not_before FROM sqlkeys_keys WHERE id = $1`, e.id).Scan(scannedTime{&begins}); err != nil {
		return fmt.Errorf("sqlkeys: read a key: %w", err)
	}
	at = millisecond(at)
	said := at.Format(time.RFC3339Nano)
	switch {
	case at.IsZero():
		said = "never"
	case !at.After(now):
		return fmt.Errorf("sqlkeys: key %s: %w: the expiry %s is in the past", e.id, ErrInvalid, at.Format(time.RFC3339))
	case !at.After(begins):
		return fmt.Errorf("sqlkeys: key %s: %w: it would expire at %s, before it works", e.id, ErrInvalid, at.Format(time.RFC3339))
	}
	e.set("expires_at", e.instant(at), "expires_at", said)
	return nil
}

func (e *edit) metadata(set map[string]string, unset []string) error {
	if len(set) == 0 && len(unset) == 0 {
		return nil
	}
	var text string
	if err := e.row(`SELECT metadata FROM `+e.table+` WHERE id = $1`, e.id).Scan(&text); err != nil {
		return err
	}
	m, err := decodeMap(text)
	if err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	if m == nil {
		m = make(map[string]string)
	}
	for _, name := range unset {
		if !isText(name) { // the audit could not name it
			return fmt.Errorf("%w: metadata %q is not UTF-8 text", ErrInvalid, name)
		}
		delete(m, name)
	}
	maps.Copy(m, set)
	if err := checkMetadata(m); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	e.set("metadata", encodeMap(m), "metadata_set", strings.Join(slices.Sorted(maps.Keys(set)), " "))
	if len(set) == 0 {
		delete(e.detail, "metadata_set")
	}
	if len(unset) > 0 {
		e.set("", nil, "metadata_unset", strings.Join(slices.Sorted(slices.Values(unset)), " "))
	}
	return nil
}

func (e *edit) run(entry AuditEntry) error {
	entry.Detail = e.detail
	return e.update(entry, `UPDATE `+e.table+` SET `+strings.Join(e.sets, ", ")+` WHERE id = $1`, append([]any{e.id}, e.args...)...)
}
