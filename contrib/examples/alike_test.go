package examples_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

func unauthorized(detail string) string {
	body := `{"status":401,"title":"Unauthorized","detail":"` + detail + `","type":"about:blank"}`
	return fmt.Sprintf(`401 Unauthorized
Cache-Control: no-store
Content-Length: %d
Content-Type: application/problem+json
Www-Authenticate: ApiKey realm="api"
X-Content-Type-Options: nosniff

%s`, len(body), body)
}

const charged = `Ratelimit: "default";r=49;t=1
Ratelimit-Policy: "default";q=50;w=15
X-Ratelimit-Limit: 50
X-Ratelimit-Remaining: 49
X-Ratelimit-Reset: soon
`

const contactsBody = `{"sender":"` + sender + `","contacts":[{"id":"1","name":"Ada","phone":"+15550100"},{"id":"2","name":"Grace","phone":"+15550101"}]}` + "\n"

// All four programs give the same response to a first request, byte for byte apart
// from the date. Each case that is charged starts its own servers.
func TestAnswersAreAlike(t *testing.T) {
	var uncharged []*process
	for _, program := range programs {
		uncharged = append(uncharged, start(t, program, pair))
	}
	for _, c := range []struct {
		name string
		request
		want string
	}{
		{"no key", request{target: "GET /v1/contacts"}, unauthorized("Header x-api-key not found")},
		{"no sender", request{"GET /v1/contacts", []string{"x-api-key", key}, ""}, unauthorized("Header x-sender-id not found")},
		{"malformed sender", request{"GET /v1/contacts", []string{"x-api-key", key, "x-sender-id", "7a1de7b4"}, ""}, unauthorized("Invalid x-sender-id")},
		{"unknown key", request{"GET /v1/contacts", []string{"x-api-key", otherKey, "x-sender-id", sender}, ""}, unauthorized("Invalid API credentials!")},
		{"another's key", request{"GET /v1/contacts", []string{"x-api-key", key, "x-sender-id", otherSender}, ""}, unauthorized("API key does not match sender ID")},
		{"no key, no path", request{target: "GET /nope"}, unauthorized("Header x-api-key not found")},
		{"no key, nearly open", request{target: "GET /healthz/"}, unauthorized("Header x-api-key not found")},
		{"no key, unclean path", request{target: "GET //v1/../healthz"}, unauthorized("Header x-api-key not found")},
		{"no key, trailing slash", request{target: "GET /v1/contacts/"}, unauthorized("Header x-api-key not found")},
		{"no key, HEAD", request{target: "HEAD /v1/contacts"}, strings.Split(unauthorized("Header x-api-key not found"), "{")[0]},
		{"no key, OPTIONS", request{target: "OPTIONS /nope"}, unauthorized("Header x-api-key not found")},
		{"no key, a body", request{"POST /v1/messages", nil, `{"to":"+15550100","text":"Hello"}`}, unauthorized("Header x-api-key not found")},
		{"contacts", request{"GET /v1/contacts", authorized, ""}, `200 OK
Cache-Control: private
Content-Length: 153
Content-Type: application/json
` + charged + "\n" + contactsBody},
		{"contacts, HEAD", request{"HEAD /v1/contacts", authorized, ""}, `200 OK
Cache-Control: private
Content-Length: 153
Content-Type: application/json
` + charged + "\n"},
		{"contacts, capitals", request{"GET /v1/contacts", []string{"X-SENDER-ID", strings.ToUpper(sender), "X-API-KEY", strings.ToUpper(key)}, ""}, `200 OK
Cache-Control: private
Content-Length: 153
Content-Type: application/json
` + charged + "\n" + contactsBody},
		{"a contact", request{"GET /v1/contacts/2", authorized, ""}, `200 OK
Cache-Control: private
Content-Length: 46
Content-Type: application/json
` + charged + `
{"id":"2","name":"Grace","phone":"+15550101"}
`},
		{"no such contact", request{"GET /v1/contacts/3", authorized, ""}, `404 Not Found
Cache-Control: no-store
Content-Length: 82
Content-Type: application/problem+json
Ratelimit: "default";r=49;t=1
Ratelimit-Policy: "default";q=50;w=15
X-Content-Type-Options: nosniff
X-Ratelimit-Limit: 50
X-Ratelimit-Remaining: 49
X-Ratelimit-Reset: soon

{"status":404,"title":"Not Found","detail":"No such contact","type":"about:blank"}`},
		{"a message", request{"POST /v1/messages", authorized, `{"to":"+15550100","text":"Hello"}`}, `202 Accepted
Cache-Control: private
Content-Length: 85
Content-Type: application/json
Ratelimit: "messages";r=59;t=1
Ratelimit-Policy: "messages";q=60;w=60
X-Ratelimit-Limit: 60
X-Ratelimit-Remaining: 59
X-Ratelimit-Reset: soon

{"sender":"` + sender + `","to":"+15550100","status":"queued"}
`},
		{"a broken message", request{"POST /v1/messages", authorized, `{`}, `400 Bad Request
Cache-Control: no-store
Content-Length: 98
Content-Type: application/problem+json
Ratelimit: "messages";r=59;t=1
Ratelimit-Policy: "messages";q=60;w=60
X-Content-Type-Options: nosniff
X-Ratelimit-Limit: 60
X-Ratelimit-Remaining: 59
X-Ratelimit-Reset: soon

{"status":400,"title":"Bad Request","detail":"The body is not a JSON object","type":"about:blank"}`},
		{"a user", request{"POST /v1/users", authorized, `{"email":"ada@example.com"}`}, `201 Created
Cache-Control: private
Content-Length: 95
Content-Type: application/json
Ratelimit: "default";r=49;t=1, "sensitive";r=4;t=6
Ratelimit-Policy: "default";q=50;w=15, "sensitive";q=5;w=30
X-Ratelimit-Limit: 5
X-Ratelimit-Remaining: 4
X-Ratelimit-Reset: soon

{"sender":"` + sender + `","email":"ada@example.com","status":"invited"}
`},
		{"open", request{target: "GET /healthz"}, `200 OK
Content-Length: 3
Content-Type: text/plain; charset=utf-8

ok
`},
		{"open, HEAD", request{target: "HEAD /healthz"}, `200 OK
Content-Length: 3
Content-Type: text/plain; charset=utf-8

`},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i, program := range programs {
				p := uncharged[i]
				if strings.Contains(c.want, "Ratelimit") {
					p = start(t, program, pair)
				}
				require.Equal(t, c.want, p.whole(t, c.request), program)
			}
		})
	}
}

