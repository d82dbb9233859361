package sqlkeys_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func usageOf(t *testing.T, s fixture, f sqlkeys.UsageFilter) []sqlkeys.Usage {
	var us []sqlkeys.Usage
	for u, err := range s.Usage(context.Background(), f) {
		require.NoError(t, err)
		us = append(us, u)
	}
	return us
}

func recorder(t testing.TB, s fixture, cfg sqlkeys.RecorderConfig) *sqlkeys.Recorder {
	if cfg.Interval == 0 {
		cfg.Interval = time.Hour // the test calls Flush
	}
	r, err := s.NewRecorder(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { r.Close(context.Background()) })
	return r
}

func TestRecorderCountsByKeyHourAndOutcome(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		a, b := s.issue(t, sqlkeys.NewKey{}), s.issue(t, sqlkeys.NewKey{})
		one, two := recorder(t, s, sqlkeys.RecorderConfig{}), recorder(t, s, sqlkeys.RecorderConfig{})
		require.NoError(t, s.Disable(t.Context(), b.Key.ID))
		_, refused := s.Validate(t.Context(), b.Credentials)
		event := func(o senderauth.Outcome, id string, err error) senderauth.Event {
			return senderauth.Event{Outcome: o, Sender: senderauth.Sender{KeyID: id}, Err: err}
		}
		var all sync.WaitGroup
		for _, r := range []*sqlkeys.Recorder{one, two} {
			for range 4 {
				all.Go(func() {
					for range 250 {
						r.Observe(t.Context(), event(senderauth.Admitted, a.Key.ID, nil))
						r.Observe(t.Context(), event(senderauth.Limited, a.Key.ID, nil))
						r.Observe(t.Context(), event(senderauth.InvalidKey, "", fmt.Errorf("wrapped: %w", refused)))
						r.Observe(t.Context(), event(senderauth.InvalidKey, "", senderauth.ErrInvalidKey))
						r.Observe(t.Context(), event(senderauth.MissingKey, "", nil))
					}
				})
			}
		}
		before := time.Now()
		all.Wait()
		for _, r := range []*sqlkeys.Recorder{one, two, one} {
			require.NoError(t, r.Flush(t.Context()))
		}
		hour := before.UTC().Truncate(time.Hour)
		want := []sqlkeys.Usage{
			{SenderID: a.Key.SenderID, KeyID: a.Key.ID, Hour: hour, Outcome: senderauth.Admitted, Requests: 2000},
			{SenderID: a.Key.SenderID, KeyID: a.Key.ID, Hour: hour, Outcome: senderauth.Limited, Requests: 2000},
			{SenderID: b.Key.SenderID, KeyID: b.Key.ID, Hour: hour, Outcome: senderauth.InvalidKey, Requests: 2000},
		}
		require.ElementsMatch(t, want, usageOf(t, s, sqlkeys.UsageFilter{}))
		require.Equal(t, want[:2], usageOf(t, s, sqlkeys.UsageFilter{SenderID: a.Key.SenderID, Since: before.Add(-time.Minute)}))
		require.Equal(t, want[2:], usageOf(t, s, sqlkeys.UsageFilter{KeyID: b.Key.ID, Until: before.Add(time.Minute)}))
		require.Empty(t, usageOf(t, s, sqlkeys.UsageFilter{Since: hour.Add(time.Hour)}))
		require.Empty(t, usageOf(t, s, sqlkeys.UsageFilter{Until: hour}))
		require.Equal(t, sqlkeys.RecorderStats{Written: 3000}, one.Stats())

		used, err := s.Key(t.Context(), a.Key.ID)
		require.NoError(t, err)
		require.WithinDuration(t, before, used.LastUsedAt, time.Minute)
		unused, err := s.Key(t.Context(), b.Key.ID)
		require.NoError(t, err)
		require.Zero(t, unused.LastUsedAt, "a refused request is no use")
	})
}

