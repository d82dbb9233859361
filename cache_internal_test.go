package senderauth

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The index of a digest finds an entry, and only the whole of it is answered
// for: an index can be met by chance.
func TestPitfall16IndexAloneIsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		c, err := NewCache(ValidatorFunc(func(_ context.Context, cr Credentials) (Sender, error) {
			calls++
			if cr.APIKey == "bad" {
				return Sender{}, ErrInvalidKey
			}
			return Sender{ID: cr.SenderID}, nil
		}), CacheConfig{})
		require.NoError(t, err)
		ask := func(d digest, cr Credentials) error {
			e, _, err := c.lookup(context.Background(), d, cr)
			synctest.Wait()
			if err == nil {
				require.Equal(t, cr.SenderID, e.sender.ID)
			}
			return err
		}
		first, second := digest{1, [16]byte{1}}, digest{1, [16]byte{2}}
		for i := range 3 {
			require.NoError(t, ask(first, Credentials{"a", "good"}))
			require.NoError(t, ask(second, Credentials{"b", "good"}))
			require.Equal(t, 2*i+2, calls)
		}
		calls = 0
		first.index, second.index = 2, 2
		for i := range 3 {
			require.ErrorIs(t, ask(first, Credentials{"a", "bad"}), ErrInvalidKey)
			require.NoError(t, ask(second, Credentials{"b", "good"}))
			require.Equal(t, 2*i+2, calls)
		}
	})
}

// No client can work out which of its keys meet in one shard: every cache has
// its own digest of a pair.
func TestDigestsAreOfOneCache(t *testing.T) {
	for _, cr := range []Credentials{
		{"7a1de7b4-3a0e-4d6e-9c2b-000000000001", "0b9d3c1e-6f52-4c8a-b1d7-2e9f1a3c5d01"},
		{"", "0b9d3c1e-6f52-4c8a-b1d7-2e9f1a3c5d01"},
	} {
		seen := map[digest]bool{}
		for range 10 {
			c, err := NewCache(ValidatorFunc(func(context.Context, Credentials) (Sender, error) { return Sender{}, nil }), CacheConfig{})
			require.NoError(t, err)
			require.Equal(t, c.digest(cr), c.digest(cr))
			seen[c.digest(cr)] = true
		}
		require.Len(t, seen, 10)
	}
}

// Of the hits that want a look-up behind them one asks, the others do not even
// join it.
func TestOneHitAsksBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := NewCache(ValidatorFunc(func(context.Context, Credentials) (Sender, error) {
			time.Sleep(500 * time.Millisecond)
			return Sender{ID: "a"}, nil
		}), CacheConfig{})
		require.NoError(t, err)
		cr := Credentials{APIKey: "k"}
		e, _, err := c.lookup(context.Background(), c.digest(cr), cr)
		require.NoError(t, err)
		time.Sleep(c.ttl / 2)
		for range 2 {
			again := int64(time.Since(c.start) + retryLookup)
			c.lookup(context.Background(), c.digest(cr), cr)
			require.Equal(t, again, e.again.Load())
		}
		time.Sleep(time.Second)
	})
}

func TestCacheDefaults(t *testing.T) {
	c, err := NewCache(ValidatorFunc(func(context.Context, Credentials) (Sender, error) { return Sender{}, nil }), CacheConfig{})
	require.NoError(t, err)
	require.GreaterOrEqual(t, c.size*len(c.shards), 100_000)
	require.Less(t, c.size*len(c.shards), 120_000)
	require.Equal(t, 64, cap(c.slots))
	require.Equal(t, 48, cap(c.misses))
}
