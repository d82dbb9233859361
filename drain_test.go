package senderauth_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// pipes is a listener whose connections are in memory, so that a server in a
// bubble runs on its clock.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// A caller is a client's end of a connection.
type caller struct {
	net.Conn
	in *bufio.Reader
}

// call starts a server in a bubble and connects to it.
func call(t *testing.T, server *http.Server) *caller {
	t.Helper()
	l := make(pipes)
	go server.Serve(l)
	ours, theirs := net.Pipe()
	l <- theirs
	t.Cleanup(func() {
		ours.Close()
		close(l)
		time.Sleep(time.Minute) // net/http has ended the connection
	})
	return &caller{ours, bufio.NewReader(ours)}
}

// send writes the request, and what writes returns after it, without waiting
// for the server to read.
func (c *caller) send(head string, body func(w io.Writer)) {
	go func() {
		io.WriteString(c, head)
		if body != nil {
			body(c)
		}
	}()
}

// answer is the next response, with the Date left out.
func (c *caller) answer(t *testing.T) response {
	t.Helper()
	res, err := http.ReadResponse(c.in, nil)
	require.NoError(t, err)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	res.Header.Del("Date")
	if res.Close {
		res.Header.Set("Connection", "close")
	}
	return seen(res.StatusCode, res.Header, string(body))
}

// closed waits until the server has closed the connection, and returns when.
func (c *caller) closed(t *testing.T, since time.Time) time.Duration {
	t.Helper()
	rest, err := io.ReadAll(c.in)
	require.NoError(t, err)
	require.Empty(t, string(rest))
	return time.Since(since)
}

// counted is noKey as net/http sends it.
func counted() response { return noKey.with("Content-Length", strconv.Itoa(len(noKey.Body))) }

// post is the head of a request without a key.
func post(length int, lines ...string) string {
	return "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + strconv.Itoa(length) + "\r\n" + strings.Join(append(lines, "", ""), "\r\n")
}

// every writes chunk bytes every interval, n in all.
func every(interval time.Duration, chunk, n int) func(io.Writer) {
	return func(w io.Writer) {
		for left := n; left > 0; left -= chunk {
			time.Sleep(interval)
			if _, err := w.Write(make([]byte, min(chunk, left))); err != nil {
				return
			}
		}
	}
}

// A client that announces a body and does not send it, or stops sending, gets
// its answer within a second and holds the connection for a second more.
func TestBodyThatDoesNotComeDelaysTheRefusalLittle(t *testing.T) {
	for name, request := range map[string]string{
		"none":     post(1000),
		"a part":   post(1000) + "part",
		"chunked":  "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha",
		"large":    post(5_000_000) + "part",
		"closing":  post(1000, "Connection: close"),
		"HTTP/1.0": "POST / HTTP/1.0\r\nContent-Length: 1000\r\n\r\npart",
		"GET":      "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
	} {
		bubble(t, name, func(t *testing.T) {
			c := call(t, &http.Server{Handler: newApp(t, nil, senderauth.Config{})})
			start := time.Now()
			c.send(request, nil)
			require.Equal(t, counted().with("Connection", "close"), c.answer(t))
			answered := time.Since(start)
			require.Less(t, answered, time.Second)
			open := c.closed(t, start) - answered
			require.GreaterOrEqual(t, open, 500*time.Millisecond)
			require.LessOrEqual(t, open, time.Second)
		})
	}
}

// A body that comes is read to its end, however slow the client's line, and the
// connection serves the next request.
func TestBodyThatComesKeepsTheConnection(t *testing.T) {
	const trailer = "0\r\nChecked: no\r\n\r\n"
	for _, c := range []struct {
		name, head string
		body       func(io.Writer)
		after      time.Duration
	}{
		{"at once", post(100_000), every(0, 100_000, 100_000), 0},
		{"all that is drained", post(256 << 10), every(0, 1<<10, 256<<10), 0},
		{"all that is drained, in one chunk", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", func(w io.Writer) {
			fmt.Fprintf(w, "%x\r\n%s\r\n%s", 256<<10, make([]byte, 256<<10), trailer)
		}, 0},
		{"2 Mbit/s", post(200_000), every(40*time.Millisecond, 10_000, 200_000), 800 * time.Millisecond},
		{"5 kB/s", post(200_000), every(20*time.Millisecond, 100, 200_000), 40 * time.Second},
		{"in chunks", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", func(w io.Writer) {
			for range 10 {
				fmt.Fprintf(w, "%x\r\n%s\r\n", 10_000, make([]byte, 10_000))
				time.Sleep(100 * time.Millisecond)
			}
			io.WriteString(w, trailer)
		}, time.Second},
	} {
		bubble(t, c.name, func(t *testing.T) {
			conn := call(t, &http.Server{Handler: newApp(t, nil, senderauth.Config{})})
			for range 2 {
				start := time.Now()
				conn.send(c.head, c.body)
				require.Equal(t, counted(), conn.answer(t))
				require.Equal(t, c.after, time.Since(start))
				time.Sleep(time.Hour)
			}
		})
	}
}

