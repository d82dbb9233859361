// Command gin serves the API of the quickstart with gin, through ginsender.
package main

import (
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/examples/internal/demo"
	"github.com/senderauth/senderauth/contrib/ginsender"
)

func main() { demo.Main("gin", routes) }

// routes puts the guard in front of the whole engine.
func routes(guard *senderauth.Guard) http.Handler {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.RedirectTrailingSlash = false // gin would redirect before any middleware runs
	engine.HandleMethodNotAllowed = true
	engine.Use(ginsender.Middleware(guard.ChargingBy(limits).Wrap))

	read := []string{http.MethodGet, http.MethodHead}
	engine.Match(read, "/v1/contacts", contacts)
	engine.Match(read, "/v1/contacts/:id", contact)
	engine.POST("/v1/messages", send)
	engine.POST("/v1/users", invite)
	return engine
}

func limits(r *http.Request) []string {
	switch r.Method + " " + r.Pattern { // the Pattern is c.FullPath()
	case "POST /v1/messages":
		return []string{"messages"}
	case "POST /v1/users":
		return []string{"default", "sensitive"}
	}
	return []string{"default"}
}

func contacts(c *gin.Context) {
	sender, _ := ginsender.Sender(c)
	demo.Contacts(sender).ServeHTTP(c.Writer, c.Request)
}

func contact(c *gin.Context) {
	sender, _ := ginsender.Sender(c)
	demo.ContactByID(sender, c.Param("id")).ServeHTTP(c.Writer, c.Request)
}

func send(c *gin.Context) {
	sender, _ := ginsender.Sender(c)
	demo.Send(sender, c.Request.Body).ServeHTTP(c.Writer, c.Request)
}

func invite(c *gin.Context) {
	sender, _ := ginsender.Sender(c)
	demo.Invite(sender, c.Request.Body).ServeHTTP(c.Writer, c.Request)
}
