package keydesk

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

type rotatePage struct {
	Key  sqlkeys.Key
	Form *form
}

func (d *desk) askRotate(v visit) (answer, error) {
	k, err := d.key(v)
	if err != nil {
		return answer{}, err
	}
	if !actionsOn(k).Rotate {
		return answer{}, d.conflict(v, k, nil)
	}
	f := newForm(url.Values{"grace": {"24h"}, "expires": {"same"}})
	if !k.ExpiresAt.IsZero() && k.ExpiresAt.Before(time.Now().Add(24*time.Hour)) {
		f.values.Set("grace", "0")
	}
	return showRotate(k, f), nil
}

func showRotate(k sqlkeys.Key, f *form) answer {
	a := answer{template: "rotate.html", title: "Rotate " + title(k), tab: "keys", body: rotatePage{k, f}}
	if f.Failed() {
		a.status = http.StatusUnprocessableEntity
	}
	return a
}

// rotate replaces a key. A form that is sent again meets a key that was rotated.
func (d *desk) rotate(v visit) (answer, error) {
	k, err := d.key(v)
	if err != nil {
		return answer{}, err
	}
	if !actionsOn(k).Rotate {
		return answer{}, d.conflict(v, k, nil)
	}
	f, now := newForm(v.PostForm), time.Now()
	r := sqlkeys.Rotation{
		Grace:     f.grace("grace", k, now),
		ExpiresAt: f.expiry("expires", "date", "same", now),
	}
	if f.Failed() {
		return showRotate(k, f), nil
	}
	issued, err := d.store.Rotate(v.Context(), k.ID, r)
	switch {
	case errors.Is(err, sqlkeys.ErrInvalid):
		f.fail("expires", "The key store refuses these values. By its clock the key may have expired already.")
		return showRotate(k, f), nil
	case err != nil:
		return answer{}, d.conflict(v, k, err)
	}
	return d.showIssued(v, issued, issuedPage{Old: k, Grace: r.Grace})
}

func (d *desk) disable(v visit) (answer, error) { return d.change(v, d.store.Disable, "disabled") }

func (d *desk) enable(v visit) (answer, error) { return d.change(v, d.store.Enable, "enabled") }

func (d *desk) revoke(v visit) (answer, error) { return d.change(v, d.store.Revoke, "revoked") }

// change changes a key and goes back to its page, which says that it is done.
func (d *desk) change(v visit, f func(ctx context.Context, keyID string) error, done string) (answer, error) {
	k, err := d.key(v)
	if err != nil {
		return answer{}, err
	}
	if err := f(v.Context(), k.ID); err != nil {
		return answer{}, d.conflict(v, k, err)
	}
	return answer{location: "keys/" + k.ID + "?done=" + done}, nil
}

func (d *desk) askRevoke(v visit) (answer, error) {
	k, err := d.key(v)
	if err != nil {
		return answer{}, err
	}
	if !actionsOn(k).Revoke {
		return answer{}, d.conflict(v, k, nil)
	}
	return answer{template: "revoke.html", title: "Revoke " + title(k), tab: "keys", body: newKeyRow(k, time.Now())}, nil
}

// conflict explains an error of a change that the state of a key does not allow, or
// returns an outage as it is. Without an error it goes by the state of the key.
func (d *desk) conflict(v visit, k sqlkeys.Key, err error) error {
	is := func(target error, states ...sqlkeys.State) bool {
		if err != nil {
			return errors.Is(err, target)
		}
		for _, s := range states {
			if k.State == s {
				return true
			}
		}
		return false
	}
	e := &refusal{status: http.StatusConflict, title: "Nothing was changed", link: "keys/" + k.ID, label: "Show the key"}
	switch {
	case is(sqlkeys.ErrNotFound):
		return errNotFound
	case is(sqlkeys.ErrRevoked, sqlkeys.Revoked):
		e.text = "The key was revoked, perhaps in another window. A revoked key cannot be changed."
	case is(sqlkeys.ErrExpired, sqlkeys.Expired):
		e.text = "The key has expired. Generate a new one."
	case is(sqlkeys.ErrRotated, sqlkeys.Rotated, sqlkeys.Retiring):
		e.text = "The key was rotated already, perhaps in another window. The key that replaced it was shown there, once."
		if fresh, err := d.store.Key(v.Context(), k.ID); err == nil && fresh.ReplacedBy != "" {
			e.link, e.label = "keys/"+fresh.ReplacedBy, "Show the key that replaced it"
		}
	case is(sqlkeys.ErrDisabled, sqlkeys.Disabled):
		e.text = "The key is disabled. Enable it first."
	default:
		return err
	}
	return e
}
