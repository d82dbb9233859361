package senderauth_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

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
