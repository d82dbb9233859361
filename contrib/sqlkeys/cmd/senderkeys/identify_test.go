package main

import (
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

func TestIdentifyReadsTheSecretFromStandardInput(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		p := s.pair()
		s.ok("key", "revoke", p.KeyID, "-yes")
		for _, in := range []string{p.APIKey, "  " + p.APIKey + "\r\n"} {
			r := s.with(in, "key", "identify")
			require.Equal(t, result{0, r.out, ""}, r)
			require.Regexp(t, "^key          "+p.KeyID+"\nsender       "+p.SenderID+"\nstate        revoked\n", r.out)
			require.NotContains(t, r.out, p.APIKey[:8])
		}
		r := s.with(p.APIKey, "key", "identify", "-json")
		require.Equal(t, result{0, s.ok("key", "show", p.KeyID, "-json"), ""}, r)

		unknown := uuid.NewString()
		require.Equal(t, result{3, "", "senderkeys: a key with that secret and one of the peppers: not found\n"}, s.with(unknown, "key", "identify"))
		for _, in := range []string{"", "\n", p.APIKey + "\n" + unknown} {
			require.Equal(t, result{2, "", "senderkeys: standard input: invalid: want one secret on one line\n"}, s.with(in, "key", "identify"))
		}
		require.Equal(t, result{2, "", "senderkeys: senderkeys key identify takes no arguments: give the secret on standard input\n"},
			s.with("", "key", "identify", p.APIKey))
		_, err := (&app{in: iotest.ErrReader(errors.New("away"))}).readSecret()
		require.EqualError(t, err, "read the secret: away")
	})
}

func TestKeyThatNoServiceAcceptsIsNotIssued(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		const pepper, other = "MDEyMzQ1Njc4OWFiY2RlZg==", "ZmVkY2JhOTg3NjU0MzIxMA=="
		s.env["SENDERAUTH_PEPPERS"] = pepper
		sender := strings.TrimSpace(s.ok("sender", "create"))
		issue := func(args ...string) result {
			return s.with("", append([]string{"key", "issue", "-sender", sender}, args...)...)
		}
		require.Zero(t, issue("-format", "prefixed", "-prefix", "acme").code)
		key := s.issue(sender)

		refused := result{2, "", "senderkeys: -prefix \"sender\": invalid: no key that works starts with it: a service would refuse the new key; if you mean it, add -force\n"}
		require.Equal(t, refused, issue("-format", "prefixed"))
		require.Equal(t, refused, s.with("", "key", "rotate", key, "-format", "prefixed"))
		require.Zero(t, issue("-format", "uuid").code)
		for _, peppers := range []string{"", other} {
			s.env["SENDERAUTH_PEPPERS"] = peppers
			refused := result{2, "", "senderkeys: SENDERAUTH_PEPPERS: invalid: no key that works was made with one of them: a service would refuse the new key; if you mean it, add -force\n"}
			require.Equal(t, refused, issue())
			require.Equal(t, refused, s.with("", "key", "rotate", key))
		}
		require.Equal(t, []string{"active", "active", "active"}, s.states(), "nothing was changed")
		s.env["SENDERAUTH_PEPPERS"] = other + "," + pepper
		require.Zero(t, issue().code)
		s.env["SENDERAUTH_PEPPERS"] = ""
		require.Zero(t, issue("-force").code)
	})
}
