package keydesk

import (
	"errors"
	"net/http"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
	"github.com/senderauth/senderauth/internal/uuid"
)

var errNoSender = &refusal{status: http.StatusNotFound, title: "No such sender", text: "There is no sender with that ID."}

// key returns the key that the path names, if the actor may see it.
func (d *desk) key(v visit) (sqlkeys.Key, error) { return d.keyWithID(v, v.PathValue("key")) }

// keyWithID returns a key that the actor may see. The key of another sender, an
// unknown one and a malformed ID get the same error. It is the only way from a URL to
// a key.
func (d *desk) keyWithID(v visit, id string) (sqlkeys.Key, error) {
	k, err := d.store.Key(v.Context(), id)
	switch {
	case errors.Is(err, sqlkeys.ErrNotFound), errors.Is(err, sqlkeys.ErrInvalid):
		return sqlkeys.Key{}, errNotFound
	case err != nil && !errors.Is(err, sqlkeys.ErrUnreadable):
		return sqlkeys.Key{}, err
	case !v.actor.sees(k.SenderID):
		return sqlkeys.Key{}, errNotFound
	}
	return k, nil
}

// A scope is whose data a page is about.
type scope struct {
	Sender string // empty means all senders, for an operator only
	Key    string // one of the sender's keys; empty means all of them
}

// scope returns what a page is about: for a tenant its own sender, and for an operator
// that of ?sender=. With ?key= it is a key that the actor may see.
func (d *desk) scope(v visit) (scope, error) {
	s := scope{Sender: v.actor.SenderID}
	if asked := v.URL.Query().Get("sender"); v.actor.Operator && asked != "" {
		x, err := d.sender(v, asked)
		if err != nil {
			return scope{}, err
		}
		s.Sender = x.ID
	}
	if asked := v.URL.Query().Get("key"); asked != "" {
		k, err := d.keyWithID(v, asked)
		if err != nil {
			return scope{}, err
		}
		s = scope{Sender: k.SenderID, Key: k.ID}
	}
	return s, nil
}

// sender returns a sender for an operator.
func (d *desk) sender(v visit, id string) (sqlkeys.Sender, error) {
	if _, ok := uuid.Canonical(id); !ok || !v.actor.sees(id) {
		return sqlkeys.Sender{}, errNoSender
	}
	x, err := d.store.Sender(v.Context(), id)
	switch {
	case errors.Is(err, sqlkeys.ErrNotFound):
		return sqlkeys.Sender{}, errNoSender
	case err != nil && !errors.Is(err, sqlkeys.ErrUnreadable):
		return sqlkeys.Sender{}, err
	}
	return x, nil
}
