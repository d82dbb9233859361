// Package echosender puts a guard of senderauth in front of echo handlers, of
// version 4 and of version 5.
//
//	e := echo.New()
//	e.Use(echosender.Middleware[echo.HandlerFunc](guard.Wrap)) // all routes, and what no route matches
//	e.POST("/v1/messages", send)
//
// A handler finds the sender with [Sender]. A limit of one route is charged by
// a guard at the route, or by one guard for all that chooses by the route that
// echo matched, which the request has as its Pattern, as net/http does it:
//
//	e.Use(echosender.Middleware[echo.HandlerFunc](guard.ChargingBy(func(r *http.Request) []string {
//		switch r.Method + " " + r.Pattern { // the Pattern is c.Path()
//		case "POST /v1/messages":
//			return []string{"messages"}
//		}
//		return []string{"default"}
//	}).Wrap))
//
// Look at the method as well: where a route has the path and not the method,
// echo names the path of that route all the same, and answers 405.
//
// The types of echo's two versions differ, and what is to be done with them
// does not: the package is generic and requires neither. echo.WrapMiddleware
// serves as well where no outer middleware looks at the response: it puts a new
// Response in the place of echo's for the next handler, so that outside, on
// version 4, the status is 0 after a handler returned an error, and it makes
// the guard's handler anew for each request.
package echosender

import (
	"context"
	"net/http"

	"github.com/senderauth/senderauth"
)

// Context is what a guard needs of *echo.Context (version 5) and echo.Context
// (version 4). W is the type of the response, which differs.
type Context[W http.ResponseWriter] interface {
	Request() *http.Request
	SetRequest(*http.Request)
	Response() W
	Path() string
}

// Middleware returns mw as a middleware of echo, for an instance, a group or a
// route; H is echo.HandlerFunc, the rest is inferred. mw is called once, here.
// Where it calls its next handler, echo's goes on with the request that this
// one got, which stays c.Request() for the middlewares outside, and its error
// is returned to them. A refusal is written and no error.
//
// mw is the Wrap of a guard, or a middleware like it: it calls its next
// handler on the same goroutine, with the ResponseWriter that it got. Another
// writer is not used: c.Response() stays as it is.
func Middleware[H ~func(C) error, C Context[W], W http.ResponseWriter](mw func(http.Handler) http.Handler) func(H) H {
	h := mw(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		p := r.Context().Value(passageKey{}).(*passage[H, C])
		p.c.SetRequest(r)
		p.err = p.next(p.c)
	}))
	return func(next H) H {
		return func(c C) error {
			p := &passage[H, C]{c: c, next: next}
			r := c.Request().WithContext(context.WithValue(c.Request().Context(), passageKey{}, p))
			r.Pattern = c.Path()
			outer := c.Request()
			// net/http removes the temporary files of a form that its own request has.
			defer func() { outer.MultipartForm = r.MultipartForm }()
			h.ServeHTTP(c.Response(), r)
			return p.err
		}
	}
}

// Sender returns the sender whose request it is; c is echo's context. The
// second result is false outside of a guard.
func Sender(c interface{ Request() *http.Request }) (senderauth.Sender, bool) {
	return senderauth.SenderFrom(c.Request().Context())
}

// A passage is one request on its way through one middleware. The innermost
// middleware finds its own: each puts it into a context of its own.
type passage[H ~func(C) error, C any] struct {
	c    C
	next H
	err  error
}

type passageKey struct{}
