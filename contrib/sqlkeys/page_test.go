package sqlkeys_test

import (
	"context"
	"encoding/base64"
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// everything returns what a list yields, and fails at its first error.
func everything[T any](t *testing.T, all iter.Seq2[T, error]) (items []T) {
	for v, err := range all {
		require.NoError(t, err)
		items = append(items, v)
	}
	return items
}

// pages reads a list in pages of n, both ways, and returns the items of the way forward.
func pages[T any](t *testing.T, n int, read func(sqlkeys.Paging) (sqlkeys.Page[T], error)) (items []T) {
	var back []T
	for _, reverse := range []bool{false, true} {
		p := sqlkeys.Paging{Limit: n, Reverse: reverse}
		for {
			page, err := read(p)
			require.NoError(t, err)
			if reverse {
				back = append(back, page.Items...)
			} else {
				items = append(items, page.Items...)
			}
			if page.Next == "" {
				require.LessOrEqual(t, len(page.Items), n)
				break
			}
			require.Len(t, page.Items, n)
			p.After = page.Next
		}
	}
	slices.Reverse(back)
	require.Equal(t, items, back)
	return items
}

// someKeys stores keys of three senders, at least one in each state, with usage.
func someKeys(t *testing.T, s fixture) (senders []string) {
	future := time.Now().Add(24 * time.Hour)
	var keys []string
	for range 3 {
		sender := s.sender(t)
		senders = append(senders, sender)
		for _, n := range []sqlkeys.NewKey{{Name: "a"}, {Name: "b"}, {Name: "pending", NotBefore: future}, {Name: "expired", ExpiresAt: future},
			{Name: "disabled"}, {Name: "revoked"}, {Name: "rotated", ExpiresAt: future}, {Name: "retiring", ExpiresAt: future}} {
			n.SenderID = sender
			k := s.issue(t, n).Key.ID
			keys = append(keys, k)
			var err error
			switch n.Name {
			case "expired":
				s.byHand(t, k, "expires_at", -1)
			case "disabled":
				err = s.Disable(t.Context(), k)
			case "revoked":
				err = s.Revoke(t.Context(), k)
			case "rotated":
				_, err = s.Rotate(t.Context(), k, sqlkeys.Rotation{})
			case "retiring":
				_, err = s.Rotate(t.Context(), k, sqlkeys.Rotation{Grace: time.Hour})
			}
			require.NoError(t, err)
		}
	}
	require.NoError(t, s.DisableSender(t.Context(), senders[1]))
	r := recorder(t, s, sqlkeys.RecorderConfig{})
	for _, k := range keys {
		for _, outcome := range []senderauth.Outcome{senderauth.Admitted, senderauth.Limited} {
			r.Observe(t.Context(), senderauth.Event{Outcome: outcome, Sender: senderauth.Sender{KeyID: k}})
		}
	}
	require.NoError(t, r.Close(t.Context()))
	return senders
}

func TestPagesAddUpToTheList(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		senders := someKeys(t, s)
		in := 12 * time.Hour
		for _, f := range []sqlkeys.KeyFilter{{}, {SenderID: senders[1]}, {State: sqlkeys.Active}, {State: sqlkeys.Pending}, {State: sqlkeys.Retiring},
			{State: sqlkeys.Rotated}, {State: sqlkeys.Disabled}, {State: sqlkeys.Expired}, {State: sqlkeys.Revoked}, {EndsBefore: time.Now().Add(in)},
			{SenderID: senders[0], State: sqlkeys.Expired}, {SenderID: senders[0], State: sqlkeys.Active}, {State: sqlkeys.Retiring, EndsBefore: time.Now().Add(in)}} {
			all := everything(t, s.Keys(t.Context(), f))
			require.NotEmpty(t, all)
			for _, k := range all {
				require.True(t, f.State == "" || k.State == f.State)
				require.True(t, f.SenderID == "" || k.SenderID == f.SenderID)
			}
			require.Equal(t, all, pages(t, 2, func(p sqlkeys.Paging) (sqlkeys.Page[sqlkeys.Key], error) { return s.KeysPage(t.Context(), f, p) }))
		}
		require.Len(t, everything(t, s.Keys(t.Context(), sqlkeys.KeyFilter{})), 30)
		require.Len(t, everything(t, s.Keys(t.Context(), sqlkeys.KeyFilter{State: sqlkeys.Expired})), 3)
		for f, n := range map[sqlkeys.State]int{"": 3, sqlkeys.Active: 2, sqlkeys.Disabled: 1} {
			f := sqlkeys.SenderFilter{State: f}
			all := everything(t, s.Senders(t.Context(), f))
			require.Len(t, all, n)
			require.Equal(t, all, pages(t, 1, func(p sqlkeys.Paging) (sqlkeys.Page[sqlkeys.Sender], error) {
				return s.SendersPage(t.Context(), f, p)
			}))
		}
		key := everything(t, s.Keys(t.Context(), sqlkeys.KeyFilter{State: sqlkeys.Disabled}))[0]
		for _, f := range []sqlkeys.AuditFilter{{}, {SenderID: key.SenderID}, {KeyID: key.ID}, {After: 3}} {
			all := everything(t, s.Audit(t.Context(), f))
			require.NotEmpty(t, all)
			require.Equal(t, all, pages(t, 1, func(p sqlkeys.Paging) (sqlkeys.Page[sqlkeys.AuditEntry], error) {
				return s.AuditPage(t.Context(), f, p)
			}))
		}
		for _, f := range []sqlkeys.UsageFilter{{}, {SenderID: key.SenderID}, {KeyID: key.ID}, {Since: time.Now().Add(-time.Hour), Until: time.Now().Add(time.Hour)}} {
			all := everything(t, s.Usage(t.Context(), f))
			require.NotEmpty(t, all)
			require.Equal(t, all, pages(t, 1, func(p sqlkeys.Paging) (sqlkeys.Page[sqlkeys.Usage], error) {
				return s.UsagePage(t.Context(), f, p)
			}))
		}
	})
}

