package senderauth_test

import (
	"math"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// proxies are addresses of TrustedProxies.
var proxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}

func TestNewReportsEveryMistakeInTheOrderOfTheFields(t *testing.T) {
	var nobody *senderauth.Cache
	guard, err := senderauth.New(nobody, senderauth.Config{
		Limits: map[string]senderauth.Limit{
			"a": {}, "b": {Requests: -1, Per: -1, Burst: -1}, "c\n": three, "": three,
			"d":               {Requests: math.MaxInt, Per: 60, Burst: math.MaxInt},
			"failed_attempts": three,
		},
		DryRun:          []string{"a", "none", "a"},
		Limiter:         (*senderauth.MemoryLimiter)(nil),
		FailedAttempts:  senderauth.Limit{Requests: 1, Per: -1},
		SenderHeader:    "x sender",
		KeyHeader:       "host",
		KeyScheme:       "Bearer ",
		TrustedProxies:  []netip.Prefix{{}, netip.MustParsePrefix("::ffff:10.0.0.0/104"), proxies[0]},
		TrustUnixSocket: true,
		Realm:           "r\n",
		RateFields:      9,
	})
	require.Nil(t, guard)
	require.EqualError(t, err, `senderauth: New: the Validator is nil
senderauth: Config.Limits: "default" is missing
senderauth: Config.Limits: the name "" is not printable ASCII
senderauth: Config.Limits["a"]: the zero Limit: say Unlimited() or Blocked(), or set Requests and Per
senderauth: Config.Limits["b"]: Requests is -1, not in 1..1000000000, Per is -1ns, below a microsecond, Burst is -1, not in 0..1000000000
senderauth: Config.Limits: the name "c\n" is not printable ASCII
senderauth: Config.Limits["d"]: Requests is 9223372036854775807, not in 1..1000000000, Per is 60ns, below a microsecond, Burst is 9223372036854775807, not in 0..1000000000
senderauth: Config.Limits: the name "failed_attempts" is that of Config.FailedAttempts in events
senderauth: Config.DryRun[1]: limit "none" is not in Config.Limits
senderauth: Config.Limiter holds a nil *senderauth.MemoryLimiter
senderauth: Config.FailedAttempts: Per is -1ns, below a microsecond
senderauth: Config.SenderHeader: "x sender" is not the name of a header field
senderauth: Config.KeyHeader: net/http takes Host out of the header
senderauth: Config.KeyScheme: "Bearer " is not the name of an authentication scheme
senderauth: Config.TrustedProxies[0]: the prefix is not valid
senderauth: Config.TrustedProxies[1]: ::ffff:10.0.0.0/104 cannot match any peer: write it as IPv4
senderauth: Config.Realm: "r\n" is not printable ASCII
senderauth: Config.RateFields: 9 is not one of the constants`)
}

