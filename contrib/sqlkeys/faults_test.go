package sqlkeys_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// An instance is a store with its own pool, cache and feed.
type instance struct {
	fixture
	*senderauth.Cache
	feed *feed
}

func newInstance(t testing.TB, source string, cfg senderauth.CacheConfig) instance {
	i := instance{fixture: open(t, source, sqlkeys.Config{})}
	var err error
	i.Cache, err = senderauth.NewCache(i.Store, cfg)
	require.NoError(t, err)
	i.feed = &feed{Forgetter: i.Cache, connected: make(chan struct{})}
	watch(t, i.fixture, i.feed)
	<-i.feed.connected
	return i
}

// settle waits until the feed has reported all changes so far.
func (i instance) settle(t testing.TB) {
	last := i.sender(t)
	require.Eventually(t, func() bool {
		_, forgotten := i.feed.forgotten.Load(last)
		return forgotten
	}, 20*time.Second, time.Millisecond)
}

func (i instance) Validate(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
	return i.Cache.Validate(ctx, c)
}

// A feed records what Watch reports.
type feed struct {
	sqlkeys.Forgetter
	once      sync.Once
	connected chan struct{}
	forgotten sync.Map
}

func (f *feed) Purge() {
	f.Forgetter.Purge()
	f.once.Do(func() { close(f.connected) })
}

func (f *feed) Forget(senderID string) {
	f.Forgetter.Forget(senderID)
	f.forgotten.Store(senderID, true)
}

// A load sends requests to instances until it is stopped.
type load struct {
	stop      context.CancelFunc
	wait      sync.WaitGroup
	accepted  atomic.Int64
	refused   atomic.Int64
	unsettled atomic.Int64 // other errors
	wrong     atomic.Int64 // accepted by an instance that had refused before
}

// start repeats one request. settled means that a refusal must be final.
func (l *load) start(i instance, c senderauth.Credentials, settled bool) {
	ctx, stop := context.WithCancel(context.Background())
	before := l.stop
	l.stop = func() {
		stop()
		if before != nil {
			before()
		}
	}
	l.wait.Go(func() {
		gone := false
		for ctx.Err() == nil {
			_, err := i.Validate(context.Background(), c)
			switch {
			case err == nil:
				if l.accepted.Add(1); gone && settled {
					l.wrong.Add(1)
				}
			case isRefusal(err):
				l.refused.Add(1)
				gone = true
			default:
				l.unsettled.Add(1)
			}
			time.Sleep(time.Millisecond) // the pace of the load
		}
	})
}

func (l *load) end() {
	l.stop()
	l.wait.Wait()
}

// Several instances are under load. Disabling a sender disables all its keys.
func TestEveryInstanceRefusesARevokedKey(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		var fleet []instance
		for range 3 {
			fleet = append(fleet, newInstance(t, source, senderauth.CacheConfig{TTL: time.Hour}))
		}
		admin := open(t, source, sqlkeys.Config{})
		everywhere := func(c senderauth.Credentials, accepted bool) {
			for _, i := range fleet {
				require.Eventually(t, func() bool {
					_, err := i.Validate(t.Context(), c)
					return accepted == (err == nil) && (accepted || isRefusal(err))
				}, 20*time.Second, time.Millisecond)
			}
		}
		for range 3 {
			k := admin.issue(t, sqlkeys.NewKey{})
			everywhere(k.Credentials, true)
			var l load
			for _, i := range fleet {
				l.start(i, k.Credentials, true)
			}
			require.NoError(t, admin.Revoke(t.Context(), k.Key.ID))
			everywhere(k.Credentials, false)
			l.end()
			require.Zero(t, l.wrong.Load(), "an instance that has refused a key does not accept it again")
			require.Zero(t, l.unsettled.Load())
		}
		sender := admin.sender(t)
		ns := make([]sqlkeys.NewKey, 10)
		for i := range ns {
			ns[i].SenderID = sender
		}
		keys, err := admin.IssueAll(t.Context(), ns)
		require.NoError(t, err)
		for _, k := range keys {
			everywhere(k.Credentials, true)
		}
		require.NoError(t, admin.DisableSender(t.Context(), sender))
		for _, k := range keys {
			everywhere(k.Credentials, false)
		}
		require.NoError(t, admin.EnableSender(t.Context(), sender))
		for _, k := range keys {
			everywhere(k.Credentials, true)
		}
	})
}

