package senderauth_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/assert"
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

// is asks for the pair and wants this answer, with so many lookups in all,
// those behind a hit included.
func (t *cacheTest) is(c senderauth.Credentials, want error, calls int) {
	t.Helper()
	_, err := t.ask(c)
	require.ErrorIs(t, err, want)
	synctest.Wait()
	require.Equal(t, calls, t.back.called())
}

func TestCacheTTL(t *testing.T) {
	cacheBubble(t, "accepted", senderauth.CacheConfig{TTL: 10 * time.Second}, func(t *cacheTest) {
		t.is(pair(1), nil, 1)
		time.Sleep(5*time.Second - 1)
		t.is(pair(1), nil, 1)
		t.back.set(refuseWith(errOutage))
		time.Sleep(5 * time.Second)
		t.is(pair(1), nil, 2) // the one behind the hit fails
		time.Sleep(time.Nanosecond)
		_, err := t.ask(pair(1))
		require.ErrorIs(t, err, errOutage)
	})
	const ever = time.Duration(math.MaxInt64)
	cacheBubble(t, "for ever", senderauth.CacheConfig{TTL: ever, RejectedTTL: ever, StaleTTL: ever, LookupTimeout: ever}, func(t *cacheTest) {
		bad := senderauth.Credentials{SenderID: senderID(1), APIKey: "bad"}
		time.Sleep(time.Hour)
		t.is(pair(1), nil, 1)
		t.is(bad, senderauth.ErrInvalidKey, 2)
		time.Sleep(10 * 365 * 24 * time.Hour)
		t.is(pair(1), nil, 2)
		t.is(bad, senderauth.ErrInvalidKey, 2)
	})
	cacheBubble(t, "default", senderauth.CacheConfig{}, func(t *cacheTest) {
		t.is(pair(1), nil, 1)
		time.Sleep(30*time.Second - 1)
		t.is(pair(1), nil, 1)
		time.Sleep(30*time.Second + 1)
		t.is(pair(1), nil, 2)
		require.Equal(t, uint64(2), t.Stats().Misses)
	})
	for _, refusal := range []error{senderauth.ErrInvalidKey, senderauth.ErrKeyMismatch, senderauth.ErrInvalidSender} {
		cacheBubble(t, refusal.Error(), senderauth.CacheConfig{}, func(t *cacheTest) {
			t.back.set(refuseWith(fmt.Errorf("why: %w", refusal)))
			t.is(pair(1), refusal, 1)
			time.Sleep(5*time.Second - 1)
			t.is(pair(1), refusal, 1)
			time.Sleep(time.Nanosecond)
			t.is(pair(1), refusal, 2)
			t.back.set(nil)
			time.Sleep(5 * time.Second)
			t.is(pair(1), nil, 3)
		})
	}
	cacheBubble(t, "rejections are not remembered", senderauth.CacheConfig{RejectedTTL: -1}, func(t *cacheTest) {
		t.back.set(refuseWith(senderauth.ErrInvalidKey))
		t.is(pair(1), senderauth.ErrInvalidKey, 1)
		t.is(pair(1), senderauth.ErrInvalidKey, 2)
		t.back.set(nil)
		t.is(pair(1), nil, 3)
		t.is(pair(1), nil, 3)
	})
	cacheBubble(t, "an error and a Problem are not remembered", senderauth.CacheConfig{}, func(t *cacheTest) {
		for i, err := range []error{errOutage, context.DeadlineExceeded, &senderauth.Problem{Status: 403}, &senderauth.Problem{Status: 401, Err: senderauth.ErrInvalidKey}} {
			t.back.set(refuseWith(err))
			t.is(pair(1), err, 2*i+1)
			t.is(pair(1), err, 2*i+2)
		}
		t.back.set(nil)
		t.is(pair(1), nil, 9)
	})
}

// What is revoked or issued while a lookup is on its way is found out a TTL
// after the validator was asked, not after it answered.
func TestCacheTTLBeginsWithTheLookup(t *testing.T) {
	cacheBubble(t, "accepted", senderauth.CacheConfig{TTL: 10 * time.Second}, func(t *cacheTest) {
		t.back.slow(2*time.Second - 1)
		t.is(pair(1), nil, 1)
		t.back.slow(0)
		t.back.set(refuseWith(errOutage))
		time.Sleep(8 * time.Second)
		t.is(pair(1), nil, 2)
		time.Sleep(time.Nanosecond)
		_, err := t.ask(pair(1))
		require.ErrorIs(t, err, errOutage)
	})
	cacheBubble(t, "rejected", senderauth.CacheConfig{}, func(t *cacheTest) {
		t.back.slow(2*time.Second - 1)
		t.back.set(refuseWith(senderauth.ErrInvalidKey))
		t.is(pair(1), senderauth.ErrInvalidKey, 1)
		t.back.slow(0)
		t.back.set(nil)
		time.Sleep(3 * time.Second)
		t.is(pair(1), senderauth.ErrInvalidKey, 1)
		time.Sleep(time.Nanosecond)
		t.is(pair(1), nil, 2)
	})
	cacheBubble(t, "an answer that comes after TTL is not remembered", senderauth.CacheConfig{TTL: 10 * time.Second, MaxLookups: 1}, func(t *cacheTest) {
		t.back.deaf = true
		t.back.slow(10 * time.Second)
		_, err := t.ask(pair(1))
		require.ErrorContains(t, err, "LookupTimeout")
		time.Sleep(9 * time.Second)
		t.back.slow(0)
		t.is(pair(1), nil, 2)
	})
}

