package senderauth

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// peers decides what a guard believes about the connection of a request.
type peers struct {
	trusted   []netip.Prefix
	trustUnix bool
}

// believes reports whether the peer of r is a trusted proxy, and returns its
// address, which is not valid for a peer that has none.
func (p *peers) believes(r *http.Request) (addr netip.Addr, trusted bool) {
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		addr = plain(peer.Addr())
		return addr, p.contain(addr)
	}
	// An address without a port is what a layer outside took from a header: it is no
	// reason to believe anything.
	addr, _ = netip.ParseAddr(r.RemoteAddr)
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return plain(addr), p.trustUnix && local != nil && local.Network() == "unix"
}

// plain writes an IPv4 address as one, and leaves out the zone of an IPv6 address.
func plain(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

func (p *peers) contain(addr netip.Addr) bool {
	return slices.ContainsFunc(p.trusted, func(t netip.Prefix) bool { return t.Contains(addr) })
}

// checkTLS returns nil if r came over TLS: to this server, or to a trusted proxy
// whose every X-Forwarded-Proto says so. The error names the peer, because a
// layer outside may have rewritten it.
func (p *peers) checkTLS(r *http.Request) error {
	if r.TLS != nil {
		return nil
	}
	if _, trusted := p.believes(r); !trusted {
		return fmt.Errorf("senderauth: cleartext from %q, which is not one of Config.TrustedProxies", r.RemoteAddr)
	}
	lines := r.Header["X-Forwarded-Proto"]
	for _, line := range lines {
		for proto := range strings.SplitSeq(line, ",") {
			// Traefik says wss for a WebSocket upgrade over TLS.
			if proto = strings.Trim(proto, " \t"); !strings.EqualFold(proto, "https") && !strings.EqualFold(proto, "wss") {
				return fmt.Errorf("senderauth: cleartext to the proxy %q, by its X-Forwarded-Proto", r.RemoteAddr)
			}
		}
	}
	if len(lines) == 0 {
		return fmt.Errorf("senderauth: the proxy %q sent no X-Forwarded-Proto", r.RemoteAddr)
	}
	return nil
}

// address returns the address that the request came from, as far as it can be
// believed: the last address of X-Forwarded-For that is not a trusted proxy, if
// the peer is one. A client can put anything in front of what the first trusted
// proxy appended, so that the list is read from its end. The address is not valid if
// the peer has none.
func (p *peers) address(r *http.Request) netip.Addr {
	addr, trusted := p.believes(r)
	lines := r.Header["X-Forwarded-For"]
	for i := len(lines) - 1; i >= 0; i-- {
		// From the end without strings.Split: a client may send a megabyte of commas.
		for rest, more := lines[i], true; more; {
			if !trusted {
				return addr
			}
			comma := strings.LastIndexByte(rest, ',')
			hop, err := parseHop(strings.Trim(rest[comma+1:], " \t"))
			if err != nil {
				return addr // nothing before it can be believed
			}
			addr, trusted = hop, p.contain(hop)
			rest, more = rest[:max(comma, 0)], comma >= 0
		}
	}
	return addr
}

// parseHop reads an address of X-Forwarded-For, to which some proxies add the
// port.
func parseHop(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	if err != nil {
		var with netip.AddrPort
		if with, err = netip.ParseAddrPort(s); err != nil {
			return netip.Addr{}, err
		}
		addr = with.Addr()
	}
	return plain(addr), nil
}

// client returns what one client has: the address of the request, or the /64 of an
// IPv6 address.
func (p *peers) client(r *http.Request) netip.Addr {
	addr := p.address(r)
	if addr.Is6() {
		p, _ := addr.Prefix(64)
		return p.Addr()
	}
	return addr
}
