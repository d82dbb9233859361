package senderauth_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

func TestHandlerGetsTheBodyUnread(t *testing.T) {
	a := newApp(t, nil, senderauth.Config{StripKey: true})
	r := of(1)
	r.Method, r.Body, r.ContentLength = "POST", io.NopCloser(strings.NewReader("whole")), 5
	serve(a.guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		require.Equal(t, "whole", string(body))
		require.EqualValues(t, 5, r.ContentLength)
	})), r)
}

// A redirect, a 405 and a 404 of the mux itself are charged, too.
func TestAnswersOfAMuxAreCharged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{})
		mux := http.NewServeMux()
		mux.Handle("POST /messages/", a.hello())
		h := a.guard.Wrap(mux)
		for left, c := range [][2]string{{"POST", "/messages"}, {"GET", "/messages/7"}, {"GET", "/nothing"}} {
			r := of(1)
			r.Method, r.URL.Path = c[0], c[1]
			alone := serve(mux, r) // its redirect depends on the version of Go
			require.Contains(t, []int{301, 307, 405, 404}, alone.Status)
			got := serve(h, r)
			require.Equal(t, alone.Status, got.Status)
			require.Equal(t, strconv.Itoa(2-left), got.Header["X-Ratelimit-Remaining"])
		}
		require.Equal(t, 429, serve(h, of(1)).Status)
	})
}

func TestStripKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{StripKey: true})
		r := of(1)
		before := r.Header.Clone()
		for i := range 2 { // one request can be served twice
			require.Equal(t, hello(1).with(threeLeft(2-i)...), serve(a, r))
			require.Equal(t, before, r.Header)
			inner := a.served[i]
			require.Equal(t, http.Header{"X-Sender-Id": {senderID(1)}}, inner.Header)
			inner.Header.Set("X-Sender-Id", "changed")
			require.Equal(t, before, r.Header)
		}
		b := newApp(t, nil, senderauth.Config{})
		serve(b, r)
		require.Equal(t, before, b.served[0].Header)
	})
}

// If one of the program's own functions panics, the handler does not run. The
// panic goes on, because http.ErrAbortHandler is a way to end a request.
func TestPanicOfAFunctionFailsClosed(t *testing.T) {
	abort := func() { panic(http.ErrAbortHandler) }
	for name, cfg := range map[string]senderauth.Config{
		"Limiter": {Limiter: takes(func([]senderauth.Charge) ([]senderauth.Balance, error) { abort(); return nil, nil })},
		"Observe": {Observe: func(context.Context, senderauth.Event) { abort() }},
	} {
		a := newApp(t, nil, cfg)
		require.PanicsWithValue(t, http.ErrAbortHandler, func() { serve(a, of(1)) }, name)
		require.Empty(t, a.served, name)
	}
	a := newApp(t, nil, senderauth.Config{ServeProblem: func(http.ResponseWriter, *http.Request, *senderauth.Problem, senderauth.Outcome) { abort() }})
	require.PanicsWithValue(t, http.ErrAbortHandler, func() { serve(a, request()) })
	h := a.guard.ChargingBy(func(*http.Request) []string { abort(); return nil }).Wrap(a.hello())
	require.PanicsWithValue(t, http.ErrAbortHandler, func() { serve(h, of(1)) })
	require.Empty(t, a.served)
}

// A guard survives a Limiter that breaks its contract and changes the charges.
func TestCustomLimiterGetsTheCharges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked [][]senderauth.Charge
		a := newApp(t, nil, senderauth.Config{Limiter: takes(func(charges []senderauth.Charge) ([]senderauth.Balance, error) {
			asked = append(asked, append([]senderauth.Charge(nil), charges...))
			clear(charges)
			return []senderauth.Balance{{Remaining: 2, ResetAfter: time.Second}}, nil
		})})
		for range 2 {
			require.Equal(t, hello(1).with(threeLeft(2)...), serve(a, of(1)))
		}
		want := []senderauth.Charge{{Name: "default", Limit: three, Cost: 1}}
		require.Equal(t, [][]senderauth.Charge{want, want}, asked)
	})
}