// Requests that a client sends at once, without waiting for answers, are all
// answered, and what is behind a refused body is read as the next request, whole.
func TestPipelinedRequestAfterARefusalIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		guard := newApp(t, nil, senderauth.Config{})
		conn := call(t, &http.Server{ReadTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/open" {
				guard.ServeHTTP(w, r)
				return
			}
			body, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			require.Equal(t, "all of it", string(body)+r.Trailer.Get("Rest"))
		})})
		chunked := "Host: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nall \r\n0\r\nRest: of it\r\n\r\n"
		conn.send(post(4)+"POST"+"POST / HTTP/1.1\r\n"+chunked+"POST /open HTTP/1.1\r\n"+chunked, func(w io.Writer) {
			// The next request comes slowly: no deadline of a refusal is left.
			io.WriteString(w, "POST /open HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
			for _, b := range "all of it" {
				time.Sleep(5 * time.Second)
				io.WriteString(w, string(b))
			}
		})
		for range 2 {
			require.Equal(t, counted(), conn.answer(t))
		}
		for range 2 {
			require.Equal(t, 200, conn.answer(t).Status)
		}
	})
}

// A client that sends less than 4 KiB a second, or more than 256 KiB, gets its
// answer before it has sent all, and the connection ends.
func TestBodyPastTheBoundsCostsTheConnection(t *testing.T) {
	for _, c := range []struct {
		name   string
		body   func(io.Writer)
		within time.Duration
	}{
		{"a byte now and then", every(100*time.Millisecond, 1, 300_000), time.Second},
		{"3 KiB/s", every(10*time.Millisecond, 31, 300_000), 3 * time.Second},
		{"a pause", func(w io.Writer) { w.Write(make([]byte, 200_000)); every(time.Second, 1000, 100_000)(w) }, time.Second},
		{"large", every(0, 1000, 300_000), time.Second},
		{"the slowest that is drained", every(10*time.Millisecond, 41, 300_000), 65 * time.Second},
	} {
		bubble(t, c.name, func(t *testing.T) {
			conn := call(t, &http.Server{Handler: newApp(t, nil, senderauth.Config{})})
			start := time.Now()
			conn.send(post(300_000), c.body)
			require.Equal(t, counted().with("Connection", "close"), conn.answer(t))
			answered := time.Since(start)
			require.Less(t, answered, c.within)
			open := conn.closed(t, start) - answered
			require.GreaterOrEqual(t, open, 500*time.Millisecond, "what arrives after the answer does not reset the connection")
			require.LessOrEqual(t, open, time.Second)
		})
	}
}

// The server's own timeouts bound the drain, and half of WriteTimeout is left
// for the answer.
func TestServerTimeoutsBoundTheDrain(t *testing.T) {
	for _, c := range []struct {
		name   string
		server *http.Server
		within time.Duration
	}{
		{"read", &http.Server{ReadTimeout: 3 * time.Second}, 3 * time.Second},
		{"write", &http.Server{WriteTimeout: 6 * time.Second}, 3 * time.Second},
	} {
		bubble(t, c.name, func(t *testing.T) {
			c.server.Handler = newApp(t, nil, senderauth.Config{})
			conn := call(t, c.server)
			start := time.Now()
			conn.send(post(200_000), every(20*time.Millisecond, 100, 200_000))
			require.Equal(t, counted().with("Connection", "close"), conn.answer(t))
			require.Equal(t, c.within, time.Since(start))
		})
	}
}

// A client that asks whether to send is not told to.
func TestRefusalAsksForNoBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := call(t, &http.Server{Handler: newApp(t, nil, senderauth.Config{})})
		start := time.Now()
		c.send(post(1000, "Expect: 100-continue"), nil)
		require.Equal(t, counted().with("Connection", "close"), c.answer(t), "the first response")
		require.Zero(t, time.Since(start))
		require.LessOrEqual(t, c.closed(t, start), time.Second)
	})
}

