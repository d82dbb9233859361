package keydesk

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

type generatePage struct {
	Form     *form
	Operator bool
}

func (d *desk) askGenerate(v visit) (answer, error) {
	values := url.Values{
		"token":       {rand.Text()},
		"environment": {string(sqlkeys.Production)},
		"format":      {string(sqlkeys.FormatUUID)},
		"expires":     {"90d"},
		"scopes":      {senderauth.AllScopes},
	}
	if v.actor.Operator {
		sender, err := d.likelySender(v)
		if err != nil {
			return answer{}, err
		}
		values.Set("sender", sender)
	}
	return showGenerate(v, newForm(values)), nil
}

// likelySender returns the sender that an operator makes a key for: that of ?sender=, or
// the only one.
func (d *desk) likelySender(v visit) (string, error) {
	if asked := v.URL.Query().Get("sender"); asked != "" {
		return asked, nil
	}
	page, err := d.store.SendersPage(v.Context(), sqlkeys.SenderFilter{}, sqlkeys.Paging{Limit: 2})
	if err := pagingError(err); err != nil {
		return "", err
	}
	if len(page.Items) == 1 {
		return page.Items[0].ID, nil
	}
	return "", nil
}

func showGenerate(v visit, f *form) answer {
	a := answer{template: "generate.html", title: "Generate a new API key", tab: "keys", body: generatePage{f, v.actor.Operator}}
	if f.Failed() {
		a.status = http.StatusUnprocessableEntity
	}
	return a
}

// generate makes the key that a form asks for, and shows it this once.
func (d *desk) generate(v visit) (answer, error) {
	f := newForm(v.PostForm)
	n := f.newKey(v.actor, time.Now())
	if f.Failed() {
		return showGenerate(v, f), nil
	}
	issued, err := d.store.Issue(v.Context(), n)
	switch {
	case errors.Is(err, sqlkeys.ErrDuplicate):
		return answer{}, d.alreadyGenerated(v, n.ID)
	case errors.Is(err, sqlkeys.ErrNotFound) && v.actor.Operator:
		f.fail("sender", "There is no sender with that ID.")
		return showGenerate(v, f), nil
	case errors.Is(err, sqlkeys.ErrNotFound):
		return answer{}, &refusal{status: http.StatusConflict, title: "No such sender",
			text: "Your account is not set up for API keys yet. Ask the operator of this service."}
	case errors.Is(err, sqlkeys.ErrInvalid):
		f.fail("expires", "The key store refuses these values. By its clock the key may have expired already.")
		return showGenerate(v, f), nil
	case err != nil:
		return answer{}, err
	}
	return d.showIssued(v, issued, issuedPage{})
}

// newKey reads the form. The sender of a tenant's key is the actor's, whatever the
// form says.
func (f *form) newKey(a Actor, now time.Time) sqlkeys.NewKey {
	n := sqlkeys.NewKey{SenderID: a.SenderID}
	if a.Operator {
		n.SenderID = f.senderID("sender")
	}
	n.Name = f.name("name")
	n.Environment = sqlkeys.Environment(f.choice("environment", string(sqlkeys.Development), string(sqlkeys.Staging), string(sqlkeys.Production)))
	n.Format = sqlkeys.Format(f.choice("format", string(sqlkeys.FormatUUID), string(sqlkeys.FormatPrefixed)))
	n.ExpiresAt = f.expiry("expires", "date", "never", now)
	n.Scopes, n.Networks = f.scopes("scopes"), f.networks("networks")
	token := f.Value("token")
	if len(token) < 26 || len(token) > 64 {
		f.fail("token", "The form is incomplete. Open this page again and fill it in once more.")
	}
	n.ID = keyID(n.SenderID, token)
	return n
}

// keyID derives the ID of a key from the token of the form that asked for it. Nobody
// can choose the ID of a key of another sender.
func keyID(senderID, token string) string {
	sum := sha256.Sum256([]byte("keydesk form\x00" + senderID + "\x00" + token))
	return "key_" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:10]))
}

// alreadyGenerated explains why a form makes no second key.
func (d *desk) alreadyGenerated(v visit, id string) error {
	return &refusal{status: http.StatusConflict, title: "Already generated",
		text: "This form has made its key already, and a key is shown only once. " +
			"If you did not copy it, revoke " + id + " and generate another one.",
		link: "keys/" + id, label: "Show " + id}
}

type issuedPage struct {
	Key      sqlkeys.Key
	APIKey   string
	Disabled bool // the sender is disabled, so the key does not work yet
	Old      sqlkeys.Key
	Grace    time.Duration
}

// showIssued shows a new key. The pages of keys never have its secret again.
func (d *desk) showIssued(v visit, issued sqlkeys.Issued, p issuedPage) (answer, error) {
	p.Key, p.APIKey = issued.Key, issued.Credentials.APIKey
	// The key exists: show it, whatever happens to this lookup.
	if s, err := d.store.Sender(v.Context(), issued.Key.SenderID); err == nil {
		p.Disabled = !s.DisabledAt.IsZero()
	}
	return answer{template: "issued.html", title: "Your new API key", tab: "keys", body: p}, nil
}
