package sqlkeys_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sqlitedriver "modernc.org/sqlite"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// The driver reports a context that ended during a statement even if SQLite has
// executed the statement. A connection that is still inside a transaction must
// not return to the pool. It would refuse later changes, lock out other
// connections, and read stale rows.

// In this test each statement of a change in turn is executed but reported as failed.
func TestLostAnswerLeavesNoTransaction(t *testing.T) {
	source := filepath.Join(t.TempDir(), "keys.db")
	good := open(t, source, sqlkeys.Config{})
	k := good.issue(t, sqlkeys.NewKey{})

	connector := &lossyConnector{source: source}
	db := sql.OpenDB(connector)
	defer db.Close()
	db.SetMaxOpenConns(1)
	store, err := sqlkeys.Open(t.Context(), db, sqlkeys.Config{})
	require.NoError(t, err)
	defer store.Close()
	lossy := fixture{Store: store, db: db, source: source}

	var failed []string
	for n := int64(1); ; n++ {
		connector.left.Store(n)
		err := lossy.Disable(t.Context(), k.Key.ID)
		lost := connector.left.Load() <= 0
		connector.left.Store(0)
		if !lost {
			require.NoError(t, err)
			break
		}
		require.ErrorIs(t, err, context.Canceled, connector.lost)
		failed = append(failed, strings.Fields(connector.lost)[0])
		stored, err := lossy.Key(t.Context(), k.Key.ID)
		require.NoError(t, err)
		if connector.lost == "COMMIT" {
			require.NotZero(t, stored.DisabledAt)
		} else {
			require.Zero(t, stored.DisabledAt, connector.lost)
		}
		require.NoError(t, lossy.Enable(t.Context(), k.Key.ID), "after %s", connector.lost)
		requireNoTransaction(t, lossy)
	}
	require.Equal(t, []string{"PRAGMA", "BEGIN", "SELECT", "SELECT", "SELECT", "UPDATE", "INSERT", "COMMIT"}, failed)
}

// A lossyConnector connects to SQLite, and loses the answer to one statement.
type lossyConnector struct {
	source string
	left   atomic.Int64 // statements up to the one to lose; 1 means the next one
	lost   string
}

func (c *lossyConnector) Driver() driver.Driver { return &sqlitedriver.Driver{} }

func (c *lossyConnector) Connect(context.Context) (driver.Conn, error) {
	conn, err := c.Driver().Open("file:" + c.source)
	if err != nil {
		return nil, err
	}
	return lossyConn{conn.(sqliteConn), c}, nil
}

// loses reports whether the answer to the statement is lost.
func (c *lossyConnector) loses(query string) bool {
	if c.left.Add(-1) != 0 {
		return false
	}
	c.lost = query
	return true
}

type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.SessionResetter
	driver.Validator
}

type lossyConn struct {
	sqliteConn
	connector *lossyConnector
}

func (c lossyConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	res, err := c.sqliteConn.ExecContext(ctx, query, args)
	if err == nil && c.connector.loses(query) {
		return nil, context.Canceled
	}
	return res, err
}

func (c lossyConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := c.sqliteConn.QueryContext(ctx, query, args)
	if err == nil && c.connector.loses(query) {
		rows.Close()
		return nil, context.Canceled
	}
	return rows, err
}

// In this test the context ends at each step of a call in turn.
func TestEndedContextLeavesNoTransaction(t *testing.T) {
	for name, call := range map[string]func(ctx context.Context, s fixture, k sqlkeys.Issued){
		"change": func(ctx context.Context, s fixture, k sqlkeys.Issued) {
			changed := s.Disable(ctx, k.Key.ID) == nil
			stored, err := s.Key(t.Context(), k.Key.ID)
			require.NoError(t, err)
			require.Equal(t, changed, !stored.DisabledAt.IsZero(), "the caller learns whether it was committed")
			require.NoError(t, s.Enable(t.Context(), k.Key.ID))
		},
		"lookup": func(ctx context.Context, s fixture, k sqlkeys.Issued) { s.Validate(ctx, k.Credentials) },
		"list": func(ctx context.Context, s fixture, k sqlkeys.Issued) {
			for range s.Keys(ctx, sqlkeys.KeyFilter{}) {
			}
		},
		"flush": func(ctx context.Context, s fixture, k sqlkeys.Issued) {
			r := recorder(t, s, sqlkeys.RecorderConfig{})
			r.Observe(ctx, senderauth.Event{Outcome: senderauth.Admitted, Sender: senderauth.Sender{KeyID: k.Key.ID}})
			r.Close(ctx)
		},
		"migrate": func(ctx context.Context, s fixture, k sqlkeys.Issued) {
			_, err := s.db.Exec(`DELETE FROM sqlkeys_schema WHERE version_id > 0`)
			require.NoError(t, err)
			sqlkeys.Migrate(ctx, s.db) // fails, because the tables exist
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, "file:"+filepath.Join(t.TempDir(), "keys.db")+"?_pragma=synchronous(OFF)", sqlkeys.Config{})
			s.db.SetMaxOpenConns(4)
			k := s.issue(t, sqlkeys.NewKey{})
			calls := 0
			for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
				for n, ended := 1, true; ended; n++ {
					ctx := &countdown{Context: t.Context(), done: make(chan struct{})}
					ctx.left.Store(int64(n))
					call(ctx, s, k)
					ended = ctx.Err() != nil
					calls++
					require.NoError(t, s.EnableSender(t.Context(), k.Key.SenderID), "after call %d, whose context ended at step %d", calls, n)
				}
			}
			t.Logf("%d calls", calls)
			requireNoTransaction(t, s)
		})
	}
}

// A countdown is a context that ends at the nth call of its method Done, and so within a
// chosen step of a call.
type countdown struct {
	context.Context
	left atomic.Int64
	done chan struct{}
}

func (c *countdown) Done() <-chan struct{} {
	if c.left.Add(-1) == 0 {
		close(c.done)
	}
	return c.done
}

func (c *countdown) Err() error {
	select {
	case <-c.done:
		return context.Canceled
	default:
		return nil
	}
}

// Deadline returns one, so that the store derives no context with its own deadline.
func (c *countdown) Deadline() (time.Time, bool) { return time.Now().Add(time.Hour), true }

// requireNoTransaction takes all connections of the pool and begins a transaction on each.
// That fails on a connection with an open transaction. It fails even if that only reads,
// because the database has changed since it began.
func requireNoTransaction(t *testing.T, s fixture) {
	s.sender(t)
	for range s.db.Stats().OpenConnections {
		c, err := s.db.Conn(t.Context())
		require.NoError(t, err)
		defer c.Close()
		_, err = c.ExecContext(t.Context(), "BEGIN IMMEDIATE")
		require.NoError(t, err)
		_, err = c.ExecContext(t.Context(), "ROLLBACK")
		require.NoError(t, err)
	}
}
