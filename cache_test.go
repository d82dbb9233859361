package senderauth_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

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
		require.Zero(t, t.Stats().RejectedEntries)
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
	for _, failure := range []error{errOutage, &senderauth.Problem{Status: 500}, &senderauth.Problem{Status: 503}} {
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
	cacheBubble(t, "not if it is not known to fail, from the end of TTL on", cfg, func(t *cacheTest) {
		t.ask(pair(1))
		t.back.set(refuseWith(senderauth.ErrInvalidKey))
		time.Sleep(10 * time.Second)
		t.is(pair(1), senderauth.ErrInvalidKey, 2)
	})
	cacheBubble(t, "nor while the lookup that began before it goes on", cfg, func(t *cacheTest) {
		t.ask(pair(1))
		t.back.set(refuseWith(senderauth.ErrInvalidKey))
		t.back.slow(time.Second)
		time.Sleep(9500 * time.Millisecond)
		t.is(pair(1), nil, 2)
		time.Sleep(600 * time.Millisecond)
		took, err := t.ask(pair(1))
		require.ErrorIs(t, err, senderauth.ErrInvalidKey)
		require.Equal(t, 400*time.Millisecond, took)
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
	cacheBubble(t, "at once, if the refresh has failed", cfg, func(t *cacheTest) {
		t.ask(pair(1))
		t.back.set(refuseWith(errOutage))
		t.back.slow(100 * time.Millisecond)
		time.Sleep(9500 * time.Millisecond)
		t.ask(pair(1))
		time.Sleep(time.Second)
		took, err := t.ask(pair(1))
		require.NoError(t, err)
		require.Zero(t, took)
		time.Sleep(time.Second) // the refresh ends
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

// While a machine sleeps its monotonic clock stands still, and only the wall
// clock tells that time has passed.
func TestSleepOfTheMachineCountsTowardsTTL(t *testing.T) {
	const noticed = 100 * time.Millisecond
	cacheBubble(t, "accepted", senderauth.CacheConfig{}, func(t *cacheTest) {
		t.is(pair(1), nil, 1)
		t.back.set(refuseWith(senderauth.ErrInvalidKey))
		t.StepWallClock(time.Hour)
		time.Sleep(noticed)
		t.is(pair(1), senderauth.ErrInvalidKey, 2)
	})
	cacheBubble(t, "rejected", senderauth.CacheConfig{}, func(t *cacheTest) {
		t.back.set(refuseWith(senderauth.ErrInvalidKey))
		t.is(pair(1), senderauth.ErrInvalidKey, 1)
		t.back.set(nil)
		t.StepWallClock(time.Hour)
		time.Sleep(noticed)
		t.is(pair(1), nil, 2)
	})
	cacheBubble(t, "in several short sleeps", senderauth.CacheConfig{}, func(t *cacheTest) {
		t.is(pair(1), nil, 1)
		t.back.set(refuseWith(errOutage))
		for range 5 {
			t.StepWallClock(9900 * time.Millisecond)
			time.Sleep(noticed)
			_, err := t.ask(pair(1))
			require.NoError(t, err)
		}
		t.StepWallClock(9900 * time.Millisecond)
		time.Sleep(noticed)
		_, err := t.ask(pair(1))
		require.ErrorIs(t, err, errOutage)
	})
	cacheBubble(t, "a clock that is set back does not lengthen TTL", senderauth.CacheConfig{}, func(t *cacheTest) {
		t.is(pair(1), nil, 1)
		t.back.set(refuseWith(errOutage))
		t.StepWallClock(-time.Hour)
		time.Sleep(time.Minute - 1)
		_, err := t.ask(pair(1))
		require.NoError(t, err)
		time.Sleep(time.Nanosecond)
		_, err = t.ask(pair(1))
		require.ErrorIs(t, err, errOutage)
	})
	cacheBubble(t, "and a sleep is noticed after a clock was set back", senderauth.CacheConfig{}, func(t *cacheTest) {
		t.StepWallClock(-24 * time.Hour)
		time.Sleep(noticed)
		t.is(pair(1), nil, 1)
		t.back.set(refuseWith(senderauth.ErrInvalidKey))
		t.StepWallClock(time.Hour)
		time.Sleep(noticed)
		t.is(pair(1), senderauth.ErrInvalidKey, 2)
	})
	cacheBubble(t, "a lookup from before is not joined", senderauth.CacheConfig{}, func(t *cacheTest) {
		t.back.slow(time.Second)
		go t.ask(pair(1))
		time.Sleep(500 * time.Millisecond)
		t.back.set(refuseWith(senderauth.ErrInvalidKey))
		t.StepWallClock(time.Hour)
		_, err := t.ask(pair(1))
		require.ErrorIs(t, err, senderauth.ErrInvalidKey)
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

func TestRejectionOutlivesForgetOfAnotherSender(t *testing.T) {
	withCache(t, senderauth.CacheConfig{}, func(t *cacheTest) {
		t.back.set(refuseWith(senderauth.ErrInvalidKey))
		t.is(pair(1), senderauth.ErrInvalidKey, 1)
		t.Forget(senderID(2)) // shares the place of sender 1 once in 65,536 runs
		t.is(pair(1), senderauth.ErrInvalidKey, 1)
	})
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
