package senderclient_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/senderclient"
	"github.com/stretchr/testify/require"
)

var sentinels = []error{
	senderclient.ErrMissingHeader, senderclient.ErrInvalidSender, senderclient.ErrInvalidKey, senderclient.ErrKeyMismatch,
}

// The guard's own refusals are told apart.
func TestProblemsOfTheGuard(t *testing.T) {
	const otherID, otherKey = "c3a1f0de-1111-4c7e-8d55-5a2f60b7e902", "5d0c7a52-93fe-4b06-a1c8-77e21fd3b604"
	keys, err := senderauth.Static(senderauth.Credentials{SenderID: senderID, APIKey: apiKey}, senderauth.Credentials{SenderID: otherID, APIKey: otherKey})
	require.NoError(t, err)
	guard, err := senderauth.New(keys, senderauth.Config{Limits: map[string]senderauth.Limit{"default": senderauth.Unlimited()}})
	require.NoError(t, err)
	server := httptest.NewServer(guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	defer server.Close()
	for _, c := range []struct {
		senderID, key, detail string
		want                  error
	}{
		{"", "", "Header x-api-key not found", senderclient.ErrMissingHeader},
		{"", apiKey, "Header x-sender-id not found", senderclient.ErrMissingHeader},
		{"acct_42", apiKey, "Invalid x-sender-id", senderclient.ErrInvalidSender},
		{senderID, "sk_1", "Invalid API credentials!", senderclient.ErrInvalidKey},
		{senderID, otherKey, "API key does not match sender ID", senderclient.ErrKeyMismatch},
		{senderID, apiKey, "", nil},
	} {
		r := request(t, "GET", server.URL, "")
		for name, value := range map[string]string{"x-sender-id": c.senderID, "x-api-key": c.key} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		res, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer res.Body.Close()
		err = senderclient.CheckResponse(res)
		if c.want == nil {
			require.NoError(t, err)
			continue
		}
		require.Equal(t, &senderclient.Problem{Status: 401, Title: "Unauthorized", Detail: c.detail, Type: "about:blank"}, err)
		require.EqualError(t, err, "senderclient: 401 Unauthorized: "+c.detail)
		for _, sentinel := range sentinels {
			require.Equal(t, sentinel == c.want, errors.Is(err, sentinel), sentinel)
		}
	}
}

func TestCheckResponse(t *testing.T) {
	const problem = "application/problem+json"
	for _, c := range []struct {
		name              string
		status            int
		contentType, body string
		want              senderclient.Problem
		text              string
	}{
		{
			"a problem of another kind", 403, problem + "; charset=utf-8", `{"status":401,"title":"Billing","detail":"suspended","type":"https://a.example","instance":"/1","more":[1]}`,
			senderclient.Problem{Status: 403, Title: "Billing", Detail: "suspended", Type: "https://a.example", Instance: "/1"},
			"senderclient: 403 Billing: suspended",
		},
		{"another status with the detail of a 401", 403, problem, `{"detail":"Invalid API credentials!"}`, senderclient.Problem{Status: 403, Detail: "Invalid API credentials!"}, "senderclient: 403 Forbidden: Invalid API credentials!"},
		{"no problem", 502, "text/html", "<h1>Bad Gateway</h1>", senderclient.Problem{Status: 502}, "senderclient: 502 Bad Gateway"},
		{"a problem that is not JSON", 500, problem, `{"title":"a"`, senderclient.Problem{Status: 500}, "senderclient: 500 Internal Server Error"},
		{"a problem of other types", 500, problem, `{"title":7,"detail":"a"}`, senderclient.Problem{Status: 500}, "senderclient: 500 Internal Server Error"},
		{"a problem that never ends", 500, problem, `{"title":"` + strings.Repeat("a", 1<<20), senderclient.Problem{Status: 500}, "senderclient: 500 Internal Server Error"},
		{"a problem that is too long", 500, problem, `{"title":"a","more":"` + strings.Repeat("a", 64<<10) + `"}`, senderclient.Problem{Status: 500}, "senderclient: 500 Internal Server Error"},
		{"a status without a name", 499, "", "", senderclient.Problem{Status: 499}, "senderclient: 499 "},
		{"a text for a terminal", 400, problem, `{"title":"a\u001b[2Jb","detail":"c\nd` + strings.Repeat("é", 300) + `"}`,
			senderclient.Problem{Status: 400, Title: "a\x1b[2Jb", Detail: "c\nd" + strings.Repeat("é", 300)}, "senderclient: 400 a\ufffd[2Jb: c\ufffdd" + strings.Repeat("é", 197)},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := &closer{Reader: strings.NewReader(c.body)}
			err := senderclient.CheckResponse(&http.Response{StatusCode: c.status, Header: http.Header{"Content-Type": {c.contentType}}, Body: body})
			require.Equal(t, &c.want, err)
			require.EqualError(t, err, c.text)
			require.Equal(t, 1, body.closed)
			for _, sentinel := range sentinels {
				require.NotErrorIs(t, err, sentinel)
			}
		})
	}
}

// Below 400 the body is the caller's.
func TestCheckResponseLeavesSuccessAlone(t *testing.T) {
	for _, status := range []int{200, 204, 304, 399} {
		body := &closer{Reader: strings.NewReader("text")}
		require.NoError(t, senderclient.CheckResponse(&http.Response{StatusCode: status, Body: body}))
		require.Equal(t, 0, body.closed)
		require.Equal(t, 4, body.Len())
	}
}

func TestLastResponseSaysHowLongToWait(t *testing.T) {
	for _, c := range []struct {
		limit senderauth.Limit
		delay time.Duration
		text  string
	}{
		{senderauth.Limit{Requests: 1, Per: time.Hour, Burst: 1}, time.Hour, "senderclient: rate limit exceeded, retry after 1h0m0s"},
		{senderauth.Blocked(), 0, "senderclient: rate limit exceeded"},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork(t)
			n.serve("api.example.com:443", guarded(t, c.limit))
			client := n.client(senderclient.Config{})
			send(t, client, request(t, "GET", origin, ""))
			start := time.Now()
			res, err := client.Do(request(t, "GET", origin, ""))
			require.NoError(t, err)
			err = senderclient.CheckResponse(res)
			require.EqualError(t, err, c.text)
			var limit *senderclient.RateLimitError
			require.ErrorAs(t, err, &limit)
			require.Equal(t, c.delay, limit.Delay)
			require.Equal(t, 429, limit.Problem.Status)
			require.Zero(t, time.Since(start))
			_, err = res.Body.Read(make([]byte, 1))
			require.EqualError(t, err, "http: read on closed response body")
		})
	}
}
