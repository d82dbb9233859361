// Package echosender puts a guard of senderauth in front of handlers of echo, version 4
// or version 5.
//
//	e := echo.New()
//	e.Use(echosender.Middleware[echo.HandlerFunc](guard.Wrap)) // all routes, and what no route matches
//	e.POST("/v1/messages", send)
//
// A handler finds the sender with [Sender]. To charge another limit for some routes, put
// a guard at each of them, or let one guard choose by the matched route. [Middleware]
// sets the Pattern of the request to that route, as net/http does:
//
//	e.Use(echosender.Middleware[echo.HandlerFunc](guard.ChargingBy(func(r *http.Request) []string {
//		switch r.Method + " " + r.Pattern { // the Pattern is c.Path()
//		case "POST /v1/messages":
//			return []string{"messages"}
//		}
//		return []string{"default"}
//	}).Wrap))
//
// Compare the method as well: if a route matches the path but not the method, echo still
// reports that route's path, and answers 405.
//
// The package is generic and requires neither version of echo, because the two differ in
// their types only.
//
// If no outer middleware reads the response, echo.WrapMiddleware works, too. It replaces
// echo's Response for the next handler, so on version 4 an outer middleware sees the
// status 0 after a handler has returned an error. It also creates the guard's handler
// again for each request.
package echosender

import (
	"context"
	"net/http"

	"github.com/senderauth/senderauth"
)

// Context has the methods that a guard needs from *echo.Context (version 5) and
// echo.Context (version 4). W is the type of the response, which differs between them.
type Context[W http.ResponseWriter] interface {
	Request() *http.Request
	SetRequest(*http.Request)
	Response() W
	Path() string
}

// Middleware adapts mw, such as the Wrap of a guard, to an Echo, a group or a route. H is
// echo.HandlerFunc; the other type parameters are inferred. Middleware calls mw once,
// before it returns, and not for each request.
//
// If the handler that mw returns calls next, echo's next handler runs, and c.Request()
// returns the request that next got. Outer middlewares see that request afterwards, and
// get the error of echo's next handler. A refusal is a written response and no error.
//
// The handler must call next on the same goroutine and with the same ResponseWriter. If it
// passes another writer, Middleware ignores it: c.Response() stays as it is.
func Middleware[H ~func(C) error, C Context[W], W http.ResponseWriter](mw func(http.Handler) http.Handler) func(H) H {
	h := mw(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		p := r.Context().Value(passageKey{}).(*passage[H, C])
		p.c.SetRequest(r)
		p.err = p.next(p.c)
	}))
	return func(next H) H {
		return func(c C) error {
			outer := c.Request()
			p := newPassage[H, C, W](c, next)
			// net/http removes the temporary files of its own request's form only.
			defer func() { outer.MultipartForm = p.request.MultipartForm }()
			h.ServeHTTP(c.Response(), &p.request)
			return p.err
		}
	}
}

// Sender returns the sender that a guard stored in c, a context of echo. The boolean is
// false if there is none.
func Sender(c interface{ Request() *http.Request }) (senderauth.Sender, bool) {
	return senderauth.SenderFrom(c.Request().Context())
}

// A passage is one request in one middleware, and the context of that request. With
// several middlewares each finds its own passage, because the inner one is nearer.
type passage[H ~func(C) error, C any] struct {
	context.Context
	request http.Request
	c       C
	next    H
	err     error
}

type passageKey struct{}

func newPassage[H ~func(C) error, C Context[W], W http.ResponseWriter](c C, next H) *passage[H, C] {
	r := c.Request()
	p := &passage[H, C]{Context: r.Context(), c: c, next: next}
	p.request = *r.WithContext(p)
	p.request.Pattern = c.Path()
	return p
}

// Value returns p itself for passageKey.
func (p *passage[H, C]) Value(key any) any {
	if key == (passageKey{}) {
		return p
	}
	return p.Context.Value(key)
}
