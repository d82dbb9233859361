// Command chi serves the API of the quickstart with chi. A guard is a
// middleware of chi as it is.
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

// routes puts the guard in front of the whole router. chi finds the route
// after its middlewares have run: the guard asks it before.
func routes(guard *senderauth.Guard) http.Handler {
	router := chi.NewRouter()
	limits := func(r *http.Request) []string {
		path := cmp.Or(r.URL.RawPath, r.URL.Path) // what chi goes by
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
