package senderclient_test

import (
	"context"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/senderclient"
	"github.com/stretchr/testify/require"
)

func TestOriginMustBeSafe(t *testing.T) {
	for origin, want := range map[string]string{
		"https://api.example.com":       "",
		"https://API.example.com:8443/": "",
		"https://[2001:db8::1]":         "",
		"http://localhost:8080":         "",
		"http://127.0.0.9":              "",
		"http://[::1]:8080":             "",
		"http://api.example.com:80":     "senderclient: the origin http://api.example.com:80 would get the key in cleartext: use https",
		"http://127.0.0.1.example.com":  "senderclient: the origin http://127.0.0.1.example.com would get the key in cleartext: use https",
		"http://localhost.":             "senderclient: the origin http://localhost. would get the key in cleartext: use https",
		"http://10.0.0.1":               "senderclient: the origin http://10.0.0.1 would get the key in cleartext: use https",
		"ftp://api.example.com":         `senderclient: the origin's scheme "ftp" is neither https nor http`,
		"https://\u212Aube.example":     `senderclient: the origin's host "` + "\u212A" + `ube.example" is not ASCII: write it in Punycode`,
		"https://api.example.com/v1":    "senderclient: the origin has more than scheme, host and port",
		"https://me@api.example.com":    "senderclient: the origin has more than scheme, host and port",
		"https://api.example.com?":      "senderclient: the origin has more than scheme, host and port",
		"https://api.example.com#a":     "senderclient: the origin has more than scheme, host and port",
		"https:api.example.com":         "senderclient: the origin is not a URL such as https://api.example.com",
		"api.example.com":               "senderclient: the origin is not a URL such as https://api.example.com",
		"https://":                      "senderclient: the origin is not a URL such as https://api.example.com",
		"":                              "senderclient: the origin is not a URL such as https://api.example.com",
		apiKey:                          "senderclient: the origin is not a URL such as https://api.example.com",
		"https://api.example.com:x":     "senderclient: the origin is not a URL such as https://api.example.com",
	} {
		client, err := senderclient.New(origin, senderclient.Config{Credentials: static(t)})
		if want == "" {
			require.NoError(t, err, origin)
			require.NotNil(t, client)
			continue
		}
		require.EqualError(t, err, want, origin)
		require.Nil(t, client)
	}
}

func TestMistakesAreReportedTogether(t *testing.T) {
	t.Setenv("SENT_SENDER_ID", "")
	t.Setenv("SENT_API_KEY", apiKey+"\n")
	_, err := senderclient.New("http://api.example.com", senderclient.Config{MaxAttempts: -1, MaxWait: -time.Second})
	require.EqualError(t, err, `senderclient: the origin http://api.example.com would get the key in cleartext: use https
senderclient: SENT_SENDER_ID is empty
senderclient: SENT_API_KEY: character 37 is not visible ASCII
senderclient: Config.MaxAttempts: -1 is negative
senderclient: Config.MaxWait: -1s is negative`)

	_, err = senderclient.Static(strings.Repeat("a", 513), "")
	require.EqualError(t, err, "senderclient: Static: the sender's ID has 513 characters, more than 512\nsenderclient: Static: the key is empty")
}

func TestCredentialsComeFromTheEnvironment(t *testing.T) {
	t.Setenv("SENT_SENDER_ID", senderID)
	t.Setenv("SENT_API_KEY", apiKey)
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.serve("api.example.com:443", guarded(t, senderauth.PerMinute(9)))
		client, err := senderclient.New(origin, senderclient.Config{Base: n.transport})
		require.NoError(t, err)
		status, body := send(t, client, request(t, "GET", origin, ""))
		require.Equal(t, 200, status)
		require.Equal(t, "hello "+senderID, body)
	})
}

// The key of each attempt is the one that Credentials returns then.
func TestKeysRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a := newAPI(n, func(w http.ResponseWriter, _ *http.Request, n int) {
			if n == 0 {
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(429)
			}
		})
		calls := 0
		client := n.client(senderclient.Config{Credentials: func(context.Context) (string, string, error) {
			calls++
			return senderID, "key-" + strconv.Itoa(calls), nil
		}})
		for range 2 {
			status, _ := send(t, client, request(t, "GET", origin, ""))
			require.Equal(t, 200, status)
		}
		for i, r := range a.requests {
			require.Equal(t, []string{"key-" + strconv.Itoa(i+1)}, r.Header["X-Api-Key"])
		}
		require.Len(t, a.requests, 3)
	})
}

// Nothing is sent without credentials, and the body is closed.
func TestRequestWithoutCredentialsIsNotSent(t *testing.T) {
	away := errors.New("the vault is away")
	for _, c := range []struct {
		id, key string
		err     error
		want    string
	}{
		{"", "", away, "senderclient: Config.Credentials: the vault is away"},
		{"", apiKey, nil, "senderclient: Config.Credentials: the sender's ID is empty"},
		{senderID, apiKey + "\r\nx-admin: 1", nil, "senderclient: Config.Credentials: the key: character 37 is not visible ASCII"},
	} {
		bubble(t, c.want, func(t *testing.T) {
			n := newNetwork(t)
			a := newAPI(n, nil)
			client := n.client(senderclient.Config{
				Credentials: func(context.Context) (string, string, error) { return c.id, c.key, c.err },
				Pace:        byDefault,
			})
			body := &closer{Reader: strings.NewReader("text")}
			r, err := http.NewRequest("POST", origin, body)
			require.NoError(t, err)
			_, err = client.Do(r)
			require.EqualError(t, err, `Post "https://api.example.com": `+c.want)
			require.Equal(t, c.err != nil, errors.Is(err, away))
			require.Equal(t, 1, body.closed)
			require.Empty(t, a.requests)
		})
	}
}

// closer is a body that cannot be sent again.
type closer struct {
	*strings.Reader
	closed int
}

func (c *closer) Close() error {
	c.closed++
	return nil
}

func TestConfigShowsNoKey(t *testing.T) {
	transport, err := senderclient.NewTransport(origin, senderclient.Config{Credentials: static(t)})
	require.NoError(t, err)
	require.NotContains(t, fmt.Sprintf("%+v", senderclient.Config{Credentials: static(t)}), apiKey[:8])
	require.NotContains(t, fmt.Sprintf("%+v", transport), apiKey[:8])
}

func TestBaseMustAnswer(t *testing.T) {
	client, err := senderclient.New(origin, senderclient.Config{Credentials: static(t), Base: silent{}})
	require.NoError(t, err)
	_, err = client.Get(origin)
	require.EqualError(t, err, `Get "https://api.example.com": senderclient: Config.Base returned neither a response nor an error`)
}

type silent struct{}

func (silent) RoundTrip(*http.Request) (*http.Response, error) { return nil, nil }

// Whoever imports the package takes on no dependency.
func TestOnlyTheStandardLibraryIsImported(t *testing.T) {
	files, err := fs.Glob(os.DirFS("."), "*.go")
	require.NoError(t, err)
	imports := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, i := range f.Imports {
			imports++
			first, _, _ := strings.Cut(i.Path.Value, "/")
			require.NotContains(t, first, ".", file)
		}
	}
	require.NotZero(t, imports)
}
