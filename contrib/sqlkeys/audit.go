package sqlkeys

import (
	"context"
	"fmt"
	"iter"
	"time"
)

// An AuditEntry is one change: who, what and when.
type AuditEntry struct {
	ID       int64 // grows with time
	At       time.Time
	Actor    string // see [WithActor]
	Action   string // such as key.issue or sender.disable
	SenderID string
	KeyID    string            // "": the sender itself
	Detail   map[string]string // what the action changed
}

// AuditFilter chooses entries; the zero one chooses all.
type AuditFilter struct {
	_ [0]func()

	SenderID string
	KeyID    string
	After    int64 // only entries with a greater ID
}

// Audit are the changes, the oldest first. It holds a connection until the
// loop ends; an error ends it.
func (s *Store) Audit(ctx context.Context, f AuditFilter) iter.Seq2[AuditEntry, error] {
	query := `SELECT id, at, actor, action, sender_id, key_id, detail FROM sqlkeys_audit WHERE id > $1`
	args := []any{f.After}
	if f.SenderID != "" {
		id, err := senderID(f.SenderID)
		if err != nil {
			return failed[AuditEntry](err)
		}
		args = append(args, id)
		query += fmt.Sprintf(` AND sender_id = $%d`, len(args))
	}
	if f.KeyID != "" {
		if err := checkKeyID(f.KeyID); err != nil {
			return failed[AuditEntry](err)
		}
		args = append(args, f.KeyID)
		query += fmt.Sprintf(` AND key_id = $%d`, len(args))
	}
	return stream(ctx, s, query+` ORDER BY id`, args, func(row interface{ Scan(...any) error }) (AuditEntry, error) {
		var e AuditEntry
		var detail string
		err := row.Scan(&e.ID, scannedTime{&e.At}, &e.Actor, &e.Action, &e.SenderID, &e.KeyID, &detail)
		if err == nil {
			e.Detail, err = decodeMap(detail)
		}
		if err != nil {
			return AuditEntry{}, fmt.Errorf("sqlkeys: read the audit: %w", err)
		}
		return e, nil
	})
}

// record adds a row to the audit.
func (t *tx) record(now time.Time, action, senderID, keyID string, detail map[string]string) error {
	return t.recordAll(now, action, senderID, []string{keyID}, detail)
}

func (t *tx) recordAll(now time.Time, action, senderID string, keyIDs []string, detail map[string]string) error {
	actor, ok := t.ctx.Value(actorKey{}).(string)
	if !ok || actor == "" {
		actor = t.store.actor
	}
	args := make([]any, 0, 6*len(keyIDs))
	for _, id := range keyIDs {
		args = append(args, t.store.dialect.instant(now), actor, action, senderID, id, encodeMap(detail))
	}
	_, err := t.exec(`INSERT INTO sqlkeys_audit (at, actor, action, sender_id, key_id, detail) VALUES `+t.store.dialect.values(len(keyIDs), 6), args...)
	if err != nil {
		return fmt.Errorf("sqlkeys: write the audit: %w", err)
	}
	return nil
}
