package demo

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/senderauth/senderauth"
)

// The functions of this file are the API without its router. Each returns its response
// as a handler, so that any router can write it: Contacts(sender).ServeHTTP(w, r).

// Contact is a person to send messages to.
type Contact struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Phone string `json:"phone"`
}

var contacts = []Contact{
	{ID: "1", Name: "Ada", Phone: "+15550100"},
	{ID: "2", Name: "Grace", Phone: "+15550101"},
}

// Contacts answers GET /v1/contacts.
func Contacts(s senderauth.Sender) http.Handler {
	return answer{http.StatusOK, struct {
		Sender   string    `json:"sender"`
		Contacts []Contact `json:"contacts"`
	}{s.ID, contacts}}
}

// ContactByID answers GET /v1/contacts/{id}.
func ContactByID(_ senderauth.Sender, id string) http.Handler {
	for _, c := range contacts {
		if c.ID == id {
			return answer{http.StatusOK, c}
		}
	}
	return &senderauth.Problem{Status: http.StatusNotFound, Detail: "No such contact"}
}

// Send answers POST /v1/messages.
func Send(s senderauth.Sender, body io.Reader) http.Handler {
	var m struct {
		To   string `json:"to"`
		Text string `json:"text"`
	}
	if problem := read(body, &m); problem != nil {
		return problem
	}
	if m.To == "" || m.Text == "" {
		return &senderauth.Problem{Status: http.StatusUnprocessableEntity, Detail: `A message needs "to" and "text"`}
	}
	return answer{http.StatusAccepted, struct {
		Sender string `json:"sender"`
		To     string `json:"to"`
		Status string `json:"status"`
	}{s.ID, m.To, "queued"}}
}

// Invite answers POST /v1/users.
func Invite(s senderauth.Sender, body io.Reader) http.Handler {
	var u struct {
		Email string `json:"email"`
	}
	if problem := read(body, &u); problem != nil {
		return problem
	}
	if u.Email == "" {
		return &senderauth.Problem{Status: http.StatusUnprocessableEntity, Detail: `A user needs an "email"`}
	}
	return answer{http.StatusCreated, struct {
		Sender string `json:"sender"`
		Email  string `json:"email"`
		Status string `json:"status"`
	}{s.ID, u.Email, "invited"}}
}

const maxBody = 64 << 10

// read decodes body, one JSON object, into v.
func read(body io.Reader, v any) *senderauth.Problem {
	b, err := io.ReadAll(io.LimitReader(body, maxBody+1))
	switch {
	case err != nil:
		return &senderauth.Problem{Status: http.StatusBadRequest, Detail: "The body could not be read", Err: err}
	case len(b) > maxBody:
		return &senderauth.Problem{Status: http.StatusRequestEntityTooLarge, Detail: "The body is larger than 64 KiB"}
	}
	if err := json.Unmarshal(b, v); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) && wrong.Field != "" {
			return &senderauth.Problem{Status: http.StatusUnprocessableEntity, Detail: "The member " + wrong.Field + " must be a " + wrong.Type.String(), Err: err}
		}
		return &senderauth.Problem{Status: http.StatusBadRequest, Detail: "The body is not a JSON object", Err: err}
	}
	return nil
}

// An answer is a response with a JSON body.
type answer struct {
	status int
	body   any
}

func (a answer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	json.NewEncoder(w).Encode(a.body)
}
