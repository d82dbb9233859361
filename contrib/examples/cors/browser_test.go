package cors_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/chromedp"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { testservers.Main(m) }

// A tab shows an empty page of an origin of its own.
type tab struct {
	context.Context

	mu     sync.Mutex
	errors []string // that the browser reported
}

func openTab(t *testing.T) *tab {
	t.Helper()
	if _, err := exec.LookPath("chromium"); err != nil {
		testservers.Missing(t, "no chromium")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath("chromium"))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &tab{Context: ctx}
	require.NoError(t, chromedp.Listen(ctx, func(event any) {
		if e, ok := event.(*log.EventEntryAdded); ok {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.errors = append(b.errors, e.Entry.Text)
		}
	}))
	_, err := chromedp.Call(ctx, log.Enable, cdp.Empty{})
	require.NoError(t, err)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Write([]byte(`<link rel="icon" href="data:,">`))
	}))
	t.Cleanup(page.Close)
	require.NoError(t, chromedp.Do(ctx, chromedp.Navigate(page.URL)))
	return b
}

// A reading is what a script of the page learns from a call.
type reading struct {
	Error     string
	Status    int
	Body      string
	RateLimit string
	Remaining string
	Retry     string
}

// call sends a request as a script of the page does.
func (b *tab) call(t *testing.T, url, key string) reading {
	t.Helper()
	r, err := chromedp.Run(b, chromedp.Evaluate[reading](`(async () => {
		try {
			const res = await fetch("`+url+`/v1/messages", {
				method: "POST",
				headers: {"content-type": "application/json", "x-sender-id": "`+sender+`", "x-api-key": "`+key+`"},
				body: "{}",
			});
			return {
				Status: res.status, Body: await res.text(), Retry: res.headers.get("Retry-After") ?? "",
				RateLimit: res.headers.get("RateLimit") ?? "", Remaining: res.headers.get("X-RateLimit-Remaining") ?? "",
			};
		} catch (e) {
			return {Error: String(e)};
		}
	})()`, chromedp.EvalAwaitPromise))
	require.NoError(t, err)
	return r
}

func newGuard(t *testing.T) *senderauth.Guard {
	t.Helper()
	keys, err := senderauth.Static(senderauth.Credentials{SenderID: sender, APIKey: key})
	require.NoError(t, err)
	guard, err := senderauth.New(keys, senderauth.Config{Limits: map[string]senderauth.Limit{"default": {Requests: 1, Per: time.Hour}}})
	require.NoError(t, err)
	return guard
}

func TestPageReadsAnswersWithCORSOutsideTheGuard(t *testing.T) {
	b := openTab(t)
	api := httptest.NewServer(allow.Handler(newGuard(t).Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		w.Write([]byte("queued"))
	}))))
	defer api.Close()

	require.Equal(t, reading{
		Status: 202, Body: "queued", RateLimit: `"default";r=0;t=3600`, Remaining: "0",
	}, b.call(t, api.URL, key))
	require.Equal(t, reading{
		Status: 401, Body: `{"status":401,"title":"Unauthorized","detail":"Invalid API credentials!","type":"about:blank"}`,
	}, b.call(t, api.URL, "0b9d3c1e-6f52-4c8a-b1d7-000000000000"))
	limited := b.call(t, api.URL, key)
	require.Regexp(t, `^[1-9][0-9]*$`, limited.Retry)
	require.Equal(t, reading{
		Status: 429, RateLimit: `"default";r=0;t=` + limited.Retry, Remaining: "0", Retry: limited.Retry,
		Body: `{"status":429,"title":"Too Many Requests","detail":"Rate limit exceeded. Please retry after ` + limited.Retry + ` seconds.","type":"about:blank"}`,
	}, limited)
}

func TestPageReadsNothingWithCORSInsideTheGuard(t *testing.T) {
	b := openTab(t)
	api := httptest.NewServer(newGuard(t).Wrap(allow.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the browser sent the request after a refused preflight")
	}))))
	defer api.Close()

	require.Equal(t, reading{Error: "TypeError: Failed to fetch"}, b.call(t, api.URL, key))
	require.Eventually(t, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return slices.ContainsFunc(b.errors, func(e string) bool {
			return strings.HasSuffix(e, "has been blocked by CORS policy: Response to preflight request doesn't pass access control check: "+
				"No 'Access-Control-Allow-Origin' header is present on the requested resource.")
		})
	}, time.Minute, time.Millisecond)
}
