package senderauth_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// FuzzWrap sends bytes to a server of net/http, behind whose handler is a guard, and
// holds every answer against what the request says by a reading of its own.
//
// The seeds in testdata/requests.txt are the requests of contrib/conformance with the
// credentials of these tests.
func FuzzWrap(f *testing.F) {
	seeds, err := os.ReadFile("testdata/requests.txt")
	require.NoError(f, err)
	for line := range strings.Lines(string(seeds)) {
		request, err := strconv.Unquote(strings.TrimSpace(line))
		require.NoError(f, err)
		f.Add(byte(0), []byte(request))
		f.Add(byte(fuzzCached|fuzzStripKey), []byte(request))
	}
	for _, s := range []struct {
		options fuzzOptions
		lines   []string // one for each request on the connection
	}{
		{0, []string{fuzzPair(1), fuzzPair(1), fuzzPair(1), fuzzPair(1), fuzzPair(2)}},
		{fuzzCached, []string{fuzzPair(1), fuzzPair(4), fuzzPair(5), fuzzPair(6), fuzzPair(1)}},
		{fuzzScheme, []string{"Authorization: bearer  " + apiKey(1) + "\r\nx-sender-id: " + senderID(1) + "\r\n"}},
		{fuzzScheme, []string{"Authorization: Bearer" + apiKey(1) + "\r\nx-sender-id: " + senderID(1) + "\r\n"}},
		{fuzzScheme | fuzzKeyOnly, []string{"Authorization: Bearer " + apiKey(2) + "\r\n"}},
		{fuzzStripKey | fuzzNested, []string{fuzzPair(1), fuzzPair(11)}},
		{fuzzTLS, []string{"X-Forwarded-Proto: https\r\n" + fuzzPair(1), fuzzPair(1)}},
		{fuzzDryRun, []string{fuzzPair(1), fuzzPair(1), fuzzPair(1), fuzzPair(1)}},
		{fuzzAttempts, []string{fuzzPair(4), fuzzPair(5), fuzzPair(1)}},
		{fuzzAttempts | fuzzCached, []string{fuzzPair(1), fuzzPair(4), fuzzPair(5), fuzzPair(2), fuzzPair(1)}},
		{fuzzKeyOnly, []string{"x-api-key: " + apiKey(7) + "\r\n", "x-api-key: " + apiKey(6) + "\r\n"}},
	} {
		var wire strings.Builder
		for _, lines := range s.lines {
			wire.WriteString("GET / HTTP/1.1\r\nHost: localhost\r\n" + lines + "\r\n")
		}
		f.Add(byte(s.options), []byte(wire.String()))
	}
	f.Fuzz(func(t *testing.T, options byte, wire []byte) {
		synctest.Test(t, func(t *testing.T) {
			x := newFuzzServer(t, fuzzOptions(options))
			x.receive(wire)
			x.checkPassages(t)
			x.checkHeads(t, wire)
			x.checkAnswers(t)
		})
	})
}

func fuzzPair(n int) string {
	return "x-sender-id: " + senderID(fuzzKeys[apiKey(n)].owner) + "\r\nx-api-key: " + apiKey(n) + "\r\n"
}

// fuzzOptions choose a Config.
type fuzzOptions byte

const (
	fuzzScheme   fuzzOptions = 1 << iota // KeyHeader Authorization and KeyScheme Bearer
	fuzzStripKey                         // StripKey
	fuzzTLS                              // RequireTLS, with the peer as a trusted proxy
	fuzzDryRun                           // DryRun
	fuzzAttempts                         // FailedAttempts
	fuzzKeyOnly                          // KeyOnly
	fuzzCached                           // a Cache in front of the validator
	fuzzNested                           // a guard inside of a guard
)

func (o fuzzOptions) has(option fuzzOptions) bool { return o&option != 0 }

func (o fuzzOptions) keyHeader() string {
	if o.has(fuzzScheme) {
		return "Authorization"
	}
	return "X-Api-Key"
}

