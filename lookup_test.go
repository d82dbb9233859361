package senderauth_test

import (
	"context"
	"errors"
	"fmt"
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
			cacheBubble(t, name+", revoked during a refresh", senderauth.CacheConfig{}, func(t *cacheTest) {
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

// An answer from before Forget that comes late does not take the place of the one
// from after it.
func TestLateAnswerFromBeforeForgetReplacesNone(t *testing.T) {
	withCache(t, senderauth.CacheConfig{}, func(t *cacheTest) {
		t.back.slow(time.Second)
		go t.ask(pair(1))
		time.Sleep(500 * time.Millisecond)
		t.Forget(senderID(1))
		t.back.slow(0)
		t.is(pair(1), nil, 2)
		time.Sleep(time.Second)
		t.is(pair(1), nil, 2)
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

func TestNilProblemAsAnErrorIsNamed(t *testing.T) {
	withCache(t, senderauth.CacheConfig{}, func(t *cacheTest) {
		t.back.set(refuseWith((*senderauth.Problem)(nil)))
		_, err := t.Validate(context.Background(), pair(1))
		require.EqualError(t, err, "senderauth: the validator returned a nil *Problem as its error")
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

func TestLookupContextChoosesTheValuesOfALookup(t *testing.T) {
	type trace struct{}
	type route struct{}
	chosen := senderauth.CacheConfig{LookupContext: func(request context.Context) context.Context {
		return context.WithValue(context.Background(), trace{}, request.Value(trace{}))
	}}
	all := senderauth.CacheConfig{LookupContext: func(request context.Context) context.Context { return request }}
	for name, test := range map[string]struct {
		cfg          senderauth.CacheConfig
		trace, route any
	}{"none": {}, "chosen": {cfg: chosen, trace: "t"}, "all": {cfg: all, trace: "t", route: "r"}} {
		cacheBubble(t, name, test.cfg, func(t *cacheTest) {
			t.back.set(func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
				require.Equal(t, test.trace, ctx.Value(trace{}))
				require.Equal(t, test.route, ctx.Value(route{}))
				deadline, _ := ctx.Deadline()
				require.Equal(t, 2*time.Second, time.Until(deadline))
				return knowsAll(ctx, c)
			})
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			ctx = context.WithValue(context.WithValue(ctx, trace{}, "t"), route{}, "r")
			_, err := t.Validate(ctx, pair(1))
			require.NoError(t, err)
			time.Sleep(30 * time.Second)
			cancel()
			t.Validate(ctx, pair(1))
			synctest.Wait()
			require.Equal(t, 2, t.back.called(), "in the background too")
		})
	}
}

func TestLookupContextMayReturnNil(t *testing.T) {
	withCache(t, senderauth.CacheConfig{LookupContext: func(context.Context) context.Context { return nil }}, func(t *cacheTest) {
		t.is(pair(1), nil, 1)
		time.Sleep(30 * time.Second)
		t.is(pair(1), nil, 2)
	})
}

// A validator that ends its goroutine, as a test's FailNow does, is one that does
// not answer.
func TestValidatorThatEndsItsGoroutineFreesItsPlace(t *testing.T) {
	withCache(t, senderauth.CacheConfig{MaxLookups: 1}, func(t *cacheTest) {
		t.back.set(func(context.Context, senderauth.Credentials) (senderauth.Sender, error) {
			runtime.Goexit()
			return senderauth.Sender{}, nil
		})
		took, err := t.ask(pair(1))
		require.ErrorContains(t, err, "did not answer")
		require.Equal(t, 2*time.Second, took)
		require.Zero(t, t.Stats().InFlight)
		t.back.set(nil)
		t.is(pair(1), nil, 2)
	})
}

// A call that never ends is one for all requests with its pair, until the sender is
// forgotten, and cuts off no other pair.
func TestLookupThatNeverEndsIsOne(t *testing.T) {
	withCache(t, senderauth.CacheConfig{MaxLookups: 2}, func(t *cacheTest) {
		t.back.deaf = true
		t.back.slow(time.Hour)
		for range 10 {
			_, err := t.ask(pair(1))
			require.ErrorContains(t, err, "did not answer")
		}
		require.Equal(t, 1, t.back.called())
		t.back.slow(0)
		t.is(pair(2), nil, 2)
		t.Forget(senderID(1))
		t.is(pair(1), nil, 3)
		time.Sleep(time.Hour)
	})
}

// A route is what a router keeps in the context of a request, and reuses for
// the next one.
type route struct{ pattern string }

// The race detector finds a lookup that reads the route of a request that is
// over.
func TestLookupHasNoValuesOfARequestThatIsOver(t *testing.T) {
	type key struct{}
	for name, patience := range map[string]time.Duration{"the caller waits": time.Minute, "the caller leaves": 500 * time.Millisecond} {
		cacheBubble(t, name, senderauth.CacheConfig{}, func(t *cacheTest) {
			t.back.set(func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
				if r, ok := ctx.Value(key{}).(*route); ok {
					t.Error(r.pattern)
				}
				time.Sleep(time.Second)
				return knowsAll(ctx, c)
			})
			reused := &route{}
			for _, reused.pattern = range []string{"/first", "/second", "/third"} {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				t.Validate(context.WithValue(ctx, key{}, reused), pair(1))
				cancel()
				time.Sleep(31 * time.Second)
			}
		})
	}
}

func TestAnswerThatExpiresDuringTheLookupIsRefused(t *testing.T) {
	const lasts = 500 * time.Millisecond
	expiring := func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		s, err := knowsAll(ctx, c)
		s.Expires = epoch.Add(time.Minute + lasts)
		return s, err
	}
	cacheBubble(t, "of one who joined after it expired", senderauth.CacheConfig{}, func(t *cacheTest) {
		t.back.set(expiring)
		t.back.slow(time.Second)
		time.Sleep(time.Minute)
		go t.Validate(context.Background(), pair(1))
		time.Sleep(lasts)
		_, err := t.ask(pair(1))
		require.ErrorIs(t, err, senderauth.ErrInvalidKey)
		require.Equal(t, 1, t.back.called())
		require.Zero(t, t.Stats().Entries)
		require.Zero(t, t.Stats().RejectedEntries)
	})
	cacheBubble(t, "and ends the entry that it was to refresh", senderauth.CacheConfig{}, func(t *cacheTest) {
		time.Sleep(10 * time.Second)
		t.ask(pair(1))
		t.back.set(expiring)
		t.back.slow(time.Second)
		time.Sleep(50 * time.Second)
		t.is(pair(1), nil, 2)
		time.Sleep(time.Second)
		synctest.Wait()
		t.back.set(refuseWith(senderauth.ErrInvalidKey))
		t.is(pair(1), senderauth.ErrInvalidKey, 3)
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
