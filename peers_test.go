package senderauth_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"testing"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

func TestRequireTLS(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fe80::/10")}
	for _, c := range []struct {
		name, peer string
		lines      []string
		tls        bool
		admitted   bool
	}{
		{name: "TLS", peer: "192.0.2.1:1", tls: true, admitted: true},
		{name: "TLS, and a proxy that says http", peer: "10.0.0.1:1", tls: true, lines: []string{"X-Forwarded-Proto", "http"}, admitted: true},
		{name: "trusted https", peer: "10.0.0.1:1", lines: []string{"X-Forwarded-Proto", "https"}, admitted: true},
		{name: "trusted HTTPS, HTTPS", peer: "10.0.0.1:1", lines: []string{"X-Forwarded-Proto", "HTTPS,\thttps "}, admitted: true},
		{name: "trusted wss, of a WebSocket upgrade", peer: "10.0.0.1:1", lines: []string{"X-Forwarded-Proto", "wss"}, admitted: true},
		{name: "trusted WSS, https", peer: "10.0.0.1:1", lines: []string{"X-Forwarded-Proto", "WSS, https"}, admitted: true},
		{name: "trusted wss, ws", peer: "10.0.0.1:1", lines: []string{"X-Forwarded-Proto", "wss, ws"}},
		{name: "trusted, mapped to IPv6", peer: "[::ffff:10.0.0.1]:1", lines: []string{"X-Forwarded-Proto", "https"}, admitted: true},
		{name: "trusted, with a zone", peer: "[fe80::1%eth0]:1", lines: []string{"X-Forwarded-Proto", "https"}, admitted: true},
		{name: "trusted, nothing said", peer: "10.0.0.1:1"},
		{name: "trusted, empty", peer: "10.0.0.1:1", lines: []string{"X-Forwarded-Proto", ""}},
		{name: "trusted http", peer: "10.0.0.1:1", lines: []string{"X-Forwarded-Proto", "http"}},
		{name: "trusted https, http", peer: "10.0.0.1:1", lines: []string{"X-Forwarded-Proto", "https, http"}},
		{name: "trusted https and http in two lines", peer: "10.0.0.1:1", lines: []string{"X-Forwarded-Proto", "https", "X-Forwarded-Proto", "http"}},
		{name: "not trusted", peer: "192.0.2.1:1", lines: []string{"X-Forwarded-Proto", "https"}},
		{name: "no address", peer: "@", lines: []string{"X-Forwarded-Proto", "https"}},
		{name: "no port: a header said so", peer: "10.0.0.1", lines: []string{"X-Forwarded-Proto", "https"}},
	} {
		bubble(t, c.name, func(t *testing.T) {
			a := newApp(t, nil, senderauth.Config{RequireTLS: true, TrustedProxies: trusted})
			r := request(append(c.lines, "x-sender-id", senderID(1), "x-api-key", apiKey(1))...)
			r.RemoteAddr = c.peer
			if c.tls {
				r.TLS = &tls.ConnectionState{}
			}
			want := hello(1).with(threeLeft(2)...)
			if !c.admitted {
				want = refused(403, "HTTPS is required")
			}
			require.Equal(t, want, serve(a, r))
			require.Equal(t, c.admitted, len(a.asked) == 1)
			if !c.admitted {
				require.ErrorContains(t, a.events[0].Err, strconv.Quote(c.peer), "a layer outside may have rewritten it")
			}
		})
	}
}

// A local proxy that connects over a Unix socket has no address to trust.
func TestRequireTLSBehindAUnixSocket(t *testing.T) {
	for _, trust := range []bool{true, false} {
		bubble(t, strconv.FormatBool(trust), func(t *testing.T) {
			a := newApp(t, nil, senderauth.Config{RequireTLS: true, TrustUnixSocket: trust})
			r := of(1)
			r.RemoteAddr = "@"
			r.Header.Set("X-Forwarded-Proto", "https")
			over := func(local net.Addr) *http.Request {
				return r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, local))
			}
			want := hello(1).with(threeLeft(2)...)
			if !trust {
				want = refused(403, "HTTPS is required")
			}
			require.Equal(t, want, serve(a, over(&net.UnixAddr{Name: "/run/api.sock", Net: "unix"})))
			require.Equal(t, 403, serve(a, over(&net.TCPAddr{})).Status)
			require.Equal(t, 403, serve(a, r).Status)
			r.RemoteAddr = "192.0.2.1" // a layer outside took it from a header
			if trust {
				require.Equal(t, 200, serve(a, over(&net.UnixAddr{Net: "unix"})).Status)
			}
			require.Equal(t, 403, serve(a, over(&net.TCPAddr{})).Status)
		})
	}
}
