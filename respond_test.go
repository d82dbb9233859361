package senderauth_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

func TestServeProblem(t *testing.T) {
	var got []senderauth.Problem
	var outcomes []senderauth.Outcome
	cfg := senderauth.Config{Realm: "r", ServeProblem: func(w http.ResponseWriter, r *http.Request, p *senderauth.Problem, o senderauth.Outcome) {
		got = append(got, *p)
		outcomes = append(outcomes, o)
		p.Instance = "/requests/1"
		p.Detail += " (ours)"
		if p.Extensions != nil {
			p.Extensions["more"] = 1
		}
		p.ServeHTTP(w, r)
	}}
	serveOnce := func(t *testing.T, v senderauth.ValidatorFunc, r *http.Request) response {
		got = nil
		a := newApp(t, v, cfg)
		res := serve(a, r)
		require.Len(t, got, 1)
		require.Equal(t, strconv.Itoa(len(res.Body)), res.Header["Content-Length"])
		return res
	}
	bubble(t, "ours", func(t *testing.T) {
		for range 2 { // what one request changes, the next does not see
			res := serveOnce(t, nil, request())
			require.Equal(t, []senderauth.Problem{{Status: 401, Title: "Unauthorized", Type: "about:blank", Detail: "Header x-api-key not found", Challenge: `ApiKey realm="r"`, Err: got[0].Err}}, got)
			require.Equal(t, `{"status":401,"title":"Unauthorized","detail":"Header x-api-key not found (ours)","type":"about:blank","instance":"/requests/1"}`, res.Body)
			require.Equal(t, `ApiKey realm="r"`, res.Header["Www-Authenticate"])
		}
	})
	bubble(t, "an outage, with its cause", func(t *testing.T) {
		outage := errors.New("outage")
		res := serveOnce(t, refuseWith(outage), of(1))
		require.Equal(t, []senderauth.Problem{{Status: 503, Title: "Service Unavailable", Type: "about:blank", Detail: "The service is temporarily unavailable. Please retry.", RetryAfter: time.Second, Err: outage}}, got)
		require.NotContains(t, res.Body, "outage")
	})
	bubble(t, "the validator's own is not changed", func(t *testing.T) {
		own := &senderauth.Problem{Status: 401, Detail: "no", Extensions: map[string]any{"code": 7}}
		for range 2 {
			res := serveOnce(t, refuseWith(own), of(1))
			require.Equal(t, `{"status":401,"title":"Unauthorized","detail":"no (ours)","type":"about:blank","instance":"/requests/1","code":7,"more":1}`, res.Body)
			require.Equal(t, `ApiKey realm="r"`, res.Header["Www-Authenticate"])
		}
		require.Equal(t, &senderauth.Problem{Status: 401, Detail: "no", Extensions: map[string]any{"code": 7}}, own)
	})
	bubble(t, "a status that is no refusal is completed", func(t *testing.T) {
		for _, status := range []int{0, 200, 302, 999} {
			res := serveOnce(t, refuseWith(&senderauth.Problem{Status: status, Detail: "no", Challenge: "Own"}), of(1))
			require.Equal(t, 500, res.Status)
			require.Equal(t, 500, got[0].Status)
			require.Equal(t, "Internal Server Error", got[0].Title)
			require.Empty(t, got[0].Challenge, "of a 401 only")
		}
	})
	bubble(t, "the outcome says which refusal it is", func(t *testing.T) {
		outcomes = nil
		serveOnce(t, nil, request())
		serveOnce(t, refuseWith(errOutage), of(1))
		serveOnce(t, refuseWith(&senderauth.Problem{Status: 403}), of(1))
		require.Equal(t, []senderauth.Outcome{senderauth.MissingKey, senderauth.Unavailable, senderauth.Refused}, outcomes)
	})
	bubble(t, "over the limit", func(t *testing.T) {
		got = nil
		a := newApp(t, nil, cfg)
		for range 4 {
			serve(a, of(1))
		}
		require.Equal(t, []senderauth.Problem{{Status: 429, Title: "Too Many Requests", Type: "about:blank", Detail: "Rate limit exceeded. Please retry after 1 seconds.", RetryAfter: time.Second}}, got)
		res := serve(a, of(1))
		require.Equal(t, "1", res.Header["Retry-After"])
		require.Equal(t, "0", res.Header["X-Ratelimit-Remaining"])
	})
	bubble(t, "blocked", func(t *testing.T) {
		got = nil
		a := newApp(t, nil, senderauth.Config{ServeProblem: cfg.ServeProblem, Limits: limits(senderauth.Blocked())})
		serve(a, of(1))
		require.Equal(t, []senderauth.Problem{{Status: 429, Title: "Too Many Requests", Type: "about:blank", Detail: "Rate limit exceeded."}}, got)
	})
}

// The read deadline is for HTTP/1 requests that announce a body: with others
// there is nothing to wait for, and HTTP/2 would reset the stream.
func TestReadDeadlineOnlyForABodyThatMayNotCome(t *testing.T) {
	a := newApp(t, nil, senderauth.Config{})
	for _, c := range []struct {
		proto  int
		length int64
		want   int
	}{{1, 0, 0}, {1, 10, 1}, {1, -1, 1}, {2, 10, 0}, {2, -1, 0}} {
		r := request()
		r.ProtoMajor, r.ContentLength = c.proto, c.length
		w := &deadlines{}
		a.ServeHTTP(w, r)
		require.Equal(t, c.want, w.read, "HTTP/%d, Content-Length %d", c.proto, c.length)
	}
}

// deadlines counts how often one is set.
type deadlines struct {
	silent
	read int
}

func (d *deadlines) SetReadDeadline(time.Time) error { d.read++; return nil }

// A refused upload is answered although its body never comes.
func TestUnsentBodyIsAnswered(t *testing.T) {
	a := newApp(t, nil, senderauth.Config{})
	server := httptest.NewServer(a)
	defer server.Close()
	for name, body := range map[string]string{
		"announced": "Content-Length: 1000\r\n\r\n",
		"half":      "Content-Length: 1000\r\n\r\nhalf",
		"chunked":   "Transfer-Encoding: chunked\r\n\r\n5\r\nha",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			require.NoError(t, err)
			defer conn.Close()
			_, err = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\n"+body)
			require.NoError(t, err)
			// Without the guard's own deadline this one is what ends the wait.
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			got, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			res.Header.Del("Date")
			res.Header.Del("Connection")
			require.Equal(t, noKey, seen(res.StatusCode, res.Header, string(got)))
		})
	}
}
