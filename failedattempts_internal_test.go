package senderauth

import (
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFailingAddressesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAttemptLimiter(Limit{Requests: 1, Per: time.Hour}, &peers{})
		from := func(n int) *http.Request {
			addr := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
			return &http.Request{RemoteAddr: netip.AddrPortFrom(addr, 1).String()}
		}
		for n := range maxFailingAddresses + 10 {
			require.Zero(t, a.wait(from(n)))
			a.fail(from(n))
			require.Equal(t, time.Hour, a.wait(from(0)), "who keeps trying is not evicted")
		}
		require.Equal(t, maxFailingAddresses, a.buckets.Len())
		require.Zero(t, a.wait(from(1)))
		require.Equal(t, time.Hour, a.wait(from(maxFailingAddresses)))
	})
}