func TestCacheLooksUpAgainBehindAHit(t *testing.T) {
	cfg := senderauth.CacheConfig{TTL: 10 * time.Second}
	cacheBubble(t, "one lookup, and nobody waits", cfg, func(t *cacheTest) {
		t.back.slow(100 * time.Millisecond)
		t.ask(pair(1))
		time.Sleep(5 * time.Second)
		for range 10 {
			took, err := t.ask(pair(1))
			require.NoError(t, err)
			require.Zero(t, took)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		require.Equal(t, 2, t.back.called())
		time.Sleep(4850 * time.Millisecond) // past the end of the first entry
		took, err := t.ask(pair(1))
		require.NoError(t, err)
		require.Zero(t, took)
		require.Equal(t, 2, t.back.called())
	})
	for _, refusal := range []error{senderauth.ErrInvalidKey, &senderauth.Problem{Status: 403, Detail: "billing is suspended"}} {
		cacheBubble(t, "a refusal ends the entry: "+refusal.Error(), cfg, func(t *cacheTest) {
			t.ask(pair(1))
			time.Sleep(5 * time.Second)
			t.back.set(refuseWith(refusal))
			t.is(pair(1), nil, 2)
			_, err := t.ask(pair(1))
			require.ErrorIs(t, err, refusal)
		})
	}
	cacheBubble(t, "a refusal ends the entry, though another sender is forgotten meanwhile", cfg, func(t *cacheTest) {
		c := senderauth.Credentials{APIKey: apiKey(1)}
		t.ask(c)
		time.Sleep(5 * time.Second)
		t.back.set(refuseWith(senderauth.ErrInvalidKey))
		t.back.slow(time.Second)
		t.ask(c)
		time.Sleep(500 * time.Millisecond)
		t.Forget(senderID(2))
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		t.is(c, senderauth.ErrInvalidKey, 3)
	})
	for _, failure := range []error{errOutage, &senderauth.Problem{Status: 503}} {
		cacheBubble(t, "a failure does not, and is tried once a second: "+failure.Error(), cfg, func(t *cacheTest) {
			t.ask(pair(1))
			t.back.set(refuseWith(failure))
			time.Sleep(5 * time.Second)
			for range 40 {
				_, err := t.ask(pair(1))
				require.NoError(t, err)
				synctest.Wait()
				time.Sleep(100 * time.Millisecond)
			}
			require.Equal(t, 1+4, t.back.called())
		})
	}
}

func TestCacheServesStaleWhileTheValidatorFails(t *testing.T) {
	cfg := senderauth.CacheConfig{TTL: 10 * time.Second, StaleTTL: 20 * time.Second}
	cacheBubble(t, "until TTL and StaleTTL are over", cfg, func(t *cacheTest) {
		t.ask(pair(1))
		t.back.set(refuseWith(errOutage))
		for range 29 {
			time.Sleep(time.Second)
			_, err := t.ask(pair(1))
			require.NoError(t, err)
		}
		synctest.Wait()
		time.Sleep(time.Second)
		_, err := t.ask(pair(1))
		require.ErrorIs(t, err, errOutage)
	})
	cacheBubble(t, "and no longer than it fails", cfg, func(t *cacheTest) {
		t.ask(pair(1))
		time.Sleep(15 * time.Second)
		t.back.set(refuseWith(senderauth.ErrInvalidKey))
		t.is(pair(1), senderauth.ErrInvalidKey, 2)
	})
	cacheBubble(t, "not past Expires", cfg, func(t *cacheTest) {
		t.back.set(func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			s, err := knowsAll(ctx, c)
			s.Expires = epoch.Add(12 * time.Second)
			return s, err
		})
		t.ask(pair(1))
		t.back.set(refuseWith(errOutage))
		time.Sleep(11 * time.Second)
		_, err := t.ask(pair(1))
		require.NoError(t, err)
		time.Sleep(time.Second)
		_, err = t.ask(pair(1))
		require.ErrorIs(t, err, errOutage)
	})
	cacheBubble(t, "not where the key expires during the lookup", cfg, func(t *cacheTest) {
		t.back.set(func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			s, err := knowsAll(ctx, c)
			s.Expires = epoch.Add(12 * time.Second)
			return s, err
		})
		t.ask(pair(1))
		t.back.set(refuseWith(errOutage))
		t.back.slow(time.Second)
		time.Sleep(11500 * time.Millisecond)
		_, err := t.ask(pair(1))
		require.ErrorIs(t, err, errOutage)
	})
	cacheBubble(t, "not after Forget", cfg, func(t *cacheTest) {
		t.ask(pair(1))
		t.back.set(refuseWith(errOutage))
		t.Forget(senderID(1))
		_, err := t.ask(pair(1))
		require.ErrorIs(t, err, errOutage)
	})
	cacheBubble(t, "at once, where the lookup behind a hit has failed", cfg, func(t *cacheTest) {
		t.ask(pair(1))
		t.back.set(refuseWith(errOutage))
		t.back.slow(100 * time.Millisecond)
		time.Sleep(9500 * time.Millisecond)
		t.ask(pair(1))
		time.Sleep(time.Second)
		took, err := t.ask(pair(1))
		require.NoError(t, err)
		require.Zero(t, took)
		time.Sleep(time.Second) // the lookup behind it ends
	})
	cacheBubble(t, "but not long after, when it may fail no more", cfg, func(t *cacheTest) {
		t.ask(pair(1))
		t.back.set(refuseWith(errOutage))
		time.Sleep(11 * time.Second)
		t.is(pair(1), nil, 2)
		time.Sleep(2 * time.Second)
		t.back.set(refuseWith(senderauth.ErrInvalidKey))
		t.is(pair(1), senderauth.ErrInvalidKey, 3)
	})
	deaf := senderauth.CacheConfig{TTL: 10 * time.Second, StaleTTL: 20 * time.Second, LookupTimeout: time.Second, MaxLookups: 1}
	cacheBubble(t, "one that does not answer is waited for once", deaf, func(t *cacheTest) {
		t.ask(pair(1))
		t.back.deaf = true
		t.back.slow(5 * time.Second)
		time.Sleep(11 * time.Second)
		for _, want := range []time.Duration{time.Second, 0} {
			took, err := t.ask(pair(1))
			require.NoError(t, err)
			require.Equal(t, want, took)
		}
		time.Sleep(5 * time.Second)
	})
	cacheBubble(t, "and so does one that has no turn", deaf, func(t *cacheTest) {
		t.ask(pair(1))
		t.back.deaf = true
		t.back.slow(5 * time.Second)
		time.Sleep(8 * time.Second)
		t.ask(pair(2)) // has the only turn for five seconds
		time.Sleep(500 * time.Millisecond)
		t.ask(pair(1))
		time.Sleep(time.Second)
		took, err := t.ask(pair(1))
		require.NoError(t, err)
		require.Zero(t, took)
		time.Sleep(5 * time.Second)
	})
	cacheBubble(t, "not for a rejection", cfg, func(t *cacheTest) {
		t.back.set(refuseWith(senderauth.ErrInvalidKey))
		t.ask(pair(1))
		t.back.set(refuseWith(errOutage))
		time.Sleep(6 * time.Second)
		_, err := t.ask(pair(1))
		require.ErrorIs(t, err, errOutage)
	})
}