func (o fuzzOptions) config(l senderauth.Limiter) senderauth.Config {
	cfg := senderauth.Config{Limits: limits(scarce), Limiter: l, StripKey: o.has(fuzzStripKey), KeyOnly: o.has(fuzzKeyOnly)}
	if o.has(fuzzScheme) {
		cfg.KeyHeader, cfg.KeyScheme = "Authorization", "Bearer"
	}
	if o.has(fuzzTLS) {
		cfg.RequireTLS = true
		cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	}
	if o.has(fuzzDryRun) {
		cfg.DryRun = []string{"default"}
	}
	if o.has(fuzzAttempts) {
		cfg.FailedAttempts = senderauth.Limit{Requests: 1, Per: 10_000 * time.Hour, Burst: fuzzFailures}
	}
	return cfg
}

// scarce does not flow back while a connection lasts.
var scarce = senderauth.Limit{Requests: 1, Per: 10_000 * time.Hour, Burst: 3}

const fuzzFailures = 2 // that FailedAttempts allows

// fuzzKeys are the keys of the validator, each with its owner and what is said when the
// owner presents it.
var fuzzKeys = map[string]struct {
	owner  int
	answer error
}{
	apiKey(1):  {1, nil},
	apiKey(11): {1, nil},
	apiKey(2):  {2, nil},
	apiKey(4):  {1, senderauth.ErrInvalidKey},
	apiKey(5):  {5, senderauth.ErrInvalidSender},
	apiKey(6):  {6, errOutage},
	apiKey(7):  {7, nil},
}

func fuzzValidator(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
	k, ok := fuzzKeys[c.APIKey]
	switch {
	case !ok || k.answer == senderauth.ErrInvalidKey:
		return senderauth.Sender{}, senderauth.ErrInvalidKey
	case c.SenderID != "" && c.SenderID != senderID(k.owner):
		return senderauth.Sender{}, senderauth.ErrKeyMismatch
	}
	return senderauth.Sender{ID: senderID(k.owner)}, k.answer
}

// A fuzzServer is a server with one connection.
type fuzzServer struct {
	options  fuzzOptions
	limiter  *senderauth.MemoryLimiter
	guarded  http.Handler
	passages []*passage
	out, log bytes.Buffer
}

// A passage is a request that reached the server's handler, and what came of it.
type passage struct {
	method        string
	header        http.Header // as it came
	untouched     bool        // header, afterwards
	before, after map[int]int // tokens of each owner
	status        int
	panicked      any

	served       http.Header // as the next handler got it; nil if it was not called
	servedSender string
}

func newFuzzServer(t *testing.T, o fuzzOptions) *fuzzServer {
	t.Helper()
	if o.has(fuzzTLS) {
		o &^= fuzzAttempts // the trusted proxy may name a new address each time
	}
	x := &fuzzServer{options: o, limiter: senderauth.NewMemoryLimiter(senderauth.MemoryLimiterConfig{Buckets: 1})}
	var v senderauth.Validator = senderauth.ValidatorFunc(fuzzValidator)
	if o.has(fuzzCached) {
		v = newCache(t, v, senderauth.CacheConfig{Entries: 4})
	}
	guard, err := senderauth.New(v, o.config(x.limiter))
	require.NoError(t, err)
	x.guarded = guard.Wrap(http.HandlerFunc(x.serve))
	if o.has(fuzzNested) {
		x.guarded = guard.Wrap(x.guarded)
	}
	return x
}

// serve is the next handler.
func (x *fuzzServer) serve(w http.ResponseWriter, r *http.Request) {
	p := x.passages[len(x.passages)-1]
	s, _ := senderauth.SenderFrom(r.Context())
	p.served, p.servedSender = r.Header, s.ID
	io.Copy(io.Discard, r.Body)
	io.WriteString(w, "hello")
}

