package sqlkeys_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestUsageByHourAddsUpTheKeysOfASender(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		a := s.issue(t, sqlkeys.NewKey{}).Key
		b := s.issue(t, sqlkeys.NewKey{SenderID: a.SenderID}).Key
		other := s.issue(t, sqlkeys.NewKey{}).Key
		r := recorder(t, s, sqlkeys.RecorderConfig{})
		observe := func(n int, k sqlkeys.Key, o senderauth.Outcome) {
			for range n {
				r.Observe(t.Context(), senderauth.Event{Outcome: o, Sender: senderauth.Sender{KeyID: k.ID}})
			}
			require.NoError(t, r.Flush(t.Context()))
		}
		hour := time.Now().UTC().Truncate(time.Hour)
		observe(5, a, senderauth.Admitted)
		back := `UPDATE sqlkeys_usage SET hour = hour - interval '1 hour'`
		if s.sqlite() {
			back = `UPDATE sqlkeys_usage SET hour = hour - 3600000`
		}
		_, err := s.db.Exec(back)
		require.NoError(t, err)
		observe(2, a, senderauth.Admitted)
		observe(3, b, senderauth.Admitted)
		observe(1, b, senderauth.Limited)
		observe(7, other, senderauth.Admitted)

		byHour := func(f sqlkeys.UsageFilter) (all []sqlkeys.Usage) {
			for u, err := range s.UsageByHour(t.Context(), f) {
				require.NoError(t, err)
				all = append(all, u)
			}
			return all
		}
		want := []sqlkeys.Usage{
			{Hour: hour.Add(-time.Hour), Outcome: senderauth.Admitted, Requests: 5},
			{Hour: hour, Outcome: senderauth.Admitted, Requests: 5},
			{Hour: hour, Outcome: senderauth.Limited, Requests: 1},
		}
		require.Equal(t, want, byHour(sqlkeys.UsageFilter{SenderID: a.SenderID}))
		require.Equal(t, want[1:], byHour(sqlkeys.UsageFilter{SenderID: a.SenderID, Since: hour}))
		require.Equal(t, want[:1], byHour(sqlkeys.UsageFilter{SenderID: a.SenderID, Until: hour}))
		require.Equal(t, []sqlkeys.Usage{{Hour: hour, Outcome: senderauth.Admitted, Requests: 7}}, byHour(sqlkeys.UsageFilter{KeyID: other.ID}))
		require.EqualValues(t, 12, byHour(sqlkeys.UsageFilter{})[1].Requests)
		for _, f := range []sqlkeys.UsageFilter{{SenderID: "me"}, {KeyID: "me"}} {
			for _, err := range s.UsageByHour(t.Context(), f) {
				require.ErrorIs(t, err, sqlkeys.ErrInvalid)
			}
		}
	})
}
