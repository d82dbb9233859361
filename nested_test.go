package senderauth_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

func TestNestedGuards(t *testing.T) {
	both := `"messages";q=2;w=20, "default";q=3;w=3`
	newNested := func(t *testing.T) *app {
		return newApp(t, nil, senderauth.Config{Limits: map[string]senderauth.Limit{
			"default": three, "messages": {Requests: 2, Per: 20 * time.Second}, "open": senderauth.Unlimited(),
		}})
	}
	bubble(t, "authenticate once and charge each limit", func(t *testing.T) {
		a := newNested(t)
		h := a.guard.Wrap(a.guard.Charging("messages").Wrap(a.hello()))
		require.Equal(t, hello(1).with(rateFields(2, 1, 10, `"messages";r=1;t=10, "default";r=2;t=1`, both)...), serve(h, of(1)))
		require.Len(t, a.asked, 1)
		require.Equal(t, []senderauth.Outcome{"admitted", "admitted"}, a.outcomes())
		require.Equal(t, "default", a.events[0].Limit)
		require.Equal(t, "messages", a.events[1].Limit)
		require.Equal(t, senderID(1), a.events[1].Sender.ID)
		require.False(t, a.events[0].Cached)
		require.True(t, a.events[1].Cached)

		serve(h, of(1))
		over := limited("10").with(rateFields(2, 0, 20, `"messages";r=0;t=10, "default";r=0;t=1`, both)...)
		require.Equal(t, over, serve(h, of(1)), "default was charged by the guard outside")
	})
	bubble(t, "authentication outside, charge inside", func(t *testing.T) {
		a := newNested(t)
		mux := http.NewServeMux()
		mux.Handle("POST /v1/messages", a.guard.Charging("messages").Wrap(a.hello()))
		h := a.guard.Charging().Wrap(mux)
		r := of(1)
		r.Method, r.URL.Path = "POST", "/v1/messages"
		require.Equal(t, hello(1).with(rateFields(2, 1, 10, `"messages";r=1;t=10`, `"messages";q=2;w=20`)...), serve(h, r))
		require.Equal(t, "POST /v1/messages", r.Pattern)
		require.Equal(t, noKey, serve(h, request()), "401 comes before 404")
		require.Equal(t, 404, serve(h, of(1)).Status)
	})
	bubble(t, "a third guard does not repeat the charge of the first", func(t *testing.T) {
		a := newNested(t)
		for _, middle := range []*senderauth.Guard{a.guard.Charging(), a.guard.Charging("open")} {
			h := a.guard.Wrap(middle.Wrap(a.guard.Charging("messages").Wrap(a.hello())))
			require.Equal(t, both, serve(h, of(1)).Header["Ratelimit-Policy"])
		}
	})
	bubble(t, "the first guard chose its limits by the request", func(t *testing.T) {
		a := newNested(t)
		first := a.guard.ChargingBy(func(*http.Request) []string { return []string{"default"} })
		require.Equal(t, both, serve(first.Wrap(a.guard.Charging("messages").Wrap(a.hello())), of(1)).Header["Ratelimit-Policy"])
	})
	bubble(t, "a name is charged once for a request", func(t *testing.T) {
		a := newNested(t)
		h := a.guard.Wrap(a.guard.Wrap(a.hello()))
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(h, of(1)))
		h = a.guard.Wrap(a.guard.Charging("default", "messages").Wrap(a.hello()))
		require.Equal(t, hello(1).with(rateFields(2, 1, 10, `"messages";r=1;t=10, "default";r=1;t=1`, both)...), serve(h, of(1)))
	})
	bubble(t, "guards of different New each authenticate", func(t *testing.T) {
		a, b := newNested(t), newNested(t)
		h := a.guard.Wrap(b.guard.Wrap(b.hello()))
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(h, of(1)))
		require.Len(t, a.asked, 1)
		require.Len(t, b.asked, 1)

		strict := newApp(t, refuseWith(senderauth.ErrInvalidKey), senderauth.Config{})
		require.Equal(t, badKey, serve(a.guard.Wrap(strict), of(1)))
	})
	bubble(t, "around a guard of another New that strips the key", func(t *testing.T) {
		a := newNested(t)
		strip := newApp(t, nil, senderauth.Config{StripKey: true})
		h := a.guard.Wrap(strip.guard.Charging().Wrap(a.guard.Charging("default", "messages").Wrap(a.hello())))
		require.Equal(t, both, serve(h, of(1)).Header["Ratelimit-Policy"])
		require.Len(t, a.asked, 1)
	})
	bubble(t, "a request that is served again inside is charged once", func(t *testing.T) {
		a := newNested(t)
		var h http.Handler
		again := true
		h = a.guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if again {
				again = false
				h.ServeHTTP(w, r)
				return
			}
			a.hello().ServeHTTP(w, r)
		}))
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(h, of(1)))
		require.Equal(t, []bool{false, true}, []bool{a.events[0].Inner, a.events[1].Inner})
	})
	bubble(t, "a refusal by the inner guard does not show the outer guard's rate fields", func(t *testing.T) {
		a := newNested(t)
		h := a.guard.Wrap(a.guard.ChargingBy(func(*http.Request) []string { return []string{"none"} }).Wrap(a.hello()))
		require.Equal(t, internal, serve(h, of(1)))
	})
	bubble(t, "WithSender satisfies no guard", func(t *testing.T) {
		a := newNested(t)
		r := request()
		r = r.WithContext(senderauth.WithSender(r.Context(), senderauth.Sender{ID: senderID(1)}))
		require.Equal(t, noKey, serve(a, r))
		r = of(2)
		r = r.WithContext(senderauth.WithSender(r.Context(), senderauth.Sender{ID: senderID(1)}))
		require.Equal(t, hello(2).with(threeLeft(2)...), serve(a, r))

		// Between two guards it does not replace the authenticated sender.
		between := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			a.ServeHTTP(w, r.WithContext(senderauth.WithSender(r.Context(), senderauth.Sender{ID: senderID(1)})))
		})
		require.Equal(t, hello(2).with(threeLeft(1)...), serve(a.guard.Charging().Wrap(between), of(2)))
		require.Equal(t, hello(2).with(threeLeft(0)...), serve(a.guard.Wrap(between), of(2)), "with nothing left to charge")
	})
	bubble(t, "the handler gets the sender of the guard around it", func(t *testing.T) {
		a := newNested(t)
		named := newApp(t, func(context.Context, senderauth.Credentials) (senderauth.Sender, error) {
			return senderauth.Sender{ID: senderID(1), KeyID: "of another New"}, nil
		}, senderauth.Config{})
		h := a.guard.Wrap(named.guard.Charging().Wrap(a.guard.Wrap(a.guard.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			s, _ := senderauth.SenderFrom(r.Context())
			require.Equal(t, "key-1", s.KeyID)
			_, problem := a.guard.Charge(r.Context(), "messages", 1)
			require.Nil(t, problem)
		})))))
		require.Equal(t, 200, serve(h, of(1)).Status)
		require.Equal(t, []string{"default", "", "", "messages"}, a.limits(), "default is charged once")
	})
}

