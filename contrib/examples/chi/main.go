// Command chi serves the API of the quickstart with chi. chi needs no adapter, because
// Guard.Wrap is a middleware for it.
package main

import (
	"cmp"
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/examples/internal/demo"
)

func main() { demo.Main("chi", routes) }

// routes puts the guard in front of the whole router. chi matches the route only after
// its middlewares have run, so limits asks the router for the route itself.
func routes(guard *senderauth.Guard) http.Handler {
	router := chi.NewRouter()
	limits := func(r *http.Request) []string {
		path := cmp.Or(r.URL.RawPath, r.URL.Path) // the path that chi matches
		switch r.Method + " " + router.Find(chi.NewRouteContext(), r.Method, path) {
		case "POST /v1/messages":
			return []string{"messages"}
		case "POST /v1/users":
			return []string{"default", "sensitive"}
		}
		return []string{"default"}
	}
	router.Use(guard.ChargingBy(limits).Wrap, middleware.GetHead)

	router.Get("/v1/contacts", contacts)
	router.Get("/v1/contacts/{id}", contact)
	router.Post("/v1/messages", send)
	router.Post("/v1/users", invite)
	return router
}

func contacts(w http.ResponseWriter, r *http.Request) {
	sender, _ := senderauth.SenderFrom(r.Context())
	demo.Contacts(sender).ServeHTTP(w, r)
}

func contact(w http.ResponseWriter, r *http.Request) {
	sender, _ := senderauth.SenderFrom(r.Context())
	demo.ContactByID(sender, chi.URLParam(r, "id")).ServeHTTP(w, r)
}

func send(w http.ResponseWriter, r *http.Request) {
	sender, _ := senderauth.SenderFrom(r.Context())
	demo.Send(sender, r.Body).ServeHTTP(w, r)
}

func invite(w http.ResponseWriter, r *http.Request) {
	sender, _ := senderauth.SenderFrom(r.Context())
	demo.Invite(sender, r.Body).ServeHTTP(w, r)
}
