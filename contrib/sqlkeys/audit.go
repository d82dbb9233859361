package sqlkeys

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"time"
)

// An AuditEntry records one change.
type AuditEntry struct {
	ID       int64 // increases with each entry
	At       time.Time
	Actor    string // see [WithActor]
	Action   string // such as key.issue or sender.disable
	SenderID string
	KeyID    string            // empty if the sender itself changed
	Detail   map[string]string // what the action changed
}

// AuditFilter selects entries. The zero filter selects all of them.
type AuditFilter struct {
	_ [0]func()

	SenderID string
	KeyID    string
	After    int64 // only entries with a greater ID
}

// Audit yields the recorded changes, the oldest first. It reads page by page and holds
// no connection in between. It goes on after [ErrUnreadable], which comes with what can
// be read of an entry, and stops after any other error.
func (s *Store) Audit(ctx context.Context, f AuditFilter) iter.Seq2[AuditEntry, error] {
	l, err := auditList(f)
	if err != nil {
		return failed[AuditEntry](err)
	}
	return l.walk(ctx, s)
}

// AuditPage returns a page of what [Store.Audit] yields. If it returns [ErrUnreadable],
// the page has what can be read.
func (s *Store) AuditPage(ctx context.Context, f AuditFilter, p Paging) (Page[AuditEntry], error) {
	l, err := auditList(f)
	if err != nil {
		return Page[AuditEntry]{}, err
	}
	return l.page(ctx, s, p)
}

func auditList(f AuditFilter) (*list[AuditEntry], error) {
	l := &list[AuditEntry]{
		query: query{`SELECT id, at, actor, action, sender_id, key_id, detail FROM sqlkeys_audit WHERE id > $1`, []any{f.After}},
		name:  "audit",
		order: []column{numberColumn(`id`)},
		scan:  scanAuditEntry,
		position: func(e AuditEntry) ([]string, error) {
			return []string{strconv.FormatInt(e.ID, 10)}, nil
		},
	}
	if f.SenderID != "" {
		id, err := canonicalSenderID(f.SenderID)
		if err != nil {
			return nil, err
		}
		l.and(`sender_id`, `=`, id)
	}
	if f.KeyID != "" {
		if err := checkKeyID(f.KeyID); err != nil {
			return nil, err
		}
		l.and(`key_id`, `=`, f.KeyID)
	}
	return l, nil
}

func scanAuditEntry(row scanner) (AuditEntry, error) {
	var e AuditEntry
	var detail string
	err := row.Scan(&e.ID, scannedTime{&e.At}, &e.Actor, &e.Action, &e.SenderID, &e.KeyID, &detail)
	if err != nil {
		return AuditEntry{}, fmt.Errorf("sqlkeys: read the audit: %w", err)
	}
	if e.Detail, err = decodeMap(detail); err != nil {
		return e, fmt.Errorf("sqlkeys: audit entry %d: detail: %w", e.ID, err)
	}
	return e, nil
}

// record adds entries to the audit, with the time and the actor of the change.
func (t *tx) record(entries ...AuditEntry) error {
	now, err := t.now()
	if err != nil {
		return err
	}
	actor, ok := t.ctx.Value(actorKey{}).(string)
	if !ok || actor == "" {
		actor = t.store.actor
	}
	actor = toText(actor)
	rows := make([][]any, len(entries))
	for i, e := range entries {
		rows[i] = []any{t.instant(now), actor, e.Action, e.SenderID, e.KeyID, encodeMap(e.Detail)}
	}
	err = t.insert(bulk{
		into:  `sqlkeys_audit (at, actor, action, sender_id, key_id, detail)`,
		types: []string{"timestamptz", "text", "text", "uuid", "text", "jsonb"},
		rows:  rows,
	})
	if err != nil {
		return fmt.Errorf("sqlkeys: write the audit: %w", err)
	}
	return nil
}
