package senderauth_test

import (
	"math"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

func TestNewReportsEveryMistake(t *testing.T) {
	var nobody *senderauth.Cache
	_, err := senderauth.New(nobody, senderauth.Config{
		Limits: map[string]senderauth.Limit{
			"a": {}, "b": {Requests: -1, Per: -1, Burst: -1}, "c\n": three, "": three,
			"d": {Requests: math.MaxInt, Per: 60, Burst: math.MaxInt},
		},
		Limiter:        (*senderauth.MemoryLimiter)(nil),
		SenderHeader:   "x sender",
		KeyHeader:      "host",
		Realm:          "r\n",
		RateFields:     9,
		KeyScheme:      "Bearer ",
		DryRun:         []string{"a", "none"},
		FailedAttempts: senderauth.Limit{Requests: 1, Per: -1},
		TrustedProxies: []netip.Prefix{{}, netip.MustParsePrefix("::ffff:10.0.0.0/104")},
	})
	for _, part := range []string{
		"senderauth: New: the Validator is nil",
		`senderauth: Config.Limits: "default" is missing`,
		`senderauth: Config.Limits["a"]: the zero Limit`,
		`senderauth: Config.Limits["b"]: Requests is -1, not in 1..1000000000, Per is -1ns, below a microsecond, Burst is -1, not in 0..1000000000`,
		`senderauth: Config.Limits["d"]: Requests is 9223372036854775807, not in 1..1000000000, Per is 60ns, below a microsecond, Burst is 9223372036854775807, not in 0..1000000000`,
		`senderauth: Config.Limits: the name "c\n" is not printable ASCII`,
		`senderauth: Config.Limits: the name "" is not printable ASCII`,
		"senderauth: Config.Limiter holds a nil *senderauth.MemoryLimiter",
		`senderauth: Config.SenderHeader: "x sender" is not the name of a header field`,
		"senderauth: Config.KeyHeader: net/http takes Host out of the header",
		`senderauth: Config.Realm: "r\n" is not printable ASCII`,
		"senderauth: Config.RateFields: 9 is not one of the constants",
		`senderauth: Config.KeyScheme: "Bearer " is not the name of an authentication scheme`,
		`senderauth: Config.DryRun[1]: limit "none" is not in Config.Limits`,
		"senderauth: Config.FailedAttempts: Per is -1ns, below a microsecond",
		"senderauth: Config.TrustedProxies[0]: the prefix is not valid",
		"senderauth: Config.TrustedProxies[1]: ::ffff:10.0.0.0/104 cannot match any peer: write it as IPv4",
	} {
		require.ErrorContains(t, err, part)
	}
	for _, line := range strings.Split(err.Error(), "\n") {
		require.True(t, strings.HasPrefix(line, "senderauth: "), line)
	}

	// Fields that have no effect without another.
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for text, cfg := range map[string]senderauth.Config{
		"Config.TrustedProxies is set, and neither RequireTLS nor FailedAttempts uses it":                               {TrustedProxies: proxies},
		"Config.TrustUnixSocket is set, and neither RequireTLS nor FailedAttempts uses it":                              {TrustUnixSocket: true},
		`Config.SenderHeader: "Tenant" is not read with KeyOnly`:                                                        {SenderHeader: "Tenant", KeyOnly: true},
		"Config.FailedAttempts: Unlimited() and Blocked() have no meaning here: leave it zero, or set Requests and Per": {FailedAttempts: senderauth.Blocked()},
	} {
		cfg.Limits = limits(three)
		_, err := senderauth.New(senderauth.ValidatorFunc(knowsAll), cfg)
		require.EqualError(t, err, "senderauth: "+text)
	}
	for _, cfg := range []senderauth.Config{
		{TrustedProxies: proxies, RequireTLS: true}, {TrustedProxies: proxies, FailedAttempts: three}, {TrustUnixSocket: true, FailedAttempts: three},
	} {
		cfg.Limits = limits(three)
		_, err := senderauth.New(senderauth.ValidatorFunc(knowsAll), cfg)
		require.NoError(t, err)
	}
	_, err = senderauth.New(senderauth.ValidatorFunc(knowsAll), senderauth.Config{Limits: map[string]senderauth.Limit{"default": three, "failed_attempts": three}})
	require.EqualError(t, err, `senderauth: Config.Limits: the name "failed_attempts" is that of Config.FailedAttempts in events`)

	_, err = senderauth.New(nil, senderauth.Config{Limits: limits(three)})
	require.EqualError(t, err, "senderauth: New: the Validator is nil")
	_, err = senderauth.New(senderauth.ValidatorFunc(nil), senderauth.Config{Limits: limits(three)})
	require.EqualError(t, err, "senderauth: New: the Validator is nil")
	_, err = senderauth.New(senderauth.ValidatorFunc(knowsAll), senderauth.Config{Limits: limits(three), KeyHeader: "X-Key", SenderHeader: "x-key"})
	require.EqualError(t, err, `senderauth: Config.KeyHeader and Config.SenderHeader are both "X-Key"`)
	_, err = senderauth.New(senderauth.ValidatorFunc(knowsAll), senderauth.Config{Limits: limits(three), KeyHeader: "X-Sender-Id", KeyOnly: true})
	require.NoError(t, err)
	_, err = senderauth.New(new(senderauth.Cache), senderauth.Config{Limits: limits(three), Limiter: new(senderauth.MemoryLimiter)})
	require.EqualError(t, err, "senderauth: New: the Validator is a Cache that NewCache did not make\n"+
		"senderauth: Config.Limiter is a MemoryLimiter that NewMemoryLimiter did not make")
	_, err = senderauth.New(struct{ senderauth.Validator }{senderauth.ValidatorFunc(knowsAll)}, senderauth.Config{Limits: limits(three)})
	require.NoError(t, err)
}

// Config is read once: a map or a slice that the caller changes afterwards
// changes nothing.
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
