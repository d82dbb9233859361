package senderclient_test

import (
	"fmt"
	"maps"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/senderauth/senderauth/senderclient"
	"github.com/stretchr/testify/require"
)

// Neither the request nor its header changes, and no response leads to the key.
func TestCallersRequestStaysAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		newAPI(n, func(http.ResponseWriter, *http.Request, int) {})
		n.serve("evil.example:443", http.NotFoundHandler())
		for _, target := range []string{origin, "https://evil.example"} {
			r := request(t, "POST", target, "text", "Accept", "text/plain", "x-api-key", "own")
			r.Header["x-sender-id"] = []string{"own"} // a name that no request has on the wire
			before, header := *r, maps.Clone(r.Header)
			transport := n.client(senderclient.Config{}).Transport
			res, err := transport.RoundTrip(r)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			require.Same(t, r, res.Request)
			require.Equal(t, header, r.Header)
			require.Equal(t, fmt.Sprint(before.URL, before.Method, before.Host), fmt.Sprint(r.URL, r.Method, r.Host))
		}
	})
}

// The server gets each request's own fields, whatever was sent before and at once.
func TestRequestsKeepTheirOwnFields(t *testing.T) {
	headers := []http.Header{
		{},
		{"A": {"1"}},
		{"A": {"2"}},
		{"A": {"1", "2"}},
		{"B": {"1"}},
		{"A": {}},
		{"A": {"1"}, "B": {"1"}},
		{"A": {"1"}, "X-Api-Key": {"own"}},
		{"X-Api-Key": {apiKey}},
		{"A": {"1"}, "x-api-key": {"own"}, "X-SENDER-ID": {"own", "own"}},
		{"A": {"1"}, "B": {"2"}, "C": {"3"}, "D": {"4"}, "E": {"5"}, "F": {"6"}},
	}
	want := func(h http.Header) http.Header {
		fields := http.Header{"X-Api-Key": {apiKey}, "X-Sender-Id": {senderID}}
		for name, lines := range h {
			if len(name) == 1 && len(lines) > 0 {
				fields[name] = lines
			}
		}
		return fields
	}
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.serve("api.example.com:443", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for _, name := range []string{"User-Agent", "Accept-Encoding"} {
				r.Header.Del(name)
			}
			fmt.Fprint(w, r.Header)
		}))
		client := n.client(senderclient.Config{})
		var all sync.WaitGroup
		for offset := range 4 {
			all.Go(func() {
				for i := range 3 * len(headers) * len(headers) {
					h := headers[(i/(1+i%3)+offset)%len(headers)].Clone()
					r := request(t, "GET", origin, "")
					r.Header = h
					status, body := send(t, client, r)
					if status != 200 || body != fmt.Sprint(want(h)) {
						t.Errorf("%v was sent as %s", h, body)
					}
					for name := range h { // the caller may use its header again
						h[name] = append(h[name][:0], "later")
					}
				}
			})
		}
		all.Wait()
	})
}

// A Base that changes the header of its requests, as none should, does not reach another
// request.
func TestBaseMayChangeItsHeader(t *testing.T) {
	transport, err := senderclient.NewTransport(origin, senderclient.Config{Credentials: static(t), Base: scribbler{}})
	require.NoError(t, err)
	for range 3 {
		res, err := transport.RoundTrip(request(t, "GET", origin, ""))
		require.NoError(t, err)
		require.Equal(t, both, res.Status)
	}
}

type scribbler struct{}

func (scribbler) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := echo{}.RoundTrip(r)
	r.Header.Add("X-Api-Key", "mine, too")
	return res, err
}
