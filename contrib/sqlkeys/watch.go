package sqlkeys

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// A Forgetter drops what it remembers about senders when [Store.Watch] tells it
// to. A [*senderauth.Cache] is one.
type Forgetter interface {
	Forget(senderID string)
	Purge()
}

// A feed is the receiver to which an engine reports changes.
type feed struct {
	Forgetter
	connected func()
	moved     func()      // it goes on with another server
	warn      func(error) // that the feed does not work
}

// start begins a feed. From now on it misses no change. It may have missed earlier ones, so
// it purges everything.
func (f feed) start() {
	f.Purge()
	f.connected()
}

const firstRetry, maxRetry = 50 * time.Millisecond, time.Second

// Watch makes c forget each sender that changes, by any instance or by hand,
// until ctx ends. It then returns nil. Watch occupies one connection of the
// pool, so it fails on a pool that is limited to one. It also fails on a pool whose
// pgx configuration has an OnNotification, which would get the notifications.
//
// On PostgreSQL, triggers notify it (LISTEN). If the connection is lost, Watch
// reconnects: first after 50 ms, later after at most 1 second. It notices
// within 7 seconds that a connection has died silently. After reconnecting it
// purges c, because it may have missed changes. A revoked key is therefore
// refused as soon as the notification arrives or the connection is back, and in
// any case when the TTL of the cache ends. While the connection is down, c
// keeps serving what it remembers.
//
// At first and then every 5 seconds, Watch sends itself a notification through the pool,
// and reads there when the server was started. If that is another server than the one it
// listens to, there may have been a failover. Watch then opens a connection. If that
// leads to another server, too, Watch listens there, closes the old connection and purges
// c, once for each failover. Otherwise only the pool has connections to the old server,
// and Watch stays. Once the pool has no connection to the old server, Watch follows a
// failover within 5 seconds and the time to connect. If notifications stop arriving
// although the server is the same, Watch reconnects.
//
// Notifications do not pass PgBouncer in transaction mode, and a standby has none. Watch
// then logs once what to do, and a revoked key is accepted until its TTL ends.
//
// On SQLite, Watch reports changes made through this Store at once, and others
// within 20 ms. If another file takes the place of the file of a pool of [OpenDB],
// Watch purges c and follows that file.
func (s *Store) Watch(ctx context.Context, c Forgetter) error {
	if s.db.Stats().MaxOpenConnections == 1 {
		return errors.New("sqlkeys: Watch needs a connection for itself, and the pool has only one")
	}
	state := s.feeds.begin()
	defer s.feeds.end(state)
	wait := firstRetry
	said := make(map[string]bool) // kinds of errors since the feed was last there
	warn := func(err error) {
		s.feeds.set(state, err)
		if kind := kind(err); !said[kind] {
			said[kind] = true
			s.log.WarnContext(ctx, "sqlkeys: the feed of changes is lost", "error", err)
		}
	}
	connected := func() {
		s.feeds.set(state, nil)
		if wait > firstRetry {
			s.log.InfoContext(ctx, "sqlkeys: the feed of changes is back")
			clear(said)
		}
		wait = firstRetry
	}
	moved := func() {
		s.log.InfoContext(ctx, "sqlkeys: the feed of changes has followed the pool to another server")
		clear(said)
	}
	for {
		err := s.engine.follow(ctx, feed{c, connected, moved, warn})
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errWrappedDriver) || errors.Is(err, errOwnHandler) {
			return err
		}
		warn(err)
		// Half of the wait is random, so that instances do not reconnect all
		// at once.
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait/2 + rand.N(wait/2)):
		}
		wait = min(2*wait, maxRetry)
	}
}

// kind tells apart the errors of a feed that are worth a record each. Their texts may differ
// with each try.
func kind(err error) string {
	var refused *pgconn.PgError
	switch {
	case errors.As(err, &refused):
		return refused.Code
	case errors.Is(err, errDeaf), errors.Is(err, errForeignLog):
		return err.Error()
	}
	return ""
}

// withConn runs f on a connection that the pool does not use again.
func withConn(ctx context.Context, db *sql.DB, f func(*sql.Conn) error) error {
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	defer c.Raw(func(any) error { return driver.ErrBadConn })
	return f(c)
}
