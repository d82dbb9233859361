package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
)

// senders is the number of senders, except over loopback.
const senders = 100_000

// A demand is a sequence of requests, each with the sender's ID and secret. It is a
// single string that is read from front to back, so that the next request is in the
// processor's cache, as it is in a server that has just read it from a connection.
type demand struct {
	text  string
	width int // bytes of one request
}

const idWidth = 36

func newDemand(n int, request func(i int) (id, secret string)) demand {
	var text strings.Builder
	for i := range n {
		id, secret := request(i)
		text.WriteString(id)
		text.WriteString(secret)
	}
	return demand{text: text.String(), width: text.Len() / n}
}

func (d demand) len() int { return len(d.text) / d.width }

func (d demand) at(i int) (id, secret string) {
	request := d.text[i*d.width : (i+1)*d.width]
	return request[:idWidth], request[idWidth:]
}

// order is the number of requests in a demand of many senders.
const order = 1 << 17

// demands returns the demands of a contender by scenario.
func demands(c *contender, p *population) map[string]demand {
	secrets := p.secrets(c)
	random := rand.New(rand.NewPCG(1, 2))
	zipf := rand.NewZipf(random, 1.1, 1, uint64(len(p.ids)-1))
	of := func(sender func() int) demand {
		return newDemand(order, func(int) (string, string) {
			i := sender()
			return p.ids[i], secrets[i]
		})
	}
	one := newDemand(1, func(int) (string, string) { return p.ids[0], secrets[0] })
	return map[string]demand{
		"one":     one,
		"zipf":    of(func() int { return int(zipf.Uint64()) }),
		"uniform": of(func() int { return random.IntN(len(p.ids)) }),
		"limited": one,
		"no key":  newDemand(1, func(int) (string, string) { return p.ids[0], "" }),
		"bad key": newDemand(1024, func(i int) (string, string) { return p.ids[i%len(p.ids)], forge(secrets[i%len(p.ids)], i) }),
	}
}

// secrets returns what each sender presents to c: its key or its token.
func (p *population) secrets(c *contender) []string {
	if c.token == nil {
		return p.keys
	}
	tokens := make([]string, len(p.ids))
	for i, id := range p.ids {
		tokens[i] = c.token(id)
	}
	return tokens
}

// forge replaces the last twelve characters. The result is a well-formed key or token that
// is not valid.
func forge(secret string, i int) string {
	return secret[:len(secret)-12] + fmt.Sprintf("%012x", 0xbad_000_000_000+i)
}

// A caller sends the same request again and again, each time with other credentials.
type caller struct {
	request    *http.Request
	header     string // header field of the secret
	id, secret []string
	writer     nullWriter
}

func newCaller(c *contender) *caller {
	a := &caller{header: "X-Api-Key", id: []string{""}, secret: []string{""}}
	if c.token != nil {
		a.header = "Authorization"
	}
	a.request = &http.Request{
		Method: "GET", URL: &url.URL{Path: "/"}, RequestURI: "/", Host: "localhost",
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody, RemoteAddr: "127.0.0.1:40000",
		Header: http.Header{"X-Sender-Id": a.id, a.header: a.secret, "User-Agent": {"benchmarks"}, "Accept": {"*/*"}},
	}
	a.writer.header = make(http.Header)
	return a
}

// call sends the request to h and returns the status.
func (a *caller) call(h http.Handler, id, secret string) int {
	clear(a.writer.header)
	a.writer.status = 0
	a.id[0], a.secret[0] = id, secret
	if secret == "" {
		delete(a.request.Header, a.header)
	}
	h.ServeHTTP(&a.writer, a.request)
	if a.writer.status == 0 {
		return http.StatusOK
	}
	return a.writer.status
}

// nullWriter is a ResponseWriter that costs nothing.
type nullWriter struct {
	header http.Header
	status int
}

func (w *nullWriter) Header() http.Header               { return w.header }
func (w *nullWriter) WriteHeader(status int)            { w.status = status }
func (w *nullWriter) Write(b []byte) (int, error)       { return len(b), nil }
func (w *nullWriter) WriteString(s string) (int, error) { return len(s), nil }
