package senderauth_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

var outOfScope = refused(403, "API key lacks a required scope")

// knowsWith is knowsAll for senders that change describes.
func knowsWith(change func(s *senderauth.Sender)) senderauth.ValidatorFunc {
	return func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		s, err := knowsAll(ctx, c)
		if err == nil {
			change(&s)
		}
		return s, err
	}
}

func withScopes(scopes ...string) senderauth.ValidatorFunc {
	return knowsWith(func(s *senderauth.Sender) { s.Scopes = scopes })
}

func TestHasScope(t *testing.T) {
	for _, c := range []struct {
		scopes []string
		want   bool
	}{
		{nil, false},
		{[]string{"orders:write"}, false},
		{[]string{"orders"}, false},
		{[]string{"orders:*"}, false},
		{[]string{"Orders:Read"}, false},
		{[]string{"orders:write", "orders:read"}, true},
		{[]string{senderauth.AllScopes}, true},
	} {
		require.Equal(t, c.want, senderauth.Sender{Scopes: c.scopes}.HasScope("orders:read"), "%q", c.scopes)
	}
}

func TestRequiring(t *testing.T) {
	bubble(t, "a key with the scopes is admitted", func(t *testing.T) {
		a := newApp(t, withScopes("a", "b"), senderauth.Config{})
		for _, guard := range []*senderauth.Guard{a.guard.Requiring("a"), a.guard.Requiring("b", "a"), a.guard.Requiring("a").Requiring("b")} {
			require.Equal(t, 200, serve(guard.Wrap(a.hello()), of(1)).Status)
		}
	})
	bubble(t, "a key without one of them is refused, and costs no token", func(t *testing.T) {
		a := newApp(t, withScopes("a"), senderauth.Config{})
		for _, guard := range []*senderauth.Guard{a.guard.Requiring("b"), a.guard.Requiring("a", "b"), a.guard.Requiring("b").Requiring("a")} {
			for range 4 {
				require.Equal(t, outOfScope, serve(guard.Wrap(a.hello()), of(1)))
			}
		}
		require.Empty(t, a.served)
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(a, of(1)))

		e := a.events[0]
		require.EqualError(t, e.Err, "senderauth: the key lacks a required scope: b")
		e.Err = nil
		require.Equal(t, senderauth.Event{
			Outcome: senderauth.OutOfScope,
			Sender:  senderauth.Sender{ID: senderID(1), KeyID: "key-1", Scopes: []string{"a"}},
		}, e)
	})
	bubble(t, "authentication comes before, and the limit after", func(t *testing.T) {
		a := newApp(t, withScopes(), senderauth.Config{Limits: limits(senderauth.Blocked())})
		h := a.guard.Requiring("a").Wrap(a.hello())
		require.Equal(t, badKey, serve(h, badKeyOf(1)))
		require.Equal(t, outOfScope, serve(h, of(1)))
	})
	bubble(t, "with limits that a function chooses", func(t *testing.T) {
		a := newApp(t, withScopes("a"), senderauth.Config{})
		choose := func(*http.Request) []string {
			t.Error("the limits are chosen for a request that is refused")
			return []string{"default"}
		}
		require.Equal(t, outOfScope, serve(a.guard.ChargingBy(choose).Requiring("b").Wrap(a.hello()), of(1)))
		require.Equal(t, outOfScope, serve(a.guard.Requiring("b").ChargingBy(choose).Wrap(a.hello()), of(1)), "in any order")
	})
	bubble(t, "inside another guard", func(t *testing.T) {
		a := newApp(t, withScopes("a"), senderauth.Config{})
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(a.guard.Wrap(a.guard.Requiring("a").Wrap(a.hello())), of(1)))
		require.Equal(t, outOfScope, serve(a.guard.Wrap(a.guard.Requiring("b").Wrap(a.hello())), of(1)), "without the fields of the guard outside")
		require.Equal(t, []senderauth.Outcome{"admitted", "admitted", "admitted", "out_of_scope"}, a.outcomes())
		require.True(t, a.events[3].Inner)
		require.Equal(t, senderID(1), a.events[3].Sender.ID)
	})
	bubble(t, "the end of the key is announced", func(t *testing.T) {
		expires := epoch.Add(time.Hour)
		a := newApp(t, knowsWith(func(s *senderauth.Sender) { s.Expires = expires }), senderauth.Config{ExpiryNotice: 2 * time.Hour})
		require.Equal(t, outOfScope.with("X-Api-Key-Expires", "2000-01-01T01:00:00Z"), serve(a.guard.Requiring("a").Wrap(a.hello()), of(1)))
	})
}

// A scope is a literal, so a mistake in one ends the program at its start.
func TestRequiringPanicsOnWhatIsNoScope(t *testing.T) {
	a := newApp(t, nil, senderauth.Config{})
	require.PanicsWithValue(t, "senderauth: Requiring: no scopes", func() { a.guard.Requiring() })
	for scope, text := range map[string]string{"": `""`, "*": `"*"`, "a b": `"a b"`, "é": `"é"`, `a"`: `"a\""`, `a\`: `"a\\"`, "a\x7f": `"a\x7f"`} {
		require.PanicsWithError(t, "senderauth: Requiring: "+text+" is not a scope", func() { a.guard.Requiring("orders:read", scope) })
	}
	require.NotPanics(t, func() { a.guard.Requiring("!#$%&'()*+,-./:;<=>?@[]^_`{|}~azAZ09") })
	require.Panics(t, func() { (*senderauth.Guard)(nil).Requiring("a") })
}

func BenchmarkHasScope(b *testing.B) {
	s := senderauth.Sender{Scopes: []string{"contacts:read", "contacts:write", "messages:send", "orders:read"}}
	for b.Loop() {
		if !s.HasScope("orders:read") {
			b.Fatal("the scope is missing")
		}
	}
}