func TestCacheNeverOutlivesExpires(t *testing.T) {
	for name, expires := range map[string]time.Time{
		"by the calendar": epoch.Add(7 * time.Second),
		"in another zone": epoch.Add(7 * time.Second).In(time.FixedZone("", -3600*5)),
	} {
		cacheBubble(t, name, senderauth.CacheConfig{}, func(t *cacheTest) {
			t.back.set(func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
				if !time.Now().Before(expires) {
					return senderauth.Sender{}, senderauth.ErrInvalidKey
				}
				s, err := knowsAll(ctx, c)
				s.Expires = expires
				return s, err
			})
			t.is(pair(1), nil, 1)
			time.Sleep(7*time.Second - 1)
			t.is(pair(1), nil, 1)
			time.Sleep(time.Nanosecond)
			t.is(pair(1), senderauth.ErrInvalidKey, 2)
		})
	}
	cacheBubble(t, "an instant that is past is not remembered", senderauth.CacheConfig{}, func(t *cacheTest) {
		t.back.set(func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			s, err := knowsAll(ctx, c)
			s.Expires = epoch
			return s, err
		})
		t.is(pair(1), nil, 1)
		t.is(pair(1), nil, 2)
	})
}

// An instant with a monotonic part would be compared by that, though the
// calendar had been set.
func TestCacheComparesExpiresByTheCalendar(t *testing.T) {
	c := newCache(t, senderauth.ValidatorFunc(func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		s, err := knowsAll(ctx, c)
		s.Expires = time.Now().Add(time.Hour)
		return s, err
	}), senderauth.CacheConfig{})
	s, err := c.Validate(context.Background(), pair(1))
	require.NoError(t, err)
	require.NotContains(t, s.Expires.String(), "m=")
}

func TestCacheLookupTimeout(t *testing.T) {
	cacheBubble(t, "the deadline is in the context", senderauth.CacheConfig{}, func(t *cacheTest) {
		t.back.slow(time.Hour)
		took, err := t.ask(pair(1))
		require.Error(t, err)
		require.NotErrorIs(t, err, senderauth.ErrInvalidKey)
		require.Equal(t, 2*time.Second, took)
		synctest.Wait()
		require.Zero(t, t.Stats().InFlight)
	})
	cacheBubble(t, "a validator that ignores it holds nobody but its place", senderauth.CacheConfig{LookupTimeout: time.Second, MaxLookups: 1}, func(t *cacheTest) {
		t.back.deaf = true
		t.back.slow(10 * time.Second)
		took, err := t.ask(pair(1))
		require.ErrorContains(t, err, "LookupTimeout")
		require.Equal(t, time.Second, took)
		require.Equal(t, 1, t.Stats().InFlight)
		took, err = t.ask(pair(2))
		require.ErrorContains(t, err, "half of CacheConfig.LookupTimeout")
		require.Equal(t, 500*time.Millisecond, took)
		require.Equal(t, 1, t.back.called())
		time.Sleep(8500 * time.Millisecond)
		synctest.Wait()
		require.Zero(t, t.Stats().InFlight)
		t.back.slow(0)
		t.is(pair(2), nil, 2)
	})
}

