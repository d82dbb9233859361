package senderauth

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth/internal/uuid"
	"github.com/stretchr/testify/require"
)

// Digests that share a set of the index, and all of its hints, are told apart
// by the whole of them.
func TestOnlyTheWholeDigestIsAnAnswer(t *testing.T) {
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
		for range 2 {
			for n := range uint64(20) {
				cr := Credentials{string(rune('a' + n)), "good"}
				e, _, err := c.lookup(context.Background(), digest{1, n}, cr)
				require.NoError(t, err)
				require.Equal(t, cr.SenderID, e.sender.ID)
				_, _, err = c.lookup(context.Background(), digest{1 | 64, n}, Credentials{"a", "bad"})
				require.ErrorIs(t, err, ErrInvalidKey)
				_, _, err = c.lookup(context.Background(), digest{1, n | 1<<40}, Credentials{"a", "bad"})
				require.ErrorIs(t, err, ErrInvalidKey)
			}
			require.Equal(t, 3*20, calls)
		}
	})
}

// Nor does a lookup in flight answer for a pair whose digest is half the same.
func TestOnlyTheWholeDigestIsALookupInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := NewCache(ValidatorFunc(func(_ context.Context, cr Credentials) (Sender, error) {
			time.Sleep(time.Second)
			return Sender{ID: cr.SenderID}, nil
		}), CacheConfig{})
		require.NoError(t, err)
		for n, d := range []digest{{1, 1}, {1, 2}, {2, 1}} {
			go func() {
				cr := Credentials{string(rune('a' + n)), "good"}
				if e, _, err := c.lookup(context.Background(), d, cr); err != nil || e.sender.ID != cr.SenderID {
					t.Error(e, err)
				}
			}()
		}
		time.Sleep(2 * time.Second)
	})
}

// Nothing of a key that was presented is in memory when its request is over:
// neither in a string nor in an array, whoever's it was.
func TestNoKeyIsKept(t *testing.T) {
	const owner = "7a1de7b4-3a0e-4d6e-9c2b-000000000001"
	good, bad, own := "0b9d3c1e-6f52-4c8a-b1d7-2e9f1a3c5d01", "5d07e9f1-a3c5-4b1d-9f52-0b9d3c1e6f52", "sk_live_9f520b9d3c1e6f52"
	for _, cfg := range []Config{{}, {CheckKey: func(string) bool { return true }}, {CheckKey: func(string) bool { return true }, KeyOnly: true}} {
		keys, err := Static(Credentials{owner, good}, Credentials{owner, own})
		require.NoError(t, err)
		c, err := NewCache(keys, CacheConfig{})
		require.NoError(t, err)
		cfg.Limits = map[string]Limit{"default": PerMinute(100)}
		guard, err := New(c, cfg)
		require.NoError(t, err)
		for _, key := range []string{good, bad, own, strings.ToUpper(good)} {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("x-sender-id", owner)
			r.Header.Set("x-api-key", key)
			guard.Wrap(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), r)
		}
		require.NotZero(t, c.Stats().Entries)
		require.NotZero(t, c.Stats().RejectedEntries)
		var held bytes.Buffer
		collect(&held, reflect.ValueOf(guard), map[any]bool{})
		require.Contains(t, held.String(), owner, "what is there is found")
		text := strings.ToLower(held.String())
		for _, key := range []string{good, bad, own} {
			require.NotContains(t, text, key[:8])
			require.NotContains(t, text, key[len(key)-8:])
			if u, _, ok := uuid.Parse(key); ok {
				require.NotContains(t, held.String(), string(u[:8]))
			}
		}
	}
}

// collect writes every string and every byte that can be reached from v.
func collect(to *bytes.Buffer, v reflect.Value, seen map[any]bool) {
	switch v.Kind() {
	case reflect.String:
		to.WriteString(v.String() + "\n")
	case reflect.Uint8:
		to.WriteByte(byte(v.Uint()))
	case reflect.Pointer, reflect.Map:
		if at := [2]any{v.Pointer(), v.Type()}; v.IsNil() || seen[at] {
			return
		} else {
			seen[at] = true
		}
		if v.Kind() == reflect.Pointer {
			collect(to, v.Elem(), seen)
			return
		}
		for i := v.MapRange(); i.Next(); {
			collect(to, i.Key(), seen)
			collect(to, i.Value(), seen)
		}
	case reflect.Interface:
		collect(to, v.Elem(), seen)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[atomic.Uint64]() {
			return // a million of them
		}
		for i := range v.NumField() {
			collect(to, v.Field(i), seen)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			collect(to, v.Index(i), seen)
		}
		to.WriteByte('\n')
	}
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

// Of the hits that call for a refresh one starts it, and the others do not even
// join it.
func TestOneHitRefreshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := NewCache(ValidatorFunc(func(context.Context, Credentials) (Sender, error) {
			time.Sleep(500 * time.Millisecond)
			return Sender{ID: "a"}, nil
		}), CacheConfig{})
		require.NoError(t, err)
		cr := Credentials{APIKey: "k"}
		e, _, err := c.lookup(context.Background(), c.digest(cr), cr)
		require.NoError(t, err)
		time.Sleep(c.cfg.TTL / 2)
		require.True(t, e.hit(c.round(e, c.clock.now())))
		for range 2 {
			require.False(t, e.hit(c.round(e, c.clock.now())))
		}
		time.Sleep(retryLookup)
		require.True(t, e.hit(c.round(e, c.clock.now())))
	})
}

func TestCacheDefaults(t *testing.T) {
	c, err := NewCache(ValidatorFunc(func(context.Context, Credentials) (Sender, error) { return Sender{}, nil }), CacheConfig{})
	require.NoError(t, err)
	require.GreaterOrEqual(t, c.shards[0].size*len(c.shards), 100_000)
	require.Less(t, c.shards[0].size*len(c.shards), 120_000)
	require.Equal(t, 64, cap(c.known.seats[0]))
	require.Equal(t, 48, cap(c.unknown.seats[0]))
}

func TestHitAllocatesNothing(t *testing.T) {
	c, err := NewCache(ValidatorFunc(func(_ context.Context, cr Credentials) (Sender, error) {
		return Sender{ID: cr.SenderID}, nil
	}), CacheConfig{})
	require.NoError(t, err)
	cr := Credentials{"7a1de7b4-3a0e-4d6e-9c2b-000000000001", "0b9d3c1e-6f52-4c8a-b1d7-2e9f1a3c5d01"}
	hit := func() {
		if e, _, err := c.lookup(context.Background(), c.digest(cr), cr); err != nil || e.sender.ID != cr.SenderID {
			t.Fatal(err)
		}
	}
	hit()
	require.Zero(t, testing.AllocsPerRun(1000, hit))
}