func TestCharging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{})
		require.Equal(t, hello(1), serve(a.guard.Charging().Wrap(a.hello()), of(1)), "no names: authentication alone")
		require.Equal(t, noKey, serve(a.guard.Charging().Wrap(a.hello()), request()))
		require.PanicsWithError(t, `senderauth: limit "mesages" is not in Config.Limits`, func() { a.guard.Charging("mesages") })
		require.PanicsWithError(t, `senderauth: limit "default" is charged twice`, func() { a.guard.Charging("default", "default") })
		require.PanicsWithValue(t, "senderauth: ChargingBy: the function is nil", func() { a.guard.ChargingBy(nil) })
		require.PanicsWithValue(t, "senderauth: Costing: the function is nil", func() { a.guard.Costing(nil) })
		require.PanicsWithValue(t, "senderauth: Wrap: the handler is nil", func() { a.guard.Wrap(nil) })
		require.PanicsWithValue(t, "senderauth: Wrap: the handler is nil", func() { a.guard.Wrap(http.HandlerFunc(nil)) })

		// A nil guard, which New returns with an error, and one that New did not make.
		for _, g := range []*senderauth.Guard{nil, {}} {
			const text = "senderauth: the Guard was not made by New, or New returned an error"
			require.PanicsWithValue(t, text, func() { g.Wrap(a.hello()) })
			require.PanicsWithValue(t, text, func() { g.Charging() })
			require.PanicsWithValue(t, text, func() { g.ChargingBy(func(*http.Request) []string { return nil }) })
			require.PanicsWithValue(t, text, func() { g.Costing(func(*http.Request) int { return 1 }) })
			require.PanicsWithValue(t, text, func() { g.Charge(t.Context(), "default", 1) })
		}
	})
}

func TestChargingBy(t *testing.T) {
	bubble(t, "chosen for each request", func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{Limits: map[string]senderauth.Limit{"default": three, "messages": three}})
		h := a.guard.ChargingBy(func(r *http.Request) []string {
			_, ok := senderauth.SenderFrom(r.Context())
			require.True(t, ok, "f sees the request of an authenticated sender")
			if names := r.URL.Query().Get("charge"); names != "" {
				return strings.Split(names, ",")
			}
			return nil
		}).Wrap(a.hello())
		for _, c := range []struct {
			query string
			want  response
		}{
			{"", hello(1)},
			{"?charge=messages", hello(1).with(rateFields(3, 2, 1, `"messages";r=2;t=1`, `"messages";q=3;w=3`)...)},
			{"?charge=unknown", internal},
			{"?charge=default,unknown", internal},
			{"?charge=default,default", internal},
			{"?charge=default", hello(1).with(threeLeft(2)...)},
		} {
			r := of(1)
			r.URL.RawQuery = strings.TrimPrefix(c.query, "?")
			require.Equal(t, c.want, serve(h, r), c.query)
		}
		require.Equal(t, []senderauth.Outcome{"admitted", "admitted", "failed", "failed", "failed", "admitted"}, a.outcomes())
		require.EqualError(t, a.events[2].Err, `senderauth: limit "unknown" is not in Config.Limits`)
		require.Equal(t, senderID(1), a.events[2].Sender.ID)
		require.Equal(t, noKey, serve(h, request()), "f is not called for an unauthenticated request")
	})
	bubble(t, "chosen by the route that the mux matches", func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{Limits: map[string]senderauth.Limit{"default": three, "messages": three}})
		charged := a.guard.ChargingBy(func(r *http.Request) []string {
			if r.Pattern == "/messages/{id}" && r.PathValue("id") == "7" {
				return []string{"messages"}
			}
			return []string{"default"}
		}).Wrap(a.hello())
		mux := http.NewServeMux()
		mux.Handle("/messages/{id}", charged)
		type key struct{}
		between := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key{}, 1)))
		})
		r := of(1)
		r.URL.Path = "/messages/7"
		require.Equal(t, `"messages";q=3;w=3`, serve(a.guard.Charging().Wrap(between), r).Header["Ratelimit-Policy"])
	})
}

