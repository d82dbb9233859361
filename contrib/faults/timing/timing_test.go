package main

import (
	"context"
	"io"
	"math"
	"math/rand/v2"
	"regexp"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// A leaky validator compares the key with those it knows byte by byte, and stops at the
// first difference. Each byte takes as long as slow computes, many times what it would.
type leaky []senderauth.Credentials

func (l leaky) Validate(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
	for _, own := range l {
		if own.SenderID == c.SenderID && equalSlowly(own.APIKey, c.APIKey) {
			return senderauth.Sender{ID: own.SenderID}, nil
		}
	}
	return senderauth.Sender{}, senderauth.ErrInvalidKey
}

var sink float64 // keeps the compiler from leaving the work out

func equalSlowly(a, b string) bool {
	for i := range len(a) {
		for n := range 500 {
			sink += math.Sqrt(float64(n))
		}
		if a[i] != b[i] {
			return false
		}
	}
	return len(a) == len(b)
}

func TestPlantedLeakIsFound(t *testing.T) {
	p := path{validator: func(real []senderauth.Credentials) (senderauth.Validator, func() error, error) {
		return leaky(real), func() error { return nil }, nil
	}}
	for _, cached := range []bool{false, true} {
		p.cache = cached
		s, err := p.measure(questions[0], 1000)
		require.NoError(t, err)
		c := s.compare()
		require.Greater(t, c.t, mostT)
		require.Greater(t, c.difference(), mostDifference)
		require.True(t, c.differs())
	}
}

// The short form judges no times: another program may run for one class only.
func TestEveryRowIsMeasured(t *testing.T) {
	_, err := run(io.Discard, regexp.MustCompile(""), 200, 50)
	require.NoError(t, err)
}

func TestGuessThatIsAcceptedIsAnError(t *testing.T) {
	p := path{validator: static, cache: true}
	_, err := p.measure(question{ask: func(c *client) [2]senderauth.Credentials {
		return [2]senderauth.Credentials{c.real[0], c.real[1]}
	}}, 10)
	require.ErrorContains(t, err, "a guess is answered 200")
}

func TestWelch(t *testing.T) {
	of := func(values ...float64) (m moments) {
		for _, v := range values {
			m.add(v)
		}
		return m
	}
	// By hand: means 2 and 5, variances 1 and 4, of 3 and 5 values.
	require.InDelta(t, -3/math.Sqrt(1.0/3+4.0/5), welch(of(1, 2, 3), of(3, 3, 5, 7, 7)), 1e-12)
	require.Zero(t, welch(of(1, 2), of(1, 2)))
	require.Zero(t, welch(of(1), of(2, 3)))
	require.True(t, math.IsInf(welch(of(2, 2), of(1, 1)), 1))
}

// Slow samples of both classes hide a small difference until they are cropped. Without a
// difference no crop finds one.
func TestCroppingFindsWhatOutliersHide(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	sample := func(base float64) (x []float64) {
		for range 20_000 {
			v := base + 10*r.NormFloat64()
			if r.IntN(10) == 0 {
				v += 1e6 * r.Float64()
			}
			x = append(x, v)
		}
		return x
	}
	differ := times{sample(1000), sample(1005)}.compare()
	require.True(t, differ.differs())
	require.Less(t, differ.crop, 0.95)
	require.LessOrEqual(t, differ.difference(), 10*time.Nanosecond)
	require.False(t, times{sample(1000), sample(1000)}.compare().differs())
	// Medians alone decide if nothing else can.
	require.True(t, times{{0, 0, 0}, {2000, 2000, 2000}}.compare().differs())
}
