package echosender_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	echo4 "github.com/labstack/echo/v4"
	echo5 "github.com/labstack/echo/v5"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/echosender"
	"github.com/stretchr/testify/require"
)

const (
	sender = "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11"
	key    = "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01"
)

// authenticated is the sender that Static returns.
var authenticated = senderauth.Sender{ID: sender, Scopes: []string{senderauth.AllScopes}}

func newGuard(t *testing.T, cfg senderauth.Config) *senderauth.Guard {
	t.Helper()
	keys, err := senderauth.Static(senderauth.Credentials{SenderID: sender, APIKey: key})
	require.NoError(t, err)
	cfg.RateFields = senderauth.RateFieldsDraft
	cfg.Limits = map[string]senderauth.Limit{
		"default":  {Requests: 1, Per: time.Hour, Burst: 9},
		"messages": {Requests: 1, Per: time.Hour, Burst: 1},
	}
	guard, err := senderauth.New(keys, cfg)
	require.NoError(t, err)
	return guard
}

func serve(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

var wait = regexp.MustCompile(`;t=\d+|Retry-After: \d+|after \d+ seconds`)

var digits = regexp.MustCompile(`\d+`)

// do returns the whole response, without the date and the seconds to wait.
func do(t *testing.T, s *httptest.Server, method, path string, header ...string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, nil)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := s.Client().Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	var b strings.Builder
	fmt.Fprintln(&b, res.StatusCode)
	for _, name := range slices.Sorted(maps.Keys(res.Header)) {
		if name != "Date" {
			fmt.Fprintf(&b, "%s: %s\n", name, strings.Join(res.Header[name], " | "))
		}
	}
	b.WriteString("\n" + string(body))
	return wait.ReplaceAllStringFunc(b.String(), func(s string) string { return digits.ReplaceAllString(s, "N") })
}

var credentials = []string{"x-sender-id", sender, "x-api-key", key}

const unauthorized = `401
Cache-Control: no-store
Content-Length: 96
Content-Type: application/problem+json
Www-Authenticate: ApiKey realm="api"
X-Content-Type-Options: nosniff

{"status":401,"title":"Unauthorized","detail":"Header x-api-key not found","type":"about:blank"}`

// seen is what a middleware outside of the guard sees after the guard has returned.
type seen struct {
	status     int
	size       int64
	committed  bool
	err        string
	sender     senderauth.Sender
	sameWriter bool
}

// app is an instance of echo, of either version, with the routes of the tests:
// GET and HEAD /contacts/:id, POST /messages, GET /error, GET /panic,
// GET /stream, GET /hijack.
type app struct {
	http.Handler
	seen chan seen // one for each response
}

// versions make the same app with each version of echo. global is in front of all
// routes, route in front of POST /messages only.
var versions = map[string]func(global, route func(http.Handler) http.Handler) app{"v4": newV4, "v5": newV5}

func newV4(global, route func(http.Handler) http.Handler) app {
	a := app{seen: make(chan seen, 1)}
	e := echo4.New()
	e.Logger.SetOutput(io.Discard)
	e.Use(func(next echo4.HandlerFunc) echo4.HandlerFunc {
		return func(c echo4.Context) (err error) {
			before := c.Response()
			defer func() {
				if p := recover(); p != nil {
					err = fmt.Errorf("recovered: %v", p)
				}
				s, _ := echosender.Sender(c)
				a.seen <- seen{c.Response().Status, c.Response().Size, c.Response().Committed, fmt.Sprint(err), s, c.Response() == before}
			}()
			return next(c)
		}
	})
	e.Use(echosender.Middleware[echo4.HandlerFunc](global))
	contact := func(c echo4.Context) error {
		s, ok := echosender.Sender(c)
		return c.String(http.StatusAccepted, about(s, ok, c.Request(), c.Param("id")))
	}
	e.GET("/contacts/:id", contact)
	e.HEAD("/contacts/:id", contact)
	e.POST("/messages", func(c echo4.Context) error {
		s, _ := echosender.Sender(c)
		return c.String(http.StatusOK, s.ID)
	}, echosender.Middleware[echo4.HandlerFunc](route))
	e.GET("/error", func(echo4.Context) error { return echo4.NewHTTPError(http.StatusTeapot, "no coffee") })
	e.GET("/panic", func(echo4.Context) error { panic("broken") })
	e.GET("/stream", func(c echo4.Context) error { stream(c.Response()); return nil })
	e.GET("/hijack", func(c echo4.Context) error { return hijack(c.Response()) })
	a.Handler = e
	return a
}