func TestCacheMaxLookups(t *testing.T) {
	withCache(t, senderauth.CacheConfig{MaxLookups: 2, LookupTimeout: 2500 * time.Millisecond}, func(t *cacheTest) {
		t.back.slow(time.Second)
		var wg sync.WaitGroup
		var mu sync.Mutex
		took := map[time.Duration]int{}
		failures := 0
		for n := range 8 {
			wg.Go(func() {
				d, err := t.ask(pair(n))
				mu.Lock()
				defer mu.Unlock()
				took[d]++
				if err != nil {
					failures++
				}
			})
		}
		time.Sleep(500 * time.Millisecond)
		require.Equal(t, 2, t.Stats().InFlight)
		wg.Wait()
		require.Equal(t, map[time.Duration]int{time.Second: 2, 2 * time.Second: 2, 1250 * time.Millisecond: 4}, took)
		require.Equal(t, 4, failures)
		require.EqualValues(t, 4, t.Stats().Failures)
	})
}

// TestRevokedKeyEndsAtOnce, and with nobody to tell the cache, after
// TTL at the latest.
func TestRevokedKeyEndsAtOnce(t *testing.T) {
	revoked := refuseWith(senderauth.ErrInvalidKey)
	for name, tell := range map[string]func(*senderauth.Cache){
		"Forget":             func(c *senderauth.Cache) { c.Forget(senderID(1)) },
		"Forget in capitals": func(c *senderauth.Cache) { c.Forget(strings.ToUpper(senderID(1))) },
		"Purge":              (*senderauth.Cache).Purge,
	} {
		cacheBubble(t, name, senderauth.CacheConfig{StaleTTL: time.Hour}, func(t *cacheTest) {
			t.is(pair(1), nil, 1)
			t.is(senderauth.Credentials{APIKey: apiKey(1)}, nil, 2)
			t.back.set(revoked)
			tell(t.Cache)
			t.is(pair(1), senderauth.ErrInvalidKey, 3)
			t.is(senderauth.Credentials{APIKey: apiKey(1)}, senderauth.ErrInvalidKey, 4)
		})
	}
	cacheBubble(t, "a record in capitals, which a guard with KeyOnly takes", senderauth.CacheConfig{}, func(t *cacheTest) {
		id := strings.ToUpper(senderID(1))
		for _, told := range []string{id, senderID(1)} {
			t.back.set(func(context.Context, senderauth.Credentials) (senderauth.Sender, error) {
				return senderauth.Sender{ID: id}, nil
			})
			_, err := t.Validate(context.Background(), senderauth.Credentials{APIKey: apiKey(1)})
			require.NoError(t, err)
			t.back.set(revoked)
			t.Forget(told)
			_, err = t.Validate(context.Background(), senderauth.Credentials{APIKey: apiKey(1)})
			require.ErrorIs(t, err, senderauth.ErrInvalidKey)
			t.Purge()
		}
	})
	cacheBubble(t, "nobody tells", senderauth.CacheConfig{}, func(t *cacheTest) {
		t.is(pair(1), nil, 1)
		t.back.set(revoked)
		time.Sleep(time.Minute)
		t.is(pair(1), senderauth.ErrInvalidKey, 2)
	})
	cacheBubble(t, "of other senders hardly anybody is asked for again", senderauth.CacheConfig{}, func(t *cacheTest) {
		for n := range 100 {
			t.ask(pair(n))
		}
		t.Forget(senderID(7))
		for n := range 100 {
			t.ask(pair(n))
		}
		require.Less(t, t.back.called(), 110)
		t.Purge()
		before := t.back.called()
		for n := range 100 {
			t.ask(pair(n))
		}
		require.Equal(t, before+100, t.back.called())
	})
}

// A lookup that began before Forget is neither remembered after it nor joined
// by those who come after it.
func TestForgottenInFlightIsNotRemembered(t *testing.T) {
	for _, keyOnly := range []bool{false, true} {
		for name, tell := range map[string]func(*senderauth.Cache){
			"Forget": func(c *senderauth.Cache) { c.Forget(senderID(1)) },
			"Purge":  (*senderauth.Cache).Purge,
		} {
			c := pair(1)
			if keyOnly {
				name, c.SenderID = name+", key only", ""
			}
			flight := func(t *cacheTest, first, second error, before, after senderauth.ValidatorFunc) {
				t.back.set(before)
				t.back.slow(time.Second)
				done := make(chan error, 1)
				go func() {
					_, err := t.ask(c)
					done <- err
				}()
				time.Sleep(500 * time.Millisecond)
				t.back.set(after)
				tell(t.Cache)
				_, err := t.ask(c)
				require.ErrorIs(t, err, second, "one who comes after")
				require.ErrorIs(t, <-done, first, "one who came before")
				t.is(c, second, 2)
			}
			cacheBubble(t, name+", revoked", senderauth.CacheConfig{}, func(t *cacheTest) {
				flight(t, nil, senderauth.ErrInvalidKey, nil, refuseWith(senderauth.ErrInvalidKey))
			})
			cacheBubble(t, name+", issued", senderauth.CacheConfig{}, func(t *cacheTest) {
				flight(t, senderauth.ErrInvalidKey, nil, refuseWith(senderauth.ErrInvalidKey), nil)
			})
			cacheBubble(t, name+", issued, and nobody comes before the lookup ends", senderauth.CacheConfig{RejectedTTL: time.Hour}, func(t *cacheTest) {
				t.back.set(refuseWith(senderauth.ErrInvalidKey))
				t.back.slow(time.Second)
				go t.ask(c)
				time.Sleep(500 * time.Millisecond)
				t.back.set(nil)
				tell(t.Cache)
				time.Sleep(time.Second)
				require.Zero(t, t.Stats().RejectedEntries)
				t.is(c, nil, 2)
			})
			cacheBubble(t, name+", revoked while looked up behind a hit", senderauth.CacheConfig{}, func(t *cacheTest) {
				t.ask(c)
				time.Sleep(40 * time.Second)
				t.back.slow(time.Second)
				t.ask(c)
				time.Sleep(500 * time.Millisecond)
				t.back.set(refuseWith(senderauth.ErrInvalidKey))
				tell(t.Cache)
				time.Sleep(time.Second)
				t.is(c, senderauth.ErrInvalidKey, 3)
			})
		}
	}
}

