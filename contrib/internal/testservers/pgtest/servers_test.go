package pgtest_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
)

// at returns the URL with another host and port.
func at(t *testing.T, source, addr string) *url.URL {
	t.Helper()
	u, err := url.Parse(source)
	require.NoError(t, err)
	u.Host = addr
	return u
}

func TestStandbyFollowsUntilItIsPromoted(t *testing.T) {
	primary := pgtest.New(t)
	source := primary.URL(t)
	standby := primary.Standby(t)
	there := at(t, source, standby.Addr()).String()
	query(t, source, `CREATE TABLE n (n int)`)
	require.Eventually(t, func() bool {
		n, err := query(t, there, `SELECT count(*) FROM n`)
		return err == nil && n == 0
	}, 20*time.Second, 10*time.Millisecond)
	_, err := query(t, there, `INSERT INTO n VALUES (7) RETURNING n`)
	require.ErrorContains(t, err, "read-only")
	standby.Exec(t, `SELECT pg_promote()`)
	n, err := query(t, there, `INSERT INTO n VALUES (7) RETURNING n`)
	require.NoError(t, err)
	require.Equal(t, 7, n)
	n, err = query(t, source, `SELECT count(*) FROM n`)
	require.NoError(t, err)
	require.Zero(t, n, "the old primary lives on")
}

func TestBouncerReachesTheServer(t *testing.T) {
	s := pgtest.New(t)
	source := s.URL(t)
	n, err := query(t, at(t, source, s.Bouncer(t, "pool_mode = transaction", "default_pool_size = 1")).String(), `SELECT 7`)
	require.NoError(t, err)
	require.Equal(t, 7, n)
}

func TestTLSIsRequiredOfAllButTheSuperuser(t *testing.T) {
	s := pgtest.New(t)
	source := s.URL(t)
	ca := s.RequireTLS(t)
	s.Exec(t, `CREATE ROLE app LOGIN PASSWORD 'secret'`)
	app := at(t, source, s.Addr())
	app.User = url.UserPassword("app", "secret")
	_, err := query(t, app.String(), `SELECT 7`)
	require.ErrorContains(t, err, "pg_hba.conf rejects")
	app.RawQuery = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {ca}}.Encode()
	_, err = query(t, app.String(), `SELECT 7`)
	require.ErrorContains(t, err, "certificate", "it is for another name")
	app.Host = "localhost:" + app.Port()
	n, err := query(t, app.String(), `SELECT 7`)
	require.NoError(t, err)
	require.Equal(t, 7, n)
	app.User = url.UserPassword("app", "wrong")
	_, err = query(t, app.String(), `SELECT 7`)
	require.ErrorContains(t, err, "password authentication failed")
	_, err = query(t, source, `SELECT 7`)
	require.NoError(t, err)
}