// However guards of two New are nested, with senders of WithSender in between, each
// New charges each name once, at the cost of its outermost guard with that name, and
// the handler gets the sender of the guard around it.
func TestGuardsNestedInAnyOrder(t *testing.T) {
	names := []string{"default", "messages", "dry", "open"}
	for seed := range uint64(500) {
		random := rand.New(rand.NewPCG(seed, 1))
		charged := map[string]int{} // New and name
		newFamily := func(family string) *senderauth.Guard {
			guard, err := senderauth.New(senderauth.ValidatorFunc(func(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
				return senderauth.Sender{ID: c.SenderID, KeyID: family}, nil
			}), senderauth.Config{
				Limits: map[string]senderauth.Limit{"default": three, "messages": three, "dry": three, "open": senderauth.Unlimited()},
				DryRun: []string{"dry"},
				Limiter: takes(func(charges []senderauth.Charge) ([]senderauth.Balance, error) {
					for _, c := range charges {
						charged[family+" "+c.Name] += c.Cost
					}
					return make([]senderauth.Balance, len(charges)), nil
				}),
			})
			require.NoError(t, err)
			return guard
		}
		families := map[string]*senderauth.Guard{"A": newFamily("A"), "B": newFamily("B")}

		var got string
		var h http.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			s, _ := senderauth.SenderFrom(r.Context())
			got = s.ID + " " + s.KeyID
		})
		want, nearest, layers := map[string]int{}, "", ""
		for range 1 + random.IntN(6) { // from the inside out
			if nearest != "" && random.IntN(4) == 0 {
				inside := h
				h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					inside.ServeHTTP(w, r.WithContext(senderauth.WithSender(r.Context(), senderauth.Sender{ID: "stranger"})))
				})
				layers = "WithSender, " + layers
				continue
			}
			family := []string{"A", "B"}[random.IntN(2)]
			random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
			chosen, cost := slices.Clone(names[:random.IntN(len(names)+1)]), 1+random.IntN(3)
			guard := families[family].Charging(chosen...)
			if random.IntN(2) == 0 {
				guard = families[family].ChargingBy(func(*http.Request) []string { return chosen })
			}
			if cost > 1 {
				guard = guard.Costing(func(*http.Request) int { return cost })
			}
			h = guard.Wrap(h)
			for _, name := range chosen {
				want[family+" "+name] = cost // what is further out replaces it
			}
			if nearest == "" {
				nearest = family
			}
			layers = fmt.Sprintf("%s %v x %d, ", family, chosen, cost) + layers
		}
		for line, value := range serve(h, of(1)).Header {
			require.NotContains(t, value, "\n", "%s: %s", layers, line)
		}
		require.Equal(t, senderID(1)+" "+nearest, got, layers)
		require.Equal(t, want, charged, layers)
	}
}
