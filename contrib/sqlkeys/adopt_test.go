package sqlkeys_test

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestAdoptCreatesOnlyWhatIsMissing(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		pair := senderauth.Credentials{SenderID: uuid.NewString(), APIKey: uuid.NewString()}
		const instances = 5
		ids, errs := make([]string, instances), make([]error, instances)
		var all sync.WaitGroup
		for i := range instances {
			db := openDB(t, source)
			all.Go(func() {
				s, err := sqlkeys.Open(context.Background(), db, sqlkeys.Config{Migrate: true})
				if errs[i] = err; err != nil {
					return
				}
				defer s.Close()
				key, err := s.Adopt(context.Background(), pair)
				ids[i], errs[i] = key.ID, err
			})
		}
		all.Wait()
		for i := range instances {
			require.NoError(t, errs[i])
			require.Equal(t, ids[0], ids[i])
		}
		s := open(t, source, sqlkeys.Config{})
		_, err := s.Validate(t.Context(), pair)
		require.NoError(t, err)
		require.Len(t, auditOf(t, s), 2)

		// A revoked key stays revoked.
		require.NoError(t, s.Revoke(t.Context(), ids[0]))
		key, err := s.Adopt(t.Context(), pair)
		require.NoError(t, err)
		require.Equal(t, sqlkeys.Revoked, key.State)
		_, err = s.Validate(t.Context(), pair)
		require.ErrorIs(t, err, senderauth.ErrInvalidKey)

		_, err = s.Adopt(t.Context(), senderauth.Credentials{SenderID: uuid.NewString(), APIKey: pair.APIKey})
		require.ErrorIs(t, err, sqlkeys.ErrDuplicate)
		_, err = s.Adopt(t.Context(), senderauth.Credentials{SenderID: pair.SenderID, APIKey: "password"})
		require.ErrorIs(t, err, sqlkeys.ErrInvalid)
		require.NotContains(t, err.Error(), "password")
		_, err = s.Adopt(t.Context(), senderauth.Credentials{SenderID: "me", APIKey: uuid.NewString()})
		require.ErrorIs(t, err, sqlkeys.ErrInvalid)

		prefixed := s.issue(t, sqlkeys.NewKey{SenderID: pair.SenderID, Format: sqlkeys.FormatPrefixed}).Credentials
		_, err = s.Adopt(t.Context(), senderauth.Credentials{SenderID: prefixed.APIKey, APIKey: pair.SenderID})
		require.EqualError(t, err, `sqlkeys: sender "…": invalid: not a UUID of 36 characters, or the nil or max UUID`, "swapped values do not put the key into a log")

		second := senderauth.Credentials{SenderID: pair.SenderID, APIKey: uuid.NewString()}
		_, err = s.Adopt(t.Context(), second)
		require.NoError(t, err)
		_, err = s.Validate(t.Context(), second)
		require.NoError(t, err)
	})
}

func TestIssueFirstHappensOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		const instances = 5
		issued, firsts, errs := make([]sqlkeys.Issued, instances), make([]bool, instances), make([]error, instances)
		s := open(t, source, sqlkeys.Config{})
		var all sync.WaitGroup
		for i := range instances {
			all.Go(func() { issued[i], firsts[i], errs[i] = s.IssueFirst(context.Background()) })
		}
		all.Wait()
		n := 0
		for i := range instances {
			require.NoError(t, errs[i])
			if firsts[i] {
				n++
				_, err := s.Validate(t.Context(), issued[i].Credentials)
				require.NoError(t, err)
			} else {
				require.Equal(t, sqlkeys.Issued{}, issued[i])
			}
		}
		require.Equal(t, 1, n)
		require.Len(t, keysOf(t, s, ""), 1)
	})
}

