package senderclient_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/senderauth/senderauth/senderclient"
	"github.com/stretchr/testify/require"
)

// sent is what a server gets of the two headers.
func sent(r *http.Request) string {
	return strings.Join(r.Header["X-Sender-Id"], "+") + " " + strings.Join(r.Header["X-Api-Key"], "+")
}

const (
	both    = senderID + " " + apiKey
	neither = " "
)

// A caller's own headers go nowhere: at the origin they are replaced, elsewhere removed.
func TestKeyGoesToItsOriginOnly(t *testing.T) {
	for target, want := range map[string]string{
		"https://api.example.com/v1?a=b":             both,
		"https://api.example.com:443":                both,
		"https://API.Example.COM":                    both,
		"https://api.example.com:8443":               neither,
		"http://api.example.com":                     neither,
		"http://api.example.com:443":                 neither,
		"https://api.example.com.":                   neither,
		"https://example.com":                        neither,
		"https://eu.api.example.com":                 neither,
		"https://api.example.com@evil.example":       neither,
		"https://evil.example/https/api.example.com": neither,
	} {
		for _, own := range [][]string{nil, {"x-api-key", "own", "x-sender-id", "own", "x-api-key", "own"}} {
			bubble(t, target, func(t *testing.T) {
				n, got := newNetwork(t), ""
				for _, addr := range []string{"api.example.com:443", "api.example.com:8443", "api.example.com:80", "api.example.com.:443", "example.com:443", "eu.api.example.com:443", "evil.example:443"} {
					n.serve(addr, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = sent(r) }))
				}
				n.servers["API.Example.COM:443"] = n.servers["api.example.com:443"]
				status, _ := send(t, n.client(senderclient.Config{}), request(t, "GET", target, "", own...))
				require.Equal(t, 200, status)
				require.Equal(t, want, got)
			})
		}
	}
}

// Letters that fold into those of the origin are another host.
func TestHostIsComparedAsASCII(t *testing.T) {
	transport, err := senderclient.NewTransport("https://kube.example", senderclient.Config{Credentials: static(t), Base: echo{}})
	require.NoError(t, err)
	for host, want := range map[string]string{"kube.example": both, "KUBE.example": both, "\u212Aube.example": neither} {
		res, err := transport.RoundTrip(&http.Request{URL: &url.URL{Scheme: "https", Host: host}})
		require.NoError(t, err)
		require.Equal(t, want, res.Status, host)
	}
	res, err := transport.RoundTrip(&http.Request{URL: &url.URL{Scheme: "https", Host: "kube.example", Opaque: "//evil.example/"}})
	require.NoError(t, err)
	require.Equal(t, neither, res.Status)
	res, err = transport.RoundTrip(&http.Request{})
	require.NoError(t, err)
	require.Equal(t, neither, res.Status)
}

// echo answers with the two headers as its status.
type echo struct{}

func (echo) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Status: sent(r), Body: http.NoBody}, nil
}

// Whoever redirects from elsewhere chooses the request: it gets no key, even at the
// origin.
func TestNoKeyAfterARedirectElsewhere(t *testing.T) {
	for _, c := range []struct {
		name string
		hops []string
		want []string
	}{
		{"within the origin", []string{"/a", "https://API.example.com:443/b", "/c"}, []string{both, both, both}},
		{"elsewhere", []string{"/a", "https://evil.example/b"}, []string{both, neither}},
		{"to cleartext", []string{"/a", "http://api.example.com/b"}, []string{both, neither}},
		{"to another port", []string{"/a", "https://api.example.com:8443/b"}, []string{both, neither}},
		{"and back", []string{"/a", "https://evil.example/b", origin + "/c", "/d"}, []string{both, neither, neither, neither}},
	} {
		for _, status := range []int{302, 307} {
			bubble(t, c.name, func(t *testing.T) {
				n := newNetwork(t)
				var got []string
				h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					got = append(got, sent(r))
					if len(got) < len(c.hops) {
						w.Header().Set("Location", c.hops[len(got)])
						w.WriteHeader(status)
					}
				})
				for _, addr := range []string{"api.example.com:443", "API.example.com:443", "api.example.com:8443", "api.example.com:80", "evil.example:443"} {
					n.serve(addr, h)
				}
				final, _ := send(t, n.client(senderclient.Config{}), request(t, "POST", origin+c.hops[0], "text", "x-api-key", "own"))
				require.Equal(t, 200, final)
				require.Equal(t, c.want, got)
			})
		}
	}
}

func TestRedirectLoopBetweenOriginsEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		keys := 0
		there := func(to string) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if sent(r) != neither {
					keys++
				}
				http.Redirect(w, r, to, http.StatusTemporaryRedirect)
			})
		}
		n.serve("api.example.com:443", there("https://evil.example"))
		n.serve("evil.example:443", there(origin))
		_, err := n.client(senderclient.Config{}).Get(origin)
		require.EqualError(t, err, `Get "https://api.example.com": stopped after 10 redirects`)
		require.Equal(t, 1, keys)
	})
}
