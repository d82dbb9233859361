package sqlkeys_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestParseLimitReadsWhatFormatLimitWrites(t *testing.T) {
	for text, want := range map[string]senderauth.Limit{
		"200/1m:50": {Requests: 200, Per: time.Minute, Burst: 50},
		"5/d":       {Requests: 5, Per: 24 * time.Hour},
		"5/h":       senderauth.Limit{Requests: 5, Per: time.Hour},
		"10/s":      senderauth.PerSecond(10),
		"60/1m0s":   senderauth.PerMinute(60),
		"1/1m30s":   {Requests: 1, Per: 90 * time.Second},
		"unlimited": senderauth.Unlimited(),
		"blocked":   senderauth.Blocked(),

		"1000000000/s:1000000000": {Requests: 1_000_000_000, Per: time.Second, Burst: 1_000_000_000},
	} {
		got, err := sqlkeys.ParseLimit(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
		again, err := sqlkeys.ParseLimit(sqlkeys.FormatLimit(got))
		require.NoError(t, err)
		require.Equal(t, want, again, text)
	}
	for _, text := range []string{"", "5", "/1m", "5/", "5/1m:", "5/1m:0", "5/1m:-1", "0/1m", "-1/1m", "5/0s", "5/-1m", "5/fortnight", "5/1m:5:5", " 5/1m", "Unlimited"} {
		_, err := sqlkeys.ParseLimit(text)
		require.ErrorIs(t, err, sqlkeys.ErrInvalid, text)
		require.ErrorContains(t, err, text)
	}
}

// Each lookup of a sender with a plan parses its limits.
func TestParseLimitAllocatesLittle(t *testing.T) {
	require.LessOrEqual(t, testing.AllocsPerRun(10, func() {
		_, err := sqlkeys.ParseLimit("200/1m:50")
		require.NoError(t, err)
	}), 20.0)
}

// Earlier versions stored larger limits than senderauth accepts today. Their
// senders go on working, and can be given other limits.
func TestStoredLimitsAboveTheMaximumAreReadAsTheMaximum(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		k := s.issue(t, sqlkeys.NewKey{})
		_, err := s.db.Exec(`UPDATE sqlkeys_senders SET limits = '{"a":"5000000000/1m0s:2000000000","b":"5000000000/1s","c":"5/1s:2000000000","d":"unlimited","e":"blocked"}'`)
		require.NoError(t, err)
		const most = 1_000_000_000
		want := map[string]senderauth.Limit{
			"a": {Requests: most, Per: time.Minute, Burst: most},
			"b": {Requests: most, Per: time.Second},
			"c": {Requests: 5, Per: time.Second, Burst: most},
			"d": senderauth.Unlimited(),
			"e": senderauth.Blocked(),
		}
		got, err := s.Validate(t.Context(), k.Credentials)
		require.NoError(t, err)
		require.Equal(t, want, got.Limits)
		stored, err := s.Sender(t.Context(), k.Key.SenderID)
		require.NoError(t, err)
		require.Equal(t, want, stored.Limits)
		require.NoError(t, s.SetLimits(t.Context(), k.Key.SenderID, want))
	})
}

func TestParseLimitErrorsUseTheWordsOfTheText(t *testing.T) {
	_, err := sqlkeys.ParseLimit("0/0s:-1")
	require.EqualError(t, err, `sqlkeys: limit "0/0s:-1": invalid: REQUESTS is 0, not in 1..1000000000, PER is 0s, below a microsecond, BURST is -1, not in 1..1000000000`)
}