func TestNewReportsAMistakenConfig(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  senderauth.Config
		want string // without "senderauth: Config."; none: the config is good
	}{
		{"nothing but limits", senderauth.Config{}, ""},
		{"proxies for the networks of senders", senderauth.Config{TrustedProxies: proxies}, ""},
		{"proxies for TLS", senderauth.Config{TrustedProxies: proxies, RequireTLS: true}, ""},
		{"proxies for attempts", senderauth.Config{TrustedProxies: proxies, FailedAttempts: three}, ""},
		{"a socket for the networks of senders", senderauth.Config{TrustUnixSocket: true}, ""},
		{"a socket for TLS", senderauth.Config{TrustUnixSocket: true, RequireTLS: true}, ""},
		{"a socket for attempts", senderauth.Config{TrustUnixSocket: true, FailedAttempts: three}, ""},
		{"a sender's header for nothing", senderauth.Config{SenderHeader: "Tenant", KeyOnly: true}, `SenderHeader: "Tenant" is not read with KeyOnly`},
		{"blocked attempts", senderauth.Config{FailedAttempts: senderauth.Blocked()}, "FailedAttempts: Unlimited(), Blocked() and a Calendar have no meaning here: leave it zero, or set Requests and Per"},
		{"unlimited attempts", senderauth.Config{FailedAttempts: senderauth.Unlimited()}, "FailedAttempts: Unlimited(), Blocked() and a Calendar have no meaning here: leave it zero, or set Requests and Per"},
		{"an allowance of attempts", senderauth.Config{FailedAttempts: senderauth.PerDay(5, nil)}, "FailedAttempts: Unlimited(), Blocked() and a Calendar have no meaning here: leave it zero, or set Requests and Per"},
		{"one header for both", senderauth.Config{KeyHeader: "X-Key", SenderHeader: "x-key"}, `KeyHeader and Config.SenderHeader are both "X-Key"`},
		{"the sender's header for the key alone", senderauth.Config{KeyHeader: "X-Sender-Id", KeyOnly: true}, ""},
		{"a key in Host", senderauth.Config{KeyHeader: "HOST"}, "KeyHeader: net/http takes Host out of the header"},
		{"a sender in Host", senderauth.Config{SenderHeader: "host"}, "SenderHeader: net/http takes Host out of the header"},
		{"a name that is no token", senderauth.Config{KeyHeader: "x-key:"}, `KeyHeader: "x-key:" is not the name of a header field`},
		{"a name that is not ASCII", senderauth.Config{KeyHeader: "x-k\u00e9y"}, "KeyHeader: \"x-k\u00e9y\" is not the name of a header field"},
		{"every character of a token", senderauth.Config{KeyHeader: "!#$%&'*+-.^_`|~09azAZ", KeyScheme: "!#$%&'*+-.^_`|~09azAZ"}, ""},
		{"a realm with a tab", senderauth.Config{Realm: "a\tb"}, `Realm: "a\tb" is not printable ASCII`},
		{"a realm with a DEL", senderauth.Config{Realm: "a\x7f"}, `Realm: "a\x7f" is not printable ASCII`},
		{"a realm of all printable ASCII", senderauth.Config{Realm: " ~"}, ""},
		{"the last choice of fields", senderauth.Config{RateFields: senderauth.RateFieldsNone}, ""},
		{"notice after the end", senderauth.Config{ExpiryNotice: -1}, "ExpiryNotice: -1ns is negative"},
		{"no choice of fields", senderauth.Config{RateFields: senderauth.RateFieldsNone + 1}, "RateFields: 4 is not one of the constants"},
		{"an IPv6 proxy", senderauth.Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("fd00::/8")}, RequireTLS: true}, ""},
		{"a limiter of nobody's", senderauth.Config{Limiter: new(senderauth.MemoryLimiter)}, "Limiter is a MemoryLimiter that NewMemoryLimiter did not make"},
		{"a function that is a nil limiter", senderauth.Config{Limiter: takes(nil)}, "Limiter holds a nil senderauth_test.takes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.Limits = limits(three)
			guard, err := senderauth.New(senderauth.ValidatorFunc(knowsAll), c.cfg)
			if c.want == "" {
				require.NoError(t, err)
				require.NotNil(t, guard)
				return
			}
			require.EqualError(t, err, "senderauth: Config."+c.want)
			require.Nil(t, guard)
		})
	}
}

func TestNewNeedsAValidator(t *testing.T) {
	const none = "senderauth: New: the Validator is nil"
	for _, c := range []struct {
		v    senderauth.Validator
		want string
	}{
		{nil, none},
		{senderauth.ValidatorFunc(nil), none},
		{(*backend)(nil), none},
		{new(senderauth.Cache), "senderauth: New: the Validator is a Cache that NewCache did not make"},
	} {
		guard, err := senderauth.New(c.v, senderauth.Config{Limits: limits(three)})
		require.EqualError(t, err, c.want)
		require.Nil(t, guard)
	}
	_, err := senderauth.New(struct{ senderauth.Validator }{senderauth.ValidatorFunc(knowsAll)}, senderauth.Config{Limits: limits(three)})
	require.NoError(t, err)
}

// A map or a slice that the caller changes afterwards changes nothing.
func TestConfigIsReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := senderauth.Config{
			Limits: limits(three), RequireTLS: true,
			TrustedProxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")},
		}
		a := newApp(t, nil, cfg)
		cfg.Limits["default"] = senderauth.Blocked()
		cfg.TrustedProxies[0] = netip.Prefix{}
		r := of(1)
		r.Header.Set("X-Forwarded-Proto", "https")
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(a, r))
	})
}
