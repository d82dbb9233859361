package keydesk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
	"github.com/senderauth/senderauth/internal/uuid"
)

type sendersPage struct {
	Senders []sqlkeys.Sender
	older
}

// listSenders shows senders, the newest first.
func (d *desk) listSenders(v visit) (answer, error) {
	page, err := d.store.SendersPage(v.Context(), sqlkeys.SenderFilter{}, paging(v))
	if err := pagingError(err); err != nil {
		return answer{}, err
	}
	return answer{template: "senders.html", title: "Senders", tab: "senders", body: sendersPage{page.Items, olderThan(v, page.Next)}}, nil
}

type senderPage struct {
	sqlkeys.Sender
	Plan []limitRow
}

func (d *desk) showSender(v visit) (answer, error) {
	x, err := d.sender(v, v.PathValue("sender"))
	if err != nil {
		return answer{}, err
	}
	return answer{template: "sender.html", title: "Sender " + x.ID, tab: "senders", sender: x.ID, body: senderPage{x, d.limitsOf(x)}}, nil
}

func (d *desk) askSender(visit) (answer, error) {
	return showNewSender(newForm(url.Values{"id": {newUUID()}})), nil
}

func showNewSender(f *form) answer {
	a := answer{template: "newsender.html", title: "Create a sender", tab: "senders", body: f}
	if f.Failed() {
		a.status = http.StatusUnprocessableEntity
	}
	return a
}

// createSender adds a sender. The form has its ID, so a form that is sent again makes
// no second sender.
func (d *desk) createSender(v visit) (answer, error) {
	f := newForm(v.PostForm)
	n := sqlkeys.NewSender{ID: f.senderID("id"), Name: f.name("name"), Limits: f.plan("limits"), Metadata: f.metadata("metadata")}
	if f.Failed() {
		return showNewSender(f), nil
	}
	_, err := d.store.CreateSender(v.Context(), n)
	switch {
	case errors.Is(err, sqlkeys.ErrDuplicate):
		return answer{}, &refusal{status: http.StatusConflict, title: "Nothing was changed",
			text: "There is a sender with that ID already, perhaps because the form was sent twice.", link: "senders/" + n.ID, label: "Show the sender"}
	case errors.Is(err, sqlkeys.ErrInvalid):
		f.fail("metadata", "The store refuses these values: together they may take 16 KiB.")
		return showNewSender(f), nil
	case err != nil:
		return answer{}, err
	}
	return answer{location: "senders/" + n.ID + "?done=sender-created"}, nil
}

type planPage struct {
	ID   string
	Form *form
}

func (d *desk) askPlan(v visit) (answer, error) {
	x, err := d.sender(v, v.PathValue("sender"))
	if err != nil {
		return answer{}, err
	}
	text := planText(x.Limits)
	return showPlan(x.ID, newForm(url.Values{"limits": {text}, "before": {text}})), nil
}

func showPlan(id string, f *form) answer {
	a := answer{template: "plan.html", title: "Plan of a sender", tab: "senders", sender: id, body: planPage{id, f}}
	if f.Failed() {
		a.status = http.StatusUnprocessableEntity
	}
	return a
}

// setPlan replaces the limits of a sender, unless somebody else has changed them since
// the form was shown.
func (d *desk) setPlan(v visit) (answer, error) {
	x, err := d.sender(v, v.PathValue("sender"))
	if err != nil {
		return answer{}, err
	}
	f := newForm(v.PostForm)
	limits := f.plan("limits")
	if f.Failed() {
		return showPlan(x.ID, f), nil
	}
	if lines(f.Value("before")) != planText(x.Limits) {
		return answer{}, &refusal{status: http.StatusConflict, title: "Nothing was changed",
			text: "Somebody changed the plan since you opened the form.", link: "senders/" + x.ID + "/plan", label: "Open the form again"}
	}
	if err := d.store.SetLimits(v.Context(), x.ID, limits); err != nil {
		return answer{}, err
	}
	return answer{location: "senders/" + x.ID + "?done=plan-changed"}, nil
}

func (d *desk) disableSender(v visit) (answer, error) {
	return d.changeSender(v, d.store.DisableSender, "sender-disabled")
}

func (d *desk) enableSender(v visit) (answer, error) {
	return d.changeSender(v, d.store.EnableSender, "sender-enabled")
}

func (d *desk) changeSender(v visit, f func(ctx context.Context, id string) error, done string) (answer, error) {
	x, err := d.sender(v, v.PathValue("sender"))
	if err != nil {
		return answer{}, err
	}
	if err := f(v.Context(), x.ID); err != nil {
		return answer{}, err
	}
	return answer{location: "senders/" + x.ID + "?done=" + done}, nil
}

// senderID reads the ID of a sender.
func (f *form) senderID(field string) string {
	id, ok := uuid.Canonical(strings.TrimSpace(f.Value(field)))
	if !ok {
		f.fail(field, "Enter the ID of a sender: a UUID of 36 characters.")
	}
	return id
}

// plan reads limits, one in each line: messages=60/1m.
func (f *form) plan(field string) map[string]senderauth.Limit {
	limits := make(map[string]senderauth.Limit)
	for name, text := range f.pairs(field, "messages=60/1m") {
		l, err := sqlkeys.ParseLimit(text)
		if err != nil {
			f.fail(field, "%q is not a limit. Write REQUESTS/PER or REQUESTS/PER:BURST, such as 200/1m:50, or unlimited, or blocked. REQUESTS and BURST are at most 1,000,000,000.", text)
		}
		limits[name] = l
	}
	return limits
}

// metadata reads values, one in each line: company=Acme.
func (f *form) metadata(field string) map[string]string { return f.pairs(field, "company=Acme") }

// pairs reads lines of NAME=VALUE.
func (f *form) pairs(field, example string) map[string]string {
	values := make(map[string]string)
	for line := range strings.Lines(lines(f.Value(field))) {
		line = strings.TrimSpace(line)
		name, value, ok := strings.Cut(line, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		_, twice := values[name]
		switch {
		case line == "":
			continue
		case !utf8.ValidString(line) || strings.ContainsFunc(line, isHidden):
			f.fail(field, "A line is not valid text, or has control characters.")
		case !ok || name == "":
			f.fail(field, "%q is not NAME=VALUE, such as %s.", line, example)
		case twice:
			f.fail(field, "%q is there twice.", name)
		}
		values[name] = value
	}
	return values
}

// lines returns a text with line ends as the rest of the world writes them. Browsers
// send CR LF.
func lines(s string) string { return strings.ReplaceAll(s, "\r\n", "\n") }

// planText writes limits as plan reads them.
func planText(limits map[string]senderauth.Limit) string {
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		texts = append(texts, name+"="+sqlkeys.FormatLimit(limits[name]))
	}
	return strings.Join(texts, "\n")
}

// newUUID returns a random UUID of version 4.
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