// A key that is issued works at once where its sender is forgotten, and after
// RejectedTTL in any case.
func TestIssuedKeyClearsItsRejection(t *testing.T) {
	for name, c := range map[string]senderauth.Credentials{"with a sender": pair(1), "key only": {APIKey: apiKey(1)}} {
		cacheBubble(t, name, senderauth.CacheConfig{RejectedTTL: time.Hour}, func(t *cacheTest) {
			t.back.set(refuseWith(senderauth.ErrInvalidKey))
			t.is(c, senderauth.ErrInvalidKey, 1)
			t.is(c, senderauth.ErrInvalidKey, 1)
			t.back.set(nil)
			t.Forget(senderID(1))
			t.is(c, nil, 2)
		})
	}
}

func TestFloodOfBadKeysEvictsNoGoodOne(t *testing.T) {
	withCache(t, senderauth.CacheConfig{Entries: 128}, func(t *cacheTest) {
		for n := range 100 {
			t.is(pair(n), nil, n+1)
		}
		for n := range 1000 {
			c := senderauth.Credentials{SenderID: senderID(n % 100), APIKey: fmt.Sprintf("bad-%d", n)}
			t.is(c, senderauth.ErrInvalidKey, 101+n)
			if n%2 == 0 {
				t.is(c, senderauth.ErrInvalidKey, 101+n)
			}
		}
		for n := range 100 {
			t.is(pair(n), nil, 1100)
		}
		require.LessOrEqual(t, t.Stats().RejectedEntries, 256)
		require.Zero(t, t.Stats().Evictions)
	})
}

// Nor does a flood that the validator cannot keep up with hold off the lookups
// behind hits until the good keys have ended; and what is looked up in it is
// answered, not given a turn with no time left.
func TestFloodOfBadKeysHoldsOffNoRefresh(t *testing.T) {
	withCache(t, senderauth.CacheConfig{TTL: 10 * time.Second, MaxLookups: 4}, func(t *cacheTest) {
		t.back.slow(50 * time.Millisecond) // 80 a second
		for n := range 50 {
			t.ask(pair(n))
		}
		var bad, answered atomic.Int64
		var wg sync.WaitGroup
		for range 30 {
			for n := range 50 { // 200 bad keys a second
				for range 4 {
					c := senderauth.Credentials{SenderID: senderID(n), APIKey: fmt.Sprintf("bad-%d", bad.Add(1))}
					wg.Go(func() {
						if _, err := t.Validate(context.Background(), c); errors.Is(err, senderauth.ErrInvalidKey) {
							answered.Add(1)
						}
					})
				}
				took, err := t.ask(pair(n))
				require.NoError(t, err)
				require.Zero(t, took)
				time.Sleep(20 * time.Millisecond)
			}
		}
		wg.Wait()
		time.Sleep(2 * time.Second) // the lookups behind hits end
		require.Greater(t, answered.Load(), int64(30*40))
	})
}

func TestCacheSize(t *testing.T) {
	cacheBubble(t, "few entries are an exact LRU", senderauth.CacheConfig{Entries: 3}, func(t *cacheTest) {
		for n := range 3 {
			t.is(pair(n), nil, n+1)
		}
		t.is(pair(0), nil, 3)
		t.is(pair(3), nil, 4)
		t.is(pair(0), nil, 4)
		t.is(pair(1), nil, 5)
		require.Equal(t, uint64(2), t.Stats().Evictions)
		require.Equal(t, 3, t.Stats().Entries)
		t.Purge() // and stay one
		for n := range 3 {
			t.is(pair(n), nil, n+6)
		}
		t.is(pair(0), nil, 8)
	})
	cacheBubble(t, "and so are few rejections", senderauth.CacheConfig{Entries: 3}, func(t *cacheTest) {
		bad := func(n int) senderauth.Credentials {
			return senderauth.Credentials{SenderID: senderID(1), APIKey: fmt.Sprintf("bad-%d", n)}
		}
		for n := range 3 {
			t.is(bad(n), senderauth.ErrInvalidKey, n+1)
		}
		t.is(bad(0), senderauth.ErrInvalidKey, 3)
		t.is(bad(3), senderauth.ErrInvalidKey, 4)
		t.is(bad(0), senderauth.ErrInvalidKey, 4)
		t.is(bad(1), senderauth.ErrInvalidKey, 5)
	})
	cacheBubble(t, "of many one in use stays", senderauth.CacheConfig{Entries: 2000, TTL: time.Hour}, func(t *cacheTest) {
		t.ask(pair(0))
		for round := range 30 {
			for n := range 500 {
				t.ask(pair(1 + 500*round + n))
			}
			time.Sleep(9 * time.Second) // the order is exact to about eight
			before := t.back.called()
			t.is(pair(0), nil, before)
		}
		require.NotZero(t, t.Stats().Evictions)
	})
	cacheBubble(t, "many do fit", senderauth.CacheConfig{Entries: 2000}, func(t *cacheTest) {
		for n := range 2000 {
			t.ask(pair(n))
		}
		require.Equal(t, 2000, t.Stats().Entries)
		for n := range 5000 {
			t.ask(pair(n))
		}
		require.Less(t, t.Stats().Entries, 4000)
	})
}

