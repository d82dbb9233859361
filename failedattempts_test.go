package senderauth_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// twice is a limit of two failed attempts, one of which comes back each minute.
var twice = senderauth.Limit{Requests: 1, Per: time.Minute, Burst: 2}

func badKeyOf(n int) *http.Request {
	return request("x-sender-id", senderID(n), "x-api-key", senderID(n))
}

func from(addr string, r *http.Request) *http.Request {
	r.RemoteAddr = addr
	return r
}

func TestFailedAttempts(t *testing.T) {
	const there, elsewhere = "192.0.2.1:1", "192.0.2.2:1"
	attempt := func(t *testing.T, cfg senderauth.Config) (*backend, http.Handler) {
		back := &backend{}
		cfg.Limits, cfg.FailedAttempts = limits(three), twice
		guard, err := senderauth.New(newCache(t, back, senderauth.CacheConfig{RejectedTTL: -1}), cfg)
		require.NoError(t, err)
		a := &app{}
		return back, guard.Wrap(a.hello())
	}
	bubble(t, "an address over the limit causes no lookup", func(t *testing.T) {
		var events []senderauth.Event
		back, h := attempt(t, senderauth.Config{Observe: observeTo(&events)})
		require.Equal(t, badKey, serve(h, from(there, badKeyOf(1))))
		require.Equal(t, badKey, serve(h, from(there, badKeyOf(2))))
		called := back.called()
		for n := range 100 {
			require.Equal(t, limited("60"), serve(h, from(there, badKeyOf(n))))
			require.Equal(t, limited("60"), serve(h, from(there, of(n))), "a good key that is not cached waits too")
		}
		require.Equal(t, called, back.called())
		last := events[len(events)-1]
		require.Equal(t, senderauth.Limited, last.Outcome)
		require.Equal(t, "failed_attempts", last.Limit)
		require.Zero(t, last.Sender)
		require.EqualError(t, last.Err, "senderauth: the client's address is over Config.FailedAttempts")

		require.Equal(t, badKey, serve(h, from(elsewhere, badKeyOf(1))))
		require.Equal(t, hello(3).with(threeLeft(2)...), serve(h, from(elsewhere, of(3))))

		time.Sleep(time.Minute - 1)
		require.Equal(t, 429, serve(h, from(there, of(1))).Status)
		time.Sleep(time.Nanosecond)
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(h, from(there, of(1))), "after exactly Retry-After")
	})
	bubble(t, "cached credentials get in all the same", func(t *testing.T) {
		_, h := attempt(t, senderauth.Config{})
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(h, from(there, of(1))))
		for range 5 {
			serve(h, from(there, badKeyOf(2)))
		}
		require.Equal(t, hello(1).with(threeLeft(1)...), serve(h, from(there, of(1))))
	})
	bubble(t, "credentials accepted before get in, however old and though forgotten", func(t *testing.T) {
		back := &backend{}
		cache := newCache(t, back, senderauth.CacheConfig{})
		guard, err := senderauth.New(cache, senderauth.Config{Limits: limits(three), FailedAttempts: twice})
		require.NoError(t, err)
		h := guard.Wrap((&app{}).hello())
		flood := func() {
			for n := range 5 {
				serve(h, from(there, badKeyOf(100+n)))
			}
			require.Equal(t, limited("60"), serve(h, from(there, of(2))))
		}
		require.Equal(t, 200, serve(h, from(there, of(1))).Status)
		flood()
		cache.Forget(senderID(1)) // another key was issued, say
		require.Equal(t, 200, serve(h, from(there, of(1))).Status)
		time.Sleep(time.Hour)
		flood()
		require.Equal(t, 200, serve(h, from(there, of(1))).Status)

		back.set(refuseWith(senderauth.ErrInvalidKey))
		cache.Forget(senderID(1))
		require.Equal(t, badKey, serve(h, from(there, of(1))), "revoked: one lookup tells")
		require.Equal(t, limited("60"), serve(h, from(there, of(1))), "and then it is as any other")
	})
	bubble(t, "a layer outside takes the address from a header", func(t *testing.T) {
		_, h := attempt(t, senderauth.Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
		for range 5 { // chi's RealIP leaves no port
			serve(h, from("192.0.2.1", badKeyOf(1)))
		}
		require.Equal(t, 429, serve(h, from("192.0.2.1", of(1))).Status)
		require.Equal(t, 200, serve(h, from("192.0.2.2", of(1))).Status, "another client")
	})
	bubble(t, "what succeeds costs no attempt", func(t *testing.T) {
		_, h := attempt(t, senderauth.Config{})
		for n := range 10 {
			require.Equal(t, 200, serve(h, from(there, of(n))).Status)
		}
	})
	bubble(t, "the Validator's own 401 is an attempt, and its 403 is none", func(t *testing.T) {
		for status, last := range map[int]int{401: 429, 403: 403} {
			back, h := attempt(t, senderauth.Config{})
			back.set(refuseWith(&senderauth.Problem{Status: status}))
			for n := range 3 {
				require.Equal(t, []int{status, status, last}[n], serve(h, from(there, of(n))).Status)
			}
		}
	})
	bubble(t, "malformed credentials and outages are no attempts", func(t *testing.T) {
		back, h := attempt(t, senderauth.Config{})
		back.set(refuseWith(errOutage))
		for range 10 {
			require.Equal(t, 401, serve(h, from(there, request("x-sender-id", "x", "x-api-key", "x"))).Status)
			require.Equal(t, unavailable, serve(h, from(there, of(1))))
		}
	})
	bubble(t, "an IPv6 client is its /64, behind a trusted proxy", func(t *testing.T) {
		_, h := attempt(t, senderauth.Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
		behind := func(forwarded string, r *http.Request) *http.Request {
			r.Header.Set("X-Forwarded-For", forwarded)
			return from("10.0.0.1:1", r)
		}
		for n := range 4 {
			want := badKey
			if n >= 2 {
				want = limited("60")
			}
			require.Equal(t, want, serve(h, behind(fmt.Sprintf("203.0.113.%d, 2001:db8::%d", n, n), badKeyOf(n))))
		}
		require.Equal(t, badKey, serve(h, behind("2001:db8:0:1::1", badKeyOf(1))))
	})
	bubble(t, "a good key gets its turn while an address floods", func(t *testing.T) {
		back, h := attempt(t, senderauth.Config{})
		back.slow(20 * time.Millisecond)
		var flood sync.WaitGroup
		for n := range 5000 { // in a second
			flood.Go(func() { serve(h, from(there, badKeyOf(n))) })
			time.Sleep(200 * time.Microsecond)
			if n == 2500 {
				flood.Go(func() {
					start := time.Now()
					require.Equal(t, 200, serve(h, from(elsewhere, of(1))).Status)
					require.Equal(t, 20*time.Millisecond, time.Since(start))
				})
			}
		}
		flood.Wait()
		// What was in flight when the limit was reached: 20 ms of the flood.
		require.LessOrEqual(t, back.called(), 110)
	})
	bubble(t, "without a cache", func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{FailedAttempts: twice})
		for range 5 {
			serve(a, badKeyOf(1))
		}
		require.Len(t, a.asked, 2)
		require.Equal(t, []senderauth.Outcome{"invalid_key", "invalid_key", "limited", "limited", "limited"}, a.outcomes())
	})
}
