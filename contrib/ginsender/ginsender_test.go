package ginsender_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
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

	"github.com/gin-gonic/gin"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/ginsender"
	"github.com/stretchr/testify/require"
)

const (
	sender = "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11"
	key    = "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01"
)

// authenticated is the sender that Static returns.
var authenticated = senderauth.Sender{ID: sender, Scopes: []string{senderauth.AllScopes}}

func init() { gin.SetMode(gin.ReleaseMode) }

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
	status, size   int
	aborted, found bool
	sender         senderauth.Sender
	sameWriter     bool
}

// watch returns a middleware that sends what it sees to got, before the client has read
// the whole response.
func watch(got chan<- seen) gin.HandlerFunc {
	return func(c *gin.Context) {
		before := c.Writer
		c.Next()
		s, ok := ginsender.Sender(c)
		got <- seen{c.Writer.Status(), c.Writer.Size(), c.IsAborted(), ok, s, c.Writer == before}
	}
}

func TestRefusalAbortsTheChain(t *testing.T) {
	got := make(chan seen, 1)
	engine := gin.New()
	engine.Use(watch(got), ginsender.Middleware(newGuard(t, senderauth.Config{}).Wrap))
	engine.Match([]string{"GET", "HEAD"}, "/", func(c *gin.Context) {
		t.Error("the handler ran")
		c.String(http.StatusOK, "secret")
	})
	s := serve(t, engine)

	require.Equal(t, unauthorized, do(t, s, "GET", "/"))
	require.Equal(t, seen{status: 401, size: 96, aborted: true, sameWriter: true}, <-got)

	head, _, _ := strings.Cut(unauthorized, "{")
	require.Equal(t, head, do(t, s, "HEAD", "/"))
	require.Equal(t, seen{status: 401, size: 96, aborted: true, sameWriter: true}, <-got)
}

func TestAdmittedRequestReachesTheHandler(t *testing.T) {
	got := make(chan seen, 1)
	engine := gin.New()
	guard := newGuard(t, senderauth.Config{StripKey: true})
	engine.Use(watch(got), func(c *gin.Context) { c.Set("writer", c.Writer) }, ginsender.Middleware(guard.Wrap))
	engine.GET("/contacts/:id", func(c *gin.Context) {
		s, ok := ginsender.Sender(c)
		inContext, _ := senderauth.SenderFrom(c.Request.Context())
		c.String(http.StatusAccepted, "%s %t %t %q %s %t", s.ID, ok, inContext.ID == s.ID, c.GetHeader("x-api-key"),
			c.Param("id"), c.MustGet("writer") == any(c.Writer))
	})
	s := serve(t, engine)

	body := sender + ` true true "" 7 true`
	require.Equal(t, fmt.Sprintf(`202
Cache-Control: private
Content-Length: %d
Content-Type: text/plain; charset=utf-8
Ratelimit: "default";r=8;t=N
Ratelimit-Policy: "default";q=9;w=32400

%s`, len(body), body), do(t, s, "GET", "/contacts/7", credentials...))
	require.Equal(t, seen{202, len(body), false, true, authenticated, true}, <-got)
}

func TestNoSenderOutsideOfAGuard(t *testing.T) {
	c, _ := gin.CreateTestContext(httptest.NewRecorder())
	c.Request = httptest.NewRequest("GET", "/", nil)
	s, ok := ginsender.Sender(c)
	require.False(t, ok)
	require.Zero(t, s)
}

func TestUnmatchedIsRefusedFirstAndCharged(t *testing.T) {
	engine := gin.New()
	engine.HandleMethodNotAllowed = true
	engine.Use(ginsender.Middleware(newGuard(t, senderauth.Config{}).Wrap))
	engine.GET("/contacts", func(c *gin.Context) { c.Status(http.StatusNoContent) })
	s := serve(t, engine)

	require.Equal(t, unauthorized, do(t, s, "GET", "/nope"))
	head, _, _ := strings.Cut(unauthorized, "{")
	require.Equal(t, head, do(t, s, "HEAD", "/nope"))
	require.Equal(t, strings.Replace(head, "\n", "\nAllow: GET\n", 1), do(t, s, "HEAD", "/contacts"))
	require.Equal(t, strings.Replace(unauthorized, "\n", "\nAllow: GET\n", 1), do(t, s, "PUT", "/contacts"), "gin sets Allow before any middleware")
	require.Equal(t, `404
Cache-Control: private
Content-Length: 18
Content-Type: text/plain
Ratelimit: "default";r=8;t=N
Ratelimit-Policy: "default";q=9;w=32400

404 page not found`, do(t, s, "GET", "/nope", credentials...))
	require.Equal(t, `405
Allow: GET
Cache-Control: private
Content-Length: 22
Content-Type: text/plain
Ratelimit: "default";r=7;t=N
Ratelimit-Policy: "default";q=9;w=32400

405 method not allowed`, do(t, s, "PUT", "/contacts", credentials...))
}