func newV5(global, route func(http.Handler) http.Handler) app {
	a := app{seen: make(chan seen, 1)}
	e := echo5.New()
	e.Logger = slog.New(slog.DiscardHandler)
	e.Use(func(next echo5.HandlerFunc) echo5.HandlerFunc {
		return func(c *echo5.Context) (err error) {
			before := c.Response()
			defer func() {
				if p := recover(); p != nil {
					err = fmt.Errorf("recovered: %v", p)
				}
				s, _ := echosender.Sender(c)
				r, _ := echo5.UnwrapResponse(c.Response())
				a.seen <- seen{r.Status, r.Size, r.Committed, fmt.Sprint(err), s, c.Response() == before}
			}()
			return next(c)
		}
	})
	e.Use(echosender.Middleware[echo5.HandlerFunc](global))
	contact := func(c *echo5.Context) error {
		s, ok := echosender.Sender(c)
		return c.String(http.StatusAccepted, about(s, ok, c.Request(), c.Param("id")))
	}
	e.GET("/contacts/:id", contact)
	e.HEAD("/contacts/:id", contact)
	e.POST("/messages", func(c *echo5.Context) error {
		s, _ := echosender.Sender(c)
		return c.String(http.StatusOK, s.ID)
	}, echosender.Middleware[echo5.HandlerFunc](route))
	e.GET("/error", func(*echo5.Context) error { return echo5.NewHTTPError(http.StatusTeapot, "no coffee") })
	e.GET("/panic", func(*echo5.Context) error { panic("broken") })
	e.GET("/stream", func(c *echo5.Context) error { stream(c.Response()); return nil })
	e.GET("/hijack", func(c *echo5.Context) error { return hijack(c.Response()) })
	a.Handler = e
	return a
}

func about(s senderauth.Sender, ok bool, r *http.Request, id string) string {
	return fmt.Sprintf("%s %t %q %s %s", s.ID, ok, r.Header.Get("x-api-key"), r.Pattern, id)
}

var read = make(chan struct{})

// stream writes a second line after the test has read the first.
func stream(w http.ResponseWriter) {
	io.WriteString(w, "first\n")
	w.(http.Flusher).Flush()
	<-read
	io.WriteString(w, "second\n")
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
		io.WriteString(w, err.Error())
	}
}

func hijack(w http.ResponseWriter) error {
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return err
	}
	defer conn.Close()
	rw.WriteString("HTTP/1.1 299 Taken Over\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	return rw.Flush()
}

func eachVersion(t *testing.T, test func(t *testing.T, newApp func(global, route func(http.Handler) http.Handler) app)) {
	for version, newApp := range versions {
		t.Run(version, func(t *testing.T) { test(t, newApp) })
	}
}

func open(next http.Handler) http.Handler { return next }

func TestRefusalStopsTheChain(t *testing.T) {
	eachVersion(t, func(t *testing.T, newApp func(_, _ func(http.Handler) http.Handler) app) {
		a := newApp(newGuard(t, senderauth.Config{}).Wrap, open)
		s := serve(t, a)
		for _, target := range []string{"GET /contacts/7", "GET /error", "GET /panic", "POST /messages", "DELETE /messages", "GET /nope"} {
			method, path, _ := strings.Cut(target, " ")
			require.Equal(t, unauthorized, do(t, s, method, path), target)
			require.Equal(t, seen{401, 96, true, "<nil>", senderauth.Sender{}, true}, <-a.seen, target)
		}
		head, _, _ := strings.Cut(unauthorized, "{")
		require.Equal(t, head, do(t, s, "HEAD", "/contacts/7"))
		require.Equal(t, seen{401, 96, true, "<nil>", senderauth.Sender{}, true}, <-a.seen)
	})
}

func TestAdmittedRequestReachesTheHandler(t *testing.T) {
	eachVersion(t, func(t *testing.T, newApp func(_, _ func(http.Handler) http.Handler) app) {
		a := newApp(newGuard(t, senderauth.Config{StripKey: true}).Wrap, open)
		body := sender + ` true "" /contacts/:id 7`
		require.Equal(t, fmt.Sprintf(`202
Cache-Control: private
Content-Length: %d
Content-Type: text/plain; charset=UTF-8
Ratelimit: "default";r=8;t=N
Ratelimit-Policy: "default";q=9;w=32400

%s`, len(body), body), do(t, serve(t, a), "GET", "/contacts/7", credentials...))
		require.Equal(t, seen{202, int64(len(body)), true, "<nil>", authenticated, true}, <-a.seen)
	})
}

func TestNoSenderOutsideOfAGuard(t *testing.T) {
	c := echo5.New().NewContext(httptest.NewRequest("GET", "/", nil), httptest.NewRecorder())
	s, ok := echosender.Sender(c)
	require.False(t, ok)
	require.Zero(t, s)
}

