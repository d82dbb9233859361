package senderclient_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/senderclient"
	"github.com/stretchr/testify/require"
)

// date returns a date so many seconds after now, on a clock that is an hour ahead.
func date(seconds int) string {
	return time.Now().Add(time.Hour + time.Duration(seconds)*time.Second).UTC().Format(http.TimeFormat)
}

func TestRetryAfterIsKept(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines func() []string
		waits []time.Duration // nil: not retried
	}{
		{"seconds", func() []string { return []string{"7"} }, []time.Duration{7 * time.Second}},
		{"seconds in blanks", func() []string { return []string{" 7\t"} }, []time.Duration{7 * time.Second}},
		{"a date by the server's clock", func() []string { return []string{date(7)} }, []time.Duration{7 * time.Second}},
		{"a past date", func() []string { return []string{date(-7)} }, []time.Duration{time.Second}},
		{"zero", func() []string { return []string{"0"} }, []time.Duration{time.Second}},
		{"the longest wait", func() []string { return []string{"60"} }, []time.Duration{time.Minute}},
		{"more than that", func() []string { return []string{"61"} }, nil},
		{"absurd", func() []string { return []string{"9223372037"} }, nil},
		{"more than an integer", func() []string { return []string{strings.Repeat("9", 400)} }, nil},
		{"an absurd date", func() []string { return []string{"Fri, 31 Dec 9999 23:59:59 GMT"} }, nil},
		{"the longer of two", func() []string { return []string{"7", "3"} }, []time.Duration{7 * time.Second}},
		{"the longer one, again", func() []string { return []string{"3", "7"} }, []time.Duration{7 * time.Second}},
		{"the valid one of two", func() []string { return []string{"soon", "7"} }, []time.Duration{7 * time.Second}},
		{"negative", func() []string { return []string{"-7"} }, nil},
		{"signed", func() []string { return []string{"+7"} }, nil},
		{"a fraction", func() []string { return []string{"1.5"} }, nil},
		{"a word", func() []string { return []string{"soon"} }, nil},
		{"empty", func() []string { return []string{""} }, nil},
		{"missing", func() []string { return nil }, nil},
	} {
		bubble(t, c.name, func(t *testing.T) {
			n := newNetwork(t)
			a := newAPI(n, func(w http.ResponseWriter, _ *http.Request, n int) {
				if n == 0 {
					w.Header()["Retry-After"] = c.lines()
					w.Header().Set("Date", date(0))
					w.WriteHeader(429)
					io.WriteString(w, "later")
				}
			})
			status, body := send(t, n.client(senderclient.Config{}), request(t, "GET", origin, ""))
			if c.waits == nil {
				require.Equal(t, 429, status)
				require.Equal(t, "later", body)
			} else {
				require.Equal(t, 200, status)
			}
			require.Equal(t, append([]time.Duration{0}, c.waits...), a.times)
		})
	}
}

// Without a Date, the client's clock says how far away a date is.
func TestDateWithoutAClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a := newAPI(n, func(w http.ResponseWriter, _ *http.Request, n int) {
			if n == 0 {
				w.Header()["Date"] = nil
				w.Header().Set("Retry-After", time.Now().Add(7*time.Second).UTC().Format(http.TimeFormat))
				w.WriteHeader(429)
			}
		})
		status, _ := send(t, n.client(senderclient.Config{}), request(t, "GET", origin, ""))
		require.Equal(t, 200, status)
		require.Equal(t, []time.Duration{0, 7 * time.Second}, a.times)
	})
}