func TestPatternIsSetOnTheOuterRequest(t *testing.T) {
	a := newApp(t, nil, senderauth.Config{})
	mux := http.NewServeMux()
	mux.Handle("GET /contacts/{id}", a.hello())
	r := of(1)
	r.URL.Path = "/contacts/7"
	require.Equal(t, 200, serve(a.guard.Wrap(mux), r).Status)
	require.Equal(t, "GET /contacts/{id}", r.Pattern)

	// An outer layer that recovers and logs the route of the 500 sees it, too.
	mux.HandleFunc("GET /panics", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	r = of(1)
	r.URL.Path = "/panics"
	require.Panics(t, func() { serve(a.guard.Wrap(mux), r) })
	require.Equal(t, "GET /panics", r.Pattern)
}

// net/http removes the temporary files of its own request only, not those of the
// guard's copy.
func TestUploadLeavesNoTemporaryFile(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	files := func() int {
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		return len(entries)
	}
	parse := func(r *http.Request) {
		if err := r.ParseMultipartForm(1); err != nil || files() != 1 {
			t.Errorf("%v, %d files", err, files())
		}
	}
	a := newApp(t, nil, senderauth.Config{})
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { parse(r) })
	refusing := a.guard.Costing(func(r *http.Request) int { parse(r); return three.Burst + 1 })
	for status, h := range map[int]http.Handler{200: a.guard.Wrap(a.guard.Wrap(handler)), 429: refusing.Wrap(handler)} {
		server := httptest.NewServer(h)
		require.Equal(t, status, upload(t, server.URL))
		server.Close() // waits until the request is finished
		require.Zero(t, files())
	}
}

// upload sends a form with a file of the first sender and returns the status.
func upload(t *testing.T, url string) int {
	t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	file, err := form.CreateFormFile("file", "name")
	require.NoError(t, err)
	file.Write(make([]byte, 100))
	require.NoError(t, form.Close())
	r, err := http.NewRequest("POST", url, &body)
	require.NoError(t, err)
	r.Header = of(1).Header
	r.Header.Set("Content-Type", form.FormDataContentType())
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	res.Body.Close()
	return res.StatusCode
}

func TestCacheControl(t *testing.T) {
	for _, c := range []struct {
		name           string
		outer, handler []string
		want           string
	}{
		{name: "nobody says anything", want: "private"},
		{name: "the handler decides", handler: []string{"public, max-age=60"}, want: "public, max-age=60"},
		{name: "the handler decides, in two lines", handler: []string{"no-cache", "private"}, want: "no-cache\nprivate"},
		{name: "an outer no-store is stricter", outer: []string{"no-store"}, want: "no-store"},
		{name: "an outer private stays", outer: []string{"private, max-age=5"}, want: "private, max-age=5"},
		{name: "whatever its case", outer: []string{"max-age=0,\tNo-Store"}, want: "max-age=0,\tNo-Store"},
		{name: "an outer private of one field is not enough", outer: []string{`public, private="Set-Cookie"`}, want: "private"},
		{name: "an outer public does not", outer: []string{"public, max-age=60"}, want: "private"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newApp(t, nil, senderauth.Config{RateFields: senderauth.RateFieldsNone})
			inner := a.guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if c.handler != nil {
					w.Header()["Cache-Control"] = c.handler
				}
				a.hello().ServeHTTP(w, r)
			}))
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if c.outer != nil {
					w.Header()["Cache-Control"] = c.outer
				}
				inner.ServeHTTP(w, r)
			})
			require.Equal(t, hello(1).with("Cache-Control", c.want), serve(h, of(1)))
		})
	}
	bubble(t, "fields of an outer layer under another spelling", func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{})
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header()["cache-control"] = []string{"no-store"}
			w.Header()["RateLimit"] = []string{"outer"}
			w.Header()["x-ratelimit-limit"] = []string{"7"}
			w.Header()["x-own"] = []string{"stays"}
			a.ServeHTTP(w, r)
		})
		require.Equal(t, hello(1).with(threeLeft(2)...).with("Cache-Control", "no-store", "x-own", "stays"), serve(h, of(1)))
	})
	// Each response has its own value: a handler that overwrites it does not change
	// other responses.
	a := newApp(t, nil, senderauth.Config{RateFields: senderauth.RateFieldsNone})
	h := a.guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, lines := range w.Header() {
			lines[0] = "public"
		}
	}))
	for range 2 {
		serve(h, of(1))
	}
	require.Equal(t, hello(1), serve(a, of(1)))
}

