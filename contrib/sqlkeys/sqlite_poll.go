package sqlkeys

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"time"
)

// pollInterval is how often the file is checked for changes by other
// processes. A check takes a few microseconds.
const pollInterval = 20 * time.Millisecond

// follow polls the file, and looks at once after a commit of this process.
func (l *sqlite) follow(ctx context.Context, f feed) error {
	return withConn(ctx, l.db, func(conn *sql.Conn) error {
		c, err := newChangeReader(ctx, conn, f)
		if err != nil {
			return err
		}
		defer c.close()
		changed := l.changed.wait()
		f.start()
		tick := time.NewTicker(pollInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
				changed = l.changed.wait()
			case <-tick.C:
			}
			if err := checkFile(conn); err != nil {
				return err
			}
			if err := c.poll(ctx); err != nil {
				return err
			}
		}
	})
}

// checkFile returns an error if the file of a connection that OpenDB made was replaced.
func checkFile(conn *sql.Conn) error {
	return conn.Raw(func(c any) error {
		if own, ok := c.(*sqliteConn); ok {
			return own.check()
		}
		return nil
	})
}

// A changeReader reads the senders that triggers have added to sqlkeys_changes.
type changeReader struct {
	feed        feed
	dataVersion *sql.Stmt // grows when another connection commits
	changes     *sql.Stmt
	seen        int64 // the last data version
	last        int64 // the last change
}

func newChangeReader(ctx context.Context, conn *sql.Conn, f feed) (*changeReader, error) {
	c := &changeReader{feed: f}
	if err := c.prepare(ctx, conn); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *changeReader) prepare(ctx context.Context, conn *sql.Conn) (err error) {
	if c.dataVersion, err = conn.PrepareContext(ctx, `PRAGMA data_version`); err != nil {
		return err
	}
	if c.changes, err = conn.PrepareContext(ctx, `SELECT seq, sender_id FROM sqlkeys_changes WHERE seq >= ? ORDER BY seq`); err != nil {
		return err
	}
	if err := c.dataVersion.QueryRowContext(ctx).Scan(&c.seen); err != nil {
		return err
	}
	return conn.QueryRowContext(ctx, `SELECT coalesce(max(seq), 0) FROM sqlkeys_changes`).Scan(&c.last)
}

func (c *changeReader) close() {
	for _, stmt := range []*sql.Stmt{c.dataVersion, c.changes} {
		if stmt != nil {
			stmt.Close()
		}
	}
}

// poll reports what has changed since the last call.
func (c *changeReader) poll(ctx context.Context) error {
	var now int64
	if err := c.dataVersion.QueryRowContext(ctx).Scan(&now); err != nil {
		return fmt.Errorf("data_version: %w", err)
	}
	if now == c.seen {
		return nil
	}
	c.seen = now
	return c.report(ctx)
}

// report forgets the senders that changed after c.last. It forgets all of them
// if c.last or a later change is missing: more changes arrived than the table
// keeps, somebody deleted some, or the file was replaced by an older one.
func (c *changeReader) report(ctx context.Context) error {
	rows, err := c.changes.QueryContext(ctx, c.last)
	if err != nil {
		return err
	}
	defer rows.Close()
	next := max(c.last, 1)
	for rows.Next() {
		var seq int64
		var sender string
		if err := rows.Scan(&seq, &sender); err != nil {
			return err
		}
		if seq != next {
			c.feed.Purge()
		}
		if seq != c.last {
			c.feed.Forget(sender)
		}
		next = seq + 1
	}
	if next == c.last {
		c.feed.Purge()
		next = 1
	}
	c.last = next - 1
	return rows.Err()
}

// A broadcast wakes all goroutines that wait for it.
type broadcast struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait returns a channel that the next tell closes.
func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *broadcast) tell() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
