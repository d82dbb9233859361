package testservers

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSkippedTestsFailUnlessShort(t *testing.T) {
	for _, c := range []struct {
		name    string
		skipped []string
		short   bool
		end     error
		code    int
		want    int
		output  string
	}{
		{name: "all ran"},
		{name: "some failed", code: 1, want: 1},
		{name: "short", skipped: []string{"redis-server is not installed"}, short: true},
		{
			name: "skipped", skipped: []string{"b is not installed", "a is not installed", "b is not installed"}, want: 1,
			output: "tests skipped: 3 (a is not installed, b is not installed). Install what is missing, or leave them out with -short.\n",
		},
		{name: "a server does not end", end: errors.New("it hangs"), want: 1, output: "it hangs\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := tests{ends: []func() error{func() error { return c.end }}}
			for _, why := range c.skipped {
				x.skip(why)
			}
			var out strings.Builder
			require.Equal(t, c.want, x.run(func() int { return c.code }, func() bool { return c.short }, &out))
			require.Equal(t, c.output, out.String())
		})
	}
}

func TestServerNeedsTestMain(t *testing.T) {
	_, err := Start(Command{Args: []string{"true"}})
	require.EqualError(t, err, "testservers: the package needs a TestMain that calls Main or Run")
}
