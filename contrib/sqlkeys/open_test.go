package sqlkeys_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestOpenSchema(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		db := openDB(t, source)
		_, err := sqlkeys.Open(t.Context(), db, sqlkeys.Config{})
		require.ErrorIs(t, err, sqlkeys.ErrSchemaMissing)
		require.EqualError(t, err, "sqlkeys: the schema is missing: migrate first")

		for range 2 {
			require.NoError(t, sqlkeys.Migrate(t.Context(), db))
		}
		s, err := sqlkeys.Open(t.Context(), db, sqlkeys.Config{})
		require.NoError(t, err)
		require.NoError(t, s.Close())
		require.NoError(t, db.PingContext(t.Context()), "the pool is the caller's")

		_, err = db.Exec(`INSERT INTO sqlkeys_schema (version_id, is_applied) VALUES (9000, ` + map[bool]string{true: "1", false: "true"}[filepath.Ext(source) == ".db"] + `)`)
		require.NoError(t, err)
		for _, migrate := range []bool{false, true} {
			_, err = sqlkeys.Open(t.Context(), db, sqlkeys.Config{Migrate: migrate})
			require.ErrorIs(t, err, sqlkeys.ErrSchemaNewer)
			require.ErrorContains(t, err, "version 9000, not ")
		}
		require.ErrorIs(t, sqlkeys.Migrate(t.Context(), db), sqlkeys.ErrSchemaNewer)

		_, err = db.Exec(`DELETE FROM sqlkeys_schema WHERE version_id > 0`)
		require.NoError(t, err)
		_, err = sqlkeys.Open(t.Context(), db, sqlkeys.Config{})
		require.ErrorIs(t, err, sqlkeys.ErrSchemaMissing)
	})
}

// Several instances that start at once migrate once.
func TestMigrateTogether(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		errs := make([]error, 6)
		var all sync.WaitGroup
		for i := range errs {
			db := openDB(t, source)
			all.Go(func() { errs[i] = sqlkeys.Migrate(context.Background(), db) })
		}
		all.Wait()
		for _, err := range errs {
			require.NoError(t, err)
		}
		var versions, distinct int
		require.NoError(t, openDB(t, source).QueryRow(`SELECT count(*), count(DISTINCT version_id) FROM sqlkeys_schema`).Scan(&versions, &distinct))
		require.Equal(t, distinct, versions)
		require.GreaterOrEqual(t, versions, 2)
		open(t, source, sqlkeys.Config{})
	})
}

// On a new SQLite file they meet while it is turned to WAL mode, where the busy
// timeout does not count.
func TestMigrateNewFiles(t *testing.T) {
	t.Parallel()
	for range 40 {
		source := filepath.Join(t.TempDir(), "keys.db")
		var all sync.WaitGroup
		for range 12 {
			all.Go(func() {
				db, err := sqlkeys.OpenDB(source)
				if err == nil {
					err = errors.Join(sqlkeys.Migrate(context.Background(), db), db.Close())
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
}

type otherDriver struct{}

func (otherDriver) Open(string) (driver.Conn, error) { return nil, driver.ErrBadConn }

var registerOther = sync.OnceFunc(func() { sql.Register("other", otherDriver{}) })

func TestOpenInvalid(t *testing.T) {
	registerOther()
	other, err := sql.Open("other", "")
	require.NoError(t, err)
	defer other.Close()
	_, err = sqlkeys.Open(t.Context(), other, sqlkeys.Config{
		Peppers: [][]byte{[]byte("0123456789abcdef"), []byte("short"), []byte("0123456789abcdef")},
		Prefix:  "a_b",
	})
	require.EqualError(t, err, "sqlkeys: the driver sqlkeys_test.otherDriver is neither that of github.com/jackc/pgx/v5/stdlib nor that of modernc.org/sqlite\n"+
		"sqlkeys: Config.Peppers[1] has 5 bytes; 16 are the least\n"+
		"sqlkeys: Config.Peppers[2] is given twice\n"+
		`sqlkeys: Config.Prefix: "a_b" is not 1 to 32 ASCII letters and digits`)
	_, err = sqlkeys.Open(t.Context(), nil, sqlkeys.Config{})
	require.EqualError(t, err, "sqlkeys: the database is nil")
	require.EqualError(t, sqlkeys.Migrate(t.Context(), nil), "sqlkeys: the database is nil")
}

func TestOpenDBInvalid(t *testing.T) {
	dir := t.TempDir()
	for source, text := range map[string]string{
		"":                       "sqlkeys: no database: give a PostgreSQL URL or the path of a SQLite file",
		"mysql://user:secret@db": `sqlkeys: a database of scheme "mysql" is neither a PostgreSQL URL nor the path of a SQLite file`,
		"postgress://db/x":       `sqlkeys: a database of scheme "postgress" is neither a PostgreSQL URL nor the path of a SQLite file`,
		":memory:":               "sqlkeys: SQLite in memory gives each connection of a pool a database of its own: use a file",
		"file:x?mode=memory":     "sqlkeys: SQLite in memory gives each connection of a pool a database of its own: use a file",
		dir:                      "sqlkeys: the SQLite file: open " + dir + ": is a directory",
		dir + "/none/keys.db":    "sqlkeys: the SQLite file: open " + dir + "/none/keys.db: no such file or directory",
	} {
		_, err := sqlkeys.OpenDB(source)
		require.EqualError(t, err, text)
	}
	const (
		kind    = "sqlkeys: the database: invalid: a PostgreSQL is given as postgres://USER:PASSWORD@HOST/DATABASE, and a SQLite file whose path looks like one as file:PATH"
		wrong   = "sqlkeys: the PostgreSQL URL: invalid: "
		encoded = ": is the password percent-encoded?"
	)
	t.Chdir(dir)
	for source, text := range map[string]string{
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

	// Nobody listens: the error comes with the first use.
	_, err = sqlkeys.Open(t.Context(), openDB(t, "postgres://user:hunter2@127.0.0.1:1/x"), sqlkeys.Config{})
	require.ErrorContains(t, err, "sqlkeys: read the schema: ")
	require.NotContains(t, err.Error(), "hunter2")
}

func TestSQLiteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?c#.db")
	s := open(t, path, sqlkeys.Config{})
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	k := s.issue(t, sqlkeys.NewKey{})

	// A second process, so to speak, and then one that may only read.
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

	// Garbage is not taken for an empty database.
	garbage := filepath.Join(t.TempDir(), "garbage.db")
	require.NoError(t, os.WriteFile(garbage, make([]byte, 9000), 0o600))
	_, err = sqlkeys.Open(t.Context(), openDB(t, garbage), sqlkeys.Config{Migrate: true})
	require.ErrorContains(t, err, "not a database")
}

// A full disk refuses the whole change.
func TestFullDisk(t *testing.T) {
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
	require.NoError(t, err, "who is there is served")
}

func TestAdopt(t *testing.T) {
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

		// It gives nothing back that was taken away.
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
		require.EqualError(t, err, `sqlkeys: sender "…": invalid: not a UUID of 36 characters, or the nil or max UUID`, "who mixes them up does not see the key in a log")

		second := senderauth.Credentials{SenderID: pair.SenderID, APIKey: uuid.NewString()}
		_, err = s.Adopt(t.Context(), second)
		require.NoError(t, err)
		_, err = s.Validate(t.Context(), second)
		require.NoError(t, err)
	})
}

func TestIssueFirst(t *testing.T) {
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