// A guard does not touch the handler's own 401, nor rate fields that the handler
// sets.
func TestHandlersAnswerIsUnchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{})
		h := a.guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = []string{"text/plain"}
			w.Header().Set("X-RateLimit-Remaining", "own")
			w.WriteHeader(401)
		}))
		want := response{401, map[string]string{"Content-Type": "text/plain", "Cache-Control": "private"}, ""}
		require.Equal(t, want.with(threeLeft(2)...).with("X-Ratelimit-Remaining", "own"), serve(h, of(1)))
	})
	// Adding to one field does not overwrite the next one in the shared array.
	for _, name := range []string{"Cache-Control", "X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset", "Ratelimit", "Ratelimit-Policy"} {
		bubble(t, name, func(t *testing.T) {
			a := newApp(t, nil, senderauth.Config{})
			h := a.guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Add(name, "more")
				a.hello().ServeHTTP(w, r)
			}))
			want := hello(1).with(threeLeft(2)...)
			require.Equal(t, want.with(name, want.Header[name]+"\nmore"), serve(h, of(1)))
		})
	}
}

func TestCanceled(t *testing.T) {
	wait := func(ctx context.Context, _ senderauth.Credentials) (senderauth.Sender, error) {
		<-ctx.Done()
		return senderauth.Sender{}, ctx.Err()
	}
	t.Run("a connected client gets 503", func(t *testing.T) {
		a := newApp(t, wait, senderauth.Config{})
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		require.Equal(t, unavailable, serve(a, of(1).WithContext(ctx)))
		require.Equal(t, []senderauth.Outcome{"canceled"}, a.outcomes())
		require.ErrorIs(t, a.events[0].Err, context.Canceled)
	})
	t.Run("a limiter that returns Canceled is no outage", func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{FailClosed: true, Limiter: takes(func([]senderauth.Charge) ([]senderauth.Balance, error) {
			return nil, context.Canceled
		})})
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		require.Equal(t, unavailable, serve(a, of(1).WithContext(ctx)))
		require.Equal(t, []senderauth.Outcome{"canceled"}, a.outcomes())
		require.False(t, a.events[0].LimiterFailed)
	})
	t.Run("a deadline of an outer layer is an outage", func(t *testing.T) {
		a := newApp(t, wait, senderauth.Config{})
		ctx, cancel := context.WithDeadline(context.Background(), time.Unix(1, 0))
		defer cancel()
		require.Equal(t, unavailable, serve(a, of(1).WithContext(ctx)))
	})
	t.Run("a connected client gets no 200", func(t *testing.T) {
		asked := make(chan context.CancelFunc, 1)
		a := newApp(t, wait, senderauth.Config{})
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithCancel(r.Context())
			asked <- cancel
			a.ServeHTTP(w, r.WithContext(ctx))
		}))
		defer server.Close()
		r, err := http.NewRequest("GET", server.URL, nil)
		require.NoError(t, err)
		r.Header = of(1).Header
		go func() { (<-asked)() }()
		res, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		res.Body.Close()
		require.Equal(t, 503, res.StatusCode)
	})
}

// silent counts the calls that write.
type silent struct {
	header http.Header
	calls  int
}

func (s *silent) Header() http.Header {
	if s.header == nil {
		s.header = http.Header{}
	}
	return s.header
}

func (s *silent) WriteHeader(int) { s.calls++ }

func (s *silent) Write(b []byte) (int, error) { s.calls++; return len(b), nil }

