package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/examples/internal/proxytest"
	"github.com/senderauth/senderauth/contrib/internal/testservers"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { testservers.Main(m) }

const (
	sender = "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11"
	other  = "c3a1f0de-1111-4c7e-8d55-5a2f60b7e902"
	key    = "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01"
)

var good = []string{"X-Sender-Id", sender, "X-Api-Key", key}

func handler(t *testing.T) http.Handler {
	t.Helper()
	keys, err := senderauth.Static(senderauth.Credentials{SenderID: sender, APIKey: key})
	require.NoError(t, err)
	h, err := newHandler(keys, netip.MustParsePrefix("127.0.0.1/32"), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return h
}

// An upstream records what reaches it of the identity, and the rest of the request.
type upstream struct {
	mu   sync.Mutex
	seen []string
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	identity := http.Header{}
	for name, lines := range r.Header {
		folded := strings.ToLower(strings.ReplaceAll(name, "_", "-")) // as CGI does
		if strings.HasPrefix(folded, "x-auth") || folded == "x-sender-id" || folded == "x-api-key" {
			identity[name] = lines
		}
	}
	shown, _ := json.Marshal(identity)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.seen = append(u.seen, r.Method+" "+r.RequestURI+" "+string(shown)+" "+string(body))
	io.WriteString(w, "served")
}

// requests returns what was seen since the last call.
func (u *upstream) requests() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	seen := u.seen
	u.seen = nil
	return seen
}

func startProxy(t *testing.T, program, auth string) (*proxytest.Proxy, *upstream) {
	t.Helper()
	u := &upstream{}
	addrs := map[string]string{"127.0.0.1:8081": proxytest.Serve(t, u), "127.0.0.1:8090": auth}
	if program == "haproxy" {
		return proxytest.Start(t, program, "haproxy.cfg", addrs, "haproxy.lua"), u
	}
	return proxytest.Start(t, program, "nginx.conf", addrs), u
}

// A refusal is what the client sees of a problem.
func refusal(fields ...string) map[string]string {
	all := map[string]string{"Content-Type": "application/problem+json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
	for i := 0; i < len(fields); i += 2 {
		all[fields[i]] = fields[i+1]
	}
	return all
}

var challenge = refusal("Www-Authenticate", `ApiKey realm="api"`)

// fields are those that tell a client about a refusal or its limits.
func fields(h http.Header) map[string]string {
	got := map[string]string{}
	for _, name := range []string{"Content-Type", "Cache-Control", "X-Content-Type-Options", "Www-Authenticate", "Retry-After", "Ratelimit-Policy", "X-Auth-Sender", "X-Auth-Problem"} {
		if lines := h[name]; len(lines) > 0 {
			got[name] = strings.Join(lines, " | ")
		}
	}
	return got
}

func problem(members string) string { return `{"status":` + members + `,"type":"about:blank"}` }

func TestProxyAsksForwardauth(t *testing.T) {
	const (
		noKey     = `401,"title":"Unauthorized","detail":"Header x-api-key not found"`
		badKey    = `401,"title":"Unauthorized","detail":"Invalid API credentials!"`
		cleartext = `403,"title":"Forbidden","detail":"HTTPS is required"`
		served    = ` {"X-Auth-Sender":["` + sender + `"]} text`
	)
	with := func(lines ...string) []string { return append(good[:4:4], lines...) }
	for _, program := range []string{"nginx", "haproxy"} {
		t.Run(program, func(t *testing.T) {
			p, u := startProxy(t, program, proxytest.Serve(t, handler(t)))
			for _, c := range []struct {
				name   string
				url    string
				target string
				lines  []string
				status int
				seen   string // by the upstream, or the problem
				fields map[string]string
			}{
				{"a good key", p.HTTPS, "POST /v1/contacts/1?a=b%20c", good, 200, served, map[string]string{"Ratelimit-Policy": `"default";q=50;w=15`}},
				{"the limit of the route", p.HTTPS, "POST /v1/messages", good, 200, served, map[string]string{"Ratelimit-Policy": `"messages";q=60;w=60`}},
				{"the limit of another spelling", p.HTTPS, "POST /v1/%6dessages", good, 200, served, map[string]string{"Ratelimit-Policy": `"messages";q=60;w=60`}},
				{"another method", p.HTTPS, "PUT /v1/messages", good, 200, served, map[string]string{"Ratelimit-Policy": `"default";q=50;w=15`}},
				{"a client that claims another request", p.HTTPS, "POST /v1/messages", with("X-Forwarded-Uri", "/", "X-Forwarded-Method", "GET"), 200, served, map[string]string{"Ratelimit-Policy": `"messages";q=60;w=60`}},
				{"a client that claims to be another", p.HTTPS, "POST /", with("X-Auth-Sender", other, "X-Auth-Sender", other, "x-auth-sender", other, "X_Auth_Sender", other, "x-auth_sender", other), 200, served, map[string]string{"Ratelimit-Policy": `"default";q=50;w=15`}},
				{"no key", p.HTTPS, "POST /", nil, 401, noKey, challenge},
				{"an identity without a key", p.HTTPS, "POST /", []string{"X-Auth-Sender", sender}, 401, noKey, challenge},
				{"a bad key", p.HTTPS, "POST /", []string{"X-Sender-Id", sender, "X-Api-Key", other}, 401, badKey, challenge},
				{"two keys", p.HTTPS, "POST /", with("X-Api-Key", key), 401, badKey, challenge},
				{"another sender", p.HTTPS, "POST /", []string{"X-Sender-Id", other, "X-Api-Key", key}, 401, `401,"title":"Unauthorized","detail":"API key does not match sender ID"`, challenge},
				{"cleartext", p.HTTP, "POST /", good, 403, cleartext, refusal()},
				{"cleartext that claims to be none", p.HTTP, "POST /", with("X-Forwarded-Proto", "https"), 403, cleartext, refusal()},
			} {
				t.Run(c.name, func(t *testing.T) {
					method, path, _ := strings.Cut(c.target, " ")
					res, body := p.Do(t, proxytest.Request(t, method, c.url+path, "text", c.lines...))
					require.Equal(t, c.status, res.StatusCode, body)
					if c.status != 200 {
						require.Equal(t, problem(c.seen), body)
						require.Empty(t, u.requests())
					} else {
						require.Equal(t, "served", body)
						require.Equal(t, []string{c.target + c.seen}, u.requests())
						res.Header.Del("Content-Type")
					}
					require.Equal(t, c.fields, fields(res.Header))
				})
			}
		})
	}
}

// A key that is good in some networks only is not helped by a client that claims an address.
func TestProxyTellsTheAddressOfTheClient(t *testing.T) {
	const client = "127.0.0.2" // not an address of a proxy
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client)}}
	transport := &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(transport.CloseIdleConnections)
	for _, program := range []string{"nginx", "haproxy"} {
		for network, want := range map[string]int{client + "/32": 200, "192.0.2.0/24": 401} {
			t.Run(program+" "+network, func(t *testing.T) {
				keys := senderauth.ValidatorFunc(func(context.Context, senderauth.Credentials) (senderauth.Sender, error) {
					return senderauth.Sender{ID: sender, Networks: []netip.Prefix{netip.MustParsePrefix(network)}}, nil
				})
				h, err := newHandler(keys, netip.MustParsePrefix("127.0.0.1/32"), slog.New(slog.DiscardHandler))
				require.NoError(t, err)
				p, u := startProxy(t, program, proxytest.Serve(t, h))
				for _, claim := range [][]string{nil, {"X-Forwarded-For", "192.0.2.7"}, {"X-Forwarded-For", "192.0.2.7, 127.0.0.1"}} {
					r := proxytest.Request(t, "GET", p.HTTPS+"/", "", append(good[:4:4], claim...)...)
					res, err := transport.RoundTrip(r)
					require.NoError(t, err)
					require.NoError(t, res.Body.Close())
					require.Equal(t, want, res.StatusCode, claim)
					require.Equal(t, want == 200, len(u.requests()) == 1, claim)
				}
			})
		}
	}
}

