package senderauth

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A client writes what it likes into X-Forwarded-For: only what trusted proxies
// have appended is believed.
func TestClientIsTheLastAddressThatNoTrustedProxyHas(t *testing.T) {
	p := &peers{trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}
	for _, c := range []struct {
		peer, forwarded, want string
	}{
		{"192.0.2.1:9", "", "192.0.2.1"},
		{"192.0.2.1:9", "198.51.100.7", "192.0.2.1"},
		{"10.0.0.1:9", "", "10.0.0.1"},
		{"10.0.0.1:9", "198.51.100.7", "198.51.100.7"},
		{"10.0.0.1:9", "203.0.113.1, 198.51.100.7", "198.51.100.7"},
		{"10.0.0.1:9", "203.0.113.1,198.51.100.7 ,\t10.0.0.2", "198.51.100.7"},
		{"10.0.0.1:9", "10.0.0.3, 10.0.0.2", "10.0.0.3"},
		{"10.0.0.1:9", "198.51.100.7:1234", "198.51.100.7"},
		{"10.0.0.1:9", "[2001:db8:1:2:3::4]:1234", "2001:db8:1:2::"},
		{"10.0.0.1:9", "::ffff:198.51.100.7", "198.51.100.7"},
		{"10.0.0.1:9", "203.0.113.1, unknown", "10.0.0.1"},
		{"10.0.0.1:9", "203.0.113.1, unknown, 10.0.0.2", "10.0.0.2"},
		{"10.0.0.1:9", "203.0.113.1,", "10.0.0.1"},
		{"[fd00::1]:9", "2001:db8:1:2:3::4", "2001:db8:1:2::"},
		{"[2001:db8:1:2:aaaa::1]:9", "", "2001:db8:1:2::"},
		{"[fe80::1%eth0]:9", "", "fe80::"},
		{"@", "198.51.100.7", "invalid IP"},
		{"192.0.2.1", "198.51.100.7", "192.0.2.1"}, // without a port, from a header
		{"10.0.0.1", "198.51.100.7", "10.0.0.1"},   // and therefore no proxy
		{"2001:db8:1:2:3::4%eth0", "", "2001:db8:1:2::"},
		{"::ffff:192.0.2.1", "", "192.0.2.1"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.peer
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		require.Equal(t, c.want, p.client(r).String(), "%+v", c)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "10.0.0.1:9"
	r.Header = http.Header{"X-Forwarded-For": {"203.0.113.1", "198.51.100.7", "10.0.0.2"}}
	require.Equal(t, "198.51.100.7", p.client(r).String(), "several lines are one list")

	r.Header = http.Header{"X-Forwarded-For": {"203.0.113.1", ",10.0.0.2"}}
	require.Equal(t, "10.0.0.2", p.client(r).String(), "nothing before what is no address is believed")

	r.Header = http.Header{"X-Forwarded-For": {strings.Repeat(",", 900_000) + "198.51.100.7"}}
	require.Zero(t, testing.AllocsPerRun(10, func() { p.client(r) }), "whatever a client puts in front")
}
