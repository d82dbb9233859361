package senderauth_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// Over HTTP/2 a refusal waits half a second for the body, so that its end is read before
// the stream ends: net/http resets it otherwise, and some clients then lose the answer. The
// connection serves on.
func TestRefusalOverHTTP2WaitsForAShortBody(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name   string
		pieces int // of the body
		after  time.Duration
		want   time.Duration
	}{
		{"there already", 1, 0, 0},
		{"on its way", 1, 300 * ms, 300 * ms},
		{"in pieces", 3, 100 * ms, 300 * ms},
		{"too slow", 90, 100 * ms, 500 * ms},
		{"too late", 1, time.Hour, 500 * ms},
	} {
		bubble(t, c.name, func(t *testing.T) {
			client := overHTTP2(t, newApp(t, nil, senderauth.Config{}))
			start := time.Now()
			body := &slowBody{pieces: c.pieces, after: c.after, done: make(chan struct{})}
			defer body.Close()
			for i, r := range []*http.Request{
				newRequest(t, body), newRequest(t, http.NoBody), newRequest(t, strings.NewReader("text")),
			} {
				res, err := client.Do(r)
				require.NoError(t, err)
				require.Equal(t, "HTTP/2.0", res.Proto)
				answer, err := io.ReadAll(res.Body)
				require.NoError(t, err)
				require.NoError(t, res.Body.Close())
				require.Equal(t, refused(401, "Header x-api-key not found").Body, string(answer))
				require.Equal(t, c.want, time.Since(start), "request %d", i)
			}
		})
	}
}

func newRequest(t *testing.T, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", "http://api.example.com", body)
	require.NoError(t, err)
	return r
}

// A slowBody is a body in pieces, each of which takes its time.
type slowBody struct {
	pieces int
	after  time.Duration
	done   chan struct{}
	once   sync.Once
}

func (b *slowBody) Read(p []byte) (int, error) {
	if b.pieces == 0 {
		return 0, io.EOF
	}
	b.pieces--
	select {
	case <-time.After(b.after):
		return copy(p, "piece"), nil
	case <-b.done:
		return 0, io.ErrUnexpectedEOF
	}
}

func (b *slowBody) Close() error {
	b.once.Do(func() { close(b.done) })
	return nil
}

// overHTTP2 serves h in a bubble, and returns a client with one connection.
func overHTTP2(t *testing.T, h http.Handler) *http.Client {
	t.Helper()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	conns := make(chan net.Conn, 1)
	conns <- call(t, &http.Server{Handler: h, Protocols: &protocols}).Conn
	close(conns)
	transport := &http.Transport{Protocols: &protocols, DialContext: func(context.Context, string, string) (net.Conn, error) {
		if conn, ok := <-conns; ok {
			return conn, nil
		}
		return nil, net.ErrClosed
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}