func TestRevokedKeyEndsWithTheCacheTTL(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		cache, err := senderauth.NewCache(s, senderauth.CacheConfig{TTL: 50 * time.Millisecond})
		require.NoError(t, err)
		k := s.issue(t, sqlkeys.NewKey{})
		_, err = cache.Validate(t.Context(), k.Credentials)
		require.NoError(t, err)
		require.NoError(t, s.Revoke(t.Context(), k.Key.ID))
		require.Eventually(t, func() bool {
			_, err := cache.Validate(t.Context(), k.Credentials)
			return isRefusal(err)
		}, 20*time.Second, time.Millisecond)
	})
}

// A lookup that reads a row before it is revoked, and answers after, must not
// end up in the cache.
func TestRevocationRaceIsNotRemembered(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		const rounds = 50
		read, answer := make(chan struct{}), make(chan struct{})
		slow := senderauth.ValidatorFunc(func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			got, err := s.Validate(ctx, c)
			if err == nil {
				read <- struct{}{}
				<-answer
			}
			return got, err
		})
		cache, err := senderauth.NewCache(slow, senderauth.CacheConfig{TTL: time.Hour, LookupTimeout: time.Minute})
		require.NoError(t, err)
		forgets := make(reports, 100)
		watch(t, s, forgets)
		for range rounds {
			k := s.issue(t, sqlkeys.NewKey{})
			old := make(chan error, 1)
			go func() {
				_, err := cache.Validate(context.Background(), k.Credentials)
				old <- err
			}()
			<-read
			require.NoError(t, s.Revoke(t.Context(), k.Key.ID))
			cache.Forget(k.Key.SenderID) // as the feed does
			_, err := cache.Validate(t.Context(), k.Credentials)
			require.ErrorIs(t, err, senderauth.ErrInvalidKey, "it does not wait for the old lookup")
			answer <- struct{}{}
			require.NoError(t, <-old)
			for range 3 {
				_, err := cache.Validate(t.Context(), k.Credentials)
				require.ErrorIs(t, err, senderauth.ErrInvalidKey)
			}
			for len(forgets) > 0 {
				<-forgets
			}
		}
	})
}

// This holds with and without a cached answer. Both keys of a rotation work
// during the grace period.
func TestKeyEndsWithItsExpiryOrGrace(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		i := newInstance(t, source, senderauth.CacheConfig{TTL: time.Hour})
		old := i.issue(t, sqlkeys.NewKey{})
		made, err := i.Rotate(t.Context(), old.Key.ID, sqlkeys.Rotation{Grace: 300 * time.Millisecond})
		require.NoError(t, err)
		stored, err := i.Key(t.Context(), old.Key.ID)
		require.NoError(t, err)
		expiring := i.issue(t, sqlkeys.NewKey{ExpiresAt: time.Now().Add(300 * time.Millisecond)})
		for _, c := range []struct {
			credentials senderauth.Credentials
			end         time.Time
		}{
			{old.Credentials, stored.GraceUntil},
			{expiring.Credentials, expiring.Key.ExpiresAt},
		} {
			refused := 0
			for refused < 20 {
				begun := time.Now()
				_, err := i.Validate(t.Context(), c.credentials)
				ended := time.Now()
				switch {
				case !begun.Before(c.end):
					require.ErrorIs(t, err, senderauth.ErrInvalidKey)
					refused++
				case ended.Before(c.end):
					require.NoError(t, err)
				}
				_, err = i.Validate(t.Context(), made.Credentials)
				require.NoError(t, err)
			}
		}
	})
}

// The feed makes the cache forget that it refused the key.
func TestAdoptedKeyWorksAfterProbes(t *testing.T) {
	onBoth(t, func(t *testing.T, source string) {
		i := newInstance(t, source, senderauth.CacheConfig{RejectedTTL: time.Hour})
		admin := open(t, source, sqlkeys.Config{})
		pair := senderauth.Credentials{SenderID: uuid.NewString(), APIKey: uuid.NewString()}
		for range 1000 {
			_, err := i.Validate(t.Context(), pair)
			require.ErrorIs(t, err, senderauth.ErrInvalidKey)
		}
		require.EqualValues(t, 1, i.Stats().Lookups)
		_, err := admin.Adopt(t.Context(), pair)
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			_, err := i.Validate(t.Context(), pair)
			return err == nil
		}, 20*time.Second, time.Millisecond)
	})
}

