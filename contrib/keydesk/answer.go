package keydesk

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// An answer is what a route decides: a page, or the way to another one.
type answer struct {
	status   int    // zero means 200
	template string // the file
	title    string
	tab      string // the entry of the navigation that is current
	sender   string // whom the page is about, for the links of an operator
	body     any
	location string // relative to the desk, for a redirect after a change
	json     any    // the body, in place of a page
}

// A refusal is an error with a page of its own.
type refusal struct {
	status      int
	title, text string
	link, label string // where to go on, relative to the desk
	allow       string // the methods that a 405 lists
}

func (e *refusal) Error() string { return "keydesk: " + e.title }

var (
	errNotFound  = &refusal{status: http.StatusNotFound, title: "Not found", text: "There is no such page or key."}
	errForbidden = &refusal{status: http.StatusForbidden, title: "No access", text: "You have no access to these API keys."}
	errAway      = &refusal{status: http.StatusServiceUnavailable, title: "Not available right now",
		text: "The keys cannot be read or changed at the moment. Nothing is lost: try again in a minute."}
)

// explain returns the page for an error. Those of the store that mean an outage are
// not shown.
func explain(err error) *refusal {
	var own *refusal
	if errors.As(err, &own) {
		return own
	}
	var wrong *wrongFields
	var login signIn
	switch {
	case errors.As(err, &wrong):
		return &refusal{status: http.StatusUnprocessableEntity, title: "Wrong fields", text: "Some fields are wrong. Nothing was changed."}
	case errors.As(err, &login):
		return &refusal{status: http.StatusUnauthorized, title: "Signed out", text: "Sign in first."}
	case errors.Is(err, sqlkeys.ErrNotFound):
		return errNotFound
	}
	return errAway
}

// refuse answers with the page of an error.
func (d *desk) refuse(w http.ResponseWriter, v visit, err error) {
	e := explain(err)
	if e.status >= 500 {
		d.log.ErrorContext(v.Context(), "keydesk: a request failed", "method", v.Method, "path", v.URL.Path, "error", err)
		w.Header().Set("Retry-After", "5")
	}
	if e.allow != "" {
		w.Header().Set("Allow", e.allow)
	}
	if v.json {
		problemOf(err).ServeHTTP(w, v.Request)
		return
	}
	d.respond(w, v, answer{status: e.status, template: "refusal.html", title: e.title,
		body: refusalPage{Text: e.text, Link: e.link, Label: e.label}})
}

type refusalPage struct{ Text, Link, Label string }

// A page is what the layout shows.
type page struct {
	Root     string // the way to the desk, relative to the page: ./ or ../ or ../../
	Title    string
	Tab      string
	Tabs     []tab
	Notice   string
	Known    bool // whether the actor is known, and so the navigation makes sense
	Actor    Actor
	ReadOnly bool
	Assets   map[string]string // URLs by file, relative to the desk
	Body     any
}

// respond writes an answer. It renders the page first, so that a page is sent whole
// or not at all.
func (d *desk) respond(w http.ResponseWriter, v visit, a answer) {
	// Each slash of the path after the first one is a step away from the desk.
	root := cmp.Or(strings.Repeat("../", strings.Count(v.URL.Path, "/")-1), "./")
	if a.location != "" {
		// A relative reference: the path that the browser sees is not known here.
		w.Header().Set("Location", root+a.location)
		w.WriteHeader(http.StatusSeeOther)
		return
	}
	if a.json != nil {
		d.respondJSON(w, v, a)
		return
	}
	var b bytes.Buffer
	err := templates[a.template].ExecuteTemplate(&b, "layout.html", page{
		Root:     root,
		Title:    a.title,
		Tab:      a.tab,
		Tabs:     tabsOf(v.actor, a.sender),
		Notice:   notices[v.URL.Query().Get("done")],
		Known:    v.actor != Actor{},
		Actor:    v.actor,
		ReadOnly: d.readOnly,
		Assets:   assetURLs,
		Body:     a.body,
	})
	if err != nil {
		d.log.ErrorContext(v.Context(), "keydesk: a page could not be rendered", "page", a.template, "error", err)
		http.Error(w, "Internal Server Error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if a.status != 0 {
		w.WriteHeader(a.status)
	}
	w.Write(b.Bytes())
}

func (d *desk) respondJSON(w http.ResponseWriter, v visit, a answer) {
	b, err := json.Marshal(a.json)
	if err != nil {
		d.refuse(w, v, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if a.status != 0 {
		w.WriteHeader(a.status)
	}
	w.Write(append(b, '\n'))
}

// A tab is an entry of the navigation.
type tab struct{ ID, Label, Path, Sender string }

// tabsOf returns the navigation. An operator who looks at one sender stays there.
func tabsOf(a Actor, sender string) []tab {
	if !a.Operator {
		sender = ""
	}
	tabs := []tab{{"keys", "Keys", "", sender}, {"usage", "Usage", "usage", sender}, {"limits", "Limits", "limits", sender}, {"audit", "Audit trail", "audit", sender}}
	if a.Operator {
		tabs = append(tabs, tab{"senders", "Senders", "senders", ""})
	}
	return tabs
}

// notices are what a page can say about the change that led to it. A link can choose
// one of them, and no other text.
var notices = map[string]string{
	"disabled": "The key is disabled. Requests with it are refused until you enable it.",
	"enabled":  "The key is enabled. Requests with it are accepted again.",
	"edited":   "The key is changed. It applies to requests from now on.",

	"revoked": "The key is revoked for good.",

	"sender-created":  "The sender is created. Generate a key for it.",
	"sender-disabled": "The sender is disabled. All requests with its keys are refused until you enable it.",
	"sender-enabled":  "The sender is enabled. Its keys are accepted again.",
	"plan-changed":    "The plan is changed. It applies to requests from now on.",
}
