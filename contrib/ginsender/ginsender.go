// Package ginsender puts a guard of senderauth in front of gin handlers.
//
//	engine := gin.New()
//	engine.Use(ginsender.Middleware(guard.Wrap)) // all routes, and what no route matches
//	engine.POST("/v1/messages", send)
//
// A handler finds the sender with [Sender]. A limit of one route is charged by
// a guard at the route, or by one guard for all that chooses by the route that
// gin matched, which the request has as its Pattern, as net/http does it:
//
//	engine.Use(ginsender.Middleware(guard.ChargingBy(func(r *http.Request) []string {
//		switch r.Method + " " + r.Pattern { // the Pattern is c.FullPath()
//		case "POST /v1/messages":
//			return []string{"messages"}
//		}
//		return []string{"default"}
//	}).Wrap))
//
// gin answers some requests before any middleware runs: it redirects where
// only a slash at the end is missing or too many (turn that off with
// engine.RedirectTrailingSlash = false), and with HandleMethodNotAllowed it
// sets Allow before a guard can refuse.
//
// The adapters for any middleware that there are do not do: gin.WrapH forgets
// the next handler, and github.com/gwatts/gin-adapter (1.0.0, of 2022) puts a
// writer of its own in the place of gin's, on which http.ResponseController
// has no deadlines, and has no route for the middleware.
package ginsender

import (
	"context"
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/senderauth/senderauth"
)

// Middleware returns mw as a handler of gin, for an engine, a group or a
// route. mw is called once, here. Where it does not call its next handler the
// chain is aborted; where it does, the chain goes on with the request that the
// next handler got as c.Request, which it stays for the handlers outside.
//
// mw is the Wrap of a guard, or a middleware like it: it calls its next
// handler on the same goroutine, with the ResponseWriter that it got. Another
// writer is not used: c.Writer stays as it is.
func Middleware(mw func(http.Handler) http.Handler) gin.HandlerFunc {
	h := mw(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		p := r.Context().Value(passageKey{}).(*passage)
		p.through = true
		p.c.Request = r
		p.c.Next()
	}))
	return func(c *gin.Context) {
		p := &passage{c: c}
		r := c.Request.WithContext(context.WithValue(c.Request.Context(), passageKey{}, p))
		r.Pattern = c.FullPath()
		outer := c.Request
		// net/http removes the temporary files of a form that its own request has.
		defer func() { outer.MultipartForm = r.MultipartForm }()
		h.ServeHTTP(c.Writer, r)
		if !p.through {
			c.Abort()
		}
	}
}

// Sender returns the sender whose request it is. The second result is false
// outside of a guard.
func Sender(c *gin.Context) (senderauth.Sender, bool) {
	return senderauth.SenderFrom(c.Request.Context())
}

// A passage is one request on its way through one middleware. The innermost
// middleware finds its own: each puts it into a context of its own.
type passage struct {
	c       *gin.Context
	through bool
}

type passageKey struct{}