func TestChargingByFullPath(t *testing.T) {
	engine := gin.New()
	var paths []string
	guard := newGuard(t, senderauth.Config{}).ChargingBy(func(r *http.Request) []string {
		paths = append(paths, r.Pattern)
		if r.Pattern == "/messages/:channel" {
			return []string{"messages"}
		}
		return []string{"default"}
	})
	engine.Use(ginsender.Middleware(guard.Wrap))
	full := func(c *gin.Context) { c.String(http.StatusOK, c.FullPath()+" "+c.Request.Pattern) }
	engine.POST("/messages/:channel", full)
	engine.GET("/contacts", full)
	s := serve(t, engine)

	require.Contains(t, do(t, s, "POST", "/messages/sms", credentials...), "\n\n/messages/:channel /messages/:channel")
	require.Equal(t, `429
Cache-Control: no-store
Content-Length: 128
Content-Type: application/problem+json
Ratelimit: "messages";r=0;t=N
Ratelimit-Policy: "messages";q=1;w=3600
Retry-After: N
X-Content-Type-Options: nosniff

{"status":429,"title":"Too Many Requests","detail":"Rate limit exceeded. Please retry after N seconds.","type":"about:blank"}`,
		do(t, s, "POST", "/messages/mail", credentials...))
	require.Contains(t, do(t, s, "GET", "/contacts", credentials...), "\n\n/contacts /contacts")
	require.Contains(t, do(t, s, "GET", "/nope", credentials...), "404")
	require.Equal(t, []string{"/messages/:channel", "/messages/:channel", "/contacts", ""}, paths)
}

func TestGuardsAtEngineAndRoute(t *testing.T) {
	var events []senderauth.Event
	guard := newGuard(t, senderauth.Config{Observe: func(_ context.Context, e senderauth.Event) { events = append(events, e) }})
	engine := gin.New()
	engine.Use(ginsender.Middleware(guard.Charging().Wrap))
	engine.POST("/messages", ginsender.Middleware(guard.Charging("messages").Wrap), func(c *gin.Context) {
		s, _ := ginsender.Sender(c)
		c.String(http.StatusOK, s.ID)
	})
	s := serve(t, engine)

	require.Equal(t, `200
Cache-Control: private
Content-Length: 36
Content-Type: text/plain; charset=utf-8
Ratelimit: "messages";r=0;t=N
Ratelimit-Policy: "messages";q=1;w=3600

`+sender, do(t, s, "POST", "/messages", credentials...))
	require.Contains(t, do(t, s, "POST", "/messages", credentials...), "429\n")
	require.Equal(t, unauthorized, do(t, s, "POST", "/messages"))
	var outcomes []string
	for _, e := range events {
		outcomes = append(outcomes, string(e.Outcome)+" "+e.Limit)
	}
	require.Equal(t, []string{"admitted ", "admitted messages", "admitted ", "limited messages", "missing_key "}, outcomes)
}

func TestMiddlewareIsBuiltOnce(t *testing.T) {
	var built, served atomic.Int32
	engine := gin.New()
	engine.Use(ginsender.Middleware(func(next http.Handler) http.Handler {
		built.Add(1)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			served.Add(1)
			next.ServeHTTP(w, r)
		})
	}))
	engine.GET("/", func(c *gin.Context) { c.Status(http.StatusNoContent) })
	s := serve(t, engine)
	for range 3 {
		require.Equal(t, "204\n\n", do(t, s, "GET", "/"))
	}
	require.Equal(t, []int32{1, 3}, []int32{built.Load(), served.Load()})
}

func TestFlush(t *testing.T) {
	engine := gin.New()
	engine.Use(ginsender.Middleware(newGuard(t, senderauth.Config{}).Wrap))
	read := make(chan struct{})
	engine.GET("/", func(c *gin.Context) {
		c.Writer.WriteString("first\n")
		c.Writer.Flush()
		<-read
		c.Writer.WriteString("second\n")
		if err := http.NewResponseController(c.Writer).SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			c.Writer.WriteString(err.Error())
		}
	})
	s := serve(t, engine)
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
	require.NoError(t, err)
	r.Header = http.Header{"X-Sender-Id": {sender}, "X-Api-Key": {key}}
	res, err := s.Client().Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	body := bufio.NewReader(res.Body)
	line, err := body.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "first\n", line, "while the handler waits")
	close(read)
	rest, err := io.ReadAll(body)
	require.NoError(t, err)
	require.Equal(t, "second\n", string(rest))
}

