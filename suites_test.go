package senderauth_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/senderauthtest"
	"github.com/stretchr/testify/require"
)

func TestStaticIsAValidator(t *testing.T) {
	second := senderauth.Credentials{SenderID: senderID(1), APIKey: apiKey(3)}
	v, err := senderauth.Static(pair(1), pair(2), second)
	require.NoError(t, err)
	senderauthtest.TestValidator(t, senderauthtest.ValidatorConfig{
		Validator: v,
		Keys: map[senderauthtest.State]senderauth.Credentials{
			senderauthtest.Active: pair(1), senderauthtest.Other: pair(2), senderauthtest.Second: second,
		},
		Lacks: []senderauthtest.State{
			senderauthtest.Expiring, senderauthtest.Disabled, senderauthtest.Rotated, senderauthtest.Expired,
			senderauthtest.NotYet, senderauthtest.Deleted, senderauthtest.DisabledSender, senderauthtest.DisabledBoth,
		},
	})
}

func TestCacheIsAValidator(t *testing.T) {
	keys := map[senderauthtest.State]senderauth.Credentials{
		senderauthtest.Active: pair(1), senderauthtest.Second: {SenderID: senderID(1), APIKey: apiKey(101)},
		senderauthtest.Other: pair(2), senderauthtest.Expiring: pair(3), senderauthtest.Disabled: pair(4),
		senderauthtest.Rotated: pair(5), senderauthtest.Expired: pair(6), senderauthtest.NotYet: pair(7),
		senderauthtest.Deleted: pair(8), senderauthtest.DisabledSender: pair(9), senderauthtest.DisabledBoth: pair(10),
	}
	store := func(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		for state, p := range keys {
			if p.APIKey != c.APIKey {
				continue
			}
			s := senderauth.Sender{ID: p.SenderID, Limits: map[string]senderauth.Limit{"messages": senderauth.PerMinute(1)}}
			switch state {
			case senderauthtest.Expiring:
				s.Expires = time.Now().Add(time.Hour)
				fallthrough
			case senderauthtest.Active, senderauthtest.Second, senderauthtest.Other, senderauthtest.DisabledSender:
				if c.SenderID != "" && c.SenderID != p.SenderID {
					return senderauth.Sender{}, senderauth.ErrKeyMismatch
				}
				if state == senderauthtest.DisabledSender {
					return senderauth.Sender{}, senderauth.ErrInvalidSender
				}
				return s, nil
			}
		}
		return senderauth.Sender{}, senderauth.ErrInvalidKey
	}
	cache, err := senderauth.NewCache(senderauth.ValidatorFunc(store), senderauth.CacheConfig{})
	require.NoError(t, err)
	senderauthtest.TestValidator(t, senderauthtest.ValidatorConfig{Validator: cache, Keys: keys})
	require.NotZero(t, cache.Stats().Hits)
	require.NotZero(t, cache.Stats().RejectedHits)
}

func TestMemoryLimiterIsALimiter(t *testing.T) {
	for name, cfg := range map[string]senderauth.MemoryLimiterConfig{"default": {}, "reclaiming from the first bucket on": {Buckets: 1}} {
		t.Run(name, func(t *testing.T) {
			senderauthtest.TestLimiter(t, senderauthtest.LimiterConfig{
				New:       func(*testing.T) senderauth.Limiter { return senderauth.NewMemoryLimiter(cfg) },
				Run:       synctest.Test,
				Tolerance: time.Nanosecond, // it counts in float64
			})
		})
	}
}