// Whatever takes its time after a refusal, the connection's later requests have
// a context of their own that lives: net/http reads ahead once a body has been
// read, and takes a deadline there for a client that left.
func TestDeadlineEndsWithTheRefusal(t *testing.T) {
	problem := &senderauth.Problem{Status: 403}
	read := func(r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		require.NoError(t, err)
	}
	for name, refuse := range map[string]func(*app, http.ResponseWriter, *http.Request){
		"of a guard":         func(a *app, w http.ResponseWriter, r *http.Request) { a.ServeHTTP(w, r) },
		"of a handler":       func(a *app, w http.ResponseWriter, r *http.Request) { problem.ServeHTTP(w, r) },
		"body read before":   func(a *app, w http.ResponseWriter, r *http.Request) { read(r); a.ServeHTTP(w, r) },
		"body closed before": func(a *app, w http.ResponseWriter, r *http.Request) { r.Body.Close(); a.ServeHTTP(w, r) },
		"body replaced": func(a *app, w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			r.Body = io.NopCloser(bytes.NewReader(body))
			a.ServeHTTP(w, r)
		},
	} {
		for _, head := range []string{post(4) + "body", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"} {
			bubble(t, name, func(t *testing.T) {
				a := newApp(t, nil, senderauth.Config{})
				c := call(t, &http.Server{ReadTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					require.NoError(t, r.Context().Err())
					refuse(a, w, r)
					time.Sleep(time.Hour)
					require.NoError(t, r.Context().Err())
				})})
				for range 3 {
					c.send(head, nil)
					res := c.answer(t)
					require.GreaterOrEqual(t, res.Status, 401)
					require.Empty(t, res.Header["Connection"])
				}
			})
		}
	}
}

// hides is an outer writer that shows nothing of the connection.
type hides struct{ http.ResponseWriter }

// shows is one that does.
type shows struct{ http.ResponseWriter }

func (s shows) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// Behind a writer that hides the connection the answer does not wait at all.
func TestRefusalThroughAnOuterWriter(t *testing.T) {
	a := newApp(t, nil, senderauth.Config{})
	for _, c := range []struct {
		name  string
		outer func(http.ResponseWriter) http.ResponseWriter
		after time.Duration
	}{
		{"hides", func(w http.ResponseWriter) http.ResponseWriter { return hides{w} }, 0},
		{"shows", func(w http.ResponseWriter) http.ResponseWriter { return shows{shows{w}} }, 500 * time.Millisecond},
	} {
		bubble(t, c.name, func(t *testing.T) {
			conn := call(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.ServeHTTP(c.outer(w), r) })})
			start := time.Now()
			conn.send(post(1000)+"part", nil)
			require.Equal(t, counted().with("Connection", "close"), conn.answer(t))
			require.Equal(t, c.after, time.Since(start))
			if c.after > 0 {
				require.Equal(t, time.Second, conn.closed(t, start))
			}
		})
	}
}

// A request without a body has nothing to wait for.
func TestReadDeadlineOnlyForABodyThatMayNotCome(t *testing.T) {
	a := newApp(t, nil, senderauth.Config{})
	for _, c := range []struct {
		proto  int
		length int64
		want   bool
	}{{1, 0, false}, {1, 10, true}, {1, -1, true}, {2, 0, false}, {2, 10, true}, {2, -1, true}, {3, 10, false}} {
		r := request()
		r.ProtoMajor, r.ContentLength, r.Body = c.proto, c.length, io.NopCloser(strings.NewReader("ten bytes."))
		w := &deadlines{}
		a.ServeHTTP(w, r)
		require.Equal(t, c.want, len(w.read) > 0, "HTTP/%d, Content-Length %d", c.proto, c.length)
		if c.want {
			require.Zero(t, w.read[len(w.read)-1], "the body has been read to its end")
		}
	}
}

