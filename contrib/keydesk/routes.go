package keydesk

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// A route is one page or one action.
type route struct {
	method, path string // as in a pattern of a ServeMux, without the prefix
	serve        func(*desk, visit) (answer, error)
	changes      bool // refused if the desk is read-only
	operators    bool // there is no such page for a tenant
	json         bool // part of the JSON API
}

// routes lists everything that needs an Actor.
func routes() []route {
	return append([]route{
		{method: "GET", path: "/{$}", serve: (*desk).listKeys},
		{method: "GET", path: "/generate", serve: (*desk).askGenerate, changes: true},
		{method: "POST", path: "/generate", serve: (*desk).generate, changes: true},
		{method: "GET", path: "/keys/{key}", serve: (*desk).showKey},
		{method: "GET", path: "/keys/{key}/rotate", serve: (*desk).askRotate, changes: true},
		{method: "POST", path: "/keys/{key}/rotate", serve: (*desk).rotate, changes: true},
		{method: "GET", path: "/keys/{key}/access", serve: (*desk).askAccess, changes: true},
		{method: "POST", path: "/keys/{key}/access", serve: (*desk).setAccess, changes: true},
		{method: "POST", path: "/keys/{key}/disable", serve: (*desk).disable, changes: true},
		{method: "POST", path: "/keys/{key}/enable", serve: (*desk).enable, changes: true},
		{method: "GET", path: "/keys/{key}/revoke", serve: (*desk).askRevoke, changes: true},
		{method: "POST", path: "/keys/{key}/revoke", serve: (*desk).revoke, changes: true},
		{method: "GET", path: "/usage", serve: (*desk).showUsage},
		{method: "GET", path: "/limits", serve: (*desk).showLimits},
		{method: "GET", path: "/audit", serve: (*desk).showAudit},

		{method: "GET", path: "/senders", serve: (*desk).listSenders, operators: true},
		{method: "GET", path: "/create-sender", serve: (*desk).askSender, changes: true, operators: true},
		{method: "POST", path: "/create-sender", serve: (*desk).createSender, changes: true, operators: true},
		{method: "GET", path: "/senders/{sender}", serve: (*desk).showSender, operators: true},
		{method: "GET", path: "/senders/{sender}/plan", serve: (*desk).askPlan, changes: true, operators: true},
		{method: "POST", path: "/senders/{sender}/plan", serve: (*desk).setPlan, changes: true, operators: true},
		{method: "POST", path: "/senders/{sender}/disable", serve: (*desk).disableSender, changes: true, operators: true},
		{method: "POST", path: "/senders/{sender}/enable", serve: (*desk).enableSender, changes: true, operators: true},
	}, apiRoutes()...)
}

// mount adds the routes to the mux, and an answer for every other method and path.
func (d *desk) mount(routes []route) {
	methods := make(map[string][]string)
	for _, x := range routes {
		d.mux.HandleFunc(x.method+" "+x.path, func(w http.ResponseWriter, r *http.Request) { d.serve(w, r, x) })
		methods[x.path] = append(methods[x.path], x.method)
	}
	for path, allowed := range methods {
		if slices.Contains(allowed, "GET") {
			allowed = append(allowed, "HEAD")
		}
		slices.Sort(allowed)
		other := route{path: path, serve: func(*desk, visit) (answer, error) {
			return answer{}, &refusal{status: http.StatusMethodNotAllowed, title: "Method not allowed",
				text: "This page does not take that kind of request.", allow: strings.Join(allowed, ", ")}
		}}
		d.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { d.serve(w, r, other) })
	}
	none := route{path: "/", serve: func(*desk, visit) (answer, error) { return answer{}, errNotFound }}
	d.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { d.serve(w, r, none) })
	d.mountStatic()
}

// A visit is a request of a known actor.
type visit struct {
	*http.Request
	actor Actor
	json  bool // whether the client wants JSON
}

// serve answers one request: who is it, may they, do it, show it.
func (d *desk) serve(w http.ResponseWriter, r *http.Request, x route) {
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	r = r.WithContext(ctx)
	v := visit{Request: r, json: isAPI(r.URL.Path)}
	if err := d.origins.Check(r); err != nil {
		d.refuse(w, v, &refusal{status: http.StatusForbidden, title: "Not from here",
			text: "The request came from another site. Open the page itself and try again."})
		return
	}
	actor, err := d.authorize(r)
	if err != nil {
		d.refuseStranger(w, v, err)
		return
	}
	if v.actor, err = actor.check(); err != nil {
		d.log.ErrorContext(ctx, "keydesk: an Actor is refused", "error", err)
		d.refuse(w, v, errForbidden)
		return
	}
	v.Request = r.WithContext(sqlkeys.WithActor(ctx, v.actor.Name))
	a, err := d.answer(v, x)
	if err != nil {
		d.refuse(w, v, err)
		return
	}
	d.respond(w, v, a)
}

// answer decides about the request of a known actor.
func (d *desk) answer(v visit, x route) (answer, error) {
	switch {
	case x.operators && !v.actor.Operator:
		return answer{}, errNotFound
	case d.readOnly && x.changes:
		return answer{}, &refusal{status: http.StatusForbidden, title: "Read only", text: "Keys cannot be changed here."}
	}
	if x.method == http.MethodPost && !x.json {
		if err := parseForm(v.Request); err != nil {
			return answer{}, err
		}
	}
	return x.serve(d, v)
}

// refuseStranger answers a request that Authorize has refused.
func (d *desk) refuseStranger(w http.ResponseWriter, v visit, err error) {
	var own http.Handler
	var login signIn
	switch {
	case v.json && errors.As(err, &login):
		d.refuse(w, v, err)
	case errors.As(err, &own):
		own.ServeHTTP(w, v.Request)
	case errors.Is(err, ErrForbidden):
		d.refuse(w, v, errForbidden)
	default:
		d.refuse(w, v, err)
	}
}
