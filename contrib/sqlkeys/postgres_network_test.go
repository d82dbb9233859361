package sqlkeys_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// use issues, rotates and revokes a key, looks it up in each state, and records a request.
func (s fixture) use(ctx context.Context) error {
	made, err := s.CreateSender(ctx, sqlkeys.NewSender{})
	if err != nil {
		return err
	}
	old, err := s.Issue(ctx, sqlkeys.NewKey{SenderID: made.ID})
	if err != nil {
		return err
	}
	next, err := s.Rotate(ctx, old.Key.ID, sqlkeys.Rotation{Grace: time.Hour})
	if err != nil {
		return err
	}
	for range 5 {
		_, first := s.Validate(ctx, old.Credentials)
		_, second := s.Validate(ctx, next.Credentials)
		if err := errors.Join(first, second); err != nil {
			return err
		}
	}
	if err := s.Revoke(ctx, old.Key.ID); err != nil {
		return err
	}
	if _, err := s.Validate(ctx, old.Credentials); !errors.Is(err, senderauth.ErrInvalidKey) {
		return fmt.Errorf("a revoked key: %w", err)
	}
	r, err := s.NewRecorder(sqlkeys.RecorderConfig{})
	if err != nil {
		return err
	}
	r.Observe(ctx, senderauth.Event{Outcome: senderauth.Admitted, Sender: senderauth.Sender{KeyID: next.Key.ID}})
	return r.Close(ctx)
}

// Through PgBouncer in transaction mode, consecutive transactions of one instance take
// different connections to the server, and instances take each other's.
func TestLookupsThroughPgBouncerInTransactionMode(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t)
	open(t, pgtest.URLAt(server.Addr()), sqlkeys.Config{})
	source := pgtest.URLAt(server.Bouncer(t, "pool_mode = transaction", "default_pool_size = 3")) + "&default_query_exec_mode=exec"
	const instances = 8
	errs := make([]error, instances)
	var all sync.WaitGroup
	for i := range instances {
		db := openDB(t, source)
		all.Go(func() {
			for range 5 {
				s, err := sqlkeys.Open(t.Context(), db, sqlkeys.Config{})
				if err == nil {
					err = errors.Join((fixture{s, db, source}).use(t.Context()), s.Close())
				}
				errs[i] = errors.Join(errs[i], err)
			}
		})
	}
	all.Wait()
	require.NoError(t, errors.Join(errs...))
}

// A pool_size of PgBouncer that is too small is an outage, and refuses no key. One
// connection is enough for lookups and for changes.
func TestShortPoolOfPgBouncerIsAnOutage(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t)
	k := open(t, pgtest.URLAt(server.Addr()), sqlkeys.Config{}).issue(t, sqlkeys.NewKey{})
	s, _ := openLogged(t, pgtest.URLAt(server.Bouncer(t, "pool_mode = session", "default_pool_size = 1")))
	only, err := s.db.Conn(t.Context()) // as a second instance would take it
	require.NoError(t, err)
	require.NoError(t, only.PingContext(t.Context()))
	for range 2 {
		err := validate(t, s, k.Credentials)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.False(t, isRefusal(err), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = s.Issue(ctx, sqlkeys.NewKey{SenderID: k.Key.SenderID})
	require.ErrorIs(t, err, context.DeadlineExceeded, "a change waits as long as its context")

	require.NoError(t, only.Close())
	require.NoError(t, validate(t, s, k.Credentials))
	require.NoError(t, s.use(t.Context()))
}

// A standby answers lookups and lists. Changes fail, and counts wait until it is promoted.
func TestLookupsOnAStandby(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t)
	primary := open(t, pgtest.URLAt(server.Addr()), sqlkeys.Config{})
	active, revoked := primary.issue(t, sqlkeys.NewKey{}), primary.issue(t, sqlkeys.NewKey{})
	standby := server.Standby(t)
	s, _ := openLogged(t, pgtest.URLAt(standby.Addr()))
	require.NoError(t, validate(t, s, active.Credentials))
	require.NoError(t, validate(t, s, revoked.Credentials))
	require.Len(t, keysOf(t, s, ""), 2)

	require.NoError(t, primary.Revoke(t.Context(), revoked.Key.ID))
	require.Eventually(t, func() bool { return isRefusal(validate(t, s, revoked.Credentials)) }, 20*time.Second, 5*time.Millisecond)
	require.NoError(t, validate(t, s, active.Credentials))

	require.ErrorContains(t, s.Revoke(t.Context(), active.Key.ID), "SQLSTATE 25006")
	_, err := s.Issue(t.Context(), sqlkeys.NewKey{SenderID: active.Key.SenderID})
	require.ErrorContains(t, err, "SQLSTATE 25006")
	r, err := s.NewRecorder(sqlkeys.RecorderConfig{Interval: 10 * time.Millisecond})
	require.NoError(t, err)
	r.Observe(t.Context(), senderauth.Event{Outcome: senderauth.Admitted, Sender: senderauth.Sender{KeyID: active.Key.ID}})
	require.Eventually(t, func() bool { return r.Stats().Failures > 0 }, 20*time.Second, 5*time.Millisecond)
	require.Equal(t, 1, r.Stats().Waiting)

	standby.Exec(t, `SELECT pg_promote()`)
	require.Eventually(t, func() bool { return r.Stats().Written == 1 }, 20*time.Second, 5*time.Millisecond)
	require.NoError(t, r.Close(t.Context()))
	require.NoError(t, s.use(t.Context()))
}