func TestThousandCallersAreOneLookup(t *testing.T) {
	withCache(t, senderauth.CacheConfig{}, func(t *cacheTest) {
		t.back.slow(100 * time.Millisecond)
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				took, err := t.ask(pair(1))
				if err != nil || took != 100*time.Millisecond {
					t.Errorf("%v after %v", err, took)
				}
			})
		}
		time.Sleep(50 * time.Millisecond)
		// Meanwhile nobody else waits.
		took, err := t.ask(senderauth.Credentials{SenderID: senderID(2), APIKey: apiKey(2)})
		require.NoError(t, err)
		require.Equal(t, 100*time.Millisecond, took)
		wg.Wait()
		require.Equal(t, 2, t.back.called())
	})
}

func TestFirstCallerWhoLeavesDoesNotCancelTheOthers(t *testing.T) {
	withCache(t, senderauth.CacheConfig{}, func(t *cacheTest) {
		t.back.slow(time.Second)
		ctx, cancel := context.WithCancel(context.Background())
		first := make(chan error, 1)
		go func() {
			_, err := t.Validate(ctx, pair(1))
			first <- err
		}()
		synctest.Wait()
		second := make(chan error, 1)
		go func() {
			_, err := t.ask(pair(1))
			second <- err
		}()
		time.Sleep(500 * time.Millisecond)
		cancel()
		synctest.Wait()
		require.ErrorIs(t, <-first, context.Canceled)
		require.Equal(t, 500*time.Millisecond, time.Since(epoch))
		require.NoError(t, <-second)
		t.is(pair(1), nil, 1)
	})
}

// No pair answers for another, wherever the boundary between its parts is.
func TestPairsDoNotMix(t *testing.T) {
	withCache(t, senderauth.CacheConfig{}, func(t *cacheTest) {
		asked := map[senderauth.Credentials]bool{}
		t.back.set(func(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			require.False(t, asked[c])
			asked[c] = true
			return senderauth.Sender{}, senderauth.ErrInvalidKey
		})
		s, k := senderID(1), apiKey(1)
		pairs := []senderauth.Credentials{
			{SenderID: s, APIKey: k}, {SenderID: k, APIKey: s}, {SenderID: s, APIKey: s}, {SenderID: k, APIKey: k},
			{SenderID: "", APIKey: k}, {SenderID: "", APIKey: s + k}, {SenderID: s + k, APIKey: ""},
			{SenderID: s + k[:1], APIKey: k[1:]}, {SenderID: s[:35], APIKey: s[35:] + k},
			{SenderID: s, APIKey: strings.ToUpper(k)}, {SenderID: s, APIKey: k + " "}, {SenderID: s, APIKey: "\x00" + k},
			{SenderID: "ab", APIKey: "c"}, {SenderID: "a", APIKey: "bc"}, {SenderID: "", APIKey: "abc"},
			// Bytes of UUIDs that are the length of no sender, and a text.
			{SenderID: "00616161-6161-6161-6161-616161616161", APIKey: "61616161-6161-6161-6161-616161616161"}, {SenderID: "", APIKey: strings.Repeat("a", 31)},
		}
		for i, c := range pairs {
			t.Validate(context.Background(), c)
			t.Validate(context.Background(), c)
			require.Len(t, asked, i+1)
		}
		// The letters of a sender's ID have no case.
		t.Validate(context.Background(), senderauth.Credentials{SenderID: strings.ToUpper(s), APIKey: k})
		require.Len(t, asked, len(pairs))
	})
}

func TestCachePanickingValidator(t *testing.T) {
	withCache(t, senderauth.CacheConfig{MaxLookups: 1}, func(t *cacheTest) {
		for i, value := range []any{apiKey(1), errors.New(apiKey(1)), pair(1), nil} {
			t.back.set(func(context.Context, senderauth.Credentials) (senderauth.Sender, error) { panic(value) })
			_, err := t.ask(pair(1))
			require.ErrorContains(t, err, "the validator panicked at github.com/senderauth/senderauth_test.TestCachePanickingValidator")
			noPart(t, fmt.Sprintf("%v %+v %#v", err, err, err), apiKey(1))
			require.Equal(t, i+1, t.back.called())
		}
		t.back.set(func(context.Context, senderauth.Credentials) (senderauth.Sender, error) {
			var none []senderauth.Sender
			return none[len(none)], nil
		})
		_, err := t.ask(pair(1))
		require.ErrorContains(t, err, "index out of range [0] with length 0")
		t.back.set(nil)
		t.is(pair(1), nil, 6)
	})
}

