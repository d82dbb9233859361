package sqlkeys_test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestSQLiteFileIsPrivateAndShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?c#.db")
	s := open(t, path, sqlkeys.Config{})
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	k := s.issue(t, sqlkeys.NewKey{})

	// A second pool stands for another process. A third one is read-only.
	_, err = open(t, path, sqlkeys.Config{}).Validate(t.Context(), k.Credentials)
	require.NoError(t, err)
	escaped := "file:" + filepath.Dir(path) + "/a%20b%3fc%23.db?mode=ro"
	reader, err := sqlkeys.Open(t.Context(), openDB(t, escaped), sqlkeys.Config{})
	require.NoError(t, err)
	defer reader.Close()
	_, err = reader.Validate(t.Context(), k.Credentials)
	require.NoError(t, err)
	_, err = reader.CreateSender(t.Context(), sqlkeys.NewSender{})
	require.ErrorContains(t, err, "readonly")

	// A file of zeros or garbage is not an empty database.
	garbage := filepath.Join(t.TempDir(), "garbage.db")
	require.NoError(t, os.WriteFile(garbage, make([]byte, 9000), 0o600))
	_, err = sqlkeys.Open(t.Context(), openDB(t, garbage), sqlkeys.Config{Migrate: true})
	require.ErrorContains(t, err, "not a database")
}

func TestFullDiskRefusesTheWholeChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db")
	s := open(t, path, sqlkeys.Config{})
	k := s.issue(t, sqlkeys.NewKey{})
	before := auditOf(t, s)
	var pages int
	require.NoError(t, s.db.QueryRow(`PRAGMA page_count`).Scan(&pages))
	full := openDB(t, "file:"+path)
	full.SetMaxOpenConns(1)
	_, err := full.Exec(`PRAGMA max_page_count = ` + strconv.Itoa(pages))
	require.NoError(t, err)
	small, err := sqlkeys.Open(t.Context(), full, sqlkeys.Config{})
	require.NoError(t, err)
	defer small.Close()
	ns := make([]sqlkeys.NewKey, 5000)
	for i := range ns {
		ns[i].SenderID = k.Key.SenderID
	}
	_, err = small.IssueAll(t.Context(), ns)
	require.ErrorContains(t, err, "sqlkeys: issue: ")
	require.ErrorContains(t, err, "full")
	require.Equal(t, []sqlkeys.Key{k.Key}, keysOf(t, s, ""))
	require.Equal(t, before, auditOf(t, s))
	_, err = small.Validate(t.Context(), k.Credentials)
	require.NoError(t, err, "existing keys still work")
}
