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

// Nothing of a key that was presented is in memory when its request is over:
// neither in a string nor in an array, whoever's it was.
func TestPitfall21NoKeyIsKept(t *testing.T) {
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
