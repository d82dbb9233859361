package sqlkeys_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestSenderCanBeChangedAndListed(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		const id = "7a1de7b4-3a0e-4d6e-9c2b-000000000001"
		n := sqlkeys.NewSender{
			ID:       strings.ToUpper(id),
			Limits:   map[string]senderauth.Limit{"default": {Requests: 1, Per: 90 * time.Second, Burst: 7}},
			Metadata: map[string]string{"company": "Ünal & Söhne"},
		}
		made, err := s.CreateSender(t.Context(), n)
		require.NoError(t, err)
		require.Equal(t, sqlkeys.Sender{ID: id, Limits: n.Limits, Metadata: n.Metadata, CreatedAt: made.CreatedAt}, made)
		_, err = s.CreateSender(t.Context(), n)
		require.ErrorIs(t, err, sqlkeys.ErrDuplicate)
		require.EqualError(t, err, "sqlkeys: sender "+id+": exists already")

		got, err := s.Sender(t.Context(), strings.ToUpper(id))
		require.NoError(t, err)
		require.Equal(t, made, got)

		require.NoError(t, s.DisableSender(t.Context(), strings.ToUpper(id)))
		got, err = s.Sender(t.Context(), id)
		require.NoError(t, err)
		require.False(t, got.DisabledAt.IsZero())
		require.NoError(t, s.EnableSender(t.Context(), strings.ToUpper(id)))
		limits := map[string]senderauth.Limit{"messages": senderauth.Blocked()}
		require.NoError(t, s.SetLimits(t.Context(), strings.ToUpper(id), limits))
		var audited []string
		for e, err := range s.Audit(t.Context(), sqlkeys.AuditFilter{SenderID: id}) {
			require.NoError(t, err)
			audited = append(audited, e.Action)
		}
		require.ElementsMatch(t, []string{"sender.create", "sender.disable", "sender.enable", "sender.limits"}, audited)
		made.Limits = limits
		nextMillisecond()
		random, err := s.CreateSender(t.Context(), sqlkeys.NewSender{})
		require.NoError(t, err)

		var all []sqlkeys.Sender
		for x, err := range s.Senders(t.Context(), sqlkeys.SenderFilter{}) {
			require.NoError(t, err)
			all = append(all, x)
		}
		require.Equal(t, []sqlkeys.Sender{made, random}, all)
	})
}

func TestInvalidSenderIsRefused(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		_, err := s.CreateSender(t.Context(), sqlkeys.NewSender{ID: "{7a1de7b4-3a0e-4d6e-9c2b-000000000001}"})
		require.ErrorIs(t, err, sqlkeys.ErrInvalid)
		_, err = s.CreateSender(t.Context(), sqlkeys.NewSender{ID: "x", Limits: map[string]senderauth.Limit{"a": {}, "": senderauth.PerSecond(1)}})
		require.ErrorIs(t, err, sqlkeys.ErrInvalid)
		for _, part := range []string{`"x"`, `limit "a"`, "without a name"} {
			require.ErrorContains(t, err, part)
		}
		_, err = s.CreateSender(t.Context(), sqlkeys.NewSender{Metadata: map[string]string{"a": "\xff"}})
		require.EqualError(t, err, `sqlkeys: invalid: metadata "a" is not UTF-8 text`)
		_, err = s.CreateSender(t.Context(), sqlkeys.NewSender{Limits: map[string]senderauth.Limit{"\xff": senderauth.PerSecond(1)}})
		require.EqualError(t, err, `sqlkeys: invalid: limit "\xff": the name is not UTF-8 text`)
		const nobody = "7a1de7b4-3a0e-4d6e-9c2b-000000000001"
		require.ErrorIs(t, s.DisableSender(t.Context(), nobody), sqlkeys.ErrNotFound)
		require.ErrorIs(t, s.EnableSender(t.Context(), nobody), sqlkeys.ErrNotFound)
		require.ErrorIs(t, s.SetLimits(t.Context(), nobody, nil), sqlkeys.ErrNotFound)
		_, err = s.Sender(t.Context(), nobody)
		require.EqualError(t, err, "sqlkeys: sender "+nobody+": not found")
		for _, err := range s.Senders(t.Context(), sqlkeys.SenderFilter{}) {
			require.NoError(t, err)
			t.Fatal("a sender was created")
		}
	})
}

// Somebody may have edited the row by hand.
func TestSenderWithUnreadableLimitsCanBeDisabledAndRepaired(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		k := s.issue(t, sqlkeys.NewKey{})
		_, err := s.db.Exec(`UPDATE sqlkeys_senders SET limits = '{"default":"many"}'`)
		require.NoError(t, err)
		require.NoError(t, s.DisableSender(t.Context(), k.Key.SenderID))
		_, err = s.Validate(t.Context(), k.Credentials)
		require.ErrorIs(t, err, senderauth.ErrInvalidSender)
		require.NoError(t, s.EnableSender(t.Context(), k.Key.SenderID))
		require.NoError(t, s.SetLimits(t.Context(), k.Key.SenderID, nil))
		_, err = s.Validate(t.Context(), k.Credentials)
		require.NoError(t, err)
	})
}

func TestListGoesOnAfterARowThatCannotBeRead(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		for range 3 {
			s.sender(t)
			nextMillisecond()
		}
		_, err := s.db.Exec(`UPDATE sqlkeys_senders SET limits = '{"a":"many","b":"5/1s"}', metadata = '{"c":null,"d":[],"e":"f"}'`)
		require.NoError(t, err)
		n := 0
		for x, err := range s.Senders(t.Context(), sqlkeys.SenderFilter{}) {
			n++
			require.ErrorIs(t, err, sqlkeys.ErrUnreadable)
			require.ErrorContains(t, err, `limits: unreadable: "a" is "many", not a limit`)
			require.ErrorContains(t, err, `metadata: unreadable: "d" is not a string`)
			require.Equal(t, map[string]senderauth.Limit{"b": senderauth.PerSecond(5)}, x.Limits)
			require.Equal(t, map[string]string{"c": "", "e": "f"}, x.Metadata)
		}
		require.Equal(t, 3, n)
	})
}

// Somebody may have written infinity to PostgreSQL by hand.
func TestInfiniteInstantNeverComes(t *testing.T) {
	s := open(t, pgtest.URL(t), sqlkeys.Config{})
	k := s.issue(t, sqlkeys.NewKey{})
	_, err := s.db.Exec(`UPDATE sqlkeys_keys SET expires_at = 'infinity', not_before = '-infinity'`)
	require.NoError(t, err)
	_, err = s.Validate(t.Context(), k.Credentials)
	require.NoError(t, err)
	got, err := s.Key(t.Context(), k.Key.ID)
	require.NoError(t, err)
	require.Equal(t, k.Key, got)
}
