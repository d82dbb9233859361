package senderauth_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

func TestEvents(t *testing.T) {
	bubble(t, "admitted, from the cache, stale, limited", func(t *testing.T) {
		outage := errors.New("outage")
		var down bool
		cache := newCache(t, senderauth.ValidatorFunc(func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			time.Sleep(20 * time.Millisecond)
			if down {
				return senderauth.Sender{}, outage
			}
			return knowsAll(ctx, c)
		}), senderauth.CacheConfig{StaleTTL: time.Hour})
		var events []senderauth.Event
		guard, err := senderauth.New(cache, senderauth.Config{
			Limits:  limits(senderauth.Limit{Requests: 1, Per: time.Hour, Burst: 3}),
			Observe: func(_ context.Context, e senderauth.Event) { events = append(events, e) },
		})
		require.NoError(t, err)
		h := guard.Wrap(http.NotFoundHandler())
		serve(h, of(1))
		serve(h, of(1))
		down = true
		time.Sleep(time.Minute + time.Second)
		serve(h, of(1))
		serve(h, of(1))
		serve(h, of(3))
		s := senderauth.Sender{ID: senderID(1), KeyID: "key-1"}
		require.Equal(t, []senderauth.Event{
			{Outcome: senderauth.Admitted, Sender: s, Limit: "default", Elapsed: 20 * time.Millisecond},
			{Outcome: senderauth.Admitted, Sender: s, Limit: "default", Cached: true},
			{Outcome: senderauth.Admitted, Sender: s, Limit: "default", Cached: true, Elapsed: 20 * time.Millisecond, Err: outage},
			{Outcome: senderauth.Limited, Sender: s, Limit: "default", Cached: true},
			{Outcome: senderauth.Unavailable, ClaimedSender: fingerprint(senderID(3)), Elapsed: 20 * time.Millisecond, Err: outage},
		}, events)
	})
	bubble(t, "a rejection, then a remembered one", func(t *testing.T) {
		var events []senderauth.Event
		cause := fmt.Errorf("expired: %w", senderauth.ErrInvalidKey)
		guard, err := senderauth.New(newCache(t, refuseWith(cause), senderauth.CacheConfig{}), senderauth.Config{
			Limits:  limits(three),
			Observe: func(_ context.Context, e senderauth.Event) { events = append(events, e) },
		})
		require.NoError(t, err)
		h := guard.Wrap(http.NotFoundHandler())
		for range 2 {
			require.Equal(t, badKey, serve(h, of(1)))
		}
		require.Equal(t, []senderauth.Event{
			{Outcome: senderauth.InvalidKey, ClaimedSender: fingerprint(senderID(1)), Err: cause},
			{Outcome: senderauth.InvalidKey, ClaimedSender: fingerprint(senderID(1)), Cached: true, Err: cause},
		}, events)
	})
	t.Run("the event comes before the next handler", func(t *testing.T) {
		told := false
		guard, err := senderauth.New(senderauth.ValidatorFunc(knowsAll), senderauth.Config{Limits: limits(three),
			Observe: func(context.Context, senderauth.Event) { told = true }})
		require.NoError(t, err)
		serve(guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { require.True(t, told) })), of(1))
	})
}

// The outcomes are labels of metrics: a change is one for every dashboard.
func TestOutcomesAreFixed(t *testing.T) {
	require.Equal(t, []senderauth.Outcome{"admitted", "missing_key", "missing_sender", "invalid_sender", "invalid_key",
		"mismatch", "limited", "insecure", "refused", "unavailable", "canceled", "failed"},
		[]senderauth.Outcome{senderauth.Admitted, senderauth.MissingKey, senderauth.MissingSender, senderauth.InvalidSender, senderauth.InvalidKey,
			senderauth.Mismatch, senderauth.Limited, senderauth.Insecure, senderauth.Refused, senderauth.Unavailable, senderauth.Canceled, senderauth.Failed})
}

// fingerprint is what the documentation of Event.ClaimedSender says.
func fingerprint(id string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(id)))[:16] }

