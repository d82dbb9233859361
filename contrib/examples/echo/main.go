// Command echo serves the API of the quickstart with echo, version 5, through
// echosender.
package main

import (
	"net/http"

	"github.com/labstack/echo/v5"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/echosender"
	"github.com/senderauth/senderauth/contrib/examples/internal/demo"
)

func main() { demo.Main("echo", routes) }

// routes puts the guard in front of the whole instance.
func routes(guard *senderauth.Guard) http.Handler {
	e := echo.New()
	e.Use(echosender.Middleware[echo.HandlerFunc](guard.ChargingBy(limits).Wrap))

	read := []string{http.MethodGet, http.MethodHead}
	e.Match(read, "/v1/contacts", contacts)
	e.Match(read, "/v1/contacts/:id", contact)
	e.POST("/v1/messages", send)
	e.POST("/v1/users", invite)
	return e
}

func limits(r *http.Request) []string {
	switch r.Method + " " + r.Pattern { // the Pattern is c.Path()
	case "POST /v1/messages":
		return []string{"messages"}
	case "POST /v1/users":
		return []string{"default", "sensitive"}
	}
	return []string{"default"}
}

func contacts(c *echo.Context) error {
	sender, _ := echosender.Sender(c)
	demo.Contacts(sender).ServeHTTP(c.Response(), c.Request())
	return nil
}

func contact(c *echo.Context) error {
	sender, _ := echosender.Sender(c)
	demo.ContactByID(sender, c.Param("id")).ServeHTTP(c.Response(), c.Request())
	return nil
}

func send(c *echo.Context) error {
	sender, _ := echosender.Sender(c)
	demo.Send(sender, c.Request().Body).ServeHTTP(c.Response(), c.Request())
	return nil
}

func invite(c *echo.Context) error {
	sender, _ := echosender.Sender(c)
	demo.Invite(sender, c.Request().Body).ServeHTTP(c.Response(), c.Request())
	return nil
}
