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

// A Problem is a refusal in the form of RFC 9457, "application/problem+json": an
// object with the members status, title, detail and type, in this order, then
// instance and the extensions. It is an [http.Handler] that answers with itself.
// It is also an error: if a [Validator] returns it, the client gets it.
type Problem struct {
	// Status is the HTTP status, 400 to 599. Any other value is answered as 500.
	Status int
	// Title names the kind of problem. Empty means the reason phrase of Status.
	Title string
	// Detail is for the reader of the answer. It is sent as it is.
	Detail string
	// Type is a URI that identifies the kind of problem. Empty means about:blank.
	Type string
	// Instance is a URI that identifies this occurrence. Empty means none.
	Instance string
	// Challenge is the value of WWW-Authenticate. It is sent with 401 only, which
	// must have one (RFC 9110 section 15.5.2). Empty means the challenge of the guard
	// that answers, or ApiKey realm="api" without a guard.
	Challenge string
	// RetryAfter is sent as Retry-After, in whole seconds, rounded up. Zero and less
	// mean no Retry-After.
	RetryAfter time.Duration
	// Extensions are further members, in the order of their names. A name that RFC
	// 9457 defines is left out, and so is a value that has no JSON form.
	Extensions map[string]any
	// Err is the cause, for logs. It is never sent.
	Err error
}

// Error returns the status, the title, the detail and the cause.
func (p *Problem) Error() string {
	status := p.status()
	s := fmt.Sprintf("senderauth: %d %s", status, cmp.Or(p.Title, http.StatusText(status)))
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

// ServeHTTP writes the whole refusal: status, fields and body, or the same fields
// without a body for HEAD. It sets Content-Type, Cache-Control: no-store,
// X-Content-Type-Options: nosniff and, with 401, WWW-Authenticate. net/http adds
// Content-Length. ServeHTTP deletes fields that an outer layer has set for another
// representation, such as ETag. It keeps Content-Encoding, because the layer that
// set it encodes what is written. It writes nothing from r.
//
// ServeHTTP first reads the body that the request is still sending, up to 256 KiB
// of it, because a client that is cut off while it sends may lose the answer. Over
// HTTP/2 it reads for at most 500 ms. Over HTTP/1 it does not wait for a body that
// pauses for 500 ms or comes at less than 4 KiB a second. It reads for no longer
// than the server's ReadTimeout and half of its WriteTimeout, counted from the call.
// If the body of an HTTP/1 request did not end within these bounds, the connection
// is closed after the answer. It is also closed if w hides the connection, so give
// the writer of an outer layer an Unwrap method, as [http.ResponseController] asks.
func (p *Problem) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	complete := p.complete(challenge("", ""))
	a := complete.compile()
	clearRepresentation(w.Header())
	a.write(w, r)
}

// complete returns a copy of p in which every default is filled in.
func (p *Problem) complete(challenge string) Problem {
	c := *p
	c.Status = p.status()
	c.Title = cmp.Or(p.Title, http.StatusText(c.Status))
	c.Type = cmp.Or(p.Type, "about:blank")
	c.RetryAfter = max(p.RetryAfter, 0)
	c.Extensions = maps.Clone(p.Extensions)
	if c.Status == http.StatusUnauthorized {
		c.Challenge = cmp.Or(p.Challenge, challenge)
	} else {
		c.Challenge = ""
	}
	return c
}

func (p *Problem) status() int {
	if p.Status < 400 || p.Status > 599 {
		return http.StatusInternalServerError
	}
	return p.Status
}

// json returns the body of a complete problem.
func (p *Problem) json() []byte {
	var b bytes.Buffer
	b.WriteString(`{"status":`)
	b.WriteString(strconv.Itoa(p.Status))
	member(&b, "title", p.Title)
	member(&b, "detail", p.Detail)
	member(&b, "type", p.Type)
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
	return b.Bytes()
}

// member appends a member to an object that already has one. It appends nothing if
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

// encode is json.Marshal without the escapes for HTML, so that the client reads <,
// > and & as they are.
func encode(value any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(value)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// challenge returns the value of WWW-Authenticate. RFC 9110 section 15.5.2 demands
// one with every 401. No scheme of the registry fits a key in a header of its own,
// and Basic would make browsers ask for a password.
func challenge(scheme, realm string) string {
	return cmp.Or(scheme, "ApiKey") + " realm=" + quote(cmp.Or(realm, "api"))
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

// seconds rounds up: a client that comes back earlier is refused again.
func seconds(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d%time.Second > 0 {
		s++
	}
	return s
}