// A target that is no URI is the client's mistake, and no reason to look at the proxy.
func TestMalformedTargetThroughAProxy(t *testing.T) {
	for program, targets := range map[string][]string{"nginx": {"/v1/users#x", "http://a?b"}, "haproxy": {"/%zz", "*"}} {
		t.Run(program, func(t *testing.T) {
			var log strings.Builder
			keys, err := senderauth.Static(senderauth.Credentials{SenderID: sender, APIKey: key})
			require.NoError(t, err)
			h, err := newHandler(keys, netip.MustParsePrefix("127.0.0.1/32"), slog.New(slog.NewTextHandler(&log, nil)))
			require.NoError(t, err)
			p, u := startProxy(t, program, proxytest.Serve(t, h))
			for _, target := range targets {
				conn, err := net.Dial("tcp", strings.TrimPrefix(p.HTTP, "http://"))
				require.NoError(t, err)
				defer conn.Close()
				_, err = io.WriteString(conn, "OPTIONS "+target+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
				require.NoError(t, err)
				res, err := http.ReadResponse(bufio.NewReader(conn), nil)
				require.NoError(t, err)
				body, err := io.ReadAll(res.Body)
				require.NoError(t, err)
				require.Equal(t, 400, res.StatusCode, target)
				require.Equal(t, problem(`400,"title":"Bad Request","detail":"The target of the request is malformed."`), string(body))
			}
			require.Empty(t, u.requests())
			require.Empty(t, log.String())
		})
	}
}

// A 429 stays one, although auth_request makes 500 of it, and keeps its time.
func TestRateLimitThroughAProxy(t *testing.T) {
	for _, program := range []string{"nginx", "haproxy"} {
		t.Run(program, func(t *testing.T) {
			p, u := startProxy(t, program, proxytest.Serve(t, handler(t)))
			var res *http.Response
			var body string
			served := -1
			for start := time.Now(); res == nil || res.StatusCode == 200; served++ {
				require.Less(t, time.Since(start), time.Minute)
				res, body = p.Do(t, proxytest.Request(t, "POST", p.HTTPS+"/v1/users", "text", good...))
			}
			require.Equal(t, 429, res.StatusCode, body)
			retry := res.Header.Get("Retry-After")
			require.Regexp(t, `^[1-6]$`, retry)
			require.Equal(t, problem(`429,"title":"Too Many Requests","detail":"Rate limit exceeded. Please retry after `+retry+` seconds."`), body)
			require.Equal(t, refusal("Retry-After", retry, "Ratelimit-Policy", `"default";q=50;w=15, "sensitive";q=5;w=30`), fields(res.Header))
			require.Regexp(t, `^"default";r=\d+;t=1, "sensitive";r=0;t=`+retry+`$`, res.Header.Get("RateLimit"))
			require.Len(t, u.requests(), served, "the refused request is not forwarded")
		})
	}
}

// The refusal of HEAD has no body, which would be taken for the next answer.
func TestHeadThroughAProxy(t *testing.T) {
	for _, program := range []string{"nginx", "haproxy"} {
		t.Run(program, func(t *testing.T) {
			p, _ := startProxy(t, program, proxytest.Serve(t, handler(t)))
			conn, err := net.Dial("tcp", strings.TrimPrefix(p.HTTP, "http://"))
			require.NoError(t, err)
			defer conn.Close()
			_, err = io.WriteString(conn, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\nHEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			require.NoError(t, err)
			answers, err := io.ReadAll(conn)
			require.NoError(t, err)
			require.Equal(t, 2, strings.Count(string(answers), "HTTP/1.1 403 Forbidden\r\n"), string(answers))
			require.NotContains(t, string(answers), "HTTPS is required")
		})
	}
}

// Without its answer, nothing passes.
func TestForwardauthIsDown(t *testing.T) {
	for _, program := range []string{"nginx", "haproxy"} {
		t.Run(program, func(t *testing.T) {
			p, u := startProxy(t, program, "127.0.0.1:1")
			res, body := p.Do(t, proxytest.Request(t, "GET", p.HTTPS+"/", "", good...))
			require.Equal(t, 503, res.StatusCode)
			require.Equal(t, "application/problem+json", res.Header.Get("Content-Type"))
			require.Equal(t, problem(`503,"title":"Service Unavailable","detail":"The service is temporarily unavailable. Please retry."`), body)
			require.Empty(t, u.requests())
		})
	}
}

// Traefik asks with GET and sends the client's headers, and its own X-Forwarded-. It
// hands the client the whole refusal.
func TestForwardAuthOfTraefik(t *testing.T) {
	h := handler(t)
	ask := func(peer string, lines ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = peer
		for i := 0; i < len(lines); i += 2 {
			r.Header.Add(lines[i], lines[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	traefik := append(good[:4:4], "X-Forwarded-Method", "POST", "X-Forwarded-Uri", "/v1/messages?a=b", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "api.example.com")
	const proxy = "127.0.0.1:1234"

	w := ask(proxy, traefik...)
	require.Equal(t, 204, w.Code)
	require.Equal(t, map[string]string{"Cache-Control": "private", "Ratelimit-Policy": `"messages";q=60;w=60`, "X-Auth-Sender": sender}, fields(w.Header()))

	unauthorized := problem(`401,"title":"Unauthorized","detail":"Header x-api-key not found"`)
	w = ask(proxy, traefik[4:]...)
	require.Equal(t, 401, w.Code)
	require.Equal(t, unauthorized, w.Body.String())
	want := maps.Clone(challenge)
	want["X-Auth-Problem"] = unauthorized
	require.Equal(t, want, fields(w.Header()))

	require.Equal(t, 403, ask("192.0.2.1:1234", traefik...).Code, "one who is not the proxy")
	for name, lines := range map[string][]string{
		"no target": {"X-Forwarded-Proto", "https", "X-Forwarded-Method", "GET"},
		"no method": {"X-Forwarded-Proto", "https", "X-Forwarded-Uri", "/"},
		"two":       {"X-Forwarded-Proto", "https", "X-Forwarded-Method", "GET", "X-Forwarded-Uri", "/", "X-Forwarded-Uri", "/"},
	} {
		w := ask(proxy, append(good[:4:4], lines...)...)
		require.Equal(t, 500, w.Code, name)
		require.Equal(t, problem(`500,"title":"Internal Server Error","detail":"An internal error occurred."`), w.Body.String(), name)
	}
}

func TestForwardauthListensInternally(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:8090":  "",
		"[::1]:8090":      "",
		"10.1.2.3:8090":   "",
		"0.0.0.0:8090":    "-addr: 0.0.0.0:8090 is neither a loopback nor a private address",
		"[::]:8090":       "-addr: [::]:8090 is neither a loopback nor a private address",
		"192.0.2.1:8090":  "-addr: 192.0.2.1:8090 is neither a loopback nor a private address",
		":8090":           `-addr: no IP`,
		"example.com:443": `-addr: ParseAddr("example.com"): unexpected character (at "example.com")`,
	} {
		err := internal(addr)
		if want == "" {
			require.NoError(t, err, addr)
		} else {
			require.EqualError(t, err, want, addr)
			require.EqualError(t, run([]string{"-addr", addr}), want, addr)
		}
	}
}
