package senderclient_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/senderclient"
	"github.com/stretchr/testify/require"
)

const (
	origin   = "https://api.example.com"
	senderID = "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11"
	apiKey   = "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01"
)

func static(t testing.TB) func(context.Context) (string, string, error) {
	t.Helper()
	credentials, err := senderclient.Static(senderID, apiKey)
	require.NoError(t, err)
	return credentials
}

// bubble runs a subtest on synctest's clock.
func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

// A network has servers at host:port, all without TLS. The clients of the network talk
// to them over pipes, so that both ends run on synctest's clock.
type network struct {
	t         *testing.T
	transport *http.Transport

	mu      sync.Mutex
	servers map[string]*listener
}

func newNetwork(t *testing.T) *network {
	n := &network{t: t, servers: map[string]*listener{}}
	n.transport = &http.Transport{DialContext: n.dial, DialTLSContext: n.dial}
	t.Cleanup(n.transport.CloseIdleConnections)
	return n
}

func (n *network) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.servers[addr]
	n.mu.Unlock()
	if l == nil {
		return nil, &net.DNSError{Err: "no such server", Name: addr, IsNotFound: true}
	}
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// serve starts a server at host:port.
func (n *network) serve(addr string, h http.Handler) {
	l := &listener{conns: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	n.servers[addr] = l
	n.mu.Unlock()
	server := &http.Server{Handler: h}
	ended := make(chan struct{})
	go func() {
		server.Serve(l)
		close(ended)
	}()
	n.t.Cleanup(func() {
		server.Close()
		<-ended
	})
}

type listener struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// client returns a client of the network for the origin. cfg's Base is set, and its
// Credentials if they are nil.
func (n *network) client(cfg senderclient.Config) *http.Client {
	n.t.Helper()
	cfg.Base = n.transport
	if cfg.Credentials == nil {
		cfg.Credentials = static(n.t)
	}
	c, err := senderclient.New(origin, cfg)
	require.NoError(n.t, err)
	return c
}

// An api is a server that records requests.
type api struct {
	answer func(w http.ResponseWriter, r *http.Request, n int) // to the n-th request, from 0

	mu       sync.Mutex
	requests []*http.Request
	times    []time.Duration // since the first request
	bodies   []string
	start    time.Time
}

// newAPI starts an api at the origin.
func newAPI(n *network, answer func(http.ResponseWriter, *http.Request, int)) *api {
	a := &api{answer: answer}
	n.serve("api.example.com:443", a)
	return a
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	n := len(a.requests)
	if n == 0 {
		a.start = time.Now()
	}
	a.requests = append(a.requests, r)
	a.bodies = append(a.bodies, string(body))
	a.times = append(a.times, time.Since(a.start))
	a.mu.Unlock()
	a.answer(w, r, n)
}

// guarded returns a handler with the guard of this module and one limit, "default".
func guarded(t *testing.T, l senderauth.Limit) http.Handler {
	t.Helper()
	keys, err := senderauth.Static(senderauth.Credentials{SenderID: senderID, APIKey: apiKey})
	require.NoError(t, err)
	guard, err := senderauth.New(keys, senderauth.Config{Limits: map[string]senderauth.Limit{"default": l}})
	require.NoError(t, err)
	return guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, _ := senderauth.SenderFrom(r.Context())
		io.WriteString(w, "hello "+s.ID)
	}))
}

func request(t *testing.T, method, url, body string, lines ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(lines); i += 2 {
		r.Header.Add(lines[i], lines[i+1])
	}
	return r
}

// send sends a request and returns the status and the body.
func send(t *testing.T, c *http.Client, r *http.Request) (int, string) {
	t.Helper()
	res, err := c.Do(r)
	require.NoError(t, err)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	return res.StatusCode, string(body)
}