// ServeHTTP is the outermost handler.
func (x *fuzzServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := &passage{method: r.Method, header: r.Header.Clone(), before: x.tokens()}
	x.passages = append(x.passages, p)
	watched := &statusWriter{ResponseWriter: w}
	defer func() {
		p.panicked = recover()
		p.status, p.after = watched.status, x.tokens()
		p.untouched = maps.EqualFunc(p.header, r.Header, slices.Equal)
	}()
	x.guarded.ServeHTTP(watched, r)
}

func (x *fuzzServer) tokens() map[int]int {
	all := map[int]int{}
	for _, k := range fuzzKeys {
		b, err := x.limiter.Take(context.Background(), senderID(k.owner), []senderauth.Charge{{Name: "default", Limit: scarce}})
		if err != nil {
			panic(err)
		}
		all[k.owner] = b[0].Remaining
	}
	return all
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// receive has the server read wire from a connection, until it closes it.
func (x *fuzzServer) receive(wire []byte) {
	server := &http.Server{
		Handler: x, ReadTimeout: 30 * time.Second, IdleTimeout: 30 * time.Second, ErrorLog: log.New(&x.log, "", 0),
		DisableGeneralOptionsHandler: true, // it would answer with 200 in place of the guard
	}
	l := make(pipes)
	go server.Serve(l)
	ours, theirs := net.Pipe()
	l <- proxied{theirs}
	read := make(chan struct{})
	go func() {
		defer close(read)
		x.out.ReadFrom(ours)
	}()
	ours.Write(wire)
	<-read
	ours.Close()
	close(l)
	synctest.Wait()
}

// proxied is a connection of a peer that fuzzTLS trusts.
type proxied struct{ net.Conn }

func (proxied) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 49152} }

// claim returns the credentials of a header that has each of them once, in the form of
// a UUID.
func (o fuzzOptions) claim(h http.Header) (c senderauth.Credentials, ok bool) {
	keys, senders := h[o.keyHeader()], h["X-Sender-Id"]
	if o.has(fuzzKeyOnly) {
		senders = []string{senderID(0)}
	}
	if len(keys) != 1 || len(senders) != 1 {
		return c, false
	}
	key := keys[0]
	if o.has(fuzzScheme) {
		m := bearer.FindStringSubmatch(key)
		if m == nil {
			return c, false
		}
		key = m[1]
	}
	c = senderauth.Credentials{SenderID: strings.ToLower(senders[0]), APIKey: strings.ToLower(key)}
	return c, isUUID(senders[0]) && isUUID(key)
}

var (
	bearer = regexp.MustCompile(`^(?i:bearer) +(.*)$`)
	uuids  = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
)

func isUUID(s string) bool {
	return uuids.MatchString(s) && strings.Trim(s, "-0") != "" && strings.Trim(s, "-fF") != ""
}

// secure reports whether the trusted proxy says that the request came over TLS.
func secure(h http.Header) bool {
	protos := strings.Join(h["X-Forwarded-Proto"], ",")
	for proto := range strings.SplitSeq(protos, ",") {
		switch strings.ToLower(strings.Trim(proto, " \t")) {
		case "https", "wss":
		default:
			return false
		}
	}
	return true
}

// verdict returns the status that the request deserves, whatever the limits say. asked
// says whether the validator decides it. If the status is 200, owner is who sent it.
func (o fuzzOptions) verdict(h http.Header) (status, owner int, asked bool) {
	if o.has(fuzzTLS) && !secure(h) {
		return 403, 0, false
	}
	c, ok := o.claim(h)
	if !ok {
		return 401, 0, false
	}
	k, known := fuzzKeys[c.APIKey]
	switch {
	case !known || k.answer == senderauth.ErrInvalidKey:
		return 401, 0, true
	case !o.has(fuzzKeyOnly) && c.SenderID != senderID(k.owner):
		return 401, 0, true
	case k.answer == errOutage:
		return 503, 0, true
	case k.answer != nil:
		return 401, 0, true
	}
	return 200, k.owner, true
}