// If no route matches, the status and the guard's fields are the same, and one token
// of the limit "default" is charged. The body, the fields that describe it, and
// further methods in Allow differ by router. gin sets Allow before any middleware
// runs, so its 401 has the field as well.
func TestUnmatchedIsAlike(t *testing.T) {
	own := regexp.MustCompile(`(?m)^(Content-Type|Content-Length|X-Content-Type-Options|Allow): .*\n`)
	for _, c := range []struct{ target, status, allow string }{
		{"GET /nope", "404 Not Found", ""},
		{"POST /v1/messages/", "404 Not Found", ""},
		{"POST /v1/message%73/x", "404 Not Found", ""},
		{"GET /v1/messages", "405 Method Not Allowed", "POST"},
		{"DELETE /v1/users", "405 Method Not Allowed", "POST"},
		{"DELETE /v1/contacts/1", "405 Method Not Allowed", "GET"},
	} {
		t.Run(c.target, func(t *testing.T) {
			for _, program := range programs {
				p := start(t, program, pair)
				refused := p.whole(t, request{target: c.target})
				if program == "gin" {
					refused = regexp.MustCompile(`(?m)^Allow: .*\n`).ReplaceAllString(refused, "")
				}
				require.Equal(t, unauthorized("Header x-api-key not found"), refused, program)

				res := p.do(t, request{target: c.target, header: authorized})
				require.Equal(t, c.allow != "", len(res.Header["Allow"]) > 0, program)
				if c.allow != "" {
					require.Contains(t, strings.Split(strings.Join(res.Header["Allow"], ", "), ", "), c.allow, program)
				}

				p = start(t, program, pair)
				head, body, _ := strings.Cut(p.whole(t, request{target: c.target, header: authorized}), "\n\n")
				require.NotContains(t, body, sender, program)
				require.Equal(t, c.status+"\nCache-Control: private\n"+charged, own.ReplaceAllString(head+"\n", ""), program)
			}
		})
	}
}

