package sqlkeys

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/senderauth/senderauth/internal/uuid"
)

const (
	// channel carries the notifications of the triggers: the ID of the sender
	// that changed, or nothing if any sender may have.
	channel = "sqlkeys_changed"
	// At each heartbeat the connection is pinged and a probe is sent to it. Both must
	// arrive within heartbeatTimeout.
	heartbeat        = 5 * time.Second
	heartbeatTimeout = 2 * time.Second
)

var errWrappedDriver = errors.New("sqlkeys: Watch needs the connections of github.com/jackc/pgx/v5/stdlib as they are")

// follow listens for the notifications that the triggers send.
func (p *postgres) follow(ctx context.Context, f feed) error {
	return withConn(ctx, p.db, func(conn *sql.Conn) error {
		var l *pgx.Conn
		conn.Raw(func(dc any) error {
			if std, ok := dc.(*stdlib.Conn); ok {
				l = std.Conn()
			}
			return nil
		})
		if l == nil {
			return errWrappedDriver
		}
		// Listen outside of Raw. Raw locks the connection, and closing a
		// statement that was prepared on it would wait until the feed ends.
		// Nobody else gets the connection until withConn returns.
		return (&listener{p, l, f, "sqlkeys_probe_" + rand.Text(), false}).run(ctx)
	})
}

// A listener is one connection of the feed. It also listens to a channel of its own, on
// which it probes itself.
type listener struct {
	*postgres
	conn    *pgx.Conn
	feed    feed
	probing string // the channel
	proven  bool   // a probe has arrived
}

func (l *listener) run(ctx context.Context) error {
	// Close the connection. Below database/sql there may be a pool of pgx,
	// which would otherwise reuse a connection that still listens.
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), heartbeatTimeout)
		defer cancel()
		l.conn.Close(ctx)
	}()
	for _, name := range []string{channel, l.probing} {
		if _, err := l.conn.Exec(ctx, `LISTEN "`+name+`"`); isReadOnly(err) {
			return fmt.Errorf("the server is a standby, which has no notifications: connect to the primary, for example with target_session_attrs=read-write: %w", err)
		} else if err != nil {
			return err
		}
	}
	l.feed.start()
	for {
		if err := l.probe(ctx); err != nil {
			return err
		}
		if err := l.report(ctx, heartbeat, nil); err != nil {
			return err
		}
		answer, cancel := context.WithTimeout(ctx, heartbeatTimeout)
		err := l.conn.Ping(answer)
		cancel()
		if err != nil {
			return err
		}
	}
}

// probe notifies the listener through the pool, and returns an error if that stopped
// arriving: the pool may have followed a failover, while the listener hears a server that
// nobody writes to. If no probe has ever arrived, reconnecting does not help, and the
// cache would be purged for nothing.
func (l *listener) probe(ctx context.Context) error {
	sending, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	sent := make(chan error, 1)
	go func() { // a busy pool does not hold up notifications
		_, err := l.db.ExecContext(sending, `SELECT pg_notify($1, '')`, l.probing)
		sent <- err
	}()
	arrived := false
	err := l.report(ctx, 2*heartbeatTimeout, &arrived)
	cancel()
	if unsent := <-sent; err != nil || unsent != nil && !arrived {
		return err // a busy pool says nothing about the listener
	}
	switch {
	case arrived:
		l.proven = true
	case l.proven:
		return errProbeLost
	default:
		l.feed.warn(errDeaf)
	}
	return nil
}

// isReadOnly reports that the server takes no changes.
func isReadOnly(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && refused.Code == "25006"
}

var (
	errProbeLost = errors.New("the server that the feed listens to is not the one that the pool writes to")
	errDeaf      = errors.New("notifications do not arrive, so that a revoked key is accepted until its TTL ends: connect to PostgreSQL directly, or through PgBouncer in session mode")
)

// report reports changes for the time d, or until a probe has arrived if somebody waits
// for one.
func (l *listener) report(ctx context.Context, d time.Duration, arrived *bool) error {
	quiet, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for {
		n, err := l.conn.WaitForNotification(quiet)
		switch {
		case err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) && !l.conn.IsClosed():
			return nil
		case err != nil:
			return err
		case n.Channel != channel:
			if arrived != nil {
				*arrived = true
				return nil
			}
			continue
		}
		if id, ok := uuid.Canonical(n.Payload); ok {
			l.feed.Forget(id)
		} else {
			l.feed.Purge()
		}
	}
}