func TestWhatIsSentAgain(t *testing.T) {
	const again, once = 3, 1
	for _, c := range []struct {
		name        string
		status      int
		method      string
		key         string // Idempotency-Key
		noGetBody   bool
		maxAttempts int
		want        int // attempts
	}{
		{name: "429", status: 429, method: "GET", want: again},
		{name: "429", status: 429, method: "POST", want: again},
		{name: "429 and a body that is gone", status: 429, method: "POST", noGetBody: true, want: once},
		{name: "429 and one attempt", status: 429, method: "GET", maxAttempts: 1, want: once},
		{name: "503", status: 503, method: "GET", want: again},
		{name: "503", status: 503, method: "PUT", want: again},
		{name: "503", status: 503, method: "DELETE", want: again},
		{name: "503", status: 503, method: "POST", want: once},
		{name: "503", status: 503, method: "PATCH", want: once},
		{name: "503 with an idempotency key", status: 503, method: "POST", key: "1", want: again},
		{name: "503 and a body that is gone", status: 503, method: "PUT", noGetBody: true, want: once},
		{name: "500", status: 500, method: "GET", want: once},
		{name: "401", status: 401, method: "GET", want: once},
		{name: "200", status: 200, method: "GET", want: once},
	} {
		bubble(t, c.name+" "+c.method, func(t *testing.T) {
			n := newNetwork(t)
			a := newAPI(n, func(w http.ResponseWriter, _ *http.Request, _ int) {
				w.Header().Set("Retry-After", "2")
				w.WriteHeader(c.status)
			})
			if c.maxAttempts == 0 {
				c.maxAttempts = 3
			}
			r := request(t, c.method, origin, "text")
			if c.key != "" {
				r.Header.Set("Idempotency-Key", c.key)
			}
			if c.noGetBody {
				r.GetBody = nil
			}
			status, _ := send(t, n.client(senderclient.Config{MaxAttempts: c.maxAttempts}), r)
			require.Equal(t, c.status, status)
			require.Equal(t, []time.Duration{0, 2 * time.Second, 4 * time.Second}[:c.want], a.times)
			for _, body := range a.bodies {
				require.Equal(t, "text", body)
			}
		})
	}
}

// Attempts are those of one origin. What a redirect elsewhere leads to is sent once.
func TestOthersAreNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a := newAPI(n, func(w http.ResponseWriter, r *http.Request, _ int) {
			http.Redirect(w, r, "https://evil.example", http.StatusFound)
		})
		requests := 0
		n.serve("evil.example:443", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			requests++
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(429)
		}))
		status, _ := send(t, n.client(senderclient.Config{Pace: byDefault}), request(t, "GET", origin, ""))
		require.Equal(t, 429, status)
		require.Equal(t, 1, requests)
		require.Len(t, a.requests, 1)
	})
}

func TestResponsesThatAreRetriedAreClosed(t *testing.T) {
	for name, length := range map[string]int64{"short": 5, "long": 5 << 10, "of unknown length": -1} {
		bubble(t, name, func(t *testing.T) {
			base := &unavailable{length: length}
			transport, err := senderclient.NewTransport(origin, senderclient.Config{Credentials: static(t), Base: base})
			require.NoError(t, err)
			res, err := transport.RoundTrip(request(t, "POST", origin, "text", "Idempotency-Key", "1"))
			require.NoError(t, err)
			require.Len(t, base.bodies, 4)
			for i, body := range base.bodies {
				require.Equal(t, i < 3, body.closed == 1, "the caller gets the last one as it came")
				require.Equal(t, i < 3 && length == 5, body.Len() == 0, "a short one is read, so that its connection can be used again")
			}
			require.NoError(t, res.Body.Close())
		})
	}
}

type unavailable struct {
	length int64
	bodies []*closer
}

func (u *unavailable) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Body.Close()
	body := &closer{Reader: strings.NewReader("later")}
	u.bodies = append(u.bodies, body)
	return &http.Response{StatusCode: 503, Header: http.Header{"Retry-After": {"1"}}, ContentLength: u.length, Body: body}, nil
}

func TestFailureToRewindIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a := newAPI(n, func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(429)
		})
		gone := errors.New("the file is gone")
		r := request(t, "POST", origin, "text")
		r.GetBody = func() (io.ReadCloser, error) { return nil, gone }
		_, err := n.client(senderclient.Config{}).Do(r)
		require.ErrorIs(t, err, gone)
		require.EqualError(t, err, `Post "https://api.example.com": senderclient: the body of the request cannot be sent again: the file is gone`)
		require.Len(t, a.requests, 1)
	})
}

// The body of the first attempt is closed once, by the one who sent it.
func TestFailureToRewindClosesNothingTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport, err := senderclient.NewTransport(origin, senderclient.Config{Credentials: static(t), Base: &unavailable{}})
		require.NoError(t, err)
		body := &closer{Reader: strings.NewReader("text")}
		r := request(t, "PUT", origin, "")
		r.Body, r.GetBody = body, func() (io.ReadCloser, error) { return nil, errors.New("the file is gone") }
		_, err = transport.RoundTrip(r)
		require.Error(t, err)
		require.Equal(t, 1, body.closed)
	})
}

// A wait past the deadline is not begun. The error is also the one that the deadline
// would have caused.
func TestNoWaitPastTheDeadline(t *testing.T) {
	for _, c := range []struct {
		name     string
		deadline time.Duration
		wait     bool
	}{
		{"sooner", 3 * time.Second, false},
		{"at the same time", 5 * time.Second, false},
		{"later", 5*time.Second + 1, true},
	} {
		bubble(t, c.name, func(t *testing.T) {
			n := newNetwork(t)
			n.serve("api.example.com:443", guarded(t, senderauth.Limit{Requests: 1, Per: 5 * time.Second, Burst: 1}))
			client := n.client(senderclient.Config{})
			send(t, client, request(t, "GET", origin, ""))
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), c.deadline)
			defer cancel()
			res, err := client.Do(request(t, "POST", origin, "text").WithContext(ctx))
			if c.wait {
				require.NoError(t, err)
				require.NoError(t, senderclient.CheckResponse(res))
				require.NoError(t, res.Body.Close())
				require.Equal(t, 5*time.Second, time.Since(start))
				return
			}
			require.Zero(t, time.Since(start))
			require.EqualError(t, err, `Post "https://api.example.com": senderclient: rate limit exceeded, retry after 5s, past the deadline of the request`)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			var limit *senderclient.RateLimitError
			require.ErrorAs(t, err, &limit)
			require.Equal(t, 5*time.Second, limit.Delay)
			require.Equal(t, &senderclient.Problem{
				Status: 429, Title: "Too Many Requests", Detail: "Rate limit exceeded. Please retry after 5 seconds.", Type: "about:blank",
			}, limit.Problem)
			var problem *senderclient.Problem
			require.ErrorAs(t, err, &problem)
		})
	}
}

// The Timeout of a client is a deadline, too. A 503 is no matter of a limit: it is
// returned.
func TestNo503WaitsPastTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		newAPI(n, func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("Retry-After", "5")
			w.WriteHeader(503)
		})
		client := n.client(senderclient.Config{})
		client.Timeout = 3 * time.Second
		start := time.Now()
		status, _ := send(t, client, request(t, "GET", origin, ""))
		require.Equal(t, 503, status)
		require.Zero(t, time.Since(start))
	})
}

func TestCancelEndsAWait(t *testing.T) {
	why := errors.New("the user has left")
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a := newAPI(n, func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("Retry-After", "9")
			w.WriteHeader(429)
		})
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(2*time.Second, func() { cancel(why) })
		start := time.Now()
		_, err := n.client(senderclient.Config{}).Do(request(t, "GET", origin, "").WithContext(ctx))
		require.ErrorIs(t, err, why)
		require.Equal(t, 2*time.Second, time.Since(start))
		require.Len(t, a.requests, 1)

		_, err = n.client(senderclient.Config{}).Do(request(t, "GET", origin, "").WithContext(ctx))
		require.Error(t, err, "a context that has ended")
		require.Len(t, a.requests, 1)
	})
}
