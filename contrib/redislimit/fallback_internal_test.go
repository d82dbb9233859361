package redislimit

import (
	"math"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// The shares of all instances add up to no more than the limit, except that each has a
// burst of at least 1, and of an allowance perhaps nothing.
func TestShareOfALimit(t *testing.T) {
	for limit, want := range map[senderauth.Limit]senderauth.Limit{
		senderauth.PerSecond(10):                        {Requests: 10, Per: 3 * time.Second, Burst: 3},
		{Requests: 10, Per: time.Second, Burst: 100}:    {Requests: 10, Per: 3 * time.Second, Burst: 33},
		{Requests: 1, Per: time.Hour}:                   {Requests: 1, Per: 3 * time.Hour, Burst: 1},
		{Requests: 1, Per: math.MaxInt64 / 2, Burst: 9}: {Requests: 1, Per: math.MaxInt64, Burst: 3},
		senderauth.Unlimited():                          senderauth.Unlimited(),
		senderauth.Blocked():                            senderauth.Blocked(),
		senderauth.PerMonth(10, nil):                    senderauth.PerMonth(3, nil),
		senderauth.PerDay(2, nil):                       senderauth.Blocked(),
	} {
		require.Equal(t, want, share(limit, 3))
		require.Equal(t, limit, share(limit, 1))
	}
}
