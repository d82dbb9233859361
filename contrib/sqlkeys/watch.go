package sqlkeys

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"math/rand/v2"
	"time"
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
// pool, so it fails on a pool that is limited to one.
//
// On PostgreSQL, triggers notify it (LISTEN). If the connection is lost, Watch
// reconnects: first after 50 ms, later after at most 1 second. It notices
// within 7 seconds that a connection has died silently. After reconnecting it
// purges c, because it may have missed changes. A revoked key is therefore
// refused as soon as the notification arrives or the connection is back, and in
// any case when the TTL of the cache ends. While the connection is down, c
// keeps serving what it remembers.
//
// On SQLite, Watch reports changes made through this Store at once, and others
// within 20 ms. If another file takes the place of the file of a pool of [OpenDB],
// Watch purges c and follows that file.
func (s *Store) Watch(ctx context.Context, c Forgetter) error {
	if s.db.Stats().MaxOpenConnections == 1 {
		return errors.New("sqlkeys: Watch needs a connection for itself, and the pool has only one")
	}
	wait := firstRetry
	f := feed{c, func() {
		if wait > firstRetry {
			s.log.InfoContext(ctx, "sqlkeys: the feed of changes is back")
		}
		wait = firstRetry
	}}
	for {
		err := s.engine.follow(ctx, f)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errWrappedDriver) {
			return err
		}
		s.log.WarnContext(ctx, "sqlkeys: the feed of changes is lost", "error", err)
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