func TestHijack(t *testing.T) {
	engine := gin.New()
	engine.Use(ginsender.Middleware(newGuard(t, senderauth.Config{}).Wrap))
	engine.GET("/", func(c *gin.Context) {
		conn, rw, err := c.Writer.Hijack()
		if err != nil {
			c.String(http.StatusInternalServerError, err.Error())
			return
		}
		defer conn.Close()
		rw.WriteString("HTTP/1.1 299 Taken Over\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		rw.Flush()
	})
	require.Equal(t, "299\nContent-Length: 0\n\n", do(t, serve(t, engine), "GET", "/", credentials...))
}

func TestPanicReachesRecovery(t *testing.T) {
	got := make(chan seen, 1)
	engine := gin.New()
	engine.Use(watch(got), gin.CustomRecoveryWithWriter(io.Discard, func(c *gin.Context, err any) {
		c.String(http.StatusInternalServerError, fmt.Sprint(err))
		c.Abort()
	}), ginsender.Middleware(newGuard(t, senderauth.Config{}).Wrap))
	engine.GET("/panic", func(*gin.Context) { panic("broken") })
	engine.GET("/", func(c *gin.Context) { c.Status(http.StatusNoContent) })
	s := serve(t, engine)

	require.Contains(t, do(t, s, "GET", "/panic", credentials...), "\n\nbroken")
	require.Equal(t, seen{500, 6, true, true, authenticated, true}, <-got)
	// gin reuses its contexts: the panic must leave nothing behind.
	require.Equal(t, unauthorized, do(t, s, "GET", "/"))
	require.Equal(t, seen{status: 401, size: 96, aborted: true, sameWriter: true}, <-got)
	require.Contains(t, do(t, s, "GET", "/", credentials...), "204\n")
	require.Equal(t, seen{204, -1, false, true, authenticated, true}, <-got)
}

func TestSendersAreNotMixedUp(t *testing.T) {
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
	engine := gin.New()
	engine.Use(ginsender.Middleware(guard.Charging().Wrap))
	engine.GET("/", ginsender.Middleware(guard.Wrap), func(c *gin.Context) {
		s, _ := ginsender.Sender(c)
		c.String(http.StatusOK, s.ID)
	})

	var callers sync.WaitGroup
	for _, cr := range all {
		callers.Go(func() {
			for range 200 {
				w := httptest.NewRecorder()
				r := httptest.NewRequest("GET", "/", nil)
				r.Header = http.Header{"X-Sender-Id": {cr.SenderID}, "X-Api-Key": {cr.APIKey}}
				engine.ServeHTTP(w, r)
				if w.Body.String() != cr.SenderID {
					t.Errorf("%s got %q", cr.SenderID, w.Body)
				}
			}
		})
	}
	callers.Wait()
}

// The handler parses the form of a copy of the request, and net/http removes the
// temporary files of its own request only.
func TestUploadLeavesNoTemporaryFile(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	guard := newGuard(t, senderauth.Config{})
	engine := gin.New()
	engine.Use(ginsender.Middleware(guard.Wrap), ginsender.Middleware(guard.Wrap))
	engine.POST("/", func(c *gin.Context) {
		if err := c.Request.ParseMultipartForm(1); err != nil || files(t) != 1 {
			t.Errorf("%v, %d files", err, files(t))
		}
	})
	s := serve(t, engine)
	require.Equal(t, 200, upload(t, s))
	s.Close() // waits until the request is finished
	require.Zero(t, files(t))
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

// HandleContext serves the same request again, which is still one request.
func TestHandleContextIsChargedOnce(t *testing.T) {
	guard := newGuard(t, senderauth.Config{})
	engine := gin.New()
	engine.Use(ginsender.Middleware(guard.Wrap))
	engine.GET("/old", func(c *gin.Context) {
		c.Request.URL.Path = "/new"
		engine.HandleContext(c)
	})
	engine.GET("/new", ginsender.Middleware(guard.Charging("messages").Wrap), func(c *gin.Context) {
		s, _ := ginsender.Sender(c)
		c.String(http.StatusOK, s.ID)
	})
	s := serve(t, engine)
	require.Equal(t, `200
Cache-Control: private
Content-Length: 36
Content-Type: text/plain; charset=utf-8
Ratelimit: "messages";r=0;t=N, "default";r=8;t=N
Ratelimit-Policy: "messages";q=1;w=3600, "default";q=9;w=32400

`+sender, do(t, s, "GET", "/old", credentials...))
	over := do(t, s, "GET", "/old", credentials...)
	require.Contains(t, over, "429\n")
	require.NotContains(t, over, sender, "the handler did not run")
	require.Contains(t, over, `"default";r=7`)
}
