package keydesk

import (
	"time"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// rotateAfter is the age at which a key in use is marked.
const rotateAfter = 90 * 24 * time.Hour

// endsSoon is how long before its end a key in use is marked.
const endsSoon = 14 * 24 * time.Hour

type keysPage struct {
	Sender  string // whose keys these are; empty means everybody's
	Current []keyRow
	Ended   []keyRow
	older
}

// listKeys shows the keys of a sender, the newest first. An operator without ?sender= gets those of all
// senders.
func (d *desk) listKeys(v visit) (answer, error) {
	about, err := d.scope(v)
	if err != nil {
		return answer{}, err
	}
	p := keysPage{Sender: about.Sender}
	now := time.Now()
	page, err := d.store.KeysPage(v.Context(), sqlkeys.KeyFilter{SenderID: about.Sender}, paging(v))
	if err := pagingError(err); err != nil {
		return answer{}, err
	}
	p.older = olderThan(v, page.Next)
	for _, k := range page.Items {
		if row := newKeyRow(k, now); hasEnded(k.State) {
			p.Ended = append(p.Ended, row)
		} else {
			p.Current = append(p.Current, row)
		}
	}
	return answer{template: "keys.html", title: "API keys", tab: "keys", sender: about.Sender, body: p}, nil
}

// hasEnded reports whether a key in that state can never work again.
func hasEnded(s sqlkeys.State) bool {
	return s == sqlkeys.Revoked || s == sqlkeys.Expired || s == sqlkeys.Rotated
}

// A keyRow is one key as the list shows it.
type keyRow struct {
	ID, Name, SenderID string
	State              sqlkeys.State
	Environment        sqlkeys.Environment
	Created, LastUsed  time.Time
	Ends               time.Time
	Days               int  // since it was created
	Old                bool // in use for longer than rotateAfter
	Soon               bool // about to end
}

func newKeyRow(k sqlkeys.Key, now time.Time) keyRow {
	age := now.Sub(k.CreatedAt)
	works := k.State == sqlkeys.Active || k.State == sqlkeys.Retiring
	return keyRow{
		ID:          k.ID,
		Name:        k.Name,
		SenderID:    k.SenderID,
		State:       k.State,
		Environment: k.Environment,
		Created:     k.CreatedAt,
		LastUsed:    k.LastUsedAt,
		Ends:        k.Ends(),
		Days:        int(age / (24 * time.Hour)),
		Old:         k.State == sqlkeys.Active && age > rotateAfter,
		Soon:        works && !k.Ends().IsZero() && k.Ends().Sub(now) < endsSoon,
	}
}

type keyPage struct {
	sqlkeys.Key
	keyActions
	Days int
	Old  bool
}

// keyActions are the changes that the state of a key allows.
type keyActions struct{ Rotate, Access, Disable, Enable, Revoke bool }

func actionsOn(k sqlkeys.Key) keyActions {
	return keyActions{
		Rotate:  k.State == sqlkeys.Active || k.State == sqlkeys.Pending,
		Access:  !hasEnded(k.State),
		Disable: !hasEnded(k.State) && k.State != sqlkeys.Disabled,
		Enable:  k.State == sqlkeys.Disabled,
		Revoke:  k.State != sqlkeys.Revoked,
	}
}

func (d *desk) showKey(v visit) (answer, error) {
	k, err := d.key(v)
	if err != nil {
		return answer{}, err
	}
	row := newKeyRow(k, time.Now())
	return answer{template: "key.html", title: title(k), tab: "keys", sender: k.SenderID,
		body: keyPage{Key: k, keyActions: actionsOn(k), Days: row.Days, Old: row.Old}}, nil
}

// title is how a page calls a key.
func title(k sqlkeys.Key) string {
	if k.Name != "" {
		return k.Name
	}
	return k.ID
}
