// Command quickstart serves a small API with API keys and quotas, on net/http alone.
package main

import (
	"net/http"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/examples/internal/demo"
)

func main() { demo.MainWithKeysPage("quickstart", routes) }

// A route is a handler with the names of the limits to charge for it.
type route struct {
	http.HandlerFunc
	limits []string
}

// routes puts the guard in front of the whole mux. A request that no pattern matches,
// or that the mux redirects, needs a key as well and is charged the limit "default".
func routes(guard *senderauth.Guard) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /v1/contacts", route{contacts, []string{"default"}})
	mux.Handle("GET /v1/contacts/{id}", route{contact, []string{"default"}})
	mux.Handle("POST /v1/messages", route{send, []string{"messages"}})
	mux.Handle("POST /v1/users", route{invite, []string{"default", "sensitive"}})

	return guard.ChargingBy(func(r *http.Request) []string {
		h, _ := mux.Handler(r)
		if matched, ok := h.(route); ok {
			return matched.limits
		}
		return []string{"default"}
	}).Wrap(mux)
}

func contacts(w http.ResponseWriter, r *http.Request) {
	sender, _ := senderauth.SenderFrom(r.Context())
	demo.Contacts(sender).ServeHTTP(w, r)
}

func contact(w http.ResponseWriter, r *http.Request) {
	sender, _ := senderauth.SenderFrom(r.Context())
	demo.ContactByID(sender, r.PathValue("id")).ServeHTTP(w, r)
}

func send(w http.ResponseWriter, r *http.Request) {
	sender, _ := senderauth.SenderFrom(r.Context())
	demo.Send(sender, r.Body).ServeHTTP(w, r)
}

func invite(w http.ResponseWriter, r *http.Request) {
	sender, _ := senderauth.SenderFrom(r.Context())
	demo.Invite(sender, r.Body).ServeHTTP(w, r)
}
