package sqlkeys_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestOpenReportsTheSchema(t *testing.T) {
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

func TestConcurrentMigrationsApplyOnce(t *testing.T) {
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

// On a new SQLite file the instances meet while one of them turns on WAL mode,
// when the busy timeout does not apply.
func TestConcurrentMigrationsOfNewSQLiteFiles(t *testing.T) {
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
