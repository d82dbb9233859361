package sqlkeys_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

const day = 24 * time.Hour

// runExpiry starts a count. stop ends it.
func runExpiry(t *testing.T, s fixture, interval time.Duration) (e *sqlkeys.Expiry, stop func()) {
	t.Helper()
	e, err := s.NewExpiry(sqlkeys.ExpiryConfig{Interval: interval})
	require.NoError(t, err)
	require.Equal(t, -1, e.Expiring(day), "nothing is counted yet")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		e.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return e, stop
}

// eventuallyExpiring waits until so many keys end within 30 days.
func eventuallyExpiring(t *testing.T, e *sqlkeys.Expiry, want int) {
	t.Helper()
	require.Eventually(t, func() bool { return e.Expiring(30*day) == want }, 30*time.Second, 5*time.Millisecond)
}

func TestKeysThatEndSoonAreCounted(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		now := time.Now()
		s.issue(t, sqlkeys.NewKey{ExpiresAt: now.Add(time.Hour)})
		s.issue(t, sqlkeys.NewKey{ExpiresAt: now.Add(3*day + time.Hour)})
		s.issue(t, sqlkeys.NewKey{ExpiresAt: now.Add(29*day + 23*time.Hour)})
		s.issue(t, sqlkeys.NewKey{ExpiresAt: now.Add(40 * day)})
		s.issue(t, sqlkeys.NewKey{ExpiresAt: now.Add(90*day + time.Hour)})
		s.issue(t, sqlkeys.NewKey{})
		s.issue(t, sqlkeys.NewKey{NotBefore: now.Add(day), ExpiresAt: now.Add(10 * day)})
		disabled := s.issue(t, sqlkeys.NewKey{ExpiresAt: now.Add(10 * day)})
		require.NoError(t, s.Disable(t.Context(), disabled.Key.ID))
		revoked := s.issue(t, sqlkeys.NewKey{ExpiresAt: now.Add(10 * day)})
		require.NoError(t, s.Revoke(t.Context(), revoked.Key.ID))
		expired := s.issue(t, sqlkeys.NewKey{ExpiresAt: now.Add(day)})
		s.byHand(t, expired.Key.ID, "expires_at", -1)
		for _, expires := range []time.Time{now.Add(90 * day), {}} {
			old := s.issue(t, sqlkeys.NewKey{ExpiresAt: expires})
			_, err := s.Rotate(t.Context(), old.Key.ID, sqlkeys.Rotation{Grace: 5*day + time.Hour, ExpiresAt: now.Add(365 * day)})
			require.NoError(t, err)
		}
		e, _ := runExpiry(t, s, time.Hour)
		eventuallyExpiring(t, e, 5)
		for within, want := range map[time.Duration]int{
			-day: 0, 0: 0, time.Minute: 1, day: 1, 3 * day: 1, 3*day + time.Minute: 2, 7 * day: 4, 29 * day: 4, 30 * day: 5,
			41 * day: 6, 89 * day: 6, 90 * day: 6, 1000 * day: 6,
		} {
			require.Equal(t, want, e.Expiring(within), within)
		}
		listed := 0
		for _, err := range s.Keys(t.Context(), sqlkeys.KeyFilter{EndsBefore: now.Add(30 * day)}) {
			require.NoError(t, err)
			listed++
		}
		require.Equal(t, listed, e.Expiring(30*day), "the list agrees")
	})
}

func TestKeysWithoutAnEndInTimeAreNotCounted(t *testing.T) {
	s := open(t, pgtest.URL(t), sqlkeys.Config{})
	s.issue(t, sqlkeys.NewKey{ExpiresAt: time.Now().Add(day)})
	for _, set := range []string{`expires_at = 'infinity'`, `expires_at = '-infinity'`, `grace_until = 'infinity'`, `grace_until = '-infinity'`} {
		_, err := s.db.Exec(`UPDATE sqlkeys_keys SET `+set+` WHERE id = $1`, s.issue(t, sqlkeys.NewKey{}).Key.ID)
		require.NoError(t, err)
	}
	e, _ := runExpiry(t, s, time.Hour)
	eventuallyExpiring(t, e, 1)
}

func TestExpiryIsCountedAgainAndAgain(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		e, stop := runExpiry(t, s, 5*time.Millisecond)
		eventuallyExpiring(t, e, 0)
		s.issue(t, sqlkeys.NewKey{ExpiresAt: time.Now().Add(day)})
		eventuallyExpiring(t, e, 1)
		stop()
		s.issue(t, sqlkeys.NewKey{ExpiresAt: time.Now().Add(day)})
		require.Equal(t, 1, e.Expiring(30*day), "nobody counts any more")
	})
}

func TestExpiryKeepsItsNumbersWhileTheDatabaseIsAway(t *testing.T) {
	server := pgtest.New(t)
	for name, db := range map[string]removable{
		"postgres": {server.URL(t), server.Kill, server.Start},
		"sqlite":   removableFile(t),
	} {
		t.Run(name, func(t *testing.T) {
			open(t, db.source, sqlkeys.Config{}).issue(t, sqlkeys.NewKey{ExpiresAt: time.Now().Add(day)})
			s, log := openLogged(t, db.source)
			e, _ := runExpiry(t, s, 5*time.Millisecond)
			eventuallyExpiring(t, e, 1)
			require.NoError(t, db.away())
			log.eventually(t, "keys that expire cannot be counted")
			require.Equal(t, 1, e.Expiring(30*day))
			require.NoError(t, db.back())
			log.eventually(t, "keys that expire are counted again")
			s.issue(t, sqlkeys.NewKey{ExpiresAt: time.Now().Add(day)})
			eventuallyExpiring(t, e, 2)
			require.Equal(t, 1, strings.Count(log.String(), "cannot be counted"), log)
		})
	}
}

// A removable is a database that a test takes away and brings back.
type removable struct {
	source     string
	away, back func() error
}

func removableFile(t *testing.T) removable {
	file := t.TempDir() + "/keys.db"
	return removable{
		source: file,
		away:   func() error { return os.Rename(file, file+".away") },
		back:   func() error { return os.Rename(file+".away", file) },
	}
}

func TestExpiryEndsDuringACount(t *testing.T) {
	source := pgtest.URL(t)
	holder := open(t, source, sqlkeys.Config{}).db
	s, log := openLogged(t, source)
	locker, err := holder.Begin()
	require.NoError(t, err)
	defer locker.Rollback()
	_, err = locker.Exec(`LOCK TABLE sqlkeys_keys IN ACCESS EXCLUSIVE MODE`)
	require.NoError(t, err)
	e, stop := runExpiry(t, s, time.Hour)
	require.Eventually(t, func() bool {
		var waiting int
		require.NoError(t, s.db.QueryRow(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&waiting))
		return waiting == 1
	}, 30*time.Second, 5*time.Millisecond)
	require.Equal(t, -1, e.Expiring(day))
	stop()
	require.Empty(t, log.String())
}

func TestExpiryRefusesANegativeInterval(t *testing.T) {
	s := open(t, t.TempDir()+"/keys.db", sqlkeys.Config{})
	_, err := s.NewExpiry(sqlkeys.ExpiryConfig{Interval: -time.Second})
	require.EqualError(t, err, "sqlkeys: ExpiryConfig.Interval: -1s is below 0")
}
