package sqlkeys

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// A Forgetter is what [Store.Watch] tells of changes: a [*senderauth.Cache].
type Forgetter interface {
	Forget(senderID string)
	Purge()
}

const (
	channel = "sqlkeys_changed"
	// A connection that says nothing for this long is asked whether it lives,
	// and has the second to answer.
	heartbeat        = 5 * time.Second
	heartbeatTimeout = 2 * time.Second
	// SQLite tells nobody; asking costs some microseconds.
	pollInterval = 20 * time.Millisecond
)

// Watch tells c which sender was changed, by any instance or by hand, until
// ctx ends, and then returns nil. It takes one connection of the pool for
// itself, and so fails with a pool that has no more than one.
//
// On PostgreSQL triggers notify it (LISTEN). A connection to PostgreSQL that
// is lost is made again, after 50 ms at first and a second at most; one that
// dies without a word is noticed within 7 seconds. Then c forgets everybody,
// for what happened meanwhile is not known. So a revoked key is refused as
// soon as the news arrive, or after the connection is back, and in any case
// when the TTL of the cache ends. While the connection is down c forgets
// nothing: what it remembers goes on being served.
//
// On SQLite changes through this Store are told at once, and others within 20
// milliseconds.
func (s *Store) Watch(ctx context.Context, c Forgetter) error {
	if s.db.Stats().MaxOpenConnections == 1 {
		return errors.New("sqlkeys: Watch needs a connection for itself, and the pool has only one")
	}
	follow := s.listen
	if s.dialect == &sqliteDialect {
		follow = s.poll
	}
	const first, most = 50 * time.Millisecond, time.Second
	wait := first
	for {
		err := follow(ctx, c, func() {
			if wait > first {
				s.log.InfoContext(ctx, "sqlkeys: the feed of changes is back")
			}
			wait = first
		})
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errWrappedDriver) {
			return err
		}
		s.log.WarnContext(ctx, "sqlkeys: the feed of changes is lost", "error", err)
		// Half of it at random: instances do not come back all at once.
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait/2 + rand.N(wait/2)):
		}
		wait = min(2*wait, most)
	}
}

var errWrappedDriver = errors.New("sqlkeys: Watch needs the connections of github.com/jackc/pgx/v5/stdlib as they are")

// withConn runs f on a connection that does not go back to the pool.
func (s *Store) withConn(ctx context.Context, f func(*sql.Conn) error) error {
	c, err := s.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	err = f(c)
	c.Raw(func(any) error { return driver.ErrBadConn })
	return err
}

// listen follows the notifications of PostgreSQL until it cannot.
func (s *Store) listen(ctx context.Context, c Forgetter, connected func()) error {
	return s.withConn(ctx, func(conn *sql.Conn) error {
		var listener *pgx.Conn
		conn.Raw(func(dc any) error {
			if std, ok := dc.(*stdlib.Conn); ok {
				listener = std.Conn()
			}
			return nil
		})
		if listener == nil {
			return errWrappedDriver
		}
		// Not within Raw, which locks the connection: whoever closes a statement
		// that was prepared on it would wait for the feed to end. Nobody else
		// gets the connection before it is given back.
		return listenOn(ctx, listener, c, connected)
	})
}

func listenOn(ctx context.Context, conn *pgx.Conn, c Forgetter, connected func()) error {
	// A pool of pgx under that of database/sql would keep it, and what it hears.
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), heartbeatTimeout)
		defer cancel()
		conn.Close(ctx)
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return err
	}
	// From here on nothing is missed; what was before is not known.
	c.Purge()
	connected()
	for {
		n, err := waitFor(ctx, conn)
		switch {
		case err != nil:
			return err
		case n == "":
			c.Purge()
		default:
			c.Forget(n)
		}
	}
}

// waitFor returns the sender of the next notification, "" for all of them.
func waitFor(ctx context.Context, conn *pgx.Conn) (string, error) {
	for {
		quiet, cancel := context.WithTimeout(ctx, heartbeat)
		n, err := conn.WaitForNotification(quiet)
		cancel()
		if err == nil {
			id, _ := canonicalUUID(n.Payload)
			return id, nil
		}
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) || conn.IsClosed() {
			return "", err
		}
		answer, cancel := context.WithTimeout(ctx, heartbeatTimeout)
		err = conn.Ping(answer)
		cancel()
		if err != nil {
			return "", err
		}
	}
}

// poll follows the changes of a SQLite file until it cannot.
func (s *Store) poll(ctx context.Context, c Forgetter, connected func()) error {
	return s.withConn(ctx, func(conn *sql.Conn) error {
		version, err := conn.PrepareContext(ctx, `PRAGMA data_version`)
		if err != nil {
			return err
		}
		defer version.Close()
		changes, err := conn.PrepareContext(ctx, `SELECT seq, sender_id FROM sqlkeys_changes WHERE seq >= ? ORDER BY seq`)
		if err != nil {
			return err
		}
		defer changes.Close()

		var seen, last int64
		if err := version.QueryRowContext(ctx).Scan(&seen); err != nil {
			return err
		}
		if err := conn.QueryRowContext(ctx, `SELECT coalesce(max(seq), 0) FROM sqlkeys_changes`).Scan(&last); err != nil {
			return err
		}
		told := s.local.wait()
		c.Purge()
		connected()
		tick := time.NewTicker(pollInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-told:
				told = s.local.wait()
			case <-tick.C:
			}
			var now int64
			if err := version.QueryRowContext(ctx).Scan(&now); err != nil {
				return fmt.Errorf("data_version: %w", err)
			}
			if now == seen {
				continue
			}
			seen = now
			if last, err = forgetSince(ctx, changes, last, c); err != nil {
				return err
			}
		}
	})
}

// forgetSince forgets the senders that changed after last, and returns the
// last change. Where last itself is gone, or one after it, it forgets everybody:
// more have come than are kept, or somebody has deleted some or put an older
// file back.
func forgetSince(ctx context.Context, changes *sql.Stmt, last int64, c Forgetter) (int64, error) {
	rows, err := changes.QueryContext(ctx, last)
	if err != nil {
		return last, err
	}
	defer rows.Close()
	next := max(last, 1)
	for rows.Next() {
		var seq int64
		var sender string
		if err := rows.Scan(&seq, &sender); err != nil {
			return last, err
		}
		if seq != next {
			c.Purge()
		}
		if seq != last {
			c.Forget(sender)
		}
		next = seq + 1
	}
	if next == last {
		c.Purge()
		return 0, rows.Err()
	}
	return next - 1, rows.Err()
}
