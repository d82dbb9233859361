package senderauth_test

import (
	"context"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

func TestPerSecondAndPerMinute(t *testing.T) {
	require.Equal(t, senderauth.Limit{Requests: 7, Per: time.Second}, senderauth.PerSecond(7))
	require.Equal(t, senderauth.Limit{Requests: 7, Per: time.Minute}, senderauth.PerMinute(7))
}

func TestUnlimitedAndBlockedAreSaidInWords(t *testing.T) {
	l := newLimiter(0)
	require.Equal(t, senderauth.Balance{Remaining: math.MaxInt}, take(t, l, 1, senderauth.Unlimited(), 1_000_000))
	require.Equal(t, senderauth.Balance{Refused: true, RetryAfter: -1}, take(t, l, 1, senderauth.Blocked(), 1))
	require.Zero(t, l.Len(), "neither keeps a bucket")
	require.NotEqual(t, senderauth.Unlimited(), senderauth.Blocked())
	_, err := l.Take(context.Background(), senderID(1), []senderauth.Charge{{Name: "default"}})
	require.EqualError(t, err, `senderauth: charge "default": Limit: the zero Limit: say Unlimited() or Blocked(), or set Requests and Per`)
	_, err = senderauth.New(senderauth.ValidatorFunc(knowsAll), senderauth.Config{Limits: limits(senderauth.Limit{})})
	require.EqualError(t, err, `senderauth: Config.Limits["default"]: the zero Limit: say Unlimited() or Blocked(), or set Requests and Per`)
}

// The bounds are those up to which a limiter in memory is nearly exact.
func TestLimitOfUpToABillionIsValid(t *testing.T) {
	const most = 1_000_000_000
	for _, l := range []senderauth.Limit{
		{Requests: most, Per: time.Microsecond, Burst: most}, {Requests: 1, Per: math.MaxInt64}, {Requests: most, Per: time.Second},
		senderauth.Unlimited(), senderauth.Blocked(),
	} {
		require.NoError(t, l.Validate(), "%+v", l)
	}
	for _, l := range []senderauth.Limit{{Requests: most + 1, Per: time.Second}, {Requests: 1, Per: time.Second, Burst: most + 1}, {Requests: 0, Per: time.Second, Burst: 1}, {Requests: -1, Per: time.Second}, {Requests: 1, Per: 60}} {
		require.Error(t, l.Validate(), "%+v", l)
	}
	require.EqualError(t, senderauth.Limit{Requests: most + 1, Per: -1, Burst: most + 1}.Validate(),
		"Requests is 1000000001, not in 1..1000000000, Per is -1ns, below a microsecond, Burst is 1000000001, not in 0..1000000000")
}

func TestTakeReportsEveryMistake(t *testing.T) {
	l := newLimiter(0)
	b, err := l.Take(context.Background(), senderID(1), []senderauth.Charge{
		{Name: "a", Limit: senderauth.Limit{Requests: -3, Per: -1, Burst: -1}, Cost: -1},
		{Name: "b", Limit: three, Cost: 1},
		{Name: "b", Limit: three, Cost: 1},
	})
	require.Nil(t, b)
	for _, part := range []string{`charge "a": Limit: `, "Requests", "Per", "Burst", `charge "a": Cost -1 is below 0`, `charge "b" is given twice`} {
		require.ErrorContains(t, err, part)
	}
	require.Zero(t, l.Len())
}

// Servers whose clocks differ mint nothing by it: a limiter is handed no instant,
// and goes by a clock of its own.
func TestNoInstantIsHandedToALimiter(t *testing.T) {
	taken := reflect.TypeFor[senderauth.Limiter]().Method(0).Type
	require.Equal(t, "func(context.Context, string, []senderauth.Charge) ([]senderauth.Balance, error)", taken.String())
	for _, f := range reflect.VisibleFields(reflect.TypeFor[senderauth.Charge]()) {
		require.Contains(t, []string{"string", "senderauth.Limit", "int"}, f.Type.String())
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[senderauth.Limit]()) {
		require.Contains(t, []string{"int", "time.Duration", "senderauth.Calendar"}, f.Type.String())
	}
}
