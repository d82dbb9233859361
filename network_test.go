package senderauth_test

import (
	"context"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

func within(networks ...string) senderauth.ValidatorFunc {
	return knowsWith(func(s *senderauth.Sender) {
		for _, n := range networks {
			s.Networks = append(s.Networks, netip.MustParsePrefix(n))
		}
	})
}

// forwarded adds a line of X-Forwarded-For.
func forwarded(r *http.Request, line string) *http.Request {
	r.Header.Add("X-Forwarded-For", line)
	return r
}

func TestKeyIsGoodInItsNetworksOnly(t *testing.T) {
	proxy := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, c := range []struct {
		name, peer, forwarded string
		networks              []string
		want                  int
	}{
		{"no networks", "192.0.2.1:1", "", nil, 200},
		{"inside", "192.0.2.1:1", "", []string{"192.0.2.0/24"}, 200},
		{"inside the second", "192.0.2.1:1", "", []string{"2001:db8::/32", "192.0.2.1/32"}, 200},
		{"outside", "192.0.3.1:1", "", []string{"192.0.2.0/24"}, 401},
		{"IPv4 in IPv6", "[::ffff:192.0.2.1]:1", "", []string{"192.0.2.0/24"}, 200},
		{"an IPv6 host, not its /64", "[2001:db8::2]:1", "", []string{"2001:db8::1/128"}, 401},
		{"an IPv6 host with a zone", "[fe80::1%eth0]:1", "", []string{"fe80::1/128"}, 200},
		{"a client that claims another address", "192.0.3.1:1", "192.0.2.1", []string{"192.0.2.0/24"}, 401},
		{"behind the proxy", "10.0.0.1:1", "192.0.2.1", []string{"192.0.2.0/24"}, 200},
		{"behind the proxy, with an address that the client put in front", "10.0.0.1:1", "192.0.2.1, 192.0.3.1", []string{"192.0.2.0/24"}, 401},
		{"the proxy itself", "10.0.0.1:1", "", []string{"10.0.0.0/8"}, 200},
		{"no address", "@", "", []string{"0.0.0.0/0", "::/0"}, 401},
	} {
		bubble(t, c.name, func(t *testing.T) {
			a := newApp(t, within(c.networks...), senderauth.Config{TrustedProxies: proxy})
			r := from(c.peer, of(1))
			if c.forwarded != "" {
				forwarded(r, c.forwarded)
			}
			if c.want == 200 {
				require.Equal(t, hello(1).with(threeLeft(2)...), serve(a, r))
				return
			}
			require.Equal(t, badKey, serve(a, r))
			require.EqualError(t, a.events[0].Err, "senderauth: the client's address is outside Sender.Networks")
			require.Equal(t, senderauth.WrongNetwork, a.events[0].Outcome)
			require.Equal(t, "key-1", a.events[0].Sender.KeyID)
		})
	}
}

func TestWrongNetwork(t *testing.T) {
	const inside, outside = "192.0.2.1:1", "192.0.3.1:1"
	bubble(t, "takes no token, although the key is remembered", func(t *testing.T) {
		cache := newCache(t, within("192.0.2.0/24"), senderauth.CacheConfig{})
		guard, err := senderauth.New(cache, senderauth.Config{Limits: limits(three)})
		require.NoError(t, err)
		h := guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
		for range 5 {
			require.Equal(t, badKey, serve(h, from(outside, of(1))))
		}
		require.Equal(t, "2", serve(h, from(inside, of(1))).Header["X-Ratelimit-Remaining"])
		require.Equal(t, badKey, serve(h, from(outside, of(1))))
	})
	bubble(t, "is a failed attempt of its address", func(t *testing.T) {
		a := newApp(t, within("192.0.2.0/24"), senderauth.Config{FailedAttempts: senderauth.Limit{Requests: 1, Per: time.Minute, Burst: 2}})
		for range 2 {
			require.Equal(t, badKey, serve(a, from(outside, of(1))))
		}
		require.Equal(t, limited("60"), serve(a, from(outside, of(1))))
		require.Equal(t, 200, serve(a, from(inside, of(1))).Status)
	})
	bubble(t, "is told before a scope, and tells nothing of the key", func(t *testing.T) {
		v := within("192.0.2.0/24")
		a := newApp(t, func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			s, err := v(ctx, c)
			s.Expires = time.Now().Add(time.Hour)
			return s, err
		}, senderauth.Config{ExpiryNotice: 24 * time.Hour})
		require.Equal(t, badKey, serve(a.guard.Requiring("a").Wrap(a.hello()), from(outside, of(1))))
	})
	bubble(t, "is decided by the guard outside", func(t *testing.T) {
		a := newApp(t, within("192.0.2.0/24"), senderauth.Config{})
		realIP := func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				r.RemoteAddr = "192.0.3.1"
				next.ServeHTTP(w, r)
			})
		}
		require.Equal(t, 200, serve(a.guard.Wrap(realIP(a.guard.Wrap(a.hello()))), from(inside, of(1))).Status)
	})
}

func TestNetworkThatContainsNobodyIsAFault(t *testing.T) {
	for prefix, text := range map[netip.Prefix]string{
		{}: "the prefix is not valid",
		netip.MustParsePrefix("::ffff:10.0.0.0/104"): "::ffff:10.0.0.0/104 cannot match any peer: write it as IPv4",
	} {
		a := newApp(t, knowsWith(func(s *senderauth.Sender) { s.Networks = []netip.Prefix{prefix} }), senderauth.Config{})
		require.Equal(t, internal, serve(a, of(1)))
		require.EqualError(t, a.events[0].Err, "senderauth: the validator returned an unusable sender: Sender.Networks[0]: "+text)
	}
}
