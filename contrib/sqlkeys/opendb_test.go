package sqlkeys_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestOpenDBRefusesWithoutShowingPasswords(t *testing.T) {
	dir := t.TempDir()
	for source, text := range map[string]string{
		dir:                   "sqlkeys: the SQLite file: open " + dir + ": is a directory",
		dir + "/none/keys.db": "sqlkeys: the SQLite file: open " + dir + "/none/keys.db: no such file or directory",
	} {
		_, err := sqlkeys.OpenDB(source)
		require.EqualError(t, err, text)
		require.NotErrorIs(t, err, sqlkeys.ErrInvalid, "a directory can be made or moved")
	}
	const (
		memory  = "sqlkeys: the database: invalid: SQLite in memory gives each connection of a pool a database of its own: use a file"
		kind    = "sqlkeys: the database: invalid: write PostgreSQL settings as postgres://USER:PASSWORD@HOST/DATABASE, and the path of a SQLite file that looks like them as file:PATH"
		wrong   = "sqlkeys: the PostgreSQL URL: invalid: "
		encoded = ": is the password percent-encoded?"
	)
	t.Chdir(dir)
	for source, text := range map[string]string{
		"":                                       "sqlkeys: the database: invalid: give a PostgreSQL URL or the path of a SQLite file",
		"mysql://user:hunter2@db":                `sqlkeys: the database: invalid: the scheme "mysql" is not postgres, postgresql or file`,
		"postgress://db/x":                       `sqlkeys: the database: invalid: the scheme "postgress" is not postgres, postgresql or file`,
		":memory:":                               memory,
		"file:x?mode=memory":                     memory,
		"file:%zz":                               `sqlkeys: the URI of the SQLite file: invalid: invalid URL escape "%zz"`,
		"host=db password=hunter2":               kind,
		" password = a://hunter2":                kind,
		"postgres:/user:hunter2@db/x":            kind,
		"postgresql:user:hunter2@db":             kind,
		"user:hunter2@db":                        kind,
		"user:hun/ter2@db/x":                     kind,
		"postgres://user:hunter2":                wrong + "invalid port" + encoded,
		"postgres://user:hunter2@db:port/x":      wrong + "invalid port" + encoded,
		"postgres://user:hunter2/x@db/x":         wrong + "an @ in the host or the database" + encoded,
		"postgres://user:12/hunter2@db/x":        wrong + "an @ in the host or the database" + encoded,
		"postgres://user:12/x?hunter2@db/x":      wrong + "failed to parse as URL" + encoded,
		"postgres://user:12/x?hunter2`%zz@db/x":  wrong + "failed to parse as URL" + encoded,
		"postgres://user:1@hunter2@db/x":         wrong + "an @ in the host or the database" + encoded,
		"postgres://user:hunter2%zz@db/x":        wrong + "failed to parse as URL" + encoded,
		"postgres://u:hunter2@db/x?sslmode=none": wrong + "failed to configure TLS (sslmode is invalid)",
	} {
		_, err := sqlkeys.OpenDB(source)
		require.EqualError(t, err, text)
		require.ErrorIs(t, err, sqlkeys.ErrInvalid)
	}
	made, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, made, "none of them is the path of a file")

	openDB(t, "file:"+dir+"/user:a@b=c")
	_, err = sqlkeys.OpenDB("file:" + dir + "/none?mode=rw")
	require.ErrorIs(t, err, os.ErrNotExist)
	openDB(t, "postgres://user:hun#t?er2@db/x?application_name=a@b")

	// No server listens there, and the first use reports it.
	_, err = sqlkeys.Open(t.Context(), openDB(t, "postgres://user:hunter2@127.0.0.1:1/x"), sqlkeys.Config{})
	require.ErrorContains(t, err, "sqlkeys: read the schema: ")
	require.NotContains(t, err.Error(), "hunter2")
}
