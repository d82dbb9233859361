package senderclient

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// An origin is a scheme, a host in lower case, and a port.
type origin struct{ scheme, host, port string }

func parseOrigin(s string) (origin, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Opaque != "" || u.Hostname() == "":
		return origin{}, errors.New("senderclient: the origin is not a URL such as https://api.example.com")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Path != "" && u.Path != "/":
		return origin{}, errors.New("senderclient: the origin has more than scheme, host and port")
	}
	o := origin{u.Scheme, lower(u.Hostname()), portOf(u)}
	switch {
	case o.scheme != "https" && o.scheme != "http":
		return origin{}, fmt.Errorf("senderclient: the origin's scheme %q is neither https nor http", o.scheme)
	case !isASCII(o.host):
		return origin{}, fmt.Errorf("senderclient: the origin's host %q is not ASCII: write it in Punycode", o.host)
	case o.scheme == "http" && !isLoopback(o.host):
		return origin{}, fmt.Errorf("senderclient: the origin http://%s would get the key in cleartext: use https", u.Host)
	}
	return o, nil
}

// is reports whether u leads to the origin.
func (o origin) is(u *url.URL) bool {
	return u != nil && u.Scheme == o.scheme && u.Opaque == "" && lower(u.Hostname()) == o.host && portOf(u) == o.port
}

// leftBefore reports whether the redirects that led to r, if any, have left the origin.
// [http.Client] sets Response to the redirect.
func (o origin) leftBefore(r *http.Request) bool {
	for r.Response != nil {
		if r = r.Response.Request; r == nil || !o.is(r.URL) {
			return true
		}
	}
	return false
}

func portOf(u *url.URL) string {
	switch port := u.Port(); {
	case port != "":
		return port
	case u.Scheme == "https":
		return "443"
	default:
		return "80"
	}
}

// lower changes ASCII only. Unicode has letters that fold into ASCII ones, such as the
// Kelvin sign.
func lower(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			return strings.Map(func(r rune) rune {
				if 'A' <= r && r <= 'Z' {
					r += 'a' - 'A'
				}
				return r
			}, s)
		}
	}
	return s
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] > '~' {
			return false
		}
	}
	return true
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}
