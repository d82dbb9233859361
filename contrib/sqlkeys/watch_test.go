package sqlkeys_test

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// reports receives what a feed reports: the ID of a sender, or "" for Purge.
type reports chan string

func (c reports) Forget(id string) { c <- id }

func (c reports) Purge() { c <- "" }

func (c reports) next(t testing.TB) string {
	select {
	case id := <-c:
		return id
	case <-time.After(20 * time.Second):
		t.Fatal("the feed reports nothing")
		return ""
	}
}

// forgets waits until the feed reports id.
func (c reports) forgets(t testing.TB, id string) {
	for c.next(t) != id {
	}
}

// watch follows the store until the test ends.
func watch(t testing.TB, s fixture, c sqlkeys.Forgetter) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Watch(ctx, c) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
}

func TestWatchReportsEveryChange(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		s := open(t, source, sqlkeys.Config{})
		other := open(t, source, sqlkeys.Config{}) // stands for another process
		here, there := make(reports, 100), make(reports, 100)
		watch(t, s, here)
		watch(t, other, there)
		require.Equal(t, "", here.next(t), "earlier changes are unknown, so everything is purged")
		require.Equal(t, "", there.next(t))
		both := func(id string) {
			here.forgets(t, id)
			there.forgets(t, id)
		}

		k := s.issue(t, sqlkeys.NewKey{})
		sender := k.Key.SenderID
		both(sender) // the sender
		both(sender) // the key
		for _, change := range []func() error{
			func() error { return s.Disable(t.Context(), k.Key.ID) },
			func() error { return other.Enable(t.Context(), k.Key.ID) },
			func() error {
				_, err := s.Rotate(t.Context(), k.Key.ID, sqlkeys.Rotation{Grace: time.Hour})
				return err
			},
			func() error { return s.Revoke(t.Context(), k.Key.ID) },
			func() error { return s.DisableSender(t.Context(), sender) },
			func() error { return other.EnableSender(t.Context(), sender) },
			func() error {
				return s.SetLimits(t.Context(), sender, map[string]senderauth.Limit{"default": senderauth.Blocked()})
			},
		} {
			require.NoError(t, change())
			both(sender)
		}
		// By hand.
		for _, query := range []string{
			`UPDATE sqlkeys_senders SET metadata = '{"a":"b"}'`,
			`UPDATE sqlkeys_keys SET name = 'x'`,
			`DELETE FROM sqlkeys_keys`,
			`DELETE FROM sqlkeys_senders`,
		} {
			_, err := other.db.Exec(query)
			require.NoError(t, err)
			both(sender)
		}
		if filepath.Ext(source) != ".db" {
			_, err := s.db.Exec(`TRUNCATE sqlkeys_keys`)
			require.NoError(t, err)
			both("")
			_, err = s.db.Exec(`SELECT pg_notify('sqlkeys_changed', 'nonsense')`)
			require.NoError(t, err)
			both("")
		}
	})
}

func TestWatchReportsOwnChangesAtOnce(t *testing.T) {
	source := filepath.Join(t.TempDir(), "keys.db")
	synctest.Test(t, func(t *testing.T) {
		s, c := open(t, source, sqlkeys.Config{}), make(reports, 10)
		watch(t, s, c)
		require.Equal(t, "", c.next(t))
		for range 10 {
			at := time.Now()
			c.forgets(t, s.sender(t))
			require.Zero(t, time.Since(at))
		}
	})
}

// Somebody may move a key to another sender by hand.
func TestWatchReportsBothSendersOfAMovedKey(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		c := make(reports, 100)
		watch(t, s, c)
		require.Equal(t, "", c.next(t))
		from, to := s.sender(t), s.sender(t)
		s.issue(t, sqlkeys.NewKey{SenderID: from})
		during := func(query string, args ...any) (ids []string) {
			c.forgets(t, s.sender(t))
			_, err := s.db.Exec(query, args...)
			require.NoError(t, err)
			last := s.sender(t)
			for id := c.next(t); id != last; id = c.next(t) {
				ids = append(ids, id)
			}
			return ids
		}
		require.ElementsMatch(t, []string{from, to}, during(`UPDATE sqlkeys_keys SET sender_id = $1`, to))
		require.Equal(t, []string{to}, during(`UPDATE sqlkeys_keys SET name = 'x'`))
		require.Equal(t, []string{from}, during(`DELETE FROM sqlkeys_senders WHERE id = $1`, from))
		if !s.sqlite() {
			require.Equal(t, []string{""}, during(`TRUNCATE sqlkeys_keys`))
		}
	})
}

func TestWatchReturnsItsConnection(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		for range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			ended, c := make(chan error, 1), make(reports, 10)
			go func() { ended <- s.Watch(ctx, c) }()
			c.next(t)
			require.Positive(t, s.db.Stats().InUse)
			cancel()
			require.NoError(t, <-ended)
			require.Zero(t, s.db.Stats().InUse, "the connection is given back")
		}
		s.db.SetMaxOpenConns(1)
		require.EqualError(t, s.Watch(t.Context(), make(reports)), "sqlkeys: Watch needs a connection for itself, and the pool has only one")
	})
}

// The lookup may be prepared on the connection that Watch occupies.
func TestCloseDoesNotWaitForWatch(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		c := make(reports, 10)
		watch(t, s, c)
		require.Equal(t, "", c.next(t))
		closed := make(chan error, 1)
		go func() { closed <- s.Close() }()
		select {
		case err := <-closed:
			require.NoError(t, err)
		case <-time.After(20 * time.Second):
			t.Fatal("Close waits for Watch to end")
		}
	})
}
