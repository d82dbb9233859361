package sqlkeys

import (
	"context"
	"database/sql"
	"io/fs"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
)

func eachDB(t *testing.T, f func(t *testing.T, source string)) {
	t.Run("postgres", func(t *testing.T) { f(t, pgtest.URL(t)) })
	t.Run("sqlite", func(t *testing.T) { f(t, filepath.Join(t.TempDir(), "keys.db")) })
}

func openTestDB(t *testing.T, source string) *sql.DB {
	db, err := OpenDB(source)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func TestOlderSchemaIsReportedAndMigratedOnce(t *testing.T) {
	later := fstest.MapFS{}
	require.NoError(t, fs.WalkDir(embedded, ".", func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			later[path] = &fstest.MapFile{}
			later[path].Data, err = embedded.ReadFile(path)
		}
		return err
	}))
	for _, folder := range []string{"migrations/postgres", "migrations/sqlite"} {
		later[folder+"/08000_later.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\nCREATE TABLE sqlkeys_later (n int);\nALTER TABLE sqlkeys_keys ADD COLUMN later int;\n")}
		later[folder+"/08001_last.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\nINSERT INTO sqlkeys_later VALUES (1);\n")}
	}
	eachDB(t, func(t *testing.T, source string) {
		db := openTestDB(t, source)
		s, err := Open(t.Context(), db, Config{Migrate: true})
		require.NoError(t, err)
		defer s.Close()
		made, first, err := s.IssueFirst(t.Context())
		require.NoError(t, err)
		require.True(t, first)
		_, err = s.Validate(t.Context(), made.Credentials)
		require.NoError(t, err)

		defer func(before fs.FS) { migrations = before }(migrations)
		migrations = later
		_, err = Open(t.Context(), db, Config{})
		require.ErrorIs(t, err, ErrSchemaOlder)
		errs := make([]error, 5)
		var all sync.WaitGroup
		for i := range errs {
			db := openTestDB(t, source)
			all.Go(func() { errs[i] = Migrate(context.Background(), db) })
		}
		all.Wait()
		for _, err := range errs {
			require.NoError(t, err)
		}
		var n int
		require.NoError(t, db.QueryRow(`SELECT count(*) FROM sqlkeys_later`).Scan(&n))
		require.Equal(t, 1, n)
		_, err = s.Validate(t.Context(), made.Credentials)
		require.NoError(t, err, "a program that runs goes on")
	})
}

func TestFailedMigrationLeavesNothing(t *testing.T) {
	eachDB(t, func(t *testing.T, source string) {
		db := openTestDB(t, source)
		_, err := db.Exec(`CREATE TABLE sqlkeys_usage (n int)`)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		err = Migrate(ctx, db)
		require.ErrorContains(t, err, "already exists")
		require.NoError(t, ctx.Err(), "it does not retry forever")
		_, err = db.Exec(`SELECT 1 FROM sqlkeys_keys`)
		require.Error(t, err)
		_, err = db.Exec(`DROP TABLE sqlkeys_usage`)
		require.NoError(t, err)
		require.NoError(t, Migrate(ctx, db))
	})
}
