package sqlkeys

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/senderauth/senderauth/internal/uuid"
)

const (
	// channel carries the notifications of the triggers: the ID of the sender
	// that changed, or nothing if any sender may have.
	channel = "sqlkeys_changed"
	// A connection that has been silent for the heartbeat is pinged, and must
	// answer within heartbeatTimeout.
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
		return listen(ctx, l, f)
	})
}

func listen(ctx context.Context, conn *pgx.Conn, f feed) error {
	// Close the connection. Below database/sql there may be a pool of pgx,
	// which would otherwise reuse a connection that still listens.
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), heartbeatTimeout)
		defer cancel()
		conn.Close(ctx)
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return err
	}
	f.start()
	for {
		sender, err := nextChange(ctx, conn)
		switch {
		case err != nil:
			return err
		case sender == "":
			f.Purge()
		default:
			f.Forget(sender)
		}
	}
}

// nextChange waits for a notification and returns the sender that changed, or
// "" if any may have.
func nextChange(ctx context.Context, conn *pgx.Conn) (string, error) {
	for {
		quiet, cancel := context.WithTimeout(ctx, heartbeat)
		n, err := conn.WaitForNotification(quiet)
		cancel()
		if err == nil {
			if id, ok := uuid.Canonical(n.Payload); ok {
				return id, nil
			}
			return "", nil
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
