package sqlkeys_test

import (
	"database/sql"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// A logbook keeps what a store logs.
type logbook struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// openLogged opens a store whose schema exists.
func openLogged(t *testing.T, source string) (fixture, *logbook) {
	t.Helper()
	l := new(logbook)
	db := openDB(t, source)
	s, err := sqlkeys.Open(t.Context(), db, sqlkeys.Config{Logger: slog.New(slog.NewTextHandler(l, nil))})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return fixture{s, db, source}, l
}

func (l *logbook) eventually(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(l.String(), text) }, 30*time.Second, 10*time.Millisecond, "the log lacks %q", text)
}

// Notifications do not pass PgBouncer in transaction mode. The feed says so once, and
// does not purge the cache again and again.
func TestWatchNoticesThatNoNotificationsArrive(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t)
	migrated := open(t, pgtest.URLAt(server.Addr()), sqlkeys.Config{})
	session, sessionLog := openLogged(t, pgtest.URLAt(server.Bouncer(t, "pool_mode = session", "default_pool_size = 40")))
	heard := make(reports, 100)
	watch(t, session, heard)
	require.Equal(t, "", heard.next(t))

	deaf, deafLog := openLogged(t, pgtest.URLAt(server.Bouncer(t, "pool_mode = transaction"))+"&default_query_exec_mode=exec&application_name=deaf")
	unheard := make(reports, 100)
	watch(t, deaf, unheard)
	require.Equal(t, "", unheard.next(t))
	deafLog.eventually(t, "notifications do not arrive")
	require.Contains(t, deafLog.String(), "PgBouncer in session mode")
	require.ErrorContains(t, deaf.CheckFeed(), "notifications do not arrive")
	require.NoError(t, session.CheckFeed())
	var warned time.Time
	require.NoError(t, migrated.db.QueryRow(`SELECT clock_timestamp()`).Scan(&warned))
	require.Eventually(t, func() bool {
		var again bool
		require.NoError(t, migrated.db.QueryRow(`SELECT EXISTS (SELECT 1 FROM pg_stat_activity
			WHERE query LIKE '%pg_notify%' AND query_start > $1 AND application_name = 'deaf')`, warned).Scan(&again))
		return again
	}, 30*time.Second, 10*time.Millisecond, "no second probe is sent")

	k := migrated.issue(t, sqlkeys.NewKey{})
	require.Equal(t, k.Key.SenderID, heard.next(t))
	require.Empty(t, sessionLog.String(), "its probe was sent before the other one")
	require.Empty(t, unheard)
	require.Equal(t, 1, strings.Count(deafLog.String(), "\n"))
}

// A standby has no notifications. The feed says what to do, and works once the standby is
// promoted.
func TestWatchOnAStandbySaysWhatToDo(t *testing.T) {
	t.Parallel()
	primary := pgtest.New(t)
	open(t, pgtest.URLAt(primary.Addr()), sqlkeys.Config{})
	standby := primary.Standby(t)
	var address virtualAddress
	address.to.Store(standby.Addr())
	s, log := openLogged(t, pgtest.URLAt(address.listen(t)))
	c := make(reports, 100)
	watch(t, s, c)
	log.eventually(t, "the server is a standby, which has no notifications: connect to the primary")
	tries := address.accepted.Load() + 3
	require.Eventually(t, func() bool { return address.accepted.Load() >= tries }, 30*time.Second, 10*time.Millisecond)
	standby.Exec(t, `SELECT pg_promote()`)
	require.Equal(t, "", c.next(t))
	log.eventually(t, "the feed of changes is back")
	require.Equal(t, 2, strings.Count(log.String(), "\n"))
	k := s.issue(t, sqlkeys.NewKey{})
	require.Equal(t, k.Key.SenderID, c.next(t))
}

// A virtual address leads new connections to the server that it names then. Open ones stay.
type virtualAddress struct {
	to       atomic.Value
	accepted atomic.Int64
}

func (v *virtualAddress) listen(t testing.TB) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			v.accepted.Add(1)
			to, err := net.Dial("tcp", v.to.Load().(string))
			if err != nil {
				from.Close()
				continue
			}
			pipe := func(dst, src net.Conn) {
				io.Copy(dst, src)
				dst.Close()
			}
			go pipe(to, from)
			go pipe(from, to)
		}
	}()
	return l.Addr().String()
}

// After a failover behind a virtual address the old primary lives on. The feed follows the
// pool to the new one.
func TestWatchFollowsAFailoverBehindAnAddress(t *testing.T) {
	t.Parallel()
	primary := pgtest.New(t)
	var address virtualAddress
	address.to.Store(primary.Addr())
	source := pgtest.URLAt(address.listen(t))
	s, c := open(t, source, sqlkeys.Config{}), make(reports, 100)
	watch(t, s, c)
	require.Equal(t, "", c.next(t))
	k := s.issue(t, sqlkeys.NewKey{})
	for range 2 { // the sender, and its key
		require.Equal(t, k.Key.SenderID, c.next(t))
	}
	standby := primary.Standby(t)
	standby.Exec(t, `SELECT pg_promote()`)
	address.to.Store(standby.Addr())
	s.db.SetConnMaxLifetime(time.Millisecond) // 5 minutes would be long for a test
	require.Equal(t, "", c.next(t), "the feed is on the new primary")

	require.NoError(t, open(t, pgtest.URLAt(standby.Addr()), sqlkeys.Config{}).Revoke(t.Context(), k.Key.ID))
	require.Equal(t, k.Key.SenderID, c.next(t))
}

