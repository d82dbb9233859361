package sqlkeys_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// admit makes the recorder count one admitted request.
func admit(r *sqlkeys.Recorder, keyID string) {
	r.Observe(context.Background(), senderauth.Event{Outcome: senderauth.Admitted, Sender: senderauth.Sender{KeyID: keyID}})
}

// recorded returns the requests of each key ID in the table.
func recorded(t *testing.T, s fixture) map[string]int {
	rows, err := s.db.Query(`SELECT key_id, requests FROM sqlkeys_usage`)
	require.NoError(t, err)
	defer rows.Close()
	counts := make(map[string]int)
	for rows.Next() {
		var id string
		var n int
		require.NoError(t, rows.Scan(&id, &n))
		counts[id] += n
	}
	require.NoError(t, rows.Err())
	return counts
}

// refuseKey makes the database refuse usage of one key until it is dropped.
func refuseKey(t *testing.T, s fixture, id string) (drop func()) {
	create := `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one'; END $$;
		CREATE TRIGGER refuse BEFORE INSERT ON sqlkeys_usage FOR EACH ROW WHEN (NEW.key_id = '` + id + `') EXECUTE FUNCTION refuse()`
	end := `DROP TRIGGER refuse ON sqlkeys_usage`
	if s.sqlite() {
		create = `CREATE TRIGGER refuse BEFORE INSERT ON sqlkeys_usage WHEN NEW.key_id = '` + id + `' BEGIN SELECT RAISE(ABORT, 'not this one'); END`
		end = `DROP TRIGGER refuse`
	}
	_, err := s.db.Exec(create)
	require.NoError(t, err)
	return func() {
		_, err := s.db.Exec(end)
		require.NoError(t, err)
	}
}

func TestBacklogIsWrittenInPieces(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		const keys = 12_000
		r := recorder(t, s, sqlkeys.RecorderConfig{})
		want := make(map[string]int, keys)
		for i := range keys {
			id := fmt.Sprintf("key_%016d", i)
			admit(r, id)
			want[id] = 1
		}
		drop := refuseKey(t, s, fmt.Sprintf("key_%016d", keys-1))
		require.ErrorContains(t, r.Flush(t.Context()), "not this one")
		require.Equal(t, sqlkeys.RecorderStats{Written: 10_000, Waiting: 2000}, r.Stats(), "two pieces of 5,000 are written")
		require.Len(t, recorded(t, s), 10_000)

		admit(r, "key_0000000000000000")
		want["key_0000000000000000"]++
		drop()
		require.NoError(t, r.Flush(t.Context()))
		require.Equal(t, sqlkeys.RecorderStats{Written: keys + 1}, r.Stats())
		require.Equal(t, want, recorded(t, s))
	})
}

// A connection keeps a prepared statement for each text. Without this, a
// backend of PostgreSQL grows with every size of a batch.
func TestStatementsDoNotDependOnTheNumberOfRows(t *testing.T) {
	s := open(t, pgtest.URL(t), sqlkeys.Config{})
	s.db.SetMaxOpenConns(1)
	r := recorder(t, s, sqlkeys.RecorderConfig{})
	sender := s.sender(t)
	write := func(rows int) (prepared int) {
		for i := range rows {
			admit(r, fmt.Sprint("key of batch ", rows, i))
		}
		require.NoError(t, r.Flush(t.Context()))
		ns := make([]sqlkeys.NewKey, rows)
		for i := range ns {
			ns[i].SenderID = sender
		}
		_, err := s.IssueAll(t.Context(), ns)
		require.NoError(t, err)
		require.NoError(t, s.db.QueryRow(`SELECT count(*) FROM pg_prepared_statements`).Scan(&prepared))
		return prepared
	}
	write(1)
	want := write(2)
	require.NotZero(t, want)
	for rows := 3; rows < 12; rows++ {
		require.Equal(t, want, write(rows))
	}
}

func TestKeyIDsThatCannotBeStoredAreDropped(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		r := recorder(t, s, sqlkeys.RecorderConfig{})
		longest := strings.Repeat("é", 127)
		want := map[string]int{"theirs": 1, longest: 1, "'\"\\{},": 1}
		for id := range want {
			admit(r, id)
		}
		for _, id := range []string{"nul\x00", "\xff", longest + "é"} {
			admit(r, id)
			admit(r, id)
		}
		require.NoError(t, r.Flush(t.Context()))
		require.Equal(t, sqlkeys.RecorderStats{Written: 3, Dropped: 6}, r.Stats())
		require.Equal(t, want, recorded(t, s))
		var used int
		require.NoError(t, s.db.QueryRow(`SELECT count(*) FROM sqlkeys_last_used`).Scan(&used))
		require.Equal(t, 3, used)
	})
}

// A cutter is a proxy in front of PostgreSQL that breaks the next connection
// that commits, before or after the server receives the commit.
type cutter struct {
	server        string
	before, after atomic.Bool
}

// listen returns the URL of source through the proxy.
func (c *cutter) listen(t *testing.T, source string) string {
	u, err := url.Parse(source)
	require.NoError(t, err)
	c.server = u.Host
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go c.serve(client)
		}
	}()
	u.Host = l.Addr().String()
	return u.String()
}

func (c *cutter) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", c.server)
	if err != nil {
		return
	}
	defer server.Close()
	var swallow atomic.Bool
	go func() {
		defer client.Close()
		b := make([]byte, 64<<10)
		for {
			n, err := server.Read(b)
			if err != nil || swallow.Load() {
				return
			}
			if _, err := client.Write(b[:n]); err != nil {
				return
			}
		}
	}()
	b := make([]byte, 64<<10)
	for {
		n, err := client.Read(b)
		if err != nil {
			return
		}
		if bytes.Contains(b[:n], []byte("commit\x00")) {
			if c.before.CompareAndSwap(true, false) {
				return
			}
			swallow.Store(c.after.CompareAndSwap(true, false))
		}
		if _, err := server.Write(b[:n]); err != nil {
			return
		}
	}
}

func TestBrokenCommitIsCountedOnce(t *testing.T) {
	for name, arm := range map[string]func(*cutter){
		"before the server receives it": func(c *cutter) { c.before.Store(true) },
		"after the server has done it":  func(c *cutter) { c.after.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var c cutter
			direct := open(t, pgtest.URL(t), sqlkeys.Config{})
			s := open(t, c.listen(t, direct.source), sqlkeys.Config{})
			r := recorder(t, s, sqlkeys.RecorderConfig{})
			use := func() {
				admit(r, "one")
				admit(r, "two")
			}
			use()
			require.NoError(t, r.Flush(t.Context()), "the last uses are written")
			use()
			arm(&c)
			require.ErrorContains(t, r.Flush(t.Context()), "sqlkeys: commit: ")
			require.Eventually(t, func() bool { return r.Flush(t.Context()) == nil }, 20*time.Second, time.Millisecond)
			use()
			require.NoError(t, r.Flush(t.Context()))
			require.Equal(t, sqlkeys.RecorderStats{Written: 6}, r.Stats())
			require.Equal(t, map[string]int{"one": 3, "two": 3}, recorded(t, direct))
		})
	}
}
