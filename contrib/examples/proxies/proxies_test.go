package proxies_test

import (
	"io"
	"net/http"
	"net/netip"
	"regexp"
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
	key    = "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01"
)

// guarded returns a server that demands TLS and believes the proxy.
func guarded(t *testing.T) http.Handler {
	t.Helper()
	keys, err := senderauth.Static(senderauth.Credentials{SenderID: sender, APIKey: key})
	require.NoError(t, err)
	guard, err := senderauth.New(keys, senderauth.Config{
		Limits:         map[string]senderauth.Limit{"default": {Requests: 1, Per: time.Hour, Burst: 2}},
		RequireTLS:     true,
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
	})
	require.NoError(t, err)
	return guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, _ := senderauth.SenderFrom(r.Context())
		body, _ := io.ReadAll(r.Body)
		io.WriteString(w, r.Method+" "+r.RequestURI+" of "+s.ID+": "+string(body))
	}))
}

// hour matches the seconds of an hour, less those that a slow machine takes.
var hour = regexp.MustCompile(`\b3(5\d\d|600)\b`)

// fields are those of a refusal that a proxy must not lose.
func fields(t *testing.T, res *http.Response) map[string]string {
	t.Helper()
	got := map[string]string{}
	for _, name := range []string{"Content-Type", "Cache-Control", "X-Content-Type-Options", "Www-Authenticate", "Retry-After", "Ratelimit", "Ratelimit-Policy"} {
		if values := res.Header.Values(name); len(values) > 0 {
			require.Len(t, values, 1)
			got[name] = hour.ReplaceAllString(values[0], "3600")
		}
	}
	return got
}

func TestGuardBehindAProxy(t *testing.T) {
	for _, c := range []struct{ program, config string }{
		{"nginx", "nginx.conf"}, {"haproxy", "haproxy.cfg"}, {"apache2", "apache.conf"},
	} {
		t.Run(c.program, func(t *testing.T) {
			p := proxytest.Start(t, c.program, c.config, map[string]string{"127.0.0.1:8081": proxytest.Serve(t, guarded(t))})
			good := []string{"x-sender-id", sender, "x-api-key", key}
			problem := func(detail string) string {
				return `{"status":` + detail + `,"type":"about:blank"}`
			}
			refusal := map[string]string{"Content-Type": "application/problem+json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
			with := func(lines ...string) map[string]string {
				all := map[string]string{}
				for name, value := range refusal {
					all[name] = value
				}
				for i := 0; i < len(lines); i += 2 {
					all[lines[i]] = lines[i+1]
				}
				return all
			}
			const forbidden = `403,"title":"Forbidden","detail":"HTTPS is required"`
			for _, r := range []struct {
				name   string
				url    string
				lines  []string
				status int
				body   string
				fields map[string]string
			}{
				{"both headers pass", p.HTTPS, good, 200, "POST /v1/a%20b?c=d of " + sender + ": text", nil},
				{"no key", p.HTTPS, nil, 401, problem(`401,"title":"Unauthorized","detail":"Header x-api-key not found"`), with("Www-Authenticate", `ApiKey realm="api"`)},
				{"two keys", p.HTTPS, append(good[:4:4], "x-api-key", key), 401, problem(`401,"title":"Unauthorized","detail":"Invalid API credentials!"`), with("Www-Authenticate", `ApiKey realm="api"`)},
				{"cleartext", p.HTTP, good, 403, problem(forbidden), with()},
				{"cleartext that claims to be none", p.HTTP, append(good[:4:4], "X-Forwarded-Proto", "https"), 403, problem(forbidden), with()},
				{"cleartext that claims it twice", p.HTTP, append(good[:4:4], "X-Forwarded-Proto", "https", "X-Forwarded-Proto", "https", "x_forwarded_proto", "https"), 403, problem(forbidden), with()},
				{"TLS that claims to be none", p.HTTPS, append(good[:4:4], "X-Forwarded-Proto", "http"), 200, "POST /v1/a%20b?c=d of " + sender + ": text", nil},
				{"over the limit", p.HTTPS, good, 429, problem(`429,"title":"Too Many Requests","detail":"Rate limit exceeded. Please retry after 3600 seconds."`),
					with("Retry-After", "3600", "Ratelimit", `"default";r=0;t=3600`, "Ratelimit-Policy", `"default";q=2;w=7200`)},
			} {
				t.Run(r.name, func(t *testing.T) {
					res, body := p.Do(t, proxytest.Request(t, "POST", r.url+"/v1/a%20b?c=d", "text", r.lines...))
					require.Equal(t, r.status, res.StatusCode)
					require.Equal(t, r.body, hour.ReplaceAllString(body, "3600"))
					if r.fields != nil {
						require.Equal(t, r.fields, fields(t, res))
					}
				})
			}
		})
	}
}
