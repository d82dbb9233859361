package main

import (
	"os"
	"testing"

	"github.com/senderauth/senderauth/contrib/internal/testservers"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if runAsInstance() {
		return
	}
	testservers.Main(m)
}

// Each scenario keeps its promises in its short form, and its faults do happen.
func TestPromisesHoldUnderFaults(t *testing.T) {
	for _, s := range all() {
		t.Run(s.id, func(t *testing.T) {
			r := s.try(t.Context(), options{verbose: testing.Verbose()})
			if r.missing != nil {
				testservers.Missing(t, r.missing.Error())
			}
			for _, b := range r.broken {
				t.Error(b)
			}
		})
	}
}

// A promise that is broken and a fault that does not happen are both noticed.
func TestScenarioFails(t *testing.T) {
	for name, c := range map[string]struct {
		run  func(e *env)
		want []string
	}{
		"no fault":    {func(e *env) {}, []string{"no fault was injected"}},
		"other fault": {func(e *env) { e.injected(0, "kill") }, []string{"a fault did not happen: kill"}},
		"wrong answer": {func(e *env) {
			e.injected(1, "kill")
			e.judge([]answer{{status: 401, request: request{kind: "good"}}}, wants(200))
		}, []string{"not 200: good: 401 after 0s", "1 of 1 answers are wrong"}},
		"an error": {func(e *env) {
			e.injected(1, "kill")
			e.check(os.ErrClosed)
			e.want(false, "the scenario goes on")
		}, []string{"file already closed"}},
		"a cleanup": {func(e *env) {
			e.injected(1, "kill")
			e.cleanup(func() error { return os.ErrClosed })
		}, []string{"clean up: file already closed"}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, scenario{id: "F-0", run: c.run}.try(t.Context(), options{}).broken)
		})
	}
}