func TestCacheRefusesAnUnusableSender(t *testing.T) {
	for name, s := range map[string]senderauth.Sender{
		"no ID":         {},
		"another ID":    {ID: senderID(2)},
		"a bad limit":   {ID: senderID(1), Limits: map[string]senderauth.Limit{"default": {}}},
		"another limit": {ID: senderID(1), Limits: map[string]senderauth.Limit{"default": {Requests: 1}}},
	} {
		cacheBubble(t, name, senderauth.CacheConfig{}, func(t *cacheTest) {
			t.back.set(func(context.Context, senderauth.Credentials) (senderauth.Sender, error) { return s, nil })
			for i := range 2 {
				_, err := t.ask(pair(1))
				require.ErrorContains(t, err, "senderauth: the validator returned")
				require.Equal(t, i+1, t.back.called(), "it is not remembered")
			}
		})
	}
}

func TestCacheKeepsTheValuesOfTheContext(t *testing.T) {
	type key struct{}
	withCache(t, senderauth.CacheConfig{}, func(t *cacheTest) {
		t.back.set(func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			require.Equal(t, "trace", ctx.Value(key{}))
			deadline, ok := ctx.Deadline()
			require.True(t, ok)
			require.Equal(t, 2*time.Second, time.Until(deadline))
			return knowsAll(ctx, c)
		})
		_, err := t.Validate(context.WithValue(context.Background(), key{}, "trace"), pair(1))
		require.NoError(t, err)
	})
}

func TestCacheStats(t *testing.T) {
	withCache(t, senderauth.CacheConfig{Entries: 2}, func(t *cacheTest) {
		bad := senderauth.Credentials{SenderID: senderID(1), APIKey: "bad"}
		for _, c := range []senderauth.Credentials{pair(1), pair(1), pair(1), bad, bad, pair(2), pair(3)} {
			t.ask(c)
		}
		t.back.set(refuseWith(errOutage))
		t.ask(pair(4))
		require.Equal(t, senderauth.CacheStats{
			Hits: 2, RejectedHits: 1, Misses: 5, Lookups: 5, Failures: 1, Evictions: 1, Entries: 2, RejectedEntries: 1,
		}, t.Stats())
	})
}

// Lookups are the only goroutines, and end with them: those of callers who
// left, too.
func TestCacheLeavesNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	back := &backend{takes: 10 * time.Millisecond}
	c := newCache(t, back, senderauth.CacheConfig{TTL: 2})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for n := range 200 {
		c.Validate(ctx, pair(n))
	}
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		require.Zero(t, c.Stats().InFlight)
		require.LessOrEqual(t, runtime.NumGoroutine(), before+2, "the two of EventuallyWithT")
	}, 20*time.Second, 5*time.Millisecond)
	require.Equal(t, 200, back.called())
}

// A record is what a store has said of a pair since a moment.
type record struct {
	event   int
	since   time.Time
	refused bool
	expires time.Time
}

// A refusedBy is a refusal with the number of its record.
type refusedBy struct{ n int }

func (r *refusedBy) Error() string { return fmt.Sprint("record ", r.n) }
func (r *refusedBy) Unwrap() error { return senderauth.ErrInvalidKey }

