package examples_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-retryablehttp"
	"github.com/senderauth/senderauth/contrib/internal/testservers"
	"github.com/senderauth/senderauth/senderclient"
	"github.com/stretchr/testify/require"
)

// A result is what a client saw.
type result struct {
	Contacts     int     `json:"contacts"` // status
	Unauthorized refused `json:"unauthorized"`
	Message      int     `json:"message"` // status in the end
	Retries      int     `json:"retries"`
}

type refused struct {
	Status  int            `json:"status"`
	Problem map[string]any `json:"problem"`
}

// Each client gets its answer, can read a refusal, and sends again what the limit refused,
// when the server says so: as often as it was refused, and not sooner, or it would be
// refused once more.
func TestClientsGetTheirAnswers(t *testing.T) {
	dir := npm(t)
	for name, client := range map[string]func(t *testing.T, url string) result{
		"senderclient":       withSenderclient,
		"go-retryablehttp":   withRetryablehttp,
		"curl over HTTP/1.1": curl("1.1", "--http1.1"),
		"curl over HTTP/2": func(t *testing.T, url string) result {
			return curl("2", "--http2", "--insecure")(t, withTLS(t, url))
		},
		"fetch": node(dir, "fetch.mjs"),
		"axios": node(dir, "axios.mjs"),
		"got":   node(dir, "got.mjs"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, "quickstart", append(pair[:2:2], "SENDERAUTH_DB="+filepath.Join(t.TempDir(), "keys.db")))
			got := client(t, "http://"+p.addr)
			p.stop(t)
			limited := p.lines(`"outcome":"limited"`)
			require.Equal(t, result{
				Contacts: 200,
				Unauthorized: refused{401, map[string]any{
					"status": 401.0, "title": "Unauthorized", "detail": "Header x-api-key not found", "type": "about:blank",
				}},
				Message: 202,
				Retries: limited,
			}, got)
			require.Equal(t, 1, limited)
		})
	}
}

// npm installs the packages of the clients for Node, and returns their directory.
func npm(t *testing.T) string {
	t.Helper()
	for _, program := range []string{"curl", "node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			testservers.Missing(t, program+" is not installed")
		}
	}
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS("clients")))
	install := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	install.Dir = dir
	output, err := install.CombinedOutput()
	require.NoError(t, err, string(output))
	return dir
}

func node(dir, script string) func(*testing.T, string) result {
	return func(t *testing.T, url string) (got result) {
		cmd := exec.CommandContext(t.Context(), "node", filepath.Join(dir, script), url)
		cmd.Env = append(os.Environ(), pair...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		output, err := cmd.Output()
		require.NoError(t, err, stderr.String())
		require.NoError(t, json.Unmarshal(output, &got), string(output))
		return got
	}
}

const message = `{"to":"+15550100","text":"Hello"}`

// curl keeps to Retry-After with --retry. It warns of each retry.
func curl(version string, flags ...string) func(*testing.T, string) result {
	return func(t *testing.T, url string) (got result) {
		run := func(args ...string) (int, string) {
			t.Helper()
			cmd := exec.CommandContext(t.Context(), "curl", append(append(slices.Clone(flags), "--no-progress-meter", "--write-out", "\n%{http_version} %{http_code}"), args...)...)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			output, err := cmd.Output()
			require.NoError(t, err, stderr.String())
			got.Retries += strings.Count(stderr.String(), "Will retry in 1 second")
			at := bytes.LastIndexByte(output, '\n')
			used, status, _ := strings.Cut(string(output[at+1:]), " ")
			require.Equal(t, version, used)
			code, err := strconv.Atoi(status)
			require.NoError(t, err)
			return code, string(output[:at])
		}
		key := []string{"-H", "x-sender-id: " + sender, "-H", "x-api-key: " + key}
		got.Contacts, _ = run(append(key, url+"/v1/contacts")...)
		status, body := run(url + "/v1/contacts")
		got.Unauthorized.Status = status
		require.NoError(t, json.Unmarshal([]byte(body), &got.Unauthorized.Problem), body)
		post := append(key, "--retry", "4", "-H", "content-type: application/json", "-d", message)
		for got.Message = 202; got.Message == 202 && got.Retries == 0; {
			got.Message, _ = run(append(post, url+"/v1/messages")...)
		}
		return got
	}
}

// withTLS ends TLS in front of a server, as a proxy would, and leaves HTTP/2 to it.
func withTLS(t *testing.T, url string) string {
	t.Helper()
	certified := httptest.NewTLSServer(nil) // for its certificate
	certified.Close()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: certified.TLS.Certificates, NextProtos: []string{"h2"}})
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			front, err := listener.Accept()
			if err != nil {
				return
			}
			back, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				front.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{front, back}, {back, front}} {
				go func() {
					io.Copy(way[0], way[1])
					way[0].Close()
				}()
			}
		}
	}()
	return "https://" + listener.Addr().String()
}

// withGo does with a client for Go what run.mjs does.
func withGo(t *testing.T, url string, do func(method, url, body string) *http.Response, retries func() int) (got result) {
	got.Contacts = do("GET", url+"/v1/contacts", "").StatusCode
	res, err := http.Get(url + "/v1/contacts")
	require.NoError(t, err)
	defer res.Body.Close()
	got.Unauthorized.Status = res.StatusCode
	require.NoError(t, json.NewDecoder(res.Body).Decode(&got.Unauthorized.Problem))
	for got.Message = 202; got.Message == 202 && retries() == 0; {
		got.Message = do("POST", url+"/v1/messages", message).StatusCode
	}
	got.Retries = retries()
	return got
}

// read reads and closes the body of a response.
func read(t *testing.T, res *http.Response, err error) *http.Response {
	t.Helper()
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	return res
}

func withRetryablehttp(t *testing.T, url string) result {
	retries := 0
	client := retryablehttp.NewClient()
	client.Logger = nil
	client.RequestLogHook = func(_ retryablehttp.Logger, _ *http.Request, attempt int) {
		if attempt > 0 {
			retries++
		}
	}
	return withGo(t, url, func(method, url, body string) *http.Response {
		r, err := retryablehttp.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		require.NoError(t, err)
		r.Header.Set("x-sender-id", sender)
		r.Header.Set("x-api-key", key)
		res, err := client.Do(r)
		return read(t, res, err)
	}, func() int { return retries })
}

func withSenderclient(t *testing.T, url string) result {
	credentials, err := senderclient.Static(sender, key)
	require.NoError(t, err)
	count := &counter{}
	client, err := senderclient.New(url, senderclient.Config{Credentials: credentials, Base: count})
	require.NoError(t, err)
	calls := 0
	return withGo(t, url, func(method, url, body string) *http.Response {
		calls++
		r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		require.NoError(t, err)
		res, err := client.Do(r)
		return read(t, res, err)
	}, func() int { return count.requests() - calls })
}

// A counter counts the requests that go out.
type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.n++
	c.mu.Unlock()
	return http.DefaultTransport.RoundTrip(r)
}

func (c *counter) requests() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}