// net/http redirects to the path without "//" and "..", and the other routers answer
// 404. All of them ask for the key first and charge one token of "default".
func TestUncleanPathsAreChargedDefault(t *testing.T) {
	for _, program := range programs {
		p := start(t, program, pair)
		require.Equal(t, unauthorized("Header x-api-key not found"), p.whole(t, request{target: "POST //v1/messages"}), program)
		res := p.do(t, request{target: "POST //v1/messages", header: authorized})
		if program == "quickstart" {
			require.Equal(t, "307 /v1/messages", strconv.Itoa(res.StatusCode)+" "+res.Header.Get("Location"))
		} else {
			require.Equal(t, 404, res.StatusCode, program)
		}
		require.Equal(t, []string{`"default";r=49;t=1`}, res.Header["Ratelimit"], program)
	}
}

// Each limit admits its burst, refuses in the same words, and leaves the other
// limits alone.
func TestLimitsAreAlike(t *testing.T) {
	type limit struct {
		request
		burst  int
		rate   float64 // tokens a second
		fields string
	}
	limits := []limit{
		{request{"POST /v1/users", authorized, `{"email":"ada@example.com"}`}, 5, 10. / 60, `"default";r=%d;t=1, "sensitive";r=0;t=%d`},
		{request{"POST /v1/messages", authorized, `{"to":"+15550100","text":"Hello"}`}, 60, 1, `"messages";r=0;t=%d`},
		{request{"GET /v1/contacts", authorized, ""}, 50, 200. / 60, `"default";r=0;t=%d`},
		{request{"GET /nope", authorized, ""}, 50, 200. / 60, `"default";r=0;t=%d`},
	}
	for _, program := range programs {
		for _, l := range limits {
			t.Run(program+" "+l.target, func(t *testing.T) {
				p := start(t, program, pair)
				begin, admitted := time.Now(), 0
				var res *http.Response
				for {
					if res = p.do(t, l.request); res.StatusCode == http.StatusTooManyRequests {
						break
					}
					admitted++
				}
				require.GreaterOrEqual(t, admitted, l.burst)
				require.LessOrEqual(t, float64(admitted), float64(l.burst)+l.rate*time.Since(begin).Seconds())

				wait, err := strconv.Atoi(res.Header.Get("Retry-After"))
				require.NoError(t, err)
				require.GreaterOrEqual(t, wait, 1)
				require.LessOrEqual(t, float64(wait), 1/l.rate+1)
				body, _ := io.ReadAll(res.Body)
				require.Equal(t, fmt.Sprintf(`{"status":429,"title":"Too Many Requests","detail":"Rate limit exceeded. Please retry after %d seconds.","type":"about:blank"}`, wait), string(body))
				reset := res.Header.Get("X-Ratelimit-Reset")
				require.Regexp(t, wholeNumber, reset)
				fields := res.Header.Get("Ratelimit")
				require.Equal(t, http.Header{
					"Cache-Control":          {"no-store"},
					"Content-Length":         {strconv.Itoa(len(body))},
					"Content-Type":           {"application/problem+json"},
					"Date":                   {res.Header.Get("Date")},
					"Ratelimit":              {fields},
					"Ratelimit-Policy":       {res.Header.Get("Ratelimit-Policy")},
					"Retry-After":            {strconv.Itoa(wait)},
					"X-Content-Type-Options": {"nosniff"},
					"X-Ratelimit-Limit":      {strconv.Itoa(l.burst)},
					"X-Ratelimit-Remaining":  {"0"},
					"X-Ratelimit-Reset":      {reset},
				}, res.Header)
				if strings.Count(l.fields, "%d") == 1 {
					require.Equal(t, fmt.Sprintf(l.fields, wait), fields)
				} else {
					require.Regexp(t, `^"default";r=4[0-9](;t=1)?, "sensitive";r=0;t=`+strconv.Itoa(wait)+"$", fields)
				}

				for _, other := range limits {
					if strings.Contains(l.fields, "messages") != strings.Contains(other.fields, "messages") {
						require.Less(t, p.do(t, other.request).StatusCode, 429, other.target)
					}
				}
				require.Equal(t, 401, p.do(t, request{target: l.target}).StatusCode, "authentication comes before the limit")
			})
		}
	}
}

// A shell understands the printed command, and the program serves it.
func TestPrintedCommandWorks(t *testing.T) {
	for _, program := range programs {
		t.Run(program, func(t *testing.T) {
			db := filepath.Join(t.TempDir(), "keys.db")
			p := start(t, program, nil, "-db", db)
			id, key, words := printed(t, p)
			require.Equal(t, []string{
				"curl", "-i", "http://" + p.addr + "/v1/contacts", "-H", "x-sender-id: " + id, "-H", "x-api-key: " + key,
			}, words)
			res := p.do(t, request{"GET /v1/contacts", as(id, key), ""})
			require.Equal(t, 200, res.StatusCode)
			body, _ := io.ReadAll(res.Body)
			require.Contains(t, string(body), id)

			p.stop(t)
			again := start(t, program, pairOf(id, key), "-db", db)
			require.Equal(t, 200, again.do(t, request{"GET /v1/contacts", as(id, key), ""}).StatusCode)
			again.stop(t)
			require.Empty(t, again.output(), "a key that the store already has is not shown")
		})
	}
}

