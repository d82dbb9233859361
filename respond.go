package senderauth

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A responder answers the third question: what is the client told. It turns
// decisions into status, fields and body, and is immutable.
type responder struct {
	challenge    string
	fields       RateFields
	serveProblem func(http.ResponseWriter, *http.Request, *Problem, Outcome)
	details      map[Outcome]string // of the refusals that are always the same
	answers      map[Outcome]answer // to them, made once
}

func newResponder(cfg *Config) *responder {
	key, sender := strings.ToLower(cfg.keyHeader()), strings.ToLower(cfg.senderHeader())
	p := &responder{
		challenge:    challenge(cfg.KeyScheme, cfg.Realm),
		fields:       cfg.RateFields,
		serveProblem: cfg.ServeProblem,
		details: map[Outcome]string{
			Insecure:      "HTTPS is required",
			MissingKey:    "Header " + key + " not found",
			MissingSender: "Header " + sender + " not found",
			InvalidSender: "Invalid " + sender,
			InvalidKey:    "Invalid API credentials!",
			Mismatch:      "API key does not match sender ID",
			Failed:        "An internal error occurred.",
			Unavailable:   "The service is temporarily unavailable. Please retry.",
			Canceled:      "The service is temporarily unavailable. Please retry.",
		},
		answers: map[Outcome]answer{},
	}
	for o := range p.details {
		problem := p.problem(&decision{outcome: o})
		p.answers[o] = problem.compile()
	}
	return p
}

// refuse writes the refusal.
func (p *responder) refuse(w http.ResponseWriter, r *http.Request, d *decision) {
	h := w.Header()
	clearRepresentation(h)
	dropRateFields(h) // a guard outside may have set them, and a 401 must not tell of quota
	if d.outcome == Limited {
		p.setRateFields(h, d)
	}
	if p.serveProblem == nil {
		a := p.answer(d)
		a.write(w, r)
		return
	}
	drainBody(w, r)
	drained := *r
	drained.Body = http.NoBody // for a problem that answers by itself
	problem := p.problem(d)
	p.serveProblem(w, &drained, &problem, d.outcome)
}

// answer returns what is written for a refusal.
func (p *responder) answer(d *decision) answer {
	if a, ok := p.answers[d.outcome]; ok {
		return a
	}
	if d.outcome == Limited {
		return limitedAnswer(d.retry)
	}
	problem := p.problem(d)
	return problem.compile()
}

// problem returns the complete problem of a refusal, for the caller to change.
func (p *responder) problem(d *decision) Problem {
	if d.outcome == Refused {
		return d.problem.complete(p.challenge)
	}
	problem := Problem{Status: d.outcome.status(), Detail: p.details[d.outcome], Err: d.err}
	switch problem.Status {
	case http.StatusTooManyRequests:
		problem.Detail, problem.RetryAfter = string(appendLimited(nil, d.retry)), d.retry
	case http.StatusServiceUnavailable:
		problem.RetryAfter = time.Second
	}
	return problem.complete(p.challenge)
}

// setRateFields writes what the decision's balances tell the client.
func (p *responder) setRateFields(h http.Header, d *decision) {
	var buf [2]rateItem
	p.fields.set(h, d.tally.rateItems(buf[:0]), d.tally.unix)
}

// appendLimited appends the detail of the documented API, which says "1 seconds".
func appendLimited(b []byte, retry time.Duration) []byte {
	b = append(b, "Rate limit exceeded."...)
	if retry < 0 {
		return b
	}
	b = append(b, " Please retry after "...)
	return append(strconv.AppendInt(b, seconds(retry), 10), " seconds."...)
}

// limitedAnswer is Problem.compile for a 429 without the work of encoding a text
// that needs none: two allocations instead of nine.
func limitedAnswer(retry time.Duration) answer {
	a := answer{status: http.StatusTooManyRequests}
	a.body = append(make([]byte, 0, 160), `{"status":429,"title":"Too Many Requests","detail":"`...)
	a.body = append(appendLimited(a.body, retry), `","type":"about:blank"}`...)
	if retry >= 0 {
		a.retryAfter = strconv.FormatInt(seconds(retry), 10)
	}
	return a
}

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
