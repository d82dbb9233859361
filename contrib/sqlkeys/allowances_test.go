package sqlkeys_test

import (
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestParseLimitReadsAllowances(t *testing.T) {
	for text, want := range map[string]struct{ unit, zone, again string }{
		"10000/month":                  {"month", "UTC", "10000/month"},
		"10000/day@UTC":                {"day", "UTC", "10000/day"},
		"10000/month@Europe/Berlin":    {"month", "Europe/Berlin", "10000/month@Europe/Berlin"},
		"10000/day@America/St_Johns":   {"day", "America/St_Johns", "10000/day@America/St_Johns"},
		"10000/month@America/New_York": {"month", "America/New_York", "10000/month@America/New_York"},
	} {
		l, err := sqlkeys.ParseLimit(text)
		require.NoError(t, err)
		require.Equal(t, 10000, l.Requests)
		require.Equal(t, want.unit, l.Calendar.Unit())
		require.Equal(t, want.zone, l.Calendar.Location().String())
		require.Equal(t, want.again, sqlkeys.FormatLimit(l))
		again, err := sqlkeys.ParseLimit(want.again)
		require.NoError(t, err)
		require.True(t, l == again, "a zone is loaded once")
	}
	for text, message := range map[string]string{
		"5/month@Mars/Olympus": `unknown time zone "Mars/Olympus": is it in the IANA database, and does this machine have that?`,
		"5/day@":               `unknown time zone "": name one of the IANA database, such as Europe/Berlin`,
		"5/day@Local":          `unknown time zone "Local": name one of the IANA database, such as Europe/Berlin`,
		"5/day@../etc/passwd":  `unknown time zone "../etc/passwd": is it in the IANA database, and does this machine have that?`,
		"0/month":              "REQUESTS is 0, not in 1..1000000000",
		"1000000001/day@UTC":   "REQUESTS is 1000000001, not in 1..1000000000",
	} {
		_, err := sqlkeys.ParseLimit(text)
		require.ErrorIs(t, err, sqlkeys.ErrInvalid)
		require.EqualError(t, err, `sqlkeys: limit "`+text+`": invalid: `+message)
	}
	for _, text := range []string{"5/month:5", "5/months", "x/month", "5/week"} {
		_, err := sqlkeys.ParseLimit(text)
		require.ErrorContains(t, err, "want REQUESTS/PER[:BURST]")
	}
}

// A sender's allowance reaches the guard, and a zone that this machine does not know refuses
// the sender, naming the zone, instead of another allowance.
func TestAllowanceOfASender(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		k := s.issue(t, sqlkeys.NewKey{})
		berlin, err := time.LoadLocation("Europe/Berlin")
		require.NoError(t, err)
		require.NoError(t, s.SetLimits(t.Context(), k.Key.SenderID, map[string]senderauth.Limit{"messages": senderauth.PerMonth(10_000, berlin)}))
		sender, err := s.Validate(t.Context(), k.Credentials)
		require.NoError(t, err)
		require.Equal(t, "10000/month@Europe/Berlin", sqlkeys.FormatLimit(sender.Limits["messages"]))

		err = s.SetLimits(t.Context(), k.Key.SenderID, map[string]senderauth.Limit{"messages": senderauth.PerDay(1, time.FixedZone("Nowhere", 60))})
		require.ErrorIs(t, err, sqlkeys.ErrInvalid)
		require.ErrorContains(t, err, `unknown time zone "Nowhere"`)

		_, err = s.db.Exec(`UPDATE sqlkeys_senders SET limits = '{"messages":"5/day@Mars/Olympus"}'`)
		require.NoError(t, err)
		_, err = s.Validate(t.Context(), k.Credentials)
		require.ErrorIs(t, err, sqlkeys.ErrUnreadable)
		require.ErrorContains(t, err, `"messages" is "5/day@Mars/Olympus": unknown time zone "Mars/Olympus"`)
		require.NotErrorIs(t, err, senderauth.ErrInvalidKey)
	})
}
