package senderclient_test

import (
	"context"
	"math/rand/v2"
	"net/http"
	"runtime"
	"testing"

	"github.com/senderauth/senderauth/senderclient"
	"github.com/stretchr/testify/require"
)

// canned is a server that costs nothing. An http.Transport can have it as a protocol.
type canned struct{ response http.Response }

func (c *canned) RoundTrip(*http.Request) (*http.Response, error) { return &c.response, nil }

// transports returns an http.Transport without a network, and a Transport on top.
func transports(t testing.TB, pace func(*http.Request) []string) (bare, ours http.RoundTripper) {
	t.Helper()
	base := &http.Transport{}
	base.RegisterProtocol("http", &canned{http.Response{StatusCode: 200, Body: http.NoBody, Header: http.Header{
		"Ratelimit": {`"default";r=49;t=1`}, "Ratelimit-Policy": {`"default";q=50;w=15`},
	}}})
	ours, err := senderclient.NewTransport("http://127.0.0.1:8080", senderclient.Config{Credentials: static(t), Base: base, Pace: pace})
	require.NoError(t, err)
	return base, ours
}

var benchmarks = []struct {
	name   string
	header http.Header
	pace   func(*http.Request) []string
	allocs uint64 // more than the http.Transport's
}{
	{"without fields", http.Header{}, nil, 1},
	{"with fields", http.Header{"Accept": {"application/json"}, "Content-Type": {"application/json"}, "User-Agent": {"acme/1.0"}}, nil, 1},
}

// The difference between bare and senderclient is what the Transport costs a request
// that is not retried.
func BenchmarkRoundTrip(b *testing.B) {
	run := func(b *testing.B, rt http.RoundTripper, header http.Header, number bool) {
		r, err := http.NewRequestWithContext(b.Context(), "GET", "http://127.0.0.1:8080/v1/contacts", nil)
		require.NoError(b, err)
		r.Header = header.Clone()
		lines, n := []string{""}, byte(0)
		b.ReportAllocs()
		for b.Loop() {
			if number {
				n++
				lines[0] = letters[n:][:8]
				r.Header["Idempotency-Key"] = lines
			}
			if _, err := rt.RoundTrip(r); err != nil {
				b.Fatal(err)
			}
		}
	}
	for _, c := range benchmarks {
		bare, ours := transports(b, nil)
		_, paced := transports(b, byDefault)
		b.Run(c.name+"/bare", func(b *testing.B) { run(b, bare, c.header, false) })
		b.Run(c.name+"/senderclient", func(b *testing.B) { run(b, ours, c.header, false) })
		b.Run(c.name+" and one that changes/senderclient", func(b *testing.B) { run(b, ours, c.header, true) })
		b.Run(c.name+"/paced", func(b *testing.B) { run(b, paced, c.header, false) })
	}
}

// letters are so many that no eight in a row come twice.
var letters = func() string {
	b := make([]byte, 256+8)
	for i := range b {
		b[i] = 'a' + byte(rand.IntN(26))
	}
	return string(b)
}()

// One allocation is the copy of the request, whose caller's must not change.
func TestAllocationsOfARequest(t *testing.T) {
	const runs = 1000
	count := func(rt http.RoundTripper, r *http.Request) uint64 {
		var before, after runtime.MemStats
		for range 2 { // first without counting
			runtime.ReadMemStats(&before)
			for range runs {
				if _, err := rt.RoundTrip(r); err != nil {
					t.Fatal(err)
				}
			}
			runtime.ReadMemStats(&after)
		}
		return (after.Mallocs - before.Mallocs) / runs
	}
	for _, c := range benchmarks {
		bare, ours := transports(t, nil)
		r, err := http.NewRequestWithContext(context.Background(), "GET", "http://127.0.0.1:8080/v1/contacts", nil)
		require.NoError(t, err)
		r.Header = c.header
		require.Equal(t, c.allocs, count(ours, r)-count(bare, r), c.name)
	}
}