// The responses in the README come from the quickstart and from the guard of the orders,
// apart from the credentials and values that depend on the time.
func TestAnswersOfTheReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	varying := regexp.MustCompile(`(?m)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|^Date: .*|(;t=|;r=4|-Reset: |Retry-After: |retry after )[0-9]+`)
	var want []string
	for _, m := range regexp.MustCompile(`(?ms)^    HTTP/1\.1 .*?^    \{.*?\}$`).FindAllString(string(readme), -1) {
		want = append(want, varying.ReplaceAllString(strings.ReplaceAll(strings.TrimSpace(m), "\n    ", "\n"), "*"))
	}

	p := start(t, "quickstart", nil, "-db", filepath.Join(t.TempDir(), "keys.db"))
	id, key, _ := printed(t, p)
	raw := func(addr string, r request) string {
		method, path, _ := strings.Cut(r.target, " ")
		conn, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		defer conn.Close()
		fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: api\r\nContent-Length: %d\r\n", method, path, len(r.body))
		for i := 0; i < len(r.header); i += 2 {
			fmt.Fprintf(conn, "%s: %s\r\n", r.header[i], r.header[i+1])
		}
		io.WriteString(conn, "\r\n"+r.body)
		var answer strings.Builder
		res, err := http.ReadResponse(bufio.NewReader(io.TeeReader(conn, &answer)), nil)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, res.Body)
		require.NoError(t, err)
		return varying.ReplaceAllString(strings.TrimSpace(strings.ReplaceAll(answer.String(), "\r", "")), "*")
	}
	got := []string{raw(p.addr, request{contactsTarget, as(id, key), ""}), raw(p.addr, request{target: contactsTarget})}
	limited := ""
	for !strings.HasPrefix(limited, "HTTP/1.1 429 ") {
		limited = raw(p.addr, request{"POST /v1/users", as(id, key), `{"email":"ada@example.com"}`})
	}
	orders := httptest.NewServer(ordersOfTheReadme(t))
	defer orders.Close()
	outOfScope := raw(orders.Listener.Addr().String(), request{target: "POST /v1/orders", header: as(sender, otherKey)})
	require.Equal(t, want, append(got, limited, outOfScope))
}

// ordersOfTheReadme lets a key read orders, and no more.
func ordersOfTheReadme(t *testing.T) http.Handler {
	t.Helper()
	guard, err := senderauth.New(senderauth.ValidatorFunc(func(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		return senderauth.Sender{ID: c.SenderID, Scopes: []string{"orders:read"}}, nil
	}), senderauth.Config{Limits: map[string]senderauth.Limit{"default": senderauth.PerMinute(60)}})
	require.NoError(t, err)
	return guard.Requiring("orders:read", "orders:write").Wrap(http.NotFoundHandler())
}

// printed returns the credentials that the program printed, and the words of its
// command as a shell splits them.
func printed(t *testing.T, p *process) (id, key string, words []string) {
	t.Helper()
	const v4 = `[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`
	m := regexp.MustCompile(`^SENT_SENDER_ID=(` + v4 + `)\nSENT_API_KEY=(` + v4 + `)\n\n(curl .*)\n$`).FindStringSubmatch(p.introduction())
	require.NotNil(t, m)
	out, err := exec.Command("sh", "-c", `curl() { printf '%s\n' curl "$@"; }; `+m[3]).Output()
	require.NoError(t, err)
	return m[1], m[2], strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}

