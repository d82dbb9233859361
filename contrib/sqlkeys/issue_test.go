package sqlkeys_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestIssuedKeyIsStoredAndListed(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		sender := s.sender(t)
		before := time.Now().Add(-time.Second)
		a := s.issue(t, sqlkeys.NewKey{SenderID: strings.ToUpper(sender)})
		require.True(t, a.Key.CreatedAt.After(before) && a.Key.CreatedAt.Before(time.Now().Add(time.Second)))
		require.Regexp(t, `^key_[a-z2-7]{16}$`, a.Key.ID)
		require.Equal(t, sqlkeys.Key{
			ID: a.Key.ID, SenderID: sender, State: sqlkeys.Active, Environment: sqlkeys.Production,
			Format: sqlkeys.FormatUUID, CreatedAt: a.Key.CreatedAt, Scopes: all,
		}, a.Key)
		u, err := uuid.Parse(a.Credentials.APIKey)
		require.NoError(t, err)
		require.EqualValues(t, 4, u.Version())
		require.Equal(t, sender, a.Credentials.SenderID)

		nextMillisecond()
		starts := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
		b := s.issue(t, sqlkeys.NewKey{
			SenderID: sender, Name: "b", Environment: sqlkeys.Development, Format: sqlkeys.FormatPrefixed,
			NotBefore: starts, ExpiresAt: starts.Add(time.Hour), Metadata: map[string]string{"for": "tests"},
		})
		require.Equal(t, sqlkeys.Key{
			ID: b.Key.ID, SenderID: sender, State: sqlkeys.Pending, Name: "b", Environment: sqlkeys.Development,
			Format: sqlkeys.FormatPrefixed, CreatedAt: b.Key.CreatedAt,
			NotBefore: starts, ExpiresAt: starts.Add(time.Hour), Metadata: map[string]string{"for": "tests"}, Scopes: all,
		}, b.Key)
		require.Regexp(t, `^sender_[a-z2-7]{39}$`, b.Credentials.APIKey)

		stored, err := s.Key(t.Context(), b.Key.ID)
		require.NoError(t, err)
		require.Equal(t, b.Key, stored)
		other := s.issue(t, sqlkeys.NewKey{})
		require.Equal(t, []sqlkeys.Key{a.Key, b.Key}, keysOf(t, s, sender))
		require.ElementsMatch(t, []sqlkeys.Key{a.Key, b.Key, other.Key}, keysOf(t, s, ""))

		text := fmt.Sprintf("%v %+v %#v %s %q", b, b, b, b, b)
		require.NotContains(t, text, b.Credentials.APIKey)
		require.NotContains(t, text, b.Credentials.APIKey[7:15])
	})
}

