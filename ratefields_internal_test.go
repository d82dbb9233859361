package senderauth

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A window that is short by a fraction would promise more than the bucket admits.
func TestWindowIsRoundedUpAndFitsAnInteger(t *testing.T) {
	for _, c := range []struct {
		limit Limit
		want  int64
	}{
		{PerMinute(60), 60},
		{Limit{Requests: 3, Per: 3*time.Second - 1}, 3},
		{Limit{Requests: 3, Per: 3*time.Second + 1}, 4},
		{Limit{Requests: 3, Per: time.Second, Burst: 7}, 3},
		{Limit{Requests: maxTokens, Per: time.Microsecond}, 1},
		{Limit{Requests: maxTokens, Per: math.MaxInt64}, 9_223_372_037},
		{Limit{Requests: 1, Per: maxInteger - 1, Burst: maxTokens}, maxInteger - 1},
		{Limit{Requests: 1, Per: maxInteger, Burst: maxTokens}, maxInteger},
		{Limit{Requests: 1, Per: maxInteger + 1, Burst: maxTokens}, maxInteger},
		{Limit{Requests: 1, Per: math.MaxInt64, Burst: maxTokens}, maxInteger},
	} {
		require.Equal(t, c.want, c.limit.window(), "%+v", c.limit)
	}
}