func TestEveryRefusalHasACause(t *testing.T) {
	id, key := senderID(1), apiKey(1)
	for _, c := range []struct {
		cause string
		lines []string
		cfg   senderauth.Config
	}{
		{"the header is absent or empty", nil, senderauth.Config{}},
		{"the header is absent or empty", []string{"x-api-key", key}, senderauth.Config{}},
		{"the sender's header is there more than once", []string{"x-api-key", key, "x-sender-id", id, "x-sender-id", id}, senderauth.Config{}},
		{"the sender's ID is not a UUID of 36 characters, or it is the nil or max UUID", []string{"x-api-key", key, "x-sender-id", "x"}, senderauth.Config{}},
		{"the key's header is there more than once", []string{"x-sender-id", id, "x-api-key", key, "x-api-key", key}, senderauth.Config{}},
		{"the key is not a UUID of 36 characters, or it is the nil or max UUID", []string{"x-sender-id", id, "x-api-key", "sk_live_1"}, senderauth.Config{}},
		{"the key is not 1 to 512 visible ASCII characters", []string{"x-sender-id", id, "x-api-key", "a b"}, senderauth.Config{CheckKey: anyKey}},
		{"CheckKey refused the key", []string{"x-sender-id", id, "x-api-key", key}, senderauth.Config{CheckKey: func(string) bool { return false }}},
		{"the key's header does not begin with Config.KeyScheme and a space", []string{"x-sender-id", id, "x-api-key", key}, senderauth.Config{KeyScheme: "Bearer"}},
		{`cleartext from "192.0.2.1:1234", which is not one of Config.TrustedProxies`, []string{"x-sender-id", id, "x-api-key", key}, senderauth.Config{RequireTLS: true}},
		{"invalid API key", []string{"x-sender-id", id, "x-api-key", id}, senderauth.Config{}},
	} {
		a := newApp(t, nil, c.cfg)
		serve(a, request(c.lines...))
		require.EqualError(t, a.events[0].Err, "senderauth: "+c.cause)
	}
}

func TestClaimedSenderIsAFingerprint(t *testing.T) {
	a := newApp(t, nil, senderauth.Config{})
	serve(a, request("x-sender-id", strings.ToUpper(senderID(2)), "x-api-key", apiKey(1)))
	serve(a, request("x-sender-id", apiKey(1), "x-api-key", senderID(1)))
	serve(a, request("x-sender-id", "x", "x-api-key", apiKey(1)))
	serve(a, of(1))
	require.Equal(t, fingerprint(senderID(2)), a.events[0].ClaimedSender)
	require.Equal(t, fingerprint(apiKey(1)), a.events[1].ClaimedSender)
	noPart(t, fmt.Sprintf("%+v", a.events[1]), apiKey(1)) // the two headers were mixed up
	require.Empty(t, a.events[2].ClaimedSender, "malformed")
	require.Empty(t, a.events[3].ClaimedSender, "authenticated")
}

func TestEventLevels(t *testing.T) {
	for level, events := range map[slog.Level][]senderauth.Event{
		slog.LevelDebug: {{Outcome: senderauth.Admitted}, {Outcome: senderauth.Canceled, Err: context.Canceled}},
		slog.LevelWarn:  {{Outcome: senderauth.Admitted, Err: errOutage}},
		slog.LevelError: {{Outcome: senderauth.Unavailable}, {Outcome: senderauth.Failed}},
		slog.LevelInfo: {{Outcome: senderauth.Admitted, DryRun: "strict"}, {Outcome: senderauth.Limited}, {Outcome: senderauth.MissingKey}, {Outcome: senderauth.MissingSender}, {Outcome: senderauth.InvalidSender},
			{Outcome: senderauth.InvalidKey}, {Outcome: senderauth.Mismatch}, {Outcome: senderauth.Insecure}, {Outcome: senderauth.Refused}},
	} {
		for _, e := range events {
			require.Equal(t, level, e.Level(), e.Outcome)
		}
	}
}

// logged returns what f logs at every level, without the time.
func logged(t *testing.T, f func(*slog.Logger)) (records []map[string]any) {
	t.Helper()
	var b bytes.Buffer
	f(slog.New(slog.NewJSONHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug})))
	for line := range strings.Lines(b.String()) {
		var r map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &r))
		delete(r, "time")
		records = append(records, r)
	}
	return records
}

