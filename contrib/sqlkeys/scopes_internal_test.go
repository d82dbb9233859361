package sqlkeys

import (
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
)

func TestKeysFromBeforeScopesHaveThemAll(t *testing.T) {
	before := fstest.MapFS{}
	require.NoError(t, fs.WalkDir(embedded, ".", func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && e.Name() < "00005" {
			before[path] = &fstest.MapFile{}
			before[path].Data, err = embedded.ReadFile(path)
		}
		return err
	}))
	eachDB(t, func(t *testing.T, source string) {
		db := openTestDB(t, source)
		func() {
			defer func(all fs.FS) { migrations = all }(migrations)
			migrations = before
			require.NoError(t, Migrate(t.Context(), db))
		}()
		c := senderauth.Credentials{SenderID: uuid.NewString(), APIKey: uuid.NewString()}
		_, err := db.Exec(`INSERT INTO sqlkeys_senders (id, created_at) VALUES ($1, CURRENT_TIMESTAMP)`, c.SenderID)
		if err != nil { // an instant is a number in SQLite
			_, err = db.Exec(`INSERT INTO sqlkeys_senders (id, created_at) VALUES ($1, 0)`, c.SenderID)
		}
		require.NoError(t, err)
		insert := `INSERT INTO sqlkeys_keys (id, sender_id, digest, format, environment, created_at) SELECT $1, id, $2, 'uuid', 'production', created_at FROM sqlkeys_senders`
		_, err = db.Exec(insert, "key_aaaaaaaaaaaaaaaa", digest(nil, c.APIKey))
		require.NoError(t, err)

		s, err := Open(t.Context(), db, Config{Migrate: true})
		require.NoError(t, err)
		defer s.Close()
		k, err := s.Key(t.Context(), "key_aaaaaaaaaaaaaaaa")
		require.NoError(t, err)
		require.Equal(t, []string{senderauth.AllScopes}, k.Scopes)
		require.Nil(t, k.Networks)
		sender, err := s.Validate(t.Context(), c)
		require.NoError(t, err)
		require.Equal(t, []string{senderauth.AllScopes}, sender.Scopes)
		require.Nil(t, sender.Networks)

		// A program of before that still runs inserts keys without the columns.
		other := uuid.NewString()
		_, err = db.Exec(insert, "key_bbbbbbbbbbbbbbbb", digest(nil, other))
		require.NoError(t, err)
		sender, err = s.Validate(t.Context(), senderauth.Credentials{SenderID: c.SenderID, APIKey: other})
		require.NoError(t, err)
		require.True(t, sender.HasScope("orders:read"))
	})
}