// The feed follows a failover that happens before its first probe. It purges the cache once,
// although the pool goes on using a connection to the old primary.
func TestWatchFollowsAFailoverBeforeItsFirstProbe(t *testing.T) {
	t.Parallel()
	primary := pgtest.New(t)
	migrated := open(t, pgtest.URLAt(primary.Addr()), sqlkeys.Config{})
	k := migrated.issue(t, sqlkeys.NewKey{})
	standby := primary.Standby(t)
	standby.Exec(t, `SELECT pg_promote()`)
	var address virtualAddress
	address.to.Store(primary.Addr())
	s, log := openLogged(t, pgtest.URLAt(address.listen(t))+"&application_name=lags")
	lagging, err := s.db.Conn(t.Context())
	require.NoError(t, err)
	c := listening{make(reports, 100), make(chan struct{})}
	watch(t, s, c)
	require.Equal(t, "", c.next(t), "the feed listens to the old primary")
	address.to.Store(standby.Addr())
	s.db.SetMaxIdleConns(0) // so that the probe takes a new connection
	close(c.mayProbe)
	require.Equal(t, "", c.next(t), "the feed listens to the new one")

	s.db.SetMaxIdleConns(1)
	require.NoError(t, lagging.Close()) // so that each probe takes this one
	probes := make(map[string]bool)
	require.Eventually(t, func() bool {
		var at sql.NullString
		require.NoError(t, migrated.db.QueryRow(`SELECT max(query_start)::text FROM pg_stat_activity
			WHERE application_name = 'lags' AND query LIKE '%FROM pg_notify%'`).Scan(&at))
		if at.Valid {
			probes[at.String] = true
		}
		return len(probes) >= 3
	}, 60*time.Second, 10*time.Millisecond, "no probe reaches the old primary")
	require.Empty(t, c.reports)
	require.NoError(t, open(t, pgtest.URLAt(standby.Addr()), sqlkeys.Config{}).Revoke(t.Context(), k.Key.ID))
	require.Equal(t, k.Key.SenderID, c.next(t))
	require.Equal(t, 1, strings.Count(log.String(), "\n"), log)
	require.Contains(t, log.String(), "sqlkeys: the feed of changes has followed the pool to another server")
}

// A listening feed does not send its first probe until it may.
type listening struct {
	reports
	mayProbe chan struct{}
}

func (l listening) Purge() {
	l.reports.Purge()
	<-l.mayProbe
}

// A failover to a standby that lags loses revocations. A store that has refused a revoked
// key never accepts it again. One that has not cannot know.
func TestRevokedKeyStaysRefusedAfterAFailover(t *testing.T) {
	t.Parallel()
	primary := pgtest.New(t)
	var address virtualAddress
	address.to.Store(primary.Addr())
	s := open(t, pgtest.URLAt(address.listen(t)), sqlkeys.Config{})
	k := s.issue(t, sqlkeys.NewKey{})
	standby := primary.Standby(t)
	standby.Exec(t, `ALTER SYSTEM SET primary_conninfo = ''`)
	standby.Exec(t, `SELECT pg_reload_conf()`)
	there := openDB(t, pgtest.URLAt(standby.Addr()))
	require.Eventually(t, func() bool {
		var receives bool
		require.NoError(t, there.QueryRow(`SELECT EXISTS (SELECT 1 FROM pg_stat_wal_receiver)`).Scan(&receives))
		return !receives
	}, 30*time.Second, 10*time.Millisecond)
	require.NoError(t, s.Revoke(t.Context(), k.Key.ID))
	require.ErrorIs(t, validate(t, s, k.Credentials), senderauth.ErrInvalidKey)

	standby.Exec(t, `SELECT pg_promote()`)
	address.to.Store(standby.Addr())
	s.db.SetConnMaxLifetime(time.Nanosecond)
	require.Eventually(t, func() bool {
		found, err := s.Key(t.Context(), k.Key.ID)
		return err == nil && found.State == sqlkeys.Active
	}, 30*time.Second, 10*time.Millisecond, "the revocation is not lost")
	var refused *sqlkeys.RefusedError
	require.ErrorAs(t, validate(t, s, k.Credentials), &refused)
	require.Equal(t, sqlkeys.Revoked, refused.State)
	require.NoError(t, validate(t, open(t, pgtest.URLAt(standby.Addr()), sqlkeys.Config{}), k.Credentials))
}