func TestLastUseIsWrittenOncePerInterval(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		k := s.issue(t, sqlkeys.NewKey{})
		one, two := recorder(t, s, sqlkeys.RecorderConfig{}), recorder(t, s, sqlkeys.RecorderConfig{})
		use := func(r *sqlkeys.Recorder) time.Time {
			r.Observe(t.Context(), senderauth.Event{Outcome: senderauth.Admitted, Sender: senderauth.Sender{KeyID: k.Key.ID}})
			require.NoError(t, r.Flush(t.Context()))
			stored, err := s.Key(t.Context(), k.Key.ID)
			require.NoError(t, err)
			return stored.LastUsedAt
		}
		at := use(one)
		require.NotZero(t, at)
		require.Equal(t, at, use(two))
		require.Equal(t, at, use(one))
		back := at.Add(-16 * time.Minute)
		value := any(back)
		if s.sqlite() {
			value = back.UnixMilli()
		}
		_, err := s.db.Exec(`UPDATE sqlkeys_last_used SET last_used_at = $1`, value)
		require.NoError(t, err)
		require.Equal(t, back, use(one), "one has written it lately")
		require.False(t, use(recorder(t, s, sqlkeys.RecorderConfig{})).Before(at))
	})
}

func TestNestedGuardsCountARequestOnce(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		r := recorder(t, s, sqlkeys.RecorderConfig{})
		guard, err := senderauth.New(s, senderauth.Config{
			Limits:  map[string]senderauth.Limit{"default": {Requests: 1, Per: time.Hour, Burst: 2}},
			Observe: r.Observe,
		})
		require.NoError(t, err)
		h := guard.Charging().Wrap(guard.Wrap(http.NotFoundHandler()))
		k := s.issue(t, sqlkeys.NewKey{})
		for range 3 {
			q := httptest.NewRequest("GET", "/", nil)
			q.Header.Set("x-sender-id", k.Key.SenderID)
			q.Header.Set("x-api-key", k.Credentials.APIKey)
			h.ServeHTTP(httptest.NewRecorder(), q)
		}
		require.NoError(t, r.Flush(t.Context()))
		got := make(map[senderauth.Outcome]int64)
		for _, u := range usageOf(t, s, sqlkeys.UsageFilter{}) {
			got[u.Outcome] += u.Requests
		}
		require.Equal(t, map[senderauth.Outcome]int64{senderauth.Admitted: 3, senderauth.Limited: 1}, got)
	})
}

func TestLastUseIsWrittenAgainAfterTheInterval(t *testing.T) {
	source := filepath.Join(t.TempDir(), "keys.db")
	synctest.Test(t, func(t *testing.T) {
		s := open(t, source, sqlkeys.Config{})
		k, r := s.issue(t, sqlkeys.NewKey{}), recorder(t, s, sqlkeys.RecorderConfig{})
		first := time.Now().UTC()
		for _, want := range []time.Duration{0, 0, 16 * time.Minute, 16 * time.Minute} {
			r.Observe(t.Context(), senderauth.Event{Outcome: senderauth.Admitted, Sender: senderauth.Sender{KeyID: k.Key.ID}})
			require.NoError(t, r.Flush(t.Context()))
			stored, err := s.Key(t.Context(), k.Key.ID)
			require.NoError(t, err)
			require.Equal(t, first.Add(want), stored.LastUsedAt)
			time.Sleep(8 * time.Minute)
		}
	})
}

func TestRecorderDropsWhatDoesNotFit(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		r := recorder(t, s, sqlkeys.RecorderConfig{Keys: 64})
		_, err := s.db.Exec(`ALTER TABLE sqlkeys_usage RENAME TO sqlkeys_away`)
		require.NoError(t, err)
		for round := range 2 {
			before := r.Stats().Dropped
			for i := range 1000 {
				r.Observe(t.Context(), senderauth.Event{Outcome: senderauth.Admitted, Sender: senderauth.Sender{KeyID: fmt.Sprint(round, i)}})
			}
			require.GreaterOrEqual(t, int(r.Stats().Dropped-before), 1000-64, "no more are counted between two writes")
			require.ErrorContains(t, r.Flush(t.Context()), "sqlkeys: write the usage: ")
		}
		st := r.Stats()
		require.LessOrEqual(t, st.Waiting, 64)
		require.EqualValues(t, 2000, int(st.Dropped)+st.Waiting)
		require.Equal(t, st.Dropped, r.Dropped())
		require.Zero(t, st.Written)

		_, err = s.db.Exec(`ALTER TABLE sqlkeys_away RENAME TO sqlkeys_usage`)
		require.NoError(t, err)
		require.NoError(t, r.Close(t.Context()))
		require.NoError(t, r.Close(t.Context()))
		require.Equal(t, sqlkeys.RecorderStats{Written: uint64(st.Waiting), Dropped: st.Dropped}, r.Stats())
		var sum int
		require.NoError(t, s.db.QueryRow(`SELECT sum(requests) FROM sqlkeys_usage`).Scan(&sum))
		require.Equal(t, st.Waiting, sum)
	})
}

