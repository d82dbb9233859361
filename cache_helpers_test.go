package senderauth_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// A backend is a key store that takes its time: it decides at the beginning of
// a lookup and says so at its end.
type backend struct {
	mu     sync.Mutex
	answer senderauth.ValidatorFunc // nil: knowsAll
	takes  time.Duration
	deaf   bool // to its context
	calls  int
}

// called is the number of lookups so far.
func (b *backend) called() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls
}

// slow makes the next lookups take d.
func (b *backend) slow(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.takes = d
}

func (b *backend) Validate(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
	b.mu.Lock()
	b.calls++
	answer, takes, deaf := b.answer, b.takes, b.deaf
	b.mu.Unlock()
	if answer == nil {
		answer = knowsAll
	}
	s, err := answer(ctx, c)
	if deaf {
		time.Sleep(takes)
		return s, err
	}
	select {
	case <-time.After(takes):
		return s, err
	case <-ctx.Done():
		return senderauth.Sender{}, ctx.Err()
	}
}

// set changes what the next lookups find.
func (b *backend) set(answer senderauth.ValidatorFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = answer
}

var errOutage = errors.New("outage")

// cacheTest is a cache in front of a backend, on synctest's clock.
type cacheTest struct {
	*testing.T
	*senderauth.Cache
	back *backend
}

func withCache(t *testing.T, cfg senderauth.CacheConfig, f func(*cacheTest)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		back := &backend{}
		f(&cacheTest{t, newCache(t, back, cfg), back})
	})
}

func cacheBubble(t *testing.T, name string, cfg senderauth.CacheConfig, f func(*cacheTest)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { withCache(t, cfg, f) })
}

// ask asks for the pair, and returns how long the answer took.
func (t *cacheTest) ask(c senderauth.Credentials) (time.Duration, error) {
	t.Helper()
	start := time.Now()
	s, err := t.Validate(context.Background(), c)
	if err == nil {
		n, _ := owner(c.APIKey)
		require.Equal(t, senderID(n), s.ID)
	} else {
		require.Zero(t, s)
	}
	return time.Since(start), err
}

// is asks for the pair and wants this answer, after so many lookups in all,
// refreshes included.
func (t *cacheTest) is(c senderauth.Credentials, want error, calls int) {
	t.Helper()
	_, err := t.ask(c)
	require.ErrorIs(t, err, want)
	synctest.Wait()
	require.Equal(t, calls, t.back.called())
}