func TestErrorsReachTheErrorHandler(t *testing.T) {
	eachVersion(t, func(t *testing.T, newApp func(_, _ func(http.Handler) http.Handler) app) {
		a := newApp(newGuard(t, senderauth.Config{}).Wrap, open)
		s := serve(t, a)
		for i, want := range []struct{ target, status, err, extra string }{
			{"GET /error", "418", "no coffee", ""},
			{"GET /nope", "404", "Not Found", ""},
			{"DELETE /messages", "405", "Method Not Allowed", "Allow: OPTIONS, POST\n"},
			{"GET /panic", "500", "recovered: broken", ""},
		} {
			method, path, _ := strings.Cut(want.target, " ")
			message := want.err
			if want.status == "500" {
				message = "Internal Server Error"
			}
			body := fmt.Sprintf("{\"message\":%q}\n", message)
			require.Equal(t, fmt.Sprintf(`%s
%sCache-Control: private
Content-Length: %d
Content-Type: application/json
Ratelimit: "default";r=%d;t=N
Ratelimit-Policy: "default";q=9;w=32400

%s`, want.status, want.extra, len(body), 8-i, body), do(t, s, method, path, credentials...))
			got := <-a.seen
			require.Contains(t, got.err, want.err)
			got.err = ""
			require.Equal(t, seen{200, 0, false, "", authenticated, true}, got, "status is never 0")
		}
		// echo reuses its contexts: the panic must leave nothing behind.
		require.Equal(t, unauthorized, do(t, s, "GET", "/panic"))
		require.Equal(t, seen{401, 96, true, "<nil>", senderauth.Sender{}, true}, <-a.seen)
	})
}

func TestChargingByPath(t *testing.T) {
	eachVersion(t, func(t *testing.T, newApp func(_, _ func(http.Handler) http.Handler) app) {
		guard := newGuard(t, senderauth.Config{}).ChargingBy(func(r *http.Request) []string {
			switch r.Method + " " + r.Pattern {
			case "POST /messages":
				return []string{"messages"}
			case "GET /contacts/:id":
				return []string{"default", "messages"}
			}
			return []string{"default"}
		})
		a := newApp(guard.Wrap, open)
		s := serve(t, a)
		get := func(method, path string) string {
			res := do(t, s, method, path, credentials...)
			<-a.seen
			return res
		}
		require.Contains(t, get("DELETE", "/messages"), `"default";r=8;`)
		require.Contains(t, get("GET", "/nope"), `"default";r=7;`)
		require.Contains(t, get("POST", "/messages"), "200\n")
		require.Equal(t, `429
Cache-Control: no-store
Content-Length: 128
Content-Type: application/problem+json
Ratelimit: "messages";r=0;t=N
Ratelimit-Policy: "messages";q=1;w=3600
Retry-After: N
X-Content-Type-Options: nosniff

{"status":429,"title":"Too Many Requests","detail":"Rate limit exceeded. Please retry after N seconds.","type":"about:blank"}`,
			get("POST", "/messages"))
		require.Contains(t, get("GET", "/contacts/7"), `"default";r=7;t=N, "messages";r=0;t=N`)
		require.Contains(t, get("GET", "/error"), `"default";r=6;`)
	})
}

func TestGuardsAtInstanceAndRoute(t *testing.T) {
	eachVersion(t, func(t *testing.T, newApp func(_, _ func(http.Handler) http.Handler) app) {
		var outcomes []string
		guard := newGuard(t, senderauth.Config{Observe: func(_ context.Context, e senderauth.Event) {
			outcomes = append(outcomes, string(e.Outcome)+" "+e.Limit)
		}})
		a := newApp(guard.Charging().Wrap, guard.Charging("messages").Wrap)
		s := serve(t, a)
		require.Equal(t, `200
Cache-Control: private
Content-Length: 36
Content-Type: text/plain; charset=UTF-8
Ratelimit: "messages";r=0;t=N
Ratelimit-Policy: "messages";q=1;w=3600

`+sender, do(t, s, "POST", "/messages", credentials...))
		require.Equal(t, seen{200, 36, true, "<nil>", authenticated, true}, <-a.seen)
		require.Contains(t, do(t, s, "POST", "/messages", credentials...), "429\n")
		require.Equal(t, seen{429, 128, true, "<nil>", authenticated, true}, <-a.seen)
		require.Equal(t, unauthorized, do(t, s, "POST", "/messages"))
		require.Equal(t, []string{"admitted ", "admitted messages", "admitted ", "limited messages", "missing_key "}, outcomes)
	})
}

func TestMiddlewareIsBuiltOnce(t *testing.T) {
	eachVersion(t, func(t *testing.T, newApp func(_, _ func(http.Handler) http.Handler) app) {
		var built, served atomic.Int32
		a := newApp(func(next http.Handler) http.Handler {
			built.Add(1)
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				served.Add(1)
				next.ServeHTTP(w, r)
			})
		}, open)
		s := serve(t, a)
		for range 3 {
			require.Contains(t, do(t, s, "GET", "/contacts/7"), "202\n")
			<-a.seen
		}
		require.Equal(t, []int32{1, 3}, []int32{built.Load(), served.Load()})
	})
}

