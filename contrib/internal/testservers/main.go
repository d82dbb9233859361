package testservers

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	running       atomic.Bool
	errNotRunning = errors.New("testservers: the package needs a TestMain that calls Main or Run")
	forTests      tests
)

// Tests are those of one package.
type tests struct {
	mu      sync.Mutex
	skipped int
	why     map[string]bool
	ends    []func() error
}

// Main runs the tests of a package that needs servers, and exits. Use it as a whole
// TestMain.
func Main(m *testing.M) { os.Exit(Run(m)) }

// Run is Main for a TestMain that does more. It returns the exit code of the tests: it is 1
// if some were skipped because a program is missing, unless -short allows that. Otherwise
// "ok" would hide them.
func Run(m *testing.M) int {
	running.Store(true)
	return forTests.run(m.Run, testing.Short, os.Stderr)
}

func (t *tests) run(run func() int, short func() bool, w io.Writer) int {
	code := run()
	for _, end := range t.ends {
		if err := end(); err != nil {
			fmt.Fprintln(w, err)
			code = 1
		}
	}
	if t.skipped > 0 && !short() {
		fmt.Fprintf(w, "tests skipped: %d (%s). Install what is missing, or leave them out with -short.\n", t.skipped, strings.Join(slices.Sorted(maps.Keys(t.why)), ", "))
		code = 1
	}
	return code
}

// AtEnd calls f after the last test, once for each call.
func AtEnd(f func() error) {
	forTests.mu.Lock()
	defer forTests.mu.Unlock()
	forTests.ends = append(forTests.ends, f)
}

// Missing ends a test because a program is not installed: it skips the test, or fails it if
// CI=true.
func Missing(t testing.TB, why string) {
	t.Helper()
	switch {
	case !running.Load():
		t.Fatal(errNotRunning)
	case os.Getenv("CI") == "true":
		t.Fatal(why)
	}
	forTests.skip(why)
	t.Skip(why)
}

func (t *tests) skip(why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.why == nil {
		t.why = make(map[string]bool)
	}
	t.why[why] = true
	t.skipped++
}