func TestLogEvents(t *testing.T) {
	ctx := context.Background()
	bubble(t, "the attributes that are set", func(t *testing.T) {
		records := logged(t, func(l *slog.Logger) {
			observe := senderauth.LogEvents(l, nil)
			observe(ctx, senderauth.Event{Outcome: senderauth.Limited, Sender: senderauth.Sender{ID: senderID(1), KeyID: "key-1"}, Limit: "default", DryRun: "next", Inner: true, Cached: true, Elapsed: time.Microsecond})
			observe(ctx, senderauth.Event{Outcome: senderauth.InvalidKey, ClaimedSender: "0123456789abcdef", Err: senderauth.ErrInvalidKey})
			l.Debug("by hand", "event", senderauth.Event{Outcome: senderauth.Admitted})
		})
		require.Equal(t, []map[string]any{
			{"level": "INFO", "msg": "senderauth", "outcome": "limited", "sender_id": senderID(1), "key_id": "key-1", "limit": "default", "dry_run": "next", "inner": true, "cached": true, "elapsed": 1000.0},
			{"level": "INFO", "msg": "senderauth", "outcome": "invalid_key", "claimed_sender": "0123456789abcdef", "cached": false, "elapsed": 0.0, "error": "senderauth: invalid API key"},
			{"level": "DEBUG", "msg": "by hand", "event": map[string]any{"outcome": "admitted", "cached": false, "elapsed": 0.0}},
		}, records)
	})
	bubble(t, "an outage does not flood the log", func(t *testing.T) {
		records := logged(t, func(l *slog.Logger) {
			observe := senderauth.LogEvents(l, nil)
			for range 1000 {
				observe(ctx, senderauth.Event{Outcome: senderauth.Unavailable, Err: errOutage})
			}
			observe(ctx, senderauth.Event{Outcome: senderauth.Failed, Err: errOutage})
			time.Sleep(time.Second)
			observe(ctx, senderauth.Event{Outcome: senderauth.Unavailable, Err: errOutage})
		})
		require.Len(t, records, 12, "ten, one of another outcome, and one a second later")
		require.Equal(t, "failed", records[10]["outcome"])
		require.Equal(t, 990.0, records[11]["suppressed"])
	})
	bubble(t, "what is not logged counts for nothing", func(t *testing.T) {
		var b bytes.Buffer
		var level slog.LevelVar
		observe := senderauth.LogEvents(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: &level})), nil)
		level.Set(slog.LevelError)
		for range 20 {
			observe(ctx, senderauth.Event{Outcome: senderauth.Limited})
		}
		level.Set(slog.LevelInfo)
		observe(ctx, senderauth.Event{Outcome: senderauth.Limited})
		require.Contains(t, b.String(), "outcome=limited")
		require.NotContains(t, b.String(), "suppressed")
	})
	bubble(t, "at levels of one's own", func(t *testing.T) {
		records := logged(t, func(l *slog.Logger) {
			observe := senderauth.LogEvents(l, func(e senderauth.Event) slog.Level {
				if e.Outcome == senderauth.Admitted {
					return slog.LevelDebug - 1
				}
				return slog.LevelDebug
			})
			for range 20 {
				observe(ctx, senderauth.Event{Outcome: senderauth.Admitted})
				observe(ctx, senderauth.Event{Outcome: senderauth.Limited})
			}
		})
		require.Len(t, records, 20, "what is not enabled is not logged, and Debug is not suppressed")
	})
}

func TestLogEventsIsSafeForConcurrentUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records := logged(t, func(l *slog.Logger) {
			observe := senderauth.LogEvents(l, nil)
			var callers sync.WaitGroup
			for _, o := range []senderauth.Outcome{senderauth.Failed, senderauth.Limited, senderauth.Failed, senderauth.Limited} {
				callers.Go(func() {
					for range 1000 {
						observe(context.Background(), senderauth.Event{Outcome: o})
					}
				})
			}
			callers.Wait()
		})
		require.Len(t, records, 20, "ten of each outcome")
	})
}

func TestLogEventsNeedsALogger(t *testing.T) {
	require.PanicsWithValue(t, "senderauth: LogEvents: the Logger is nil", func() { senderauth.LogEvents(nil, nil) })
}

func TestObserversCallEachInOrder(t *testing.T) {
	var calls []string
	note := func(name string) func(context.Context, senderauth.Event) {
		return func(_ context.Context, e senderauth.Event) { calls = append(calls, name+" "+string(e.Outcome)) }
	}
	senderauth.Observers(note("a"), nil, note("b"))(context.Background(), senderauth.Event{Outcome: senderauth.Limited})
	require.Equal(t, []string{"a limited", "b limited"}, calls)
	senderauth.Observers()(context.Background(), senderauth.Event{})
}
