// Package ginsender puts a guard of senderauth in front of gin handlers.
//
//	engine := gin.New()
//	engine.Use(ginsender.Middleware(guard.Wrap)) // all routes, and what no route matches
//	engine.POST("/v1/messages", send)
//
// A handler finds the sender with [Sender]. To charge another limit for some routes, put
// a guard at each of them, or let one guard choose by the matched route. [Middleware]
// sets the Pattern of the request to that route, as net/http does:
//
//	engine.Use(ginsender.Middleware(guard.ChargingBy(func(r *http.Request) []string {
//		switch r.Method + " " + r.Pattern { // the Pattern is c.FullPath()
//		case "POST /v1/messages":
//			return []string{"messages"}
//		}
//		return []string{"default"}
//	}).Wrap))
//
// gin does two things before any middleware runs:
//
//   - It redirects a path with a missing or an extra slash at its end, unless
//     engine.RedirectTrailingSlash is false.
//   - With engine.HandleMethodNotAllowed it sets Allow for a 405. If the guard refuses
//     such a request, the refusal carries Allow, too.
//
// A general adapter is not enough. gin.WrapH never calls the next handler.
// github.com/gwatts/gin-adapter 1.0.0 replaces gin's writer by one on which
// http.ResponseController cannot set deadlines, and does not pass on the matched route.
package ginsender

import (
	"context"
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/senderauth/senderauth"
)

// Middleware adapts mw, such as the Wrap of a guard, to an engine, a group or a route of
// gin. It calls mw once, before it returns, and not for each request.
//
// If the handler that mw returns calls next, the chain goes on, and c.Request becomes the
// request that next got. Outer handlers see that request after c.Next. If the handler does
// not call next, Middleware aborts the chain.
//
// The handler must call next on the same goroutine and with the same ResponseWriter. If it
// passes another writer, Middleware ignores it: c.Writer stays as it is.
func Middleware(mw func(http.Handler) http.Handler) gin.HandlerFunc {
	h := mw(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		p := r.Context().Value(passageKey{}).(*passage)
		p.through = true
		p.c.Request = r
		p.c.Next()
	}))
	return func(c *gin.Context) {
		outer := c.Request
		p := newPassage(c)
		// net/http removes the temporary files of its own request's form only.
		defer func() { outer.MultipartForm = p.request.MultipartForm }()
		h.ServeHTTP(c.Writer, &p.request)
		if !p.through {
			c.Abort()
		}
	}
}

// Sender returns the sender that a guard stored in c. The boolean is false if there is
// none.
func Sender(c *gin.Context) (senderauth.Sender, bool) {
	return senderauth.SenderFrom(c.Request.Context())
}

// A passage is one request in one middleware, and the context of that request. With
// several middlewares each finds its own passage, because the inner one is nearer.
type passage struct {
	context.Context
	request http.Request
	c       *gin.Context
	through bool
}

type passageKey struct{}

func newPassage(c *gin.Context) *passage {
	p := &passage{Context: c.Request.Context(), c: c}
	p.request = *c.Request.WithContext(p)
	p.request.Pattern = c.FullPath()
	return p
}

// Value returns p itself for passageKey.
func (p *passage) Value(key any) any {
	if key == (passageKey{}) {
		return p
	}
	return p.Context.Value(key)
}
