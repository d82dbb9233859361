package senderauth

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// A Problem is a refusal as RFC 9457 writes it, in "application/problem+json":
// an object with the members status, title, detail and type, in this order,
// then instance and the extensions. It is an http.Handler that answers with
// itself, and an error that a [Validator] can return to have it answered.
type Problem struct {
	// Status is the HTTP status, 400 to 599. Anything else is answered as 500.
	Status int
	// Title is the kind of problem; "": the reason phrase of Status.
	Title string
	// Detail is for the reader of the answer. It is sent as it is.
	Detail string
	// Type is a URI that names the kind of problem; "": about:blank.
	Type string
	// Instance is a URI that names this occurrence; "": left out.
	Instance string
	// Challenge is the value of WWW-Authenticate, sent with 401 only, which
	// must have one (RFC 9110 section 15.5.2); "": ApiKey realm="api", where a
	// guard answers with the realm of its Config.
	Challenge string
	// RetryAfter is sent as Retry-After, in whole seconds, rounded up. 0 and
	// below: not sent.
	RetryAfter time.Duration
	// Extensions are further members, in the order of their names. A name that
	// RFC 9457 defines and a value that has no JSON form are left out.
	Extensions map[string]any
	// Err is the cause, for logs. It is never sent.
	Err error
}

// Error returns the status, the title and the detail, and the cause.
func (p *Problem) Error() string {
	status := p.status()
	s := fmt.Sprintf("senderauth: %d %s", status, p.title(status))
	if p.Detail != "" {
		s += ": " + p.Detail
	}
	if p.Err != nil {
		s += ": " + p.Err.Error()
	}
	return s
}

// Unwrap returns Err.
func (p *Problem) Unwrap() error { return p.Err }

// ServeHTTP writes the whole refusal: status, fields and body, the same fields
// without a body for HEAD. It deletes fields that an outer layer has set for
// another representation (ETag, Content-Length and their like), and sets
// Content-Type, Cache-Control: no-store, X-Content-Type-Options: nosniff and,
// with 401, WWW-Authenticate. net/http adds Content-Length. Content-Encoding
// stays, because a layer that has set it encodes what is written. Nothing of r
// is written.
//
// ServeHTTP first reads the body that an HTTP/1 request is still sending, up to
// 256 KiB of it, because a client that is cut off while it sends may lose the
// answer. A body that pauses for 500 ms, or that comes at less than 4 KiB a
// second, is not waited for, and neither ReadTimeout nor half of WriteTimeout is
// passed. The connection is closed after the answer if the body did not end
// within these bounds, or if w hides the connection: a writer of an outer layer
// should have an Unwrap method, as [http.ResponseController] asks.
func (p *Problem) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := p.compile("")
	answer.ServeHTTP(w, r)
}

func (p *Problem) status() int {
	if p.Status < 400 || p.Status > 599 {
		return http.StatusInternalServerError
	}
	return p.Status
}

func (p *Problem) title(status int) string { return cmp.Or(p.Title, http.StatusText(status)) }

// An answer is a problem ready to be sent.
type answer struct {
	status     int
	challenge  string // "": none
	retryAfter string // "": none
	body       []byte
}

// compile makes the answer; realm is for the challenge of a 401 without one.
func (p *Problem) compile(realm string) answer {
	a := answer{status: p.status()}
	if a.status == http.StatusUnauthorized {
		a.challenge = cmp.Or(p.Challenge, challenge(realm))
	}
	if p.RetryAfter > 0 {
		a.retryAfter = strconv.FormatInt(seconds(p.RetryAfter), 10)
	}
	var b bytes.Buffer
	b.WriteString(`{"status":`)
	b.WriteString(strconv.Itoa(a.status))
	member(&b, "title", p.title(a.status))
	member(&b, "detail", p.Detail)
	member(&b, "type", cmp.Or(p.Type, "about:blank"))
	if p.Instance != "" {
		member(&b, "instance", p.Instance)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Extensions)) {
		switch name {
		case "status", "title", "detail", "type", "instance":
		default:
			member(&b, name, p.Extensions[name])
		}
	}
	b.WriteByte('}')
	a.body = b.Bytes()
	return a
}

// member appends a member to an object that has one already, or nothing where
// value has no JSON form.
func member(b *bytes.Buffer, name string, value any) {
	v, err := encode(value)
	if err != nil {
		return
	}
	n, _ := encode(name)
	b.WriteByte(',')
	b.Write(n)
	b.WriteByte(':')
	b.Write(v)
}

// encode is json.Marshal without the escapes that are for HTML: the client
// reads <, > and & as they are.
func encode(value any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(value)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// challenge is the value of WWW-Authenticate. RFC 9110 section 15.5.2 demands
// one with every 401; no scheme of the registry fits, and Basic would make
// browsers ask for a password.
func challenge(realm string) string {
	return "ApiKey realm=" + quote(cmp.Or(realm, "api"))
}

// quote is the quoted-string of RFC 9110 section 5.6.4 and the String of RFC
// 9651 section 3.3.3, for a text of printable ASCII.
func quote(s string) string {
	b := make([]byte, 0, len(s)+2)
	b = append(b, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return string(append(b, '"'))
}

// printable reports whether s is not empty and of printable ASCII.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return s != ""
}

// seconds rounds up: a client that comes back earlier is refused again.
func seconds(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d%time.Second > 0 {
		s++
	}
	return s
}

// clearRepresentation deletes, under any spelling, the fields about a body that
// is not sent, or that must not be read into ours (RFC 9110 sections 8 and 14),
// what only some refusals set, and what write sets. Content-Encoding stays: a
// layer that has set it encodes what is written. To look at the few fields that
// are there takes a third of the time of looking for those that may be.
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

func (a *answer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	clearRepresentation(w.Header())
	a.write(w, r)
}

// write writes the answer into a header without fields about another one.
//
// It leaves Content-Length to net/http, which counts what an outer layer made
// of the body, and the body of HEAD, which net/http counts and does not send.
func (a *answer) write(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	// One array for all values; each has its own capacity, so that an append
	// by an outer layer does not run into the next.
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
