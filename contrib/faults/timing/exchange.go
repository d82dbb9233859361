package main

import (
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/senderauth/senderauth"
)

// An exchange sends a guess and times the answer.
type exchange interface {
	send(c senderauth.Credentials) (took time.Duration, status int, err error)
}

// A call is an exchange with a handler in this process.
type call struct {
	handler http.Handler
	request *http.Request
	header  http.Header
	status  int
}

func newCall(h http.Handler) *call {
	r, _ := http.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "192.0.2.1:1234"
	r.Body = http.NoBody
	r.Header = http.Header{"X-Sender-Id": {""}, "X-Api-Key": {""}}
	return &call{handler: h, request: r, header: http.Header{}}
}

func (c *call) Header() http.Header         { return c.header }
func (c *call) WriteHeader(status int)      { c.status = status }
func (c *call) Write(b []byte) (int, error) { return len(b), nil }

func (c *call) send(guess senderauth.Credentials) (time.Duration, int, error) {
	clear(c.header)
	c.status = http.StatusOK
	// net/http makes new strings for each request, too. Without that, where in memory the
	// guesses of one class happen to be would show.
	c.request.Header["X-Sender-Id"][0], c.request.Header["X-Api-Key"][0] = strings.Clone(guess.SenderID), strings.Clone(guess.APIKey)
	began := time.Now()
	c.handler.ServeHTTP(c, c.request)
	return time.Since(began), c.status, nil
}

// A loopback is an exchange with a server on 127.0.0.1, over one connection.
type loopback struct {
	server    *http.Server
	transport *http.Transport
	request   *http.Request
}

func newLoopback(h http.Handler) (*loopback, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &loopback{server: &http.Server{Handler: h}, transport: &http.Transport{}}
	go l.server.Serve(listener)
	l.request, err = http.NewRequest(http.MethodGet, "http://"+listener.Addr().String(), nil)
	return l, err
}

func (l *loopback) send(guess senderauth.Credentials) (time.Duration, int, error) {
	l.request.Header["X-Sender-Id"], l.request.Header["X-Api-Key"] = []string{guess.SenderID}, []string{guess.APIKey}
	began := time.Now()
	resp, err := l.transport.RoundTrip(l.request)
	if err != nil {
		return 0, 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	took := time.Since(began)
	resp.Body.Close()
	return took, resp.StatusCode, err
}

func (l *loopback) close() {
	l.transport.CloseIdleConnections()
	l.server.Close()
}
