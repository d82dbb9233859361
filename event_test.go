package senderauth_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"testing"
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
