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
			p := &passage[H, C]{c: c, next: next}
			r := c.Request().WithContext(context.WithValue(c.Request().Context(), passageKey{}, p))
			r.Pattern = c.Path()
			outer := c.Request()
			// net/http removes the temporary files of its own request's form only.
			defer func() { outer.MultipartForm = r.MultipartForm }()
			h.ServeHTTP(c.Response(), r)
			return p.err
		}
	}
}

// Sender returns the sender that a guard stored in c, a context of echo. The boolean is
// false if there is none.
func Sender(c interface{ Request() *http.Request }) (senderauth.Sender, bool) {
	return senderauth.SenderFrom(c.Request().Context())
}

// A passage is one request in one middleware. With several middlewares each finds its
// own passage, because each stores it in a context derived for its request.
type passage[H ~func(C) error, C any] struct {
	c    C
	next H
	err  error
}

type passageKey struct{}