// checkPassages holds every request that reached the handler against its verdict.
func (x *fuzzServer) checkPassages(t *testing.T) {
	failures, cached := 0, map[senderauth.Credentials]bool{}
	for _, p := range x.passages {
		require.Nil(t, p.panicked, "%q", p.header)
		c, _ := x.options.claim(p.header)
		want, owner, asked := x.options.verdict(p.header)
		after := p.before
		switch {
		case x.options.has(fuzzAttempts) && asked && failures >= fuzzFailures && !cached[c]:
			want = 429
		case want == 401 && asked:
			failures++
		case want == 200:
			cached[c] = x.options.has(fuzzCached)
			if p.before[owner] > 0 {
				after = with(p.before, owner, -1)
			} else if !x.options.has(fuzzDryRun) {
				want = 429
			}
		}
		require.Equal(t, want, p.status, "%q", p.header)
		require.Equal(t, after, p.after, "%q", p.header)
		require.True(t, p.untouched, "%q", p.header)
		require.Equal(t, want == 200, p.served != nil, "%q", p.header)
		if want == 200 {
			require.Equal(t, senderID(owner), p.servedSender)
			require.Equal(t, !x.options.has(fuzzStripKey), len(p.served[x.options.keyHeader()]) > 0)
		}
	}
}

// with returns tokens with n more for owner.
func with(tokens map[int]int, owner, n int) map[int]int {
	tokens = maps.Clone(tokens)
	tokens[owner] += n
	return tokens
}

var (
	endOfHead = regexp.MustCompile(`\n\r?\n`)
	folded    = regexp.MustCompile(`\r?\n[ \t]+`)
)

// checkHeads reads the header sections of the admitted requests without net/http, as
// long as no body may come between them.
func (x *fuzzServer) checkHeads(t *testing.T, wire []byte) {
	for _, p := range x.passages {
		end := endOfHead.FindIndex(wire)
		require.NotNil(t, end, "a request without the end of its head was answered")
		head := folded.ReplaceAllString(string(wire[:end[0]]), " ")
		wire = wire[end[1]:]
		if p.status == 200 {
			got := http.Header{}
			for line := range strings.SplitSeq(head, "\n") {
				name, value, _ := strings.Cut(line, ":")
				for _, known := range []string{"X-Sender-Id", "X-Api-Key", "Authorization", "X-Forwarded-Proto"} {
					if strings.EqualFold(name, known) {
						got[known] = append(got[known], strings.Trim(value, " \t\r"))
					}
				}
			}
			status, _, _ := x.options.verdict(got)
			require.Equal(t, 200, status, "%q", head)
		}
		head = strings.ToLower(head)
		if strings.Contains(head, "content-length") || strings.Contains(head, "transfer-encoding") || strings.HasPrefix(head, "post") {
			return // net/http skips line ends after the body of a POST, even of none
		}
	}
}

// checkAnswers holds what the client reads against what the handler wrote.
func (x *fuzzServer) checkAnswers(t *testing.T) {
	for k := range fuzzKeys {
		noPart(t, x.out.String(), k)
		noPart(t, x.log.String(), k)
	}
	in := bufio.NewReader(&x.out)
	for i := 0; ; {
		if _, err := in.Peek(1); err == io.EOF {
			require.GreaterOrEqual(t, i, len(x.passages), "the handler answered more requests than the client got answers")
			return
		}
		method := ""
		if i < len(x.passages) {
			method = x.passages[i].method
		}
		res, err := http.ReadResponse(in, &http.Request{Method: method})
		require.NoError(t, err)
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		if res.StatusCode == http.StatusContinue {
			continue
		}
		if i < len(x.passages) {
			require.Equal(t, x.passages[i].status, res.StatusCode)
			require.Equal(t, res.StatusCode == 401, res.Header["Www-Authenticate"] != nil)
		} else {
			require.Equal(t, len(x.passages), i, "net/http answers by itself once, and closes the connection")
			require.Contains(t, []int{400, 417, 431, 501, 505}, res.StatusCode, "%s", body)
		}
		i++
	}
}
