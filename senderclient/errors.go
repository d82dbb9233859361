package senderclient

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"
	"unicode"
)

// The 401 problems. [errors.Is] finds them in the errors of [CheckResponse].
var (
	// ErrMissingHeader means that x-sender-id or x-api-key did not reach the server. A
	// Transport sends both, so that either a proxy has removed it or the request was
	// not for the origin.
	ErrMissingHeader = errors.New("senderclient: a header is missing")
	// ErrInvalidSender means that the sender's ID is not a UUID, or that the sender is
	// disabled.
	ErrInvalidSender = errors.New("senderclient: invalid sender")
	// ErrInvalidKey means that the key is malformed, unknown or no longer active.
	ErrInvalidKey = errors.New("senderclient: invalid key")
	// ErrKeyMismatch means that the key is active and belongs to another sender.
	ErrKeyMismatch = errors.New("senderclient: the key belongs to another sender")
)

var unauthorized = map[string]error{
	"Header x-api-key not found":       ErrMissingHeader,
	"Header x-sender-id not found":     ErrMissingHeader,
	"Invalid x-sender-id":              ErrInvalidSender,
	"Invalid API credentials!":         ErrInvalidKey,
	"API key does not match sender ID": ErrKeyMismatch,
}

// A Problem is a response with a status of 400 or more. Its members come from the body
// if that is an RFC 9457 problem, and are otherwise empty. They are the server's text.
type Problem struct {
	Status   int    `json:"-"` // of the response
	Title    string `json:"title"`
	Detail   string `json:"detail"`
	Type     string `json:"type"`
	Instance string `json:"instance"`
}

// Error returns the status, the title and the detail, in at most a few hundred printable
// characters.
func (p *Problem) Error() string {
	s := fmt.Sprintf("senderclient: %d %s", p.Status, printable(cmp.Or(p.Title, http.StatusText(p.Status))))
	if p.Detail != "" {
		s += ": " + printable(p.Detail)
	}
	return s
}

// Unwrap returns ErrMissingHeader, ErrInvalidSender, ErrInvalidKey or ErrKeyMismatch for
// a 401 with the detail that a guard sends, and otherwise nil.
func (p *Problem) Unwrap() error {
	if p.Status != http.StatusUnauthorized {
		return nil
	}
	return unauthorized[p.Detail]
}

// A RateLimitError means that the sender has to wait.
type RateLimitError struct {
	// Delay is how long to wait before the next attempt, from when the error was made.
	// Zero means that the server named no time: waiting may not help.
	Delay time.Duration
	// Problem is the server's answer. It is nil if Config.Pace kept the request back.
	Problem *Problem

	cause error // context.DeadlineExceeded, if the wait would not have ended in time
}

// Error says how long to wait.
func (e *RateLimitError) Error() string {
	s := "senderclient: rate limit exceeded"
	if e.Delay > 0 {
		s += fmt.Sprintf(", retry after %v", e.Delay)
	}
	if e.cause != nil {
		s += ", past the deadline of the request"
	}
	return s
}

// Unwrap returns the Problem, if there is one, and [context.DeadlineExceeded], if the
// Transport did not wait because the wait would not have ended before the deadline.
func (e *RateLimitError) Unwrap() []error {
	var errs []error
	if e.Problem != nil {
		errs = append(errs, e.Problem)
	}
	if e.cause != nil {
		errs = append(errs, e.cause)
	}
	return errs
}

// CheckResponse returns nil for a status below 400, a [*RateLimitError] for 429, and a
// [*Problem] for any other. With an error it has read the body, at most 64 KiB of it, and
// closed it.
func CheckResponse(res *http.Response) error {
	if res.StatusCode < 400 {
		return nil
	}
	if res.StatusCode == http.StatusTooManyRequests {
		delay, _ := retryAfter(res.Header, time.Now())
		return limitError(res, delay, nil)
	}
	return readProblem(res)
}

func limitError(res *http.Response, delay time.Duration, cause error) error {
	return &RateLimitError{Delay: delay, Problem: readProblem(res), cause: cause}
}

func readProblem(res *http.Response) *Problem {
	defer res.Body.Close()
	p := &Problem{}
	if t, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); t == "application/problem+json" {
		body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
		if err != nil || json.Unmarshal(body, p) != nil {
			p = &Problem{}
		}
	}
	p.Status = res.StatusCode
	return p
}

// printable keeps a server from writing into a terminal or over lines of a log.
func printable(s string) string {
	const limit = 200
	n := 0
	return strings.Map(func(r rune) rune {
		switch n++; {
		case n > limit:
			return -1
		case !unicode.IsPrint(r):
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
