package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/senderauth/senderauth"
)

// A kind says what credentials a request has.
type kind string

const (
	own       kind = "own key" // the key's own sender, whatever the state of the key
	foreign   kind = "another sender's key"
	unknown   kind = "unknown key"
	malformed kind = "malformed key"
)

// A request is one of the load.
type request struct {
	kind        kind
	key         *key // nil if nobody has issued it
	credentials senderauth.Credentials
	instance    int
	path        int // an index of paths
}

// An answer is what an instance said to a request.
type answer struct {
	request
	sent, got  time.Time
	status     int
	detail     string
	identity   identity
	retryAfter string
	rateFields bool
	err        error
}

// String describes the answer without the key.
func (a answer) String() string {
	s := fmt.Sprintf("%s: instance %d, %s, %s, sent at %s, answered after %v: %d %s",
		a.kind, a.instance, paths[a.path].path, a.credentials.SenderID, a.sent.Format("15:04:05.000"), a.got.Sub(a.sent).Round(time.Millisecond), a.status, a.detail)
	if a.key != nil {
		s += ", key " + a.key.id
	}
	if a.err != nil {
		s += ", " + a.err.Error()
	}
	return s
}

// send sends a request to a process.
func (r request) send(ctx context.Context, c *http.Client, p *process) answer {
	a := answer{request: r, sent: time.Now()}
	a.err = a.exchange(ctx, c, p)
	a.got = time.Now()
	return a
}

func (a *answer) exchange(ctx context.Context, c *http.Client, p *process) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+paths[a.path].path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-Sender-Id", a.credentials.SenderID)
	req.Header.Set("X-Api-Key", a.credentials.APIKey)
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return err
	}
	a.status, a.retryAfter = res.StatusCode, res.Header.Get("Retry-After")
	a.rateFields = res.Header.Get("RateLimit") != "" && res.Header.Get("X-RateLimit-Limit") != ""
	if a.status == http.StatusOK {
		return json.Unmarshal(body, &a.identity)
	}
	var problem struct {
		Status int
		Detail string
	}
	if err := json.Unmarshal(body, &problem); err != nil {
		return fmt.Errorf("the problem is not JSON: %w", err)
	}
	if a.detail = problem.Detail; problem.Status != a.status {
		return fmt.Errorf("the problem has status %d", problem.Status)
	}
	return nil
}

const (
	detailInvalid  = "Invalid API credentials!"
	detailMismatch = "API key does not match sender ID"
)

// judge says what is wrong with the answer, or returns "". The quota is checked later.
func (a answer) judge(p promises) string {
	switch {
	case a.err != nil:
		return "there is no answer"
	case a.status == 200:
		return a.judgeAdmitted(p)
	case a.status == 401:
		return a.judgeRefused(p)
	case a.status == 429 && a.kind != own:
		return "a bad key was charged"
	case a.status == 429 && (a.retryAfter == "" || a.retryAfter == "0" || !a.rateFields):
		return "fields are missing"
	case a.status == 429:
		return a.key.mayBeAdmitted(a, p) // it was authenticated first
	case a.status == 503 && a.kind == malformed:
		return "it needs no lookup"
	case a.status == 503 && a.retryAfter != "1":
		return "Retry-After is missing"
	case a.status == 503:
		return p.mayBeUnavailable(a)
	}
	return "nobody answers this"
}

func (a answer) judgeAdmitted(p promises) string {
	switch {
	case a.kind != own:
		return "a bad key was admitted"
	case a.identity != identity{a.credentials.SenderID, a.key.id}:
		return "the handler saw another sender or key"
	case !a.rateFields:
		return "fields are missing"
	}
	return a.key.mayBeAdmitted(a, p)
}

func (a answer) judgeRefused(p promises) string {
	switch {
	case a.kind == own && a.detail == detailInvalid:
		a.key.noteRefusal(a)
		return a.key.mayBeRefused(a, p)
	case a.kind == foreign && a.detail == detailInvalid:
		// A change of a key clears the rejections of its own sender only.
		p.bound = max(p.bound, p.rejectedTTL)
		return a.key.mayBeRefused(a, p)
	case a.kind == foreign && a.detail == detailMismatch,
		(a.kind == unknown || a.kind == malformed) && a.detail == detailInvalid:
		return ""
	}
	return "it is another refusal: " + strings.TrimSpace(a.detail)
}
