package pgtest_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/senderauth/senderauth/contrib/internal/testservers"
	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { testservers.Main(m) }

func query(t *testing.T, url, sql string) (n int, err error) {
	t.Helper()
	c, err := pgx.Connect(context.Background(), url)
	if err != nil {
		return 0, err
	}
	defer c.Close(context.Background())
	return n, c.QueryRow(context.Background(), sql).Scan(&n)
}

func TestURLIsANewDatabase(t *testing.T) {
	const tables = `WITH t AS (SELECT 1) SELECT count(*) FROM pg_tables WHERE schemaname = 'public'`
	for range 2 {
		url := pgtest.URL(t)
		n, err := query(t, url, tables)
		require.NoError(t, err)
		require.Zero(t, n)
		_, err = query(t, url, `CREATE TABLE n (n int)`)
		require.ErrorIs(t, err, pgx.ErrNoRows)
		n, err = query(t, url, tables)
		require.NoError(t, err)
		require.Equal(t, 1, n)
	}
}

func TestServerEndsAndReturns(t *testing.T) {
	s := pgtest.New(t)
	url := s.URL(t)
	_, err := query(t, url, `CREATE TABLE n (n int)`)
	require.ErrorIs(t, err, pgx.ErrNoRows)
	_, err = query(t, url, `INSERT INTO n VALUES (7) RETURNING n`)
	require.NoError(t, err)
	for _, end := range []func() error{s.Kill, s.Stop} {
		require.NoError(t, end())
		require.NoError(t, end(), "ending it twice is no error")
		_, err := query(t, url, `SELECT n FROM n`)
		require.Error(t, err)
		require.NoError(t, s.Start())
		n, err := query(t, url, `SELECT n FROM n`)
		require.NoError(t, err)
		require.Equal(t, 7, n)
	}
	require.NoError(t, s.Restart())
	n, err := query(t, url, `SELECT n FROM n`)
	require.NoError(t, err)
	require.Equal(t, 7, n)
}
