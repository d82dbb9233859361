package senderauth_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
)

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
// after TTL (or RejectedTTL, or StaleTTL past it) not from before that, even if
// the machine slept for a part of it, and nobody is answered from a record that
// has expired.
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
	slept := time.Duration(0)
	now := func() time.Time { return time.Now().Add(slept) } // with the sleep of the machine
	forget := func(n int) { event++; forgotten[n] = event }
	for n := range senders {
		records[n] = []record{{since: now()}}
	}
	down := false
	c := newCache(t, senderauth.ValidatorFunc(func(ctx context.Context, cr senderauth.Credentials) (senderauth.Sender, error) {
		mu.Lock()
		n, known := owner(cr.APIKey)
		if !known {
			defer mu.Unlock()
			if down {
				return senderauth.Sender{}, errOutage
			}
			return senderauth.Sender{}, senderauth.ErrInvalidKey
		}
		at := len(records[n]) - 1
		r := records[n][at]
		takes, deaf, fails := time.Duration(0), random.IntN(4) == 0, down
		switch random.IntN(3) {
		case 0:
			takes = upTo(100 * time.Millisecond)
		case 1:
			takes = upTo(slowest)
		}
		asked := time.Now()
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
		case r.refused || !r.expires.IsZero() && !asked.Before(r.expires):
			return senderauth.Sender{}, &refusedBy{at}
		}
		return senderauth.Sender{ID: senderID(n), Detail: at, Expires: r.expires}, nil
	}), cfg)

	var wg sync.WaitGroup
	var strange atomic.Int64
	ask := func(n int) {
		cr := pair(n)
		if keyOnly {
			cr.SenderID = ""
		}
		ctx, cancel := context.WithCancel(context.Background())
		if random.IntN(10) == 0 {
			cancel()
		}
		start := now()
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
			if r := rs[at]; err == nil && !r.expires.IsZero() && !time.Now().Before(r.expires) {
				t.Errorf("answered at %v from a record that expired at %v", time.Since(epoch), r.expires.Sub(epoch))
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
			r := record{since: now(), event: event, refused: random.IntN(2) == 0}
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
		case 5:
			step := upTo(time.Minute) - 20*time.Second
			c.StepWallClock(step)
			mu.Unlock()
			time.Sleep(100 * time.Millisecond)
			c.Validate(context.Background(), strangeKey(int(strange.Add(1)))) // notices it
			mu.Lock()
			slept += max(step, 0)
		case 6:
			for range 10 {
				wg.Go(func() { c.Validate(context.Background(), strangeKey(int(strange.Add(1)))) })
			}
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
	mu.Lock()
	down = false
	mu.Unlock()
	time.Sleep(10 * time.Second)
	synctest.Wait()
	for n := range senders {
		if _, err := c.Validate(context.Background(), strangeKey(-n)); !errors.Is(err, senderauth.ErrInvalidKey) {
			t.Errorf("ten seconds after the outage: %v", err)
		}
	}
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