func TestIssueReportsEveryMistakeAndWritesNothing(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		sender := s.sender(t)
		before := auditOf(t, s)
		for _, c := range []struct {
			n    sqlkeys.NewKey
			is   error
			text string
		}{
			{sqlkeys.NewKey{SenderID: "me"}, sqlkeys.ErrInvalid, `sqlkeys: sender "me": invalid: not a UUID of 36 characters, or the nil or max UUID`},
			{sqlkeys.NewKey{SenderID: uuid.Nil.String()}, sqlkeys.ErrInvalid, `sqlkeys: sender "00000000-0000-0000-0000-000000000000": invalid: not a UUID of 36 characters, or the nil or max UUID`},
			{sqlkeys.NewKey{SenderID: "a1de7b4a-3a0e-4d6e-9c2b-000000000001"}, sqlkeys.ErrNotFound, `sqlkeys: sender a1de7b4a-3a0e-4d6e-9c2b-000000000001: not found`},
			{sqlkeys.NewKey{SenderID: sender, Environment: "moon"}, sqlkeys.ErrInvalid, `sqlkeys: new key: invalid: environment "moon" is not one of development, staging and production`},
			{sqlkeys.NewKey{SenderID: sender, Format: "hex"}, sqlkeys.ErrInvalid, `sqlkeys: new key: invalid: format "hex" is not one of uuid and prefixed`},
			{sqlkeys.NewKey{SenderID: sender, ExpiresAt: time.Unix(1e9, 0)}, sqlkeys.ErrInvalid, `sqlkeys: new key: invalid: the expiry 2001-09-09T01:46:40Z is in the past`},
			{sqlkeys.NewKey{SenderID: sender, NotBefore: time.Unix(4e9, 0).UTC(), ExpiresAt: time.Unix(4e9, 0).UTC()}, sqlkeys.ErrInvalid, `sqlkeys: new key: invalid: it would expire at 2096-10-02T07:06:40Z, before it works`},
			{sqlkeys.NewKey{SenderID: sender, Name: strings.Repeat("n", 201)}, sqlkeys.ErrInvalid, `sqlkeys: new key: invalid: the name has 201 bytes, more than 200`},
			{sqlkeys.NewKey{SenderID: sender, Name: "\xff"}, sqlkeys.ErrInvalid, `sqlkeys: new key: invalid: the name is not UTF-8 text`},
			{sqlkeys.NewKey{SenderID: sender, Name: "a\x00"}, sqlkeys.ErrInvalid, `sqlkeys: new key: invalid: the name is not UTF-8 text`},
			{sqlkeys.NewKey{SenderID: sender, Metadata: map[string]string{"a": "\xff"}}, sqlkeys.ErrInvalid, `sqlkeys: new key: invalid: metadata "a" is not UTF-8 text`},
			{sqlkeys.NewKey{SenderID: sender, Metadata: map[string]string{"a\x00": ""}}, sqlkeys.ErrInvalid, `sqlkeys: new key: invalid: metadata "a\x00" is not UTF-8 text`},
			{sqlkeys.NewKey{SenderID: sender, Metadata: map[string]string{"a": strings.Repeat("b", 16_377)}}, sqlkeys.ErrInvalid, `sqlkeys: new key: invalid: the metadata has 16385 bytes, more than 16384`},
		} {
			// The valid key before the invalid one is not issued either.
			_, err := s.IssueAll(t.Context(), []sqlkeys.NewKey{{SenderID: sender}, c.n})
			require.ErrorIs(t, err, c.is)
			require.EqualError(t, err, c.text)
		}
		_, err := s.Issue(t.Context(), sqlkeys.NewKey{SenderID: "me", Environment: "moon"})
		require.ErrorContains(t, err, `"me"`)
		require.ErrorContains(t, err, `"moon"`, "every mistake at once")
		require.Empty(t, keysOf(t, s, ""))
		require.Equal(t, before, auditOf(t, s))
	})
}

func TestIssueAllSpansSeveralInserts(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		a, b := s.sender(t), s.sender(t)
		ns := make([]sqlkeys.NewKey, 1203)
		for i := range ns {
			ns[i].SenderID = a
		}
		ns[7].SenderID = b
		issued, err := s.IssueAll(t.Context(), ns)
		require.NoError(t, err)
		require.Len(t, issued, len(ns))
		require.Len(t, keysOf(t, s, a), len(ns)-1)
		require.Equal(t, []sqlkeys.Key{issued[7].Key}, keysOf(t, s, b))
		_, err = s.Validate(t.Context(), issued[1202].Credentials)
		require.NoError(t, err)
		require.Len(t, auditOf(t, s), 2+len(ns))
	})
}

func TestKeyWithAChosenIDIsIssuedOnce(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		first := s.issue(t, sqlkeys.NewKey{ID: keyNone})
		require.Equal(t, keyNone, first.Key.ID)
		before := auditOf(t, s)

		_, err := s.Issue(t.Context(), sqlkeys.NewKey{SenderID: first.Key.SenderID, ID: keyNone})
		require.ErrorIs(t, err, sqlkeys.ErrDuplicate)
		_, err = s.Issue(t.Context(), sqlkeys.NewKey{SenderID: first.Key.SenderID, ID: "key_Aaaaaaaaaaaaaaa"})
		require.ErrorIs(t, err, sqlkeys.ErrInvalid)
		require.EqualError(t, err, `sqlkeys: new key: invalid: the ID is not key_ and 16 characters of a-z and 2-7`)

		require.Equal(t, []sqlkeys.Key{first.Key}, keysOf(t, s, ""))
		require.Equal(t, before, auditOf(t, s))
		_, err = s.Validate(t.Context(), first.Credentials)
		require.NoError(t, err, "the first key still works")
	})
}
