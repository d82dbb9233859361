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
	expiryNotice time.Duration // 0: none
	serveProblem func(http.ResponseWriter, *http.Request, *Problem, Outcome)
	details      map[Outcome]string // of the refusals that are always the same
	answers      map[Outcome]answer // to them, made once
}

func newResponder(cfg *Config) *responder {
	key, sender := strings.ToLower(cfg.keyHeader()), strings.ToLower(cfg.senderHeader())
	p := &responder{
		challenge:    challenge(cfg.KeyScheme, cfg.Realm),
		fields:       cfg.RateFields,
		expiryNotice: cfg.ExpiryNotice,
		serveProblem: cfg.ServeProblem,
		details: map[Outcome]string{
			Insecure:      "HTTPS is required",
			MissingKey:    "Header " + key + " not found",
			MissingSender: "Header " + sender + " not found",
			InvalidSender: "Invalid " + sender,
			InvalidKey:    "Invalid API credentials!",
			Mismatch:      "API key does not match sender ID",
			WrongNetwork:  "Invalid API credentials!",
			OutOfScope:    "API key lacks a required scope",
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
	dropOwnFields(h) // a guard outside may have set them, and a 401 must not tell of quota
	if d.outcome == Limited {
		p.setRateFields(h, d)
	}
	if d.outcome != WrongNetwork { // a stranger must not learn that the key is good
		p.setExpiry(h, d.sender)
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
		return limitedAnswer(d)
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
		problem.Detail, problem.RetryAfter = string(appendLimited(nil, d)), d.retry
	case http.StatusServiceUnavailable:
		problem.RetryAfter = time.Second
	}
	return problem.complete(p.challenge)
}

// setRateFields writes what the decision's balances tell the client.
func (p *responder) setRateFields(h http.Header, d *decision) {
	if p.fields == RateFieldsNone {
		return
	}
	var buf [2]rateItem
	p.fields.set(h, d.tally.rateItems(buf[:0]), d.tally.unix)
}

// setExpiry announces the end of the sender's key. Of two guards that accepted the key,
// each by its own record, the earlier end counts.
func (p *responder) setExpiry(h http.Header, s *Sender) {
	if p.expiryNotice == 0 || s == nil || s.Expires.IsZero() || time.Until(s.Expires) > p.expiryNotice {
		return
	}
	end := s.Expires.UTC().Format(time.RFC3339)
	if outer := h["X-Api-Key-Expires"]; len(outer) == 1 && outer[0] < end {
		return
	}
	h["X-Api-Key-Expires"] = []string{end}
}

// appendLimited appends the detail of the documented API, which says "1 seconds".
func appendLimited(b []byte, d *decision) []byte {
	if d.overAllowance() {
		b = append(b, "Allowance exceeded."...)
	} else {
		b = append(b, "Rate limit exceeded."...)
	}
	if d.retry < 0 {
		return b
	}
	b = append(b, " Please retry after "...)
	return append(strconv.AppendInt(b, seconds(d.retry), 10), " seconds."...)
}

// limitedAnswer is Problem.compile for a 429 without the work of encoding a text
// that needs none: two allocations instead of nine.
func limitedAnswer(d *decision) answer {
	a := answer{status: http.StatusTooManyRequests}
	a.body = append(make([]byte, 0, 160), `{"status":429,"title":"Too Many Requests","detail":"`...)
	a.body = append(appendLimited(a.body, d), `","type":"about:blank"}`...)
	if d.retry >= 0 {
		a.retryAfter = strconv.FormatInt(seconds(d.retry), 10)
	}
	return a
}

// dropOwnFields deletes what guards tell about a sender, under any spelling.
func dropOwnFields(h http.Header) {
	for name := range h {
		if isOwnField(http.CanonicalHeaderKey(name)) {
			delete(h, name)
		}
	}
}

// isOwnField reports whether the field tells about a sender's limits or key.
func isOwnField(canonical string) bool {
	switch canonical {
	case "Ratelimit", "Ratelimit-Policy", "X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset", "X-Api-Key-Expires":
		return true
	}
	return false
}
