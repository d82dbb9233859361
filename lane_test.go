package senderauth_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// strangeKey is the n-th of many keys that nobody was ever issued.
func strangeKey(n int) senderauth.Credentials {
	return senderauth.Credentials{SenderID: senderID(n % 50), APIKey: fmt.Sprintf("bad-%d", n)}
}

// flood asks for 5,000 bad keys a second, until stop is called.
func (t *cacheTest) flood() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			wg.Go(func() { t.Validate(context.Background(), strangeKey(n)) })
			time.Sleep(200 * time.Microsecond)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

func TestPairAcceptedBeforeDoesNotQueueWithBadKeys(t *testing.T) {
	for name, end := range map[string]func(*cacheTest){
		"after Forget":       func(t *cacheTest) { t.Forget(senderID(1)) },
		"after Purge":        func(t *cacheTest) { t.Purge() },
		"past TTL":           func(t *cacheTest) { time.Sleep(time.Minute) },
		"past TTL by far":    func(t *cacheTest) { time.Sleep(time.Hour) },
		"after a long sleep": func(t *cacheTest) { t.StepWallClock(time.Hour); time.Sleep(100 * time.Millisecond) },
	} {
		cacheBubble(t, name, senderauth.CacheConfig{}, func(t *cacheTest) {
			t.is(pair(1), nil, 1)
			end(t)
			t.back.slow(20 * time.Millisecond)
			stop := t.flood()
			defer stop()
			time.Sleep(500 * time.Millisecond)
			took, err := t.ask(pair(1))
			require.NoError(t, err)
			require.Equal(t, 20*time.Millisecond, took)
			took, err = t.ask(pair(2))
			require.True(t, err != nil || took > 20*time.Millisecond, "others do queue")
		})
	}
	cacheBubble(t, "until it is rejected", senderauth.CacheConfig{RejectedTTL: -1}, func(t *cacheTest) {
		t.is(pair(1), nil, 1)
		t.Forget(senderID(1))
		t.back.set(refuseWith(senderauth.ErrInvalidKey))
		t.back.slow(20 * time.Millisecond)
		stop := t.flood()
		defer stop()
		time.Sleep(500 * time.Millisecond)
		took, err := t.ask(pair(1))
		require.ErrorIs(t, err, senderauth.ErrInvalidKey)
		require.Equal(t, 20*time.Millisecond, took)
		took, _ = t.ask(pair(1))
		require.Greater(t, took, 20*time.Millisecond)
	})
}