// With one connection a loop that held it could not make a change.
func TestListHoldsNoConnection(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		sender := s.sender(t)
		_, err := s.IssueAll(t.Context(), slices.Repeat([]sqlkeys.NewKey{{SenderID: sender}}, 1001))
		require.NoError(t, err)
		s.db.SetMaxOpenConns(1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		n := 0
		for k, err := range s.Keys(ctx, sqlkeys.KeyFilter{}) {
			require.NoError(t, err)
			if n++; n%500 == 1 {
				require.NoError(t, s.Disable(ctx, k.ID))
			}
		}
		require.Equal(t, 1001, n)
		require.Len(t, everything(t, s.Keys(ctx, sqlkeys.KeyFilter{State: sqlkeys.Disabled})), 3)
	})
}

// PostgreSQL keeps microseconds, and its now() has them.
func TestPagesOfKeysMadeByHand(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		sender := s.sender(t)
		for range 5 {
			s.byHand(t, s.issue(t, sqlkeys.NewKey{SenderID: sender}).Key.ID, "created_at", 0)
		}
		all := pages(t, 1, func(p sqlkeys.Paging) (sqlkeys.Page[sqlkeys.Key], error) {
			return s.KeysPage(t.Context(), sqlkeys.KeyFilter{}, p)
		})
		require.Len(t, all, 5)
	})
}

func TestInvalidPaging(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		for range 2 {
			s.issue(t, sqlkeys.NewKey{})
		}
		senders, err := s.SendersPage(t.Context(), sqlkeys.SenderFilter{}, sqlkeys.Paging{Limit: 1})
		require.NoError(t, err)
		b64 := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
		const notNext = "sqlkeys: Paging.After: invalid: not a Next of this list"
		for _, wrong := range []struct {
			p   sqlkeys.Paging
			err string
		}{
			{sqlkeys.Paging{Limit: -1}, "sqlkeys: Paging.Limit: invalid: -1, not in 0..1000"},
			{sqlkeys.Paging{Limit: 1001}, "sqlkeys: Paging.Limit: invalid: 1001, not in 0..1000"},
			{sqlkeys.Paging{After: "?"}, notNext},
			{sqlkeys.Paging{After: b64("null")}, notNext},
			{sqlkeys.Paging{After: senders.Next}, notNext},
			{sqlkeys.Paging{After: b64(`["keys by sender","x","1","key_a"]`)}, notNext},
			{sqlkeys.Paging{After: b64(`["keys by sender","7a1de7b4-3a0e-4d6e-9c2b-000000000001","9223372036854775807","key_a"]`)}, notNext},
			{sqlkeys.Paging{After: b64(`["keys by sender","7a1de7b4-3a0e-4d6e-9c2b-000000000001","1","key_\u0000"]`)}, notNext},
		} {
			_, err := s.KeysPage(t.Context(), sqlkeys.KeyFilter{}, wrong.p)
			require.ErrorIs(t, err, sqlkeys.ErrInvalid)
			require.EqualError(t, err, wrong.err)
		}
		_, err = s.KeysPage(t.Context(), sqlkeys.KeyFilter{State: "dead"}, sqlkeys.Paging{})
		require.EqualError(t, err, `sqlkeys: KeyFilter.State: invalid: there is no state "dead"`)
		_, err = s.SendersPage(t.Context(), sqlkeys.SenderFilter{State: sqlkeys.Revoked}, sqlkeys.Paging{})
		require.EqualError(t, err, `sqlkeys: SenderFilter.State: invalid: "revoked" is neither active nor disabled`)
	})
}

func TestPageHasRowsThatCannotBeReadInFull(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		one, two := s.issue(t, sqlkeys.NewKey{}), s.issue(t, sqlkeys.NewKey{})
		_, err := s.db.Exec(`UPDATE sqlkeys_keys SET metadata = '{"a":1}' WHERE id = '` + one.Key.ID + `'`)
		require.NoError(t, err)
		page, err := s.KeysPage(t.Context(), sqlkeys.KeyFilter{}, sqlkeys.Paging{})
		require.ErrorIs(t, err, sqlkeys.ErrUnreadable)
		require.EqualError(t, err, `sqlkeys: key `+one.Key.ID+`: metadata: unreadable: "a" is not a string`)
		require.ElementsMatch(t, []string{one.Key.ID, two.Key.ID}, []string{page.Items[0].ID, page.Items[1].ID})
	})
}