// The locked table exhausts the pool. Every request gets an answer, and nothing
// piles up.
func TestLockedTableIsAnOutage(t *testing.T) {
	t.Parallel()
	s := open(t, pgtest.URL(t), sqlkeys.Config{})
	s.db.SetMaxOpenConns(4)
	cache, err := senderauth.NewCache(s, senderauth.CacheConfig{LookupTimeout: 300 * time.Millisecond, MaxLookups: 8})
	require.NoError(t, err)
	k := s.issue(t, sqlkeys.NewKey{})

	locker, err := openDB(t, s.source).Begin()
	require.NoError(t, err)
	_, err = locker.Exec(`LOCK TABLE sqlkeys_keys IN ACCESS EXCLUSIVE MODE`)
	require.NoError(t, err)
	const requests = 400
	errs := make([]error, requests)
	var all sync.WaitGroup
	for i := range requests {
		all.Go(func() {
			_, errs[i] = cache.Validate(context.Background(), senderauth.Credentials{SenderID: k.Key.SenderID, APIKey: uuid.NewString()})
		})
	}
	var most int
	answered := make(chan struct{})
	go func() { all.Wait(); close(answered) }()
	for waiting := true; waiting; {
		select {
		case <-answered:
			waiting = false
		case <-time.After(5 * time.Millisecond):
			most = max(most, cache.Stats().InFlight)
			require.LessOrEqual(t, s.db.Stats().OpenConnections, 4)
		}
	}
	require.LessOrEqual(t, most, 8)
	for _, err := range errs {
		require.Error(t, err)
		require.False(t, isRefusal(err), err)
	}
	require.NoError(t, locker.Rollback())
	require.Eventually(t, func() bool {
		_, err := cache.Validate(t.Context(), k.Credentials)
		require.False(t, err != nil && isRefusal(err), err)
		return err == nil
	}, 20*time.Second, 10*time.Millisecond)
}

// The server crashes and returns under load. Requests of cached senders are
// served throughout, and afterwards the feed and the recorder recover.
func TestServerRestartRefusesNobody(t *testing.T) {
	t.Parallel()
	server := pgtest.New(t)
	source := server.URL(t)
	i := newInstance(t, source, senderauth.CacheConfig{TTL: time.Hour, LookupTimeout: 500 * time.Millisecond})
	i.db.SetMaxOpenConns(8)
	r, err := i.NewRecorder(sqlkeys.RecorderConfig{Interval: 50 * time.Millisecond})
	require.NoError(t, err)
	sender := i.sender(t)
	keys, err := i.IssueAll(t.Context(), []sqlkeys.NewKey{{SenderID: sender}, {SenderID: sender}, {SenderID: sender}})
	require.NoError(t, err)
	cached, uncached, revoked := keys[0], keys[1], keys[2]
	i.settle(t)
	for _, k := range []sqlkeys.Issued{cached, revoked} {
		_, err := i.Validate(t.Context(), k.Credentials)
		require.NoError(t, err)
	}
	observe := func() {
		r.Observe(t.Context(), senderauth.Event{Outcome: senderauth.Admitted, Sender: senderauth.Sender{KeyID: cached.Key.ID}})
	}

	require.NoError(t, server.Kill())
	for range 50 {
		_, err := i.Validate(t.Context(), cached.Credentials)
		require.NoError(t, err)
		_, err = i.Store.Validate(t.Context(), uncached.Credentials)
		require.Error(t, err)
		require.False(t, isRefusal(err), err)
		observe()
		require.LessOrEqual(t, i.db.Stats().OpenConnections, 8)
	}
	require.Eventually(t, func() bool { return r.Stats().Failures > 0 }, 20*time.Second, 10*time.Millisecond)

	require.NoError(t, server.Start())
	_, err = openDB(t, source).Exec(`UPDATE sqlkeys_keys SET revoked_at = now() WHERE id = $1`, revoked.Key.ID)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := i.Validate(t.Context(), uncached.Credentials)
		require.False(t, err != nil && isRefusal(err), err)
		return err == nil
	}, 20*time.Second, time.Millisecond)
	require.Eventually(t, func() bool {
		_, err := i.Validate(t.Context(), revoked.Credentials)
		return isRefusal(err)
	}, 20*time.Second, time.Millisecond, "the feed is back, and has forgotten what it may have missed")
	require.Eventually(t, func() bool {
		st := r.Stats()
		return st.Written == 50 && st.Waiting == 0
	}, 20*time.Second, 10*time.Millisecond, "what waited is written")
	require.NoError(t, r.Close(t.Context()))
	require.Zero(t, r.Stats().Dropped)
}