func TestFlush(t *testing.T) {
	eachVersion(t, func(t *testing.T, newApp func(_, _ func(http.Handler) http.Handler) app) {
		s := serve(t, newApp(newGuard(t, senderauth.Config{}).Wrap, open))
		r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/stream", nil)
		require.NoError(t, err)
		r.Header = http.Header{"X-Sender-Id": {sender}, "X-Api-Key": {key}}
		res, err := s.Client().Do(r)
		require.NoError(t, err)
		defer res.Body.Close()
		body := bufio.NewReader(res.Body)
		line, err := body.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "first\n", line, "while the handler waits")
		read <- struct{}{}
		rest, err := io.ReadAll(body)
		require.NoError(t, err)
		require.Equal(t, "second\n", string(rest))
	})
}

func TestHijack(t *testing.T) {
	eachVersion(t, func(t *testing.T, newApp func(_, _ func(http.Handler) http.Handler) app) {
		s := serve(t, newApp(newGuard(t, senderauth.Config{}).Wrap, open))
		require.Equal(t, "299\nContent-Length: 0\n\n", do(t, s, "GET", "/hijack", credentials...))
	})
}

func TestSendersAreNotMixedUp(t *testing.T) {
	eachVersion(t, func(t *testing.T, newApp func(_, _ func(http.Handler) http.Handler) app) {
		var all []senderauth.Credentials
		for i := range 8 {
			all = append(all, senderauth.Credentials{
				SenderID: fmt.Sprintf("7a1de7b4-3a0e-4d6e-9c2b-%012d", i),
				APIKey:   fmt.Sprintf("0b9d3c1e-6f52-4c8a-b1d7-%012d", i),
			})
		}
		keys, err := senderauth.Static(all...)
		require.NoError(t, err)
		guard, err := senderauth.New(keys, senderauth.Config{Limits: map[string]senderauth.Limit{"default": senderauth.Unlimited()}})
		require.NoError(t, err)
		a := newApp(guard.Charging().Wrap, guard.Wrap)

		var callers sync.WaitGroup
		for _, cr := range all {
			callers.Go(func() {
				for range 100 {
					w := httptest.NewRecorder()
					r := httptest.NewRequest("POST", "/messages", nil)
					r.Header = http.Header{"X-Sender-Id": {cr.SenderID}, "X-Api-Key": {cr.APIKey}}
					a.ServeHTTP(w, r)
					<-a.seen
					if w.Body.String() != cr.SenderID {
						t.Errorf("%s got %q", cr.SenderID, w.Body)
					}
				}
			})
		}
		callers.Wait()
	})
}

// The handler parses the form of a copy of the request, and net/http removes the
// temporary files of its own request only.
func TestUploadLeavesNoTemporaryFile(t *testing.T) {
	guard := newGuard(t, senderauth.Config{})
	parse := func(r *http.Request) error {
		if err := r.ParseMultipartForm(1); err != nil || files(t) != 1 {
			t.Errorf("%v, %d files", err, files(t))
		}
		return nil
	}
	e4, e5 := echo4.New(), echo5.New()
	e4.Use(echosender.Middleware[echo4.HandlerFunc](guard.Wrap), echosender.Middleware[echo4.HandlerFunc](guard.Wrap))
	e4.POST("/", func(c echo4.Context) error { return parse(c.Request()) })
	e5.Use(echosender.Middleware[echo5.HandlerFunc](guard.Wrap), echosender.Middleware[echo5.HandlerFunc](guard.Wrap))
	e5.POST("/", func(c *echo5.Context) error { return parse(c.Request()) })
	for name, h := range map[string]http.Handler{"version 4": e4, "version 5": e5} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			s := serve(t, h)
			require.Equal(t, 200, upload(t, s))
			s.Close() // waits until the request is finished
			require.Zero(t, files(t))
		})
	}
}

// upload posts a form with a file and returns the status.
func upload(t *testing.T, s *httptest.Server) int {
	t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	file, err := form.CreateFormFile("file", "name")
	require.NoError(t, err)
	file.Write(make([]byte, 100))
	require.NoError(t, form.Close())
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL, &body)
	require.NoError(t, err)
	for name, value := range map[string]string{"x-sender-id": sender, "x-api-key": key, "Content-Type": form.FormDataContentType()} {
		r.Header.Set(name, value)
	}
	res, err := s.Client().Do(r)
	require.NoError(t, err)
	res.Body.Close()
	return res.StatusCode
}

// files counts the temporary files.
func files(t *testing.T) int {
	entries, err := os.ReadDir(os.TempDir())
	require.NoError(t, err)
	return len(entries)
}