// Whatever the schedule of requests, changes, events, outages and slow answers:
// who comes after Forget or Purge is not answered from before it, who comes
// after TTL (or RejectedTTL, or StaleTTL past it) not from before that, and
// nobody from a record that has expired.
func TestCacheRandomSchedules(t *testing.T) {
	for range 40 {
		seed := rand.Uint64()
		synctest.Test(t, func(t *testing.T) { cacheSchedule(t, seed) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func cacheSchedule(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 0))
	upTo := func(d time.Duration) time.Duration { return time.Duration(random.Int64N(int64(d) + 1)) }
	const senders = 4
	// One who joins a lookup may be answered from its beginning.
	const slowest = 3 * time.Second
	cfg := senderauth.CacheConfig{
		Entries: 1 + random.IntN(6), TTL: time.Second + upTo(20*time.Second), RejectedTTL: upTo(10*time.Second) - 1,
		StaleTTL: upTo(20*time.Second) * time.Duration(random.IntN(2)), LookupTimeout: time.Second + upTo(3*time.Second), MaxLookups: 1 + random.IntN(8),
	}
	keyOnly := random.IntN(3) == 0

	var mu sync.Mutex // of all that follows, random included
	records := map[int][]record{}
	// Much happens at one instant: what came first is told by its number.
	event, forgotten := 0, map[int]int{}
	forget := func(n int) { event++; forgotten[n] = event }
	for n := range senders {
		records[n] = []record{{since: time.Now()}}
	}
	down := false
	c := newCache(t, senderauth.ValidatorFunc(func(ctx context.Context, cr senderauth.Credentials) (senderauth.Sender, error) {
		mu.Lock()
		n, _ := owner(cr.APIKey)
		at := len(records[n]) - 1
		r := records[n][at]
		takes, deaf, fails := time.Duration(0), random.IntN(4) == 0, down
		switch random.IntN(3) {
		case 0:
			takes = upTo(100 * time.Millisecond)
		case 1:
			takes = upTo(slowest)
		}
		now := time.Now()
		mu.Unlock()
		if deaf {
			time.Sleep(takes)
		} else {
			select {
			case <-time.After(takes):
			case <-ctx.Done():
				return senderauth.Sender{}, ctx.Err()
			}
		}
		switch {
		case fails:
			return senderauth.Sender{}, errOutage
		case r.refused || !r.expires.IsZero() && !now.Before(r.expires):
			return senderauth.Sender{}, &refusedBy{at}
		}
		return senderauth.Sender{ID: senderID(n), Detail: at, Expires: r.expires}, nil
	}), cfg)

	var wg sync.WaitGroup
	ask := func(n int) {
		cr := pair(n)
		if keyOnly {
			cr.SenderID = ""
		}
		ctx, cancel := context.WithCancel(context.Background())
		if random.IntN(10) == 0 {
			cancel()
		}
		start := time.Now()
		told := forgotten[n]
		wg.Go(func() {
			defer cancel()
			s, err := c.Validate(ctx, cr)
			mu.Lock()
			defer mu.Unlock()
			var refusal *refusedBy
			at, age := 0, cfg.TTL+cfg.StaleTTL
			switch {
			case errors.As(err, &refusal):
				at, age = refusal.n, max(cfg.RejectedTTL, 0)
				if cfg.RejectedTTL == 0 {
					age = 5 * time.Second
				}
			case err != nil:
				return
			default:
				at = s.Detail.(int)
			}
			rs := records[n]
			if r := rs[at]; err == nil && !r.expires.IsZero() && !start.Before(r.expires.Add(slowest)) {
				t.Errorf("asked at %v of a record that expired at %v", start.Sub(epoch), r.expires.Sub(epoch))
			}
			if at == len(rs)-1 {
				return
			}
			ended := rs[at+1].since
			if rs[at+1].event < told {
				t.Errorf("%d asked at %v was answered from what ended at %v and was forgotten after", n, start.Sub(epoch), ended.Sub(epoch))
			}
			if start.Sub(ended) > max(age, slowest) {
				t.Errorf("%d asked at %v was answered (%v) from what ended at %v: %+v", n, start.Sub(epoch), err, ended.Sub(epoch), cfg)
			}
		})
	}
	for range 300 {
		mu.Lock()
		n := random.IntN(senders)
		switch random.IntN(20) {
		case 0, 1:
			event++
			r := record{since: time.Now(), event: event, refused: random.IntN(2) == 0}
			if random.IntN(2) == 0 {
				r.expires = time.Now().Add(1 + upTo(20*time.Second))
			}
			records[n] = append(records[n], r)
			if random.IntN(2) == 0 {
				forget(n)
				c.Forget(senderID(n))
			}
		case 2:
			for n := range senders {
				forget(n)
			}
			c.Purge()
		case 3:
			forget(n)
			c.Forget(senderID(n))
		case 4:
			down = random.IntN(2) == 0
		default:
			for range 1 + random.IntN(3) {
				ask(random.IntN(senders))
			}
		}
		pause := time.Duration(0)
		if random.IntN(2) == 0 {
			pause = upTo(2 * time.Second)
		}
		mu.Unlock()
		time.Sleep(pause)
	}
	wg.Wait()
	time.Sleep(10 * time.Second)
	synctest.Wait()
	if in := c.Stats().InFlight; in != 0 {
		t.Errorf("%d lookups in flight", in)
	}
}

// Forget, Purge and Stats while everybody asks: for the race detector.
func TestCacheConcurrentUse(t *testing.T) {
	back := &backend{}
	c := newCache(t, back, senderauth.CacheConfig{Entries: 64, TTL: time.Nanosecond, StaleTTL: time.Hour, RejectedTTL: time.Nanosecond})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 300 {
				n := (g*31 + i) % 100
				s, err := c.Validate(context.Background(), pair(n))
				if err != nil || s.ID != senderID(n) {
					t.Errorf("%q, %v", s.ID, err)
				}
				_, err = c.Validate(context.Background(), senderauth.Credentials{SenderID: senderID(n), APIKey: "bad"})
				if !errors.Is(err, senderauth.ErrInvalidKey) {
					t.Error(err)
				}
				c.Forget(senderID(n + 1))
				c.Stats()
				if i%100 == 0 {
					c.Purge()
				}
			}
		})
	}
	wg.Wait()
}

func TestNewCacheReportsEveryMistake(t *testing.T) {
	_, err := senderauth.NewCache(nil, senderauth.CacheConfig{Entries: -1, TTL: -1, StaleTTL: -2 * time.Second, LookupTimeout: -1, MaxLookups: -7, RejectedTTL: -1})
	require.EqualError(t, err, `senderauth: NewCache: the Validator is nil
senderauth: CacheConfig.Entries: -1 is below 0
senderauth: CacheConfig.TTL: -1ns is below 0
senderauth: CacheConfig.StaleTTL: -2s is below 0
senderauth: CacheConfig.LookupTimeout: -1ns is below 0
senderauth: CacheConfig.MaxLookups: -7 is below 0`)
	_, err = senderauth.NewCache(senderauth.ValidatorFunc(nil), senderauth.CacheConfig{})
	require.EqualError(t, err, "senderauth: NewCache: the Validator is nil")
	_, err = senderauth.NewCache(newCache(t, senderauth.ValidatorFunc(knowsAll), senderauth.CacheConfig{}), senderauth.CacheConfig{})
	require.EqualError(t, err, "senderauth: NewCache: the Validator is a Cache itself")
}
