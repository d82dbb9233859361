package examples_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/labstack/echo/v5"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/echosender"
	"github.com/senderauth/senderauth/contrib/ginsender"
	"github.com/stretchr/testify/require"
)

// mounts serve h under GET / behind the guard, the way each router does it, for
// tests that need a handler the programs do not have.
var mounts = map[string]func(guard *senderauth.Guard, h http.HandlerFunc) http.Handler{
	"net/http": func(guard *senderauth.Guard, h http.HandlerFunc) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("GET /{$}", guard.Wrap(h))
		return mux
	},
	"chi": func(guard *senderauth.Guard, h http.HandlerFunc) http.Handler {
		router := chi.NewRouter()
		router.With(guard.Wrap).Get("/", h)
		return router
	},
	"gin": func(guard *senderauth.Guard, h http.HandlerFunc) http.Handler {
		gin.SetMode(gin.ReleaseMode)
		engine := gin.New()
		engine.GET("/", ginsender.Middleware(guard.Wrap), func(c *gin.Context) { h(c.Writer, c.Request) })
		return engine
	},
	"echo": func(guard *senderauth.Guard, h http.HandlerFunc) http.Handler {
		e := echo.New()
		e.GET("/", func(c *echo.Context) error { h(c.Response(), c.Request()); return nil }, echosender.Middleware[echo.HandlerFunc](guard.Wrap))
		return e
	},
}

func newGuard(t *testing.T, cfg senderauth.Config) *senderauth.Guard {
	t.Helper()
	keys, err := senderauth.Static(senderauth.Credentials{SenderID: sender, APIKey: key})
	require.NoError(t, err)
	cfg.Limits = map[string]senderauth.Limit{
		"default":  {Requests: 1, Per: time.Hour, Burst: 9},
		"messages": {Requests: 1, Per: time.Hour, Burst: 1},
	}
	guard, err := senderauth.New(keys, cfg)
	require.NoError(t, err)
	return guard
}

func get(t *testing.T, url string, header ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	require.NoError(t, err)
	t.Cleanup(func() { res.Body.Close() })
	return res
}

func TestFlushIsAlike(t *testing.T) {
	for router, mount := range mounts {
		t.Run(router, func(t *testing.T) {
			read := make(chan struct{})
			s := httptest.NewServer(mount(newGuard(t, senderauth.Config{}), func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, "first\n")
				w.(http.Flusher).Flush()
				<-read
				io.WriteString(w, "second\n")
				if err := http.NewResponseController(w).Flush(); err != nil {
					io.WriteString(w, err.Error())
				}
				if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(patience)); err != nil {
					io.WriteString(w, err.Error())
				}
			}))
			defer s.Close()
			require.Equal(t, 401, get(t, s.URL).StatusCode)
			res := get(t, s.URL, authorized...)
			body := bufio.NewReader(res.Body)
			line, err := body.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, "200 OK first\n", res.Status+" "+line, "while the handler waits")
			close(read)
			rest, err := io.ReadAll(body)
			require.NoError(t, err)
			require.Equal(t, "second\n", string(rest))
		})
	}
}

func TestHijackIsAlike(t *testing.T) {
	for router, mount := range mounts {
		t.Run(router, func(t *testing.T) {
			s := httptest.NewServer(mount(newGuard(t, senderauth.Config{}), func(w http.ResponseWriter, r *http.Request) {
				conn, rw, err := w.(http.Hijacker).Hijack()
				if err != nil {
					http.Error(w, err.Error(), http.StatusInternalServerError)
					return
				}
				defer conn.Close()
				sender, _ := senderauth.SenderFrom(r.Context())
				rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n" + sender.ID + "\n")
				rw.Flush()
				line, _ := rw.ReadString('\n')
				rw.WriteString(line)
				rw.Flush()
			}))
			defer s.Close()
			upgrade := []string{"Connection", "Upgrade", "Upgrade", "echo"}
			require.Equal(t, 401, get(t, s.URL, upgrade...).StatusCode, "a refused request does not reach the handler")
			res := get(t, s.URL, append(upgrade, authorized...)...)
			require.Equal(t, http.StatusSwitchingProtocols, res.StatusCode)
			conn := res.Body.(io.ReadWriter)
			_, err := io.WriteString(conn, "hello\n")
			require.NoError(t, err)
			got, err := io.ReadAll(conn)
			require.NoError(t, err)
			require.Equal(t, sender+"\nhello\n", string(got))
		})
	}
}

// A client without credentials that announces a body and does not send it gets the
// refusal, and the connection is closed although the server has no timeouts: the
// guard sets deadlines through each router's writer.
func TestUnsentBodyIsRefusedAlike(t *testing.T) {
	for router, mount := range mounts {
		t.Run(router, func(t *testing.T) {
			s := httptest.NewServer(mount(newGuard(t, senderauth.Config{}), func(http.ResponseWriter, *http.Request) {}))
			defer s.Close()
			conn, err := net.Dial("tcp", s.Listener.Addr().String())
			require.NoError(t, err)
			defer conn.Close()
			require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
			_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: api\r\nContent-Length: 1000\r\n\r\n")
			require.NoError(t, err)
			answer, err := io.ReadAll(conn)
			require.NoError(t, err, "the connection is closed")
			require.Contains(t, string(answer), "HTTP/1.1 401 Unauthorized\r\n")
		})
	}
}

// A guard in front of a chi router and one at a route authenticate once and charge
// once, and the handler still has chi's route context.
func TestChiNeedsNoAdapter(t *testing.T) {
	var outcomes []string
	guard := newGuard(t, senderauth.Config{Observe: func(_ context.Context, e senderauth.Event) {
		outcomes = append(outcomes, string(e.Outcome)+" "+e.Limit)
	}})
	router := chi.NewRouter()
	router.Use(guard.Charging().Wrap)
	router.Route("/v1", func(r chi.Router) {
		r.With(guard.Charging("messages").Wrap).Get("/messages/{id}", func(w http.ResponseWriter, r *http.Request) {
			s, _ := senderauth.SenderFrom(r.Context())
			io.WriteString(w, strings.Join([]string{s.ID, chi.URLParam(r, "id"), chi.RouteContext(r.Context()).RoutePattern()}, " "))
		})
	})
	s := httptest.NewServer(router)
	defer s.Close()

	res := get(t, s.URL+"/v1/messages/7", authorized...)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, "200 OK "+sender+" 7 /v1/messages/{id}", res.Status+" "+string(body))
	require.Equal(t, 429, get(t, s.URL+"/v1/messages/7", authorized...).StatusCode)
	require.Equal(t, 401, get(t, s.URL+"/nope").StatusCode)
	require.Equal(t, 404, get(t, s.URL+"/nope", authorized...).StatusCode)
	require.Equal(t, []string{"admitted ", "admitted messages", "admitted ", "limited messages", "missing_key ", "admitted "}, outcomes)
}
