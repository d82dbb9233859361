package sqlkeys

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
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

// Errors of a pool that cannot feed Watch. Watch returns them.
var (
	errWrappedDriver = errors.New("sqlkeys: Watch needs the connections of github.com/jackc/pgx/v5/stdlib as they are")
	errOwnHandler    = errors.New("sqlkeys: Watch needs a pool without OnNotification")
)

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
		return (&listener{postgres: p, conn: l, feed: f, probing: "sqlkeys_probe_" + rand.Text()}).run(ctx)
	})
}

// A listener is the feed on one server. It also listens to a channel of its own, on which
// it probes itself.
type listener struct {
	*postgres
	conn    *pgx.Conn
	server  string // of conn, as startSQL says
	feed    feed
	probing string // the channel
	proven  bool   // a probe has arrived
}

func (l *listener) run(ctx context.Context) error {
	defer func() { closeConn(ctx, l.conn) }()
	if err := l.listen(ctx); err != nil {
		return err
	}
	for {
		if err := l.probe(ctx); err != nil {
			return err
		}
		if err := l.rest(ctx); err != nil {
			return err
		}
	}
}

// startSQL tells servers apart by the time when each was started. Every role may read it.
const startSQL = `extract(epoch FROM pg_postmaster_start_time())::text`

// listen begins the feed on the server of l.conn, in one round trip.
func (l *listener) listen(ctx context.Context) error {
	results, err := l.conn.PgConn().Exec(ctx, `LISTEN "`+channel+`"; LISTEN "`+l.probing+`"; SELECT `+startSQL).ReadAll()
	if isReadOnly(err) {
		return fmt.Errorf("the server is a standby, which has no notifications: connect to the primary, for example with target_session_attrs=read-write: %w", err)
	}
	if err != nil {
		return err
	}
	l.server = string(results[2].Rows[0][0])
	l.feed.start()
	return nil
}

// rest reports changes until the next heartbeat, and checks the connection.
func (l *listener) rest(ctx context.Context) error {
	quiet, cancel := context.WithTimeout(ctx, heartbeat)
	defer cancel()
	if err := l.report(ctx, quiet, func() {}); err != nil {
		return err
	}
	answer, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	return l.conn.Ping(answer)
}

// probe notifies the listener through the pool. If the notification reaches another server
// than the listener, the pool may have followed a failover. If it stops arriving on the same
// one, probe returns an error. If it has never arrived, reconnecting does not help, and the
// cache would be purged for nothing.
func (l *listener) probe(ctx context.Context) error {
	answer, stop := context.WithTimeout(ctx, 2*heartbeatTimeout)
	defer stop()
	sending, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	own := l.server
	var server string
	var arrived, accepted atomic.Bool
	sent := make(chan error, 1)
	go func() { // a busy pool does not hold up notifications
		err := l.db.QueryRowContext(sending, `SELECT `+startSQL+` FROM pg_notify($1, '')`, l.probing).Scan(&server)
		accepted.Store(err == nil)
		if err != nil || server != own || arrived.Load() {
			stop() // there is nothing to wait for
		}
		sent <- err
	}()
	err := l.report(ctx, answer, func() {
		arrived.Store(true)
		if accepted.Load() {
			stop()
		}
	})
	if err != nil {
		cancel()
	}
	unsent := <-sent
	switch {
	case err != nil:
		return err
	case unsent != nil:
		return nil // a busy pool says nothing about the listener
	case server != own:
		return l.move(ctx)
	case arrived.Load():
		l.proven = true
		l.feed.connected() // even if it was deaf before
	case l.proven:
		return errProbeLost
	default:
		l.feed.warn(errDeaf)
	}
	return nil
}

// move goes to the server that a new connection reaches, if it is another one. The pool
// may have connections to both. The listener has no use for one of these, because any of
// them may be older than the failover.
func (l *listener) move(ctx context.Context) error {
	cfg := l.conn.Config()
	cfg.OnNotification = nil // it is that of l.conn
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	server, err := startOf(ctx, conn)
	if err != nil || server == l.server { // the pool lags behind the listener
		closeConn(ctx, conn)
		return err
	}
	closeConn(ctx, l.conn)
	l.conn, l.proven = conn, false
	l.feed.moved()
	return l.listen(ctx)
}

// startOf returns when the server of a connection was started.
func startOf(ctx context.Context, conn *pgx.Conn) (start string, err error) {
	ctx, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	// The simple protocol prepares no statement, so this works through PgBouncer, too.
	err = conn.QueryRow(ctx, `SELECT `+startSQL, pgx.QueryExecModeSimpleProtocol).Scan(&start)
	return start, err
}

// closeConn closes a connection. Below database/sql there may be a pool of pgx, which would
// otherwise reuse a connection that still listens.
func closeConn(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), heartbeatTimeout)
	defer cancel()
	conn.Close(ctx)
}

// isReadOnly reports that the server takes no changes.
func isReadOnly(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && refused.Code == "25006"
}

var (
	errProbeLost = errors.New("notifications have stopped arriving")
	errDeaf      = errors.New("notifications do not arrive, so that a revoked key is accepted until its TTL ends: connect to PostgreSQL directly, or through PgBouncer in session mode")
)

// report reports changes until the context until ends. It calls probed when a probe
// arrives.
func (l *listener) report(ctx, until context.Context, probed func()) error {
	for {
		n, err := l.conn.WaitForNotification(until)
		switch {
		case err != nil && until.Err() != nil && ctx.Err() == nil && !l.conn.IsClosed():
			return nil
		case err != nil:
			return err
		case n == nil:
			return errOwnHandler // which got the notification
		case n.Channel != channel:
			probed()
			continue
		}
		if id, ok := uuid.Canonical(n.Payload); ok {
			l.feed.Forget(id)
		} else {
			l.feed.Purge()
		}
	}
}
