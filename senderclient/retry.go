package senderclient

import (
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// retryable reports whether r may be sent again after res.
func retryable(r *http.Request, res *http.Response) bool {
	switch res.StatusCode {
	case http.StatusTooManyRequests:
		return rewindable(r)
	case http.StatusServiceUnavailable:
		return rewindable(r) && idempotent(r)
	}
	return false
}

func rewindable(r *http.Request) bool {
	return r.Body == nil || r.Body == http.NoBody || r.GetBody != nil
}

// idempotent follows RFC 9110 section 9.2.2.
func idempotent(r *http.Request) bool {
	switch r.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return r.Header.Get("Idempotency-Key") != ""
}

// retryAfter returns how long the server asks to wait, at least a second. The longest of
// several values counts. It is false if there is no valid one.
func retryAfter(h http.Header, now time.Time) (longest time.Duration, ok bool) {
	for _, line := range h["Retry-After"] {
		if d, valid := parseRetryAfter(strings.Trim(line, " \t"), h, now); valid {
			longest, ok = max(longest, d, time.Second), true
		}
	}
	return longest, ok
}

func parseRetryAfter(value string, h http.Header, now time.Time) (time.Duration, bool) {
	if value != "" && strings.Trim(value, "0123456789") == "" {
		const limit = math.MaxInt64 / int64(time.Second)
		s, err := strconv.ParseInt(value, 10, 64)
		if err != nil || s > limit {
			return math.MaxInt64, true
		}
		return time.Duration(s) * time.Second, true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	// The server's own clock says how far away its date is.
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return at.Sub(now), true
}

// discard closes a response that is not returned. It reads a short body first, so that
// the connection can be used again.
func discard(res *http.Response) {
	const short = 4 << 10
	if res.ContentLength >= 0 && res.ContentLength <= short {
		io.CopyN(io.Discard, res.Body, res.ContentLength)
	}
	res.Body.Close()
}
