package senderauth

import (
	"net/http"
	"strconv"
)

// An answer is a problem ready to be sent.
type answer struct {
	status     int
	challenge  string // "": none
	retryAfter string // "": none
	body       []byte
}

// compile returns the answer of a complete problem.
func (p *Problem) compile() answer {
	a := answer{status: p.Status, challenge: p.Challenge, body: p.json()}
	if p.RetryAfter > 0 {
		a.retryAfter = strconv.FormatInt(seconds(p.RetryAfter), 10)
	}
	return a
}

// clearRepresentation deletes, under any spelling, the fields about a body that is
// not sent or that must not be read into ours (RFC 9110 sections 8 and 14), the
// fields that only some refusals set, and those that write sets. Content-Encoding
// stays: the layer that set it encodes what is written. Looking at the few fields
// that are there takes a third of the time of looking for those that may be.
func clearRepresentation(h http.Header) {
	for name := range h {
		switch http.CanonicalHeaderKey(name) {
		case "Accept-Ranges", "Content-Disposition", "Content-Language", "Content-Length", "Content-Location",
			"Content-Range", "Etag", "Expires", "Last-Modified", "Trailer", "Transfer-Encoding",
			"Retry-After", "Www-Authenticate", "Content-Type", "Cache-Control", "X-Content-Type-Options":
			delete(h, name)
		}
	}
}

// write writes the answer into a header without fields about another one.
//
// It leaves Content-Length to net/http, which counts what an outer layer made of
// the body, and the body of HEAD, which net/http counts and does not send.
func (a *answer) write(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	// One array for all values; each has its own capacity, so that an append by an
	// outer layer does not run into the next.
	v := [5]string{"application/problem+json", "no-store", "nosniff", a.challenge, a.retryAfter}
	h["Content-Type"] = v[0:1:1]
	h["Cache-Control"] = v[1:2:2]
	h["X-Content-Type-Options"] = v[2:3:3]
	if a.challenge != "" {
		h["Www-Authenticate"] = v[3:4:4]
	}
	if a.retryAfter != "" {
		h["Retry-After"] = v[4:5:5]
	}
	drainBody(w, r)
	w.WriteHeader(a.status)
	w.Write(a.body)
}
