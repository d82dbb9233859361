package senderauth_test

import (
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// What a request of a cached sender allocates is what its garbage costs: a change
// here is one for every request.
func TestAllocationsOfARequest(t *testing.T) {
	cache := newCache(t, senderauth.ValidatorFunc(knowsAll), senderauth.CacheConfig{TTL: time.Hour, RejectedTTL: time.Hour})
	newGuard := func(fields senderauth.RateFields) *senderauth.Guard {
		guard, err := senderauth.New(cache, senderauth.Config{RateFields: fields, Limits: map[string]senderauth.Limit{
			"default": senderauth.PerSecond(1_000_000_000), "messages": senderauth.PerSecond(1_000_000_000), "drained": hourly(1),
		}})
		require.NoError(t, err)
		return guard
	}
	none, both := newGuard(senderauth.RateFieldsNone), newGuard(senderauth.RateFieldsBoth)
	chosen := []string{"default", "messages"}
	choosing := none.ChargingBy(func(*http.Request) []string { return chosen })
	next := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	for _, c := range []struct {
		name          string
		guard         *senderauth.Guard
		request       *http.Request
		allocs, bytes uint64
	}{
		{"admitted", none, of(1), 1, 352},
		{"admitted, with the rate fields", both, of(1), 3, 480},
		{"admitted, with two limits", none.Charging("default", "messages"), of(1), 1, 352},
		{"admitted, at limits chosen for it", choosing, of(1), 4, 640},
		{"without a key", both, request("x-sender-id", senderID(1)), 1, 80},
		{"with an unknown key", both, badKeyOf(1), 3, 96},
		{"over the limit", both.Charging("drained"), of(1), 5, 376},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, w := c.guard.Wrap(next), &silent{header: http.Header{}}
			const runs = 1000
			var before, after runtime.MemStats
			for range 2 { // first without counting
				runtime.ReadMemStats(&before)
				for range runs {
					clear(w.header)
					h.ServeHTTP(w, c.request)
				}
				runtime.ReadMemStats(&after)
			}
			require.Equal(t, c.allocs, (after.Mallocs-before.Mallocs)/runs)
			const runtimes = 8 // what the runtime allocates beside, spread over the runs
			require.LessOrEqual(t, (after.TotalAlloc-before.TotalAlloc)/runs, c.bytes+runtimes)
		})
	}
}
