package keydesk

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/senderauth/senderauth/internal/uuid"
)

// An Actor is the person who makes a request, as [Config.Authorize] says. Set exactly one
// of SenderID and Operator. The page refuses an Actor with neither or both with 403, so
// nobody becomes an operator because an application forgot to fill in SenderID.
type Actor struct {
	// Name is what the audit trail calls the actor. Tenants see the names of the
	// operators who changed their keys. Empty means the Actor of sqlkeys.Config.
	Name string
	// SenderID is the UUID of the sender whose keys the actor may see and change.
	SenderID string
	// Operator allows everything, for all senders.
	Operator bool
}

// check returns the actor with the sender's ID in lower case.
func (a Actor) check() (Actor, error) {
	id, ok := uuid.Canonical(a.SenderID)
	switch {
	case a.Operator && a.SenderID != "":
		return Actor{}, errors.New("keydesk: the Actor has both a SenderID and Operator")
	case a.Operator:
		return a, nil
	case a.SenderID == "":
		return Actor{}, errors.New("keydesk: the Actor has neither a SenderID nor Operator")
	case !ok:
		return Actor{}, errors.New("keydesk: Actor.SenderID is not a UUID of 36 characters, or the nil or max UUID")
	}
	a.SenderID = id
	return a, nil
}

// sees reports whether the actor may see and change what belongs to the sender.
func (a Actor) sees(senderID string) bool {
	return a.Operator || a.SenderID != "" && a.SenderID == senderID
}

// ErrForbidden is what [Config.Authorize] returns for a person who may not see the
// page. It is answered 403.
var ErrForbidden = errors.New("keydesk: forbidden")

// SignIn returns an error for [Config.Authorize] that sends a browser to url, where
// people sign in. The answer is a redirect with status 303.
func SignIn(url string) error { return signIn(url) }

type signIn string

func (s signIn) Error() string { return fmt.Sprintf("keydesk: sign in at %s", string(s)) }

func (s signIn) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Location", string(s))
	w.WriteHeader(http.StatusSeeOther)
}
