package sqlkeys

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// DeleteSender removes a sender with its keys and their usage, for good. The audit keeps
// its entries and gets one more, with the name of the sender and the number of its keys.
// The keys are refused as soon as the caches learn of it, like revoked ones. But the
// database then knows nothing of the keys, so [Store.Adopt] would create the sender and
// its key anew.
//
// A [Recorder] may still write what it counted before. No list shows that usage, and
// [Store.Prune] deletes it. A new key with the ID of a deleted one would get it.
func (s *Store) DeleteSender(ctx context.Context, id string) error {
	return s.changeSender(ctx, id, func(t *tx, _ time.Time, l lockedSender) error {
		entry := AuditEntry{Action: "sender.delete", SenderID: l.id}
		var name string
		var keys int
		err := t.row(`SELECT name, (SELECT count(*) FROM sqlkeys_keys WHERE sender_id = $1) FROM sqlkeys_senders WHERE id = $1`, l.id).Scan(&name, &keys)
		if err != nil {
			return fmt.Errorf("sqlkeys: delete sender: %w", err)
		}
		entry.Detail = map[string]string{"keys": strconv.Itoa(keys)}
		if name != "" {
			entry.Detail["name"] = name
		}
		for _, query := range []string{
			`DELETE FROM sqlkeys_usage WHERE key_id IN (SELECT id FROM sqlkeys_keys WHERE sender_id = $1)`,
			`DELETE FROM sqlkeys_last_used WHERE key_id IN (SELECT id FROM sqlkeys_keys WHERE sender_id = $1)`,
			`DELETE FROM sqlkeys_keys WHERE sender_id = $1`,
		} {
			if err := t.exec(query, l.id); err != nil {
				return fmt.Errorf("sqlkeys: delete sender: %w", err)
			}
		}
		return t.update(entry, `DELETE FROM sqlkeys_senders WHERE id = $1`, l.id)
	})
}
