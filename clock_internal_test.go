package senderauth

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Two clocks are never read at quite the same time. What looks like small steps,
// now forward and now back, must not add up.
func TestJitterOfTheWallClockAddsUpToNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := clock{start: time.Now()}
		for range 100 {
			for _, step := range []time.Duration{smallestStep - 1, 1 - smallestStep} {
				k.offset -= int64(step)
				time.Sleep(compareEvery)
				require.Equal(t, time.Since(k.start), k.now())
			}
		}
		k.offset -= int64(smallestStep)
		time.Sleep(compareEvery)
		require.Equal(t, time.Since(k.start)+smallestStep, k.now())
	})
}