func TestOutageIsProbed(t *testing.T) {
	cacheBubble(t, "not asked for every key", senderauth.CacheConfig{}, func(t *cacheTest) {
		t.back.set(refuseWith(errOutage))
		for n := range 200 {
			_, err := t.ask(pair(n))
			require.Error(t, err)
			require.NotErrorIs(t, err, senderauth.ErrInvalidKey)
		}
		require.Equal(t, 16, t.back.called())
		require.EqualValues(t, 200, t.Stats().Failures)
	})
	cacheBubble(t, "nor for keys that come at once", senderauth.CacheConfig{}, func(t *cacheTest) {
		t.back.set(refuseWith(errOutage))
		t.back.slow(time.Millisecond)
		var wg sync.WaitGroup
		for n := range 200 {
			wg.Go(func() {
				_, err := t.ask(pair(n))
				if err == nil || errors.Is(err, senderauth.ErrInvalidKey) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.Less(t, t.back.called(), 100)
	})
	cacheBubble(t, "four times a second for as long as it lasts", senderauth.CacheConfig{}, func(t *cacheTest) {
		t.back.set(refuseWith(errOutage))
		for n := range 1000 {
			t.ask(pair(n))
			time.Sleep(10 * time.Millisecond)
		}
		require.LessOrEqual(t, t.back.called(), 16+4*10)
	})
	cacheBubble(t, "and a second begins when the lookups have failed", senderauth.CacheConfig{}, func(t *cacheTest) {
		t.back.set(refuseWith(errOutage))
		t.back.slow(500 * time.Millisecond)
		for n := range 16 {
			go t.ask(pair(n))
		}
		time.Sleep(1500*time.Millisecond - 1)
		t.back.slow(0)
		took, err := t.ask(pair(17))
		require.ErrorContains(t, err, "was not asked")
		require.Zero(t, took)
		time.Sleep(time.Nanosecond)
		_, err = t.ask(pair(17))
		require.ErrorIs(t, err, errOutage)
	})
	for name, recovered := range map[string]error{"with a sender": nil, "with a rejection": senderauth.ErrInvalidKey} {
		cacheBubble(t, "and ends within a second, "+name, senderauth.CacheConfig{RejectedTTL: -1}, func(t *cacheTest) {
			t.back.set(refuseWith(errOutage))
			for n := range 2000 {
				t.ask(pair(n))
				time.Sleep(time.Millisecond)
			}
			t.back.set(nil)
			if recovered != nil {
				t.back.set(refuseWith(recovered))
			}
			time.Sleep(time.Second)
			for n := range 100 {
				_, err := t.ask(pair(3000 + n))
				require.ErrorIs(t, err, recovered)
			}
		})
	}
	cacheBubble(t, "a validator that hangs is noticed too, and late failures do not prolong it", senderauth.CacheConfig{}, func(t *cacheTest) {
		t.back.slow(time.Hour)
		var wg sync.WaitGroup
		for n := range 300 {
			wg.Go(func() { t.ask(pair(n)) })
			time.Sleep(10 * time.Millisecond)
		}
		t.back.slow(0)
		time.Sleep(1100 * time.Millisecond)
		_, err := t.ask(pair(301))
		require.NoError(t, err)
		wg.Wait()
	})
}

func TestOutageForNewKeysLeavesPairsAcceptedBefore(t *testing.T) {
	withCache(t, senderauth.CacheConfig{}, func(t *cacheTest) {
		t.is(pair(1), nil, 1)
		t.back.set(func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			if _, ok := owner(c.APIKey); !ok {
				return senderauth.Sender{}, errOutage // of a validator that a strange key makes fail
			}
			return knowsAll(ctx, c)
		})
		for n := range 100 {
			t.ask(strangeKey(n))
		}
		t.is(pair(1), nil, 17)
		t.Forget(senderID(1))
		t.is(pair(1), nil, 18)
	})
}

// A record that makes the validator fail for one key does not cut off others,
// however often that key is tried.
func TestOneBadRecordCutsOffNobody(t *testing.T) {
	withCache(t, senderauth.CacheConfig{}, func(t *cacheTest) {
		t.back.set(func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			if c == pair(0) {
				return senderauth.Sender{}, errOutage
			}
			return knowsAll(ctx, c)
		})
		for n := range 50 {
			for range 100 {
				_, err := t.ask(pair(0))
				require.ErrorIs(t, err, errOutage)
			}
			_, err := t.ask(pair(1 + n))
			require.NoError(t, err)
		}
	})
}

func TestFailuresWithAnswersInBetweenAreNoOutage(t *testing.T) {
	for name, answer := range map[string]error{"a sender": nil, "a rejection": senderauth.ErrInvalidKey} {
		cacheBubble(t, name, senderauth.CacheConfig{}, func(t *cacheTest) {
			for n := range 100 {
				t.back.set(refuseWith(errOutage))
				if n%10 == 9 {
					t.back.set(nil)
					if answer != nil {
						t.back.set(refuseWith(answer))
					}
				}
				t.ask(pair(n))
			}
			require.Equal(t, 100, t.back.called())
		})
	}
}

func TestRejectionsAreNoOutage(t *testing.T) {
	for _, refusal := range []error{senderauth.ErrInvalidKey, senderauth.ErrKeyMismatch, senderauth.ErrInvalidSender, &senderauth.Problem{Status: 403}} {
		cacheBubble(t, refusal.Error(), senderauth.CacheConfig{}, func(t *cacheTest) {
			t.back.set(refuseWith(refusal))
			for n := range 1000 {
				_, err := t.ask(pair(n))
				require.ErrorIs(t, err, refusal)
			}
			synctest.Wait()
			require.Equal(t, 1000, t.back.called())
		})
	}
}