// A refused key stays refused whatever peppers are configured when it is adopted again.
func TestAdoptRevivesNoKeyOfAnotherPepper(t *testing.T) {
	older, newer := []byte("the older pepper"), []byte("the newer pepper")
	onBoth(t, func(t *testing.T, source string) {
		with := func(peppers ...[]byte) fixture { return open(t, source, sqlkeys.Config{Peppers: peppers}) }
		pair := senderauth.Credentials{SenderID: uuid.NewString(), APIKey: uuid.NewString()}
		before := with(older)
		k, err := before.Adopt(t.Context(), pair)
		require.NoError(t, err)
		require.NoError(t, before.Disable(t.Context(), k.ID))
		refused := func(s fixture, why string) {
			t.Helper()
			_, err := s.Adopt(t.Context(), pair)
			require.ErrorIs(t, err, sqlkeys.ErrPepperMissing)
			require.EqualError(t, err, "sqlkeys: adopt: sender "+pair.SenderID+": the key may be "+k.ID+" (disabled), whose pepper is "+why+": pepper missing")
			require.ErrorIs(t, validate(t, s, pair), senderauth.ErrInvalidKey)
			require.Len(t, keysOf(t, s, pair.SenderID), 1)
		}
		refused(with(newer), "not in Config.Peppers")
		refused(with(nil, newer), "not in Config.Peppers")
		_, err = before.db.Exec(`UPDATE sqlkeys_keys SET pepper = NULL`) // as before the column was there
		require.NoError(t, err)
		refused(with(newer), "not recorded")

		both := with(newer, older)
		k, err = both.Adopt(t.Context(), pair)
		require.NoError(t, err)
		require.Equal(t, sqlkeys.Disabled, k.State)
		require.NoError(t, both.Enable(t.Context(), k.ID))
		// Active keys do not hinder: the pair is stored twice.
		twice, err := with(newer).Adopt(t.Context(), pair)
		require.NoError(t, err)
		require.NotEqual(t, k.ID, twice.ID)
		require.NoError(t, validate(t, both, pair))
		for _, end := range []string{k.ID, twice.ID} { // either refuses the key
			require.NoError(t, both.Disable(t.Context(), end))
			require.ErrorIs(t, validate(t, both, pair), senderauth.ErrInvalidKey)
			require.ErrorIs(t, validate(t, with(older, newer), pair), senderauth.ErrInvalidKey)
			again, err := both.Adopt(t.Context(), pair)
			require.NoError(t, err)
			require.Equal(t, end, again.ID)
			require.NoError(t, both.Enable(t.Context(), end))
		}
	})
}

// The statements in the README record the peppers of keys that are older than the column.
func TestReadmeRecordsPeppers(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, block, _ := strings.Cut(string(readme), "```sql\n-- without a pepper\n")
	block, _, _ = strings.Cut(block, "```")
	without, with, found := strings.Cut(block, "-- with the pepper of this key\n")
	require.True(t, found)
	onBoth(t, func(t *testing.T, source string) {
		for _, c := range []struct {
			statement string
			pepper    []byte
		}{{without, nil}, {with, []byte("the older pepper")}} {
			s := open(t, source, sqlkeys.Config{Peppers: [][]byte{c.pepper}})
			old, reference := s.issue(t, sqlkeys.NewKey{}), s.issue(t, sqlkeys.NewKey{})
			require.NoError(t, s.Revoke(t.Context(), old.Key.ID))
			_, err := s.db.Exec(`UPDATE sqlkeys_keys SET pepper = NULL WHERE id = $1`, old.Key.ID)
			require.NoError(t, err)
			other := senderauth.Credentials{SenderID: old.Key.SenderID, APIKey: uuid.NewString()}
			_, err = s.Adopt(t.Context(), other)
			require.ErrorIs(t, err, sqlkeys.ErrPepperMissing)

			_, err = s.db.Exec(strings.ReplaceAll(c.statement, keyNone, reference.Key.ID))
			require.NoError(t, err)
			_, err = s.Adopt(t.Context(), other)
			require.NoError(t, err)
			_, err = open(t, source, sqlkeys.Config{Peppers: [][]byte{[]byte("the newer pepper")}}).Adopt(t.Context(), old.Credentials)
			require.ErrorIs(t, err, sqlkeys.ErrPepperMissing, "a pepper that was dropped is recorded")
		}
	})
}

func validate(t *testing.T, s fixture, c senderauth.Credentials) error {
	_, err := s.Validate(t.Context(), c)
	return err
}