// deadlines notes those that are set.
type deadlines struct {
	silent
	read []time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error { d.read = append(d.read, t); return nil }

// A body is what an outer layer makes of it, and is left to that layer to close.
func TestBodyOfAnotherLayer(t *testing.T) {
	for _, c := range []struct {
		name   string
		read   func(p []byte) (int, error)
		closes bool // the connection
	}{
		{"at its end", func([]byte) (int, error) { return 0, io.EOF }, false},
		{"whole", func(p []byte) (int, error) { return 10, io.EOF }, false},
		{"closed", func([]byte) (int, error) { return 0, http.ErrBodyReadAfterClose }, false},
		{"cut short", func(p []byte) (int, error) { return 9, io.EOF }, true},
		{"failing", func([]byte) (int, error) { return 0, errors.New("failed") }, true},
		{"endless", func(p []byte) (int, error) { return len(p), nil }, true},
		{"idle", func([]byte) (int, error) { time.Sleep(time.Millisecond); return 0, nil }, true},
	} {
		bubble(t, c.name, func(t *testing.T) {
			r := request()
			r.ContentLength, r.Body = 10, &reads{t, c.read}
			w := &deadlines{}
			start := time.Now()
			newApp(t, nil, senderauth.Config{}).ServeHTTP(w, r)
			require.Less(t, time.Since(start), time.Second)
			require.Equal(t, c.closes, w.Header().Get("Connection") == "close")
			require.Equal(t, c.closes, !w.read[len(w.read)-1].IsZero())
		})
	}
	t.Run("none", func(t *testing.T) {
		r := request()
		r.ContentLength, r.Body = 10, nil
		require.Equal(t, noKey, serve(newApp(t, nil, senderauth.Config{}), r))
	})
}

// If the connection stops taking deadlines, nothing is read without one.
func TestNothingIsReadWithoutADeadline(t *testing.T) {
	r := request()
	r.ContentLength, r.Body = 10, &reads{t, func([]byte) (int, error) { t.Error("read"); return 0, io.EOF }}
	w := &oneDeadline{}
	newApp(t, nil, senderauth.Config{}).ServeHTTP(w, r)
	require.Equal(t, "close", w.Header().Get("Connection"))
}

type oneDeadline struct{ deadlines }

func (o *oneDeadline) SetReadDeadline(t time.Time) error {
	if len(o.read) > 0 {
		return net.ErrClosed
	}
	return o.deadlines.SetReadDeadline(t)
}

type reads struct {
	t    *testing.T
	read func([]byte) (int, error)
}

func (r *reads) Read(p []byte) (int, error) { return r.read(p) }
func (r *reads) Close() error               { r.t.Error("closed"); return nil }

// Over a real connection a client that sends on for a while reads the whole
// answer, and no reset, on a connection that its request has already closed.
func TestRefusalIsReadDuringAnUpload(t *testing.T) {
	server := httptest.NewServer(newApp(t, nil, senderauth.Config{}))
	defer server.Close()
	for _, size := range []int{1, 100_000, 256 << 10, 300_000, 5_000_000} {
		for _, line := range []string{"Connection: keep-alive", "Connection: close"} {
			t.Run(fmt.Sprint(line, " ", size), func(t *testing.T) {
				conn, err := net.Dial("tcp", server.Listener.Addr().String())
				require.NoError(t, err)
				defer conn.Close()
				go func() {
					if _, err := io.WriteString(conn, post(size, line)); err == nil {
						conn.Write(make([]byte, size))
					}
				}()
				c := &caller{conn, bufio.NewReader(conn)}
				require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
				got := c.answer(t)
				delete(got.Header, "Connection")
				require.Equal(t, counted(), got)
			})
		}
	}
}

// GET, HEAD and both protocols get the same fields, Content-Length among them.
func TestRefusalHasALength(t *testing.T) {
	a := newApp(t, nil, senderauth.Config{})
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		server := httptest.NewUnstartedServer(a)
		server.EnableHTTP2 = proto == "HTTP/2.0"
		server.StartTLS()
		defer server.Close()
		for _, method := range []string{"GET", "HEAD", "POST"} {
			r, err := http.NewRequest(method, server.URL, strings.NewReader("body"))
			require.NoError(t, err)
			res, err := server.Client().Do(r)
			require.NoError(t, err)
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			require.Equal(t, proto, res.Proto)
			res.Header.Del("Date")
			want := counted()
			if method == "HEAD" {
				want = want.head()
			}
			require.Equal(t, want, seen(res.StatusCode, res.Header, string(body)), method)
		}
	}
}

// compresses is an outer layer that says so before the handler runs.
func compresses(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		defer z.Close()
		next.ServeHTTP(compressed{w, z}, r)
	})
}

type compressed struct {
	http.ResponseWriter
	z io.Writer
}

func (c compressed) Write(b []byte) (int, error) { return c.z.Write(b) }

// A client reads what a compressing layer makes of a refusal.
func TestRefusalIsCompressed(t *testing.T) {
	server := httptest.NewServer(compresses(newApp(t, nil, senderauth.Config{})))
	defer server.Close()
	for _, method := range []string{"GET", "HEAD", "POST"} {
		r, err := http.NewRequestWithContext(context.Background(), method, server.URL, strings.NewReader("body"))
		require.NoError(t, err)
		r.Header.Set("Accept-Encoding", "gzip")
		res, err := http.DefaultTransport.RoundTrip(r)
		require.NoError(t, err)
		defer res.Body.Close()
		require.Equal(t, "gzip", res.Header.Get("Content-Encoding"))
		require.Positive(t, res.ContentLength)
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		if method == "HEAD" {
			require.Empty(t, body)
			continue
		}
		require.Len(t, body, int(res.ContentLength))
		z, err := gzip.NewReader(bytes.NewReader(body))
		require.NoError(t, err)
		text, err := io.ReadAll(z)
		require.NoError(t, err)
		require.Equal(t, noKey.Body, string(text))
	}
}