func TestWriterIsUntouched(t *testing.T) {
	a := newApp(t, nil, senderauth.Config{StripKey: true})
	w := &silent{}
	a.guard.Wrap(a.guard.Wrap(http.HandlerFunc(func(got http.ResponseWriter, _ *http.Request) {
		require.Same(t, w, got)
	}))).ServeHTTP(w, of(1))

	server := httptest.NewServer(a.guard.Charging().Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := w.(io.ReaderFrom); !ok {
			t.Error("the writer is not an io.ReaderFrom")
		}
		if r.URL.Path == "/flush" {
			io.WriteString(w, "first")
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			<-r.Context().Done() // never send the rest
			return
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\nours")
	})))
	defer server.Close()

	r, err := http.NewRequest("GET", server.URL+"/flush", nil)
	require.NoError(t, err)
	r.Header = of(1).Header
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	first := make([]byte, 5)
	_, err = io.ReadFull(res.Body, first)
	require.NoError(t, err)
	require.Equal(t, "first", string(first))
	res.Body.Close()

	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	fmt.Fprintf(conn, "GET /hijack HTTP/1.1\r\nHost: x\r\nx-sender-id: %s\r\nx-api-key: %s\r\n\r\n", senderID(1), apiKey(1))
	all, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 101 Switching Protocols\r\n\r\nours", string(all))
}

// No response, log, event or panic value contains a part of a key, whatever goes
// wrong.
func TestNoPartOfAKeyIsShownAnywhere(t *testing.T) {
	var text bytes.Buffer
	var mu sync.Mutex
	note := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(&text, format, args...)
	}
	for _, v := range []senderauth.ValidatorFunc{
		knowsAll,
		func(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) { panic(c.APIKey) },
		func(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			panic(fmt.Errorf("no %s", c.APIKey))
		},
		func(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			return senderauth.Sender{}, fmt.Errorf("query for %v (%#v): timeout", c, c)
		},
		refuseWith(senderauth.ErrInvalidKey),
	} {
		for _, cached := range []bool{false, true} {
			var validator senderauth.Validator = v
			if cached {
				validator = newCache(t, v, senderauth.CacheConfig{})
			}
			guard, err := senderauth.New(validator, senderauth.Config{
				Limits:   limits(three),
				StripKey: true,
				CheckKey: func(key string) bool {
					if strings.HasPrefix(key, "panic") {
						panic(key)
					}
					return true
				},
				Observe: func(ctx context.Context, e senderauth.Event) {
					note("%v %+v %#v %v %+v", e, e, e.Err, e.Err, ctx)
				},
			})
			require.NoError(t, err)
			h := guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				note("%v %+v %s", r.Context(), r.Context(), r.Header)
			}))
			server := httptest.NewUnstartedServer(h)
			server.Config.ErrorLog = log.New(writerFunc(func(b []byte) (int, error) { note("%s", b); return len(b), nil }), "", 0)
			server.Start()
			for _, key := range []string{apiKey(1), apiKey(2), apiKey(1) + "x", "panic" + apiKey(1)} {
				r, err := http.NewRequest("GET", server.URL, nil)
				require.NoError(t, err)
				r.Header.Set("x-sender-id", senderID(1))
				r.Header.Set("x-api-key", key)
				res, err := http.DefaultClient.Do(r)
				require.NoError(t, err)
				body, err := io.ReadAll(res.Body)
				require.NoError(t, err)
				res.Body.Close()
				note("%v %s", res.Header, body)
			}
			server.Close()
		}
	}
	require.Contains(t, text.String(), "panicked at")
	noPart(t, text.String(), apiKey(1))
	noPart(t, text.String(), apiKey(2))
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// A guard has no list of paths to skip: no spelling of a path gets past it without
// a key.
func TestNoPathGoesAroundTheGuard(t *testing.T) {
	a := newApp(t, nil, senderauth.Config{})
	mux := http.NewServeMux()
	mux.Handle("/healthz", a.hello())
	mux.Handle("/", a.hello())
	h := a.guard.Wrap(mux)
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "POST", "CONNECT", "PRI", "get"} {
		for _, path := range []string{"/healthz", "//healthz", "/healthz/", "/%68ealthz", "/healthz%2f..", "/a/../healthz", "/healthz;a=b", "/healthz?x", "*"} {
			r := request()
			r.Method, r.RequestURI = method, path
			r.URL.Path, _ = url.PathUnescape(path)
			want := noKey
			if method == "HEAD" {
				want = noKey.head()
			}
			require.Equal(t, want, serve(h, r), "%s %s", method, path)
		}
	}
	require.Empty(t, a.served)
}