// A mistake in an address or a key is one line on standard error and exit status 1.
func TestMistakesAtTheStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	const free = "127.0.0.1:0"
	for _, c := range []struct {
		name, addr string
		env        []string
		want       string
	}{
		{"port in use", taken.Addr().String(), nil, "listen tcp " + taken.Addr().String() + ": bind: address already in use"},
		{"malformed address", "127.0.0.1", nil, "listen tcp: address 127.0.0.1: missing port in address"},
		{"malformed sender", free, []string{"SENT_SENDER_ID=acme\nlimited", "SENT_API_KEY=" + key}, `SENT_SENDER_ID is "acme\nlimited", and not a UUID of 36 characters`},
		{"malformed key", free, []string{"SENT_SENDER_ID=" + sender, "SENT_API_KEY=" + key[:35]}, "SENT_API_KEY is neither a UUID of 36 characters nor a prefixed key"},
		{"max key", free, []string{"SENT_SENDER_ID=" + sender, "SENT_API_KEY=ffffffff-ffff-ffff-ffff-ffffffffffff"}, "SENT_API_KEY is neither a UUID of 36 characters nor a prefixed key"},
		{"no key", free, []string{"SENT_SENDER_ID=" + sender}, "SENT_API_KEY is not set, and SENT_SENDER_ID is: set both or neither"},
		{"no sender", free, []string{"SENT_API_KEY=" + key}, "SENT_SENDER_ID is not set, and SENT_API_KEY is: set both or neither"},
		{"both malformed", free, []string{"SENT_SENDER_ID=acme", "SENT_API_KEY=acme"}, `SENT_SENDER_ID is "acme", and not a UUID of 36 characters; SENT_API_KEY is neither a UUID of 36 characters nor a prefixed key`},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, program := range programs {
				require.Equal(t, program+": "+c.want+"\n", mistake(t, command(program, c.env, "-addr", c.addr)))
			}
		})
	}
}

// A mistake in a flag is one line, without the usage that -h shows.
func TestMistakesInFlags(t *testing.T) {
	for want, args := range map[string][]string{
		"flag provided but not defined: -port":                                        {"-port", "8080"},
		`invalid value "three" for flag -instances: parse error`:                      {"-instances", "three"},
		`invalid value "loud" for flag -log: slog: level string "loud": unknown name`: {"-log", "loud"},
		"flag needs an argument: -db":                                                 {"-db"},
		`unexpected argument "8080"`:                                                  {"8080"},
	} {
		for _, program := range programs {
			require.Equal(t, program+": "+want+"\n", mistake(t, command(program, nil, args...)))
		}
	}
}

// mistake runs a program that must exit with status 1 and make no key, and returns
// its standard error.
func mistake(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Start())
	deadline := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	deadline.Stop()
	require.Error(t, err)
	require.Equal(t, 1, cmd.ProcessState.ExitCode(), stderr.String())
	require.Empty(t, stdout.String())
	noKey(t, stderr.String(), key)
	return stderr.String()
}

// After a signal the program answers the request in flight before it exits.
func TestSignalFinishesRequestsInFlight(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		for _, program := range programs {
			t.Run(sig.String()+" "+program, func(t *testing.T) {
				p := start(t, program, pair)
				conn, err := net.Dial("tcp", p.addr)
				require.NoError(t, err)
				defer conn.Close()
				require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
				const body = `{"to":"+15550100","text":"Hello"}`
				fmt.Fprintf(conn, "POST /v1/messages HTTP/1.1\r\nHost: api\r\nx-sender-id: %s\r\nx-api-key: %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", sender, key, len(body))
				in := bufio.NewReader(conn)
				line, err := in.ReadString('\n')
				require.NoError(t, err)
				require.Equal(t, "HTTP/1.1 100 Continue\r\n", line, "the handler is reading the body")
				_, err = in.ReadString('\n')
				require.NoError(t, err)

				require.NoError(t, p.Process.Signal(sig))
				p.awaitLog(t, "stopping")
				_, err = io.WriteString(conn, body)
				require.NoError(t, err)
				res, err := http.ReadResponse(in, nil)
				require.NoError(t, err)
				defer res.Body.Close()
				got, err := io.ReadAll(res.Body)
				require.NoError(t, err)
				require.Equal(t, 202, res.StatusCode)
				require.Equal(t, `{"sender":"`+sender+`","to":"+15550100","status":"queued"}`+"\n", string(got))

				require.NoError(t, p.wait(), "exit status 0")
				p.awaitLog(t, "stopped")
				_, err = net.Dial("tcp", p.addr)
				require.Error(t, err)
			})
		}
	}
}

// The programs read headers of at most 16 KiB, plus what net/http allows on top.
func TestLargeHeadersAreRefused(t *testing.T) {
	for _, program := range programs {
		p := start(t, program, pair)
		res := p.do(t, request{"GET /v1/contacts", []string{"x-api-key", strings.Repeat("a", 32<<10)}, ""})
		require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, res.StatusCode, program)
	}
}