func TestRecorderWritesEveryInterval(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		k := s.issue(t, sqlkeys.NewKey{})
		r := recorder(t, s, sqlkeys.RecorderConfig{Interval: 10 * time.Millisecond})
		r.Observe(t.Context(), senderauth.Event{Outcome: senderauth.Admitted, Sender: senderauth.Sender{KeyID: k.Key.ID}})
		require.Eventually(t, func() bool { return len(usageOf(t, s, sqlkeys.UsageFilter{KeyID: k.Key.ID})) == 1 }, 20*time.Second, 5*time.Millisecond)
	})
}

// The next Close writes what the first one could not.
func TestCloseAbortsAStuckWrite(t *testing.T) {
	var log lockedBuffer
	s := open(t, pgtest.URL(t), sqlkeys.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	k := s.issue(t, sqlkeys.NewKey{})
	other, err := openDB(t, s.source).Begin()
	require.NoError(t, err)
	defer other.Rollback()
	_, err = other.Exec(`LOCK TABLE sqlkeys_usage`)
	require.NoError(t, err)
	r := recorder(t, s, sqlkeys.RecorderConfig{Interval: time.Millisecond})
	r.Observe(t.Context(), senderauth.Event{Outcome: senderauth.Admitted, Sender: senderauth.Sender{KeyID: k.Key.ID}})
	require.Eventually(t, func() bool {
		var stuck bool
		require.NoError(t, other.QueryRow(`SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'sqlkeys_usage'::regclass)`).Scan(&stuck))
		return stuck
	}, 20*time.Second, time.Millisecond)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, r.Close(ended), context.Canceled)
	require.Contains(t, log.String(), "context canceled")
	require.NotContains(t, log.String(), "deadline")
	require.NoError(t, other.Rollback())
	require.NoError(t, r.Close(t.Context()))
	us := usageOf(t, s, sqlkeys.UsageFilter{})
	require.Len(t, us, 1)
	require.EqualValues(t, 1, us[0].Requests)
}

func TestCountsBelongToTheirHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, err := sqlkeys.OpenDB(filepath.Join(t.TempDir(), "keys.db"))
		require.NoError(t, err)
		defer db.Close()
		store, err := sqlkeys.Open(t.Context(), db, sqlkeys.Config{Migrate: true})
		require.NoError(t, err)
		defer store.Close()
		s := fixture{Store: store, db: db}
		k := s.issue(t, sqlkeys.NewKey{})
		r, err := s.NewRecorder(sqlkeys.RecorderConfig{Interval: 3 * time.Hour})
		require.NoError(t, err)
		hour := time.Now().UTC().Truncate(time.Hour)
		time.Sleep(time.Until(hour.Add(30 * time.Minute)))
		for range 2 {
			r.Observe(t.Context(), senderauth.Event{Outcome: senderauth.Admitted, Sender: senderauth.Sender{KeyID: k.Key.ID}})
			time.Sleep(time.Hour)
		}
		require.NoError(t, r.Close(t.Context()))
		us := usageOf(t, s, sqlkeys.UsageFilter{})
		require.Len(t, us, 2)
		require.Equal(t, hour, us[0].Hour)
		require.Equal(t, hour.Add(time.Hour), us[1].Hour)
	})
}

func TestNewRecorderReportsEveryMistake(t *testing.T) {
	_, err := new(sqlkeys.Store).NewRecorder(sqlkeys.RecorderConfig{Interval: -1, Keys: -1})
	require.EqualError(t, err, "sqlkeys: RecorderConfig.Interval: -1ns is below 0\nsqlkeys: RecorderConfig.Keys: -1 is below 0")
}

// synctest.Test returns only when all goroutines have ended.
func TestCloseEndsTheGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := new(sqlkeys.Store).NewRecorder(sqlkeys.RecorderConfig{})
		require.NoError(t, err)
		r.Observe(t.Context(), senderauth.Event{Outcome: senderauth.InvalidKey, Err: errors.New("unknown")})
		require.NoError(t, r.Close(t.Context()))
	})
}
