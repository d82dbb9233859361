package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/internal/testservers/redistest"
)

// A scenario injects faults under load and judges what clients got.
type scenario struct {
	id     string // such as "F-1", a number of the list in README.md; several are separated by ", "
	name   string
	server bool // PostgreSQL or Redis takes part, so that -delay means something
	run    func(e *env)
}

type options struct {
	long    bool          // minutes instead of seconds, and times are judged
	delay   time.Duration // each way between an instance and its servers
	verbose bool
}

// A result is a row of the table.
type result struct {
	load       string
	faults     []string
	requests   int
	wrong      int
	lost       []string
	memory     int64         // bytes above the start, at the highest
	goroutines int           // above the start, after the end
	stalled    time.Duration // how long the process stood still at most
	broken     []string
	missing    error // a server that is not installed
}

// An env is what a scenario works with. Its methods are safe for concurrent use, but only
// the goroutine of the scenario may call check.
type env struct {
	context.Context
	options

	mu       sync.Mutex
	cleanups []func() error
	result
}

// jitter is what other programs may add to any request, and a collection of garbage to
// one in a hundred.
const jitter = 20 * time.Millisecond

// patience is how long an end is waited for that no promise dates.
const patience = 20 * time.Second

// try runs the scenario and everything around it: it measures memory and goroutines, and
// fails the scenario if it takes too long or has not proved its fault.
func (s scenario) try(parent context.Context, o options) result {
	limit := time.Minute
	if o.long {
		limit = 5 * time.Minute
	}
	ctx, cancel := context.WithTimeout(parent, limit)
	defer cancel()
	e := &env{Context: ctx, options: o}
	before := runtime.NumGoroutine()
	memory := measureMemory()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer e.clean()
		s.run(e)
	}()
	select {
	case <-done:
	case <-time.After(limit + patience):
		e.want(false, "the scenario has not ended %v after its limit of %v", patience, limit)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.memory = memory.stop()
	e.stalled = memory.stalled
	e.goroutines = extraGoroutines(before)
	if e.missing != nil {
		return e.result
	}
	if e.goroutines > 0 {
		e.broken = append(e.broken, fmt.Sprintf("%d goroutines are left", e.goroutines))
	}
	if len(e.faults) == 0 {
		e.broken = append(e.broken, "no fault was injected")
	}
	if e.wrong > 0 {
		e.broken = append(e.broken, fmt.Sprintf("%d of %d answers are wrong", e.wrong, e.requests))
	}
	return e.result
}

// clean calls the functions that cleanup collected, the last one first.
func (e *env) clean() {
	for _, f := range slices.Backward(e.cleanups) {
		if err := f(); err != nil {
			e.want(false, "clean up: %v", err)
		}
	}
}

// cleanup calls f when the scenario has ended.
func (e *env) cleanup(f func() error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cleanups = append(e.cleanups, f)
}

// check ends the scenario if err is not nil.
func (e *env) check(err error) {
	if err == nil {
		return
	}
	if errors.Is(err, pgtest.ErrMissing) || errors.Is(err, redistest.ErrMissing) {
		e.mu.Lock()
		e.missing = err
		e.mu.Unlock()
	}
	e.want(false, "%v", err)
	runtime.Goexit()
}

// logf says what happens, with -v.
func (e *env) logf(format string, args ...any) {
	if e.verbose {
		log.Printf("  "+format, args...)
	}
}

// want records a broken promise unless kept is true.
func (e *env) want(kept bool, format string, args ...any) {
	if kept {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.broken = append(e.broken, fmt.Sprintf(format, args...))
}

// within judges a time. Another program may hold up the short form, which allows the time
// and patience.
func (e *env) within(limit, took time.Duration, what string) {
	e.logf("%s: %v of %v", what, took.Round(time.Microsecond), limit)
	if !e.long {
		limit += patience
	}
	e.want(took <= limit, "%s: %v, more than %v", what, took.Round(time.Microsecond), limit)
}

// injected records a fault that was seen to happen n times. It is a broken promise if
// that is not so.
func (e *env) injected(n int, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	e.want(n > 0, "a fault did not happen: %s", what)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults = append(e.faults, what)
}

// held records the load of the scenario.
func (e *env) held(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.load = fmt.Sprintf(format, args...)
}

// lose records something that the promises allow to be lost.
func (e *env) lose(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lost = append(e.lost, fmt.Sprintf(format, args...))
}

// judge counts the answers and, among them, those that wrong finds something to say
// about. The first three are quoted as broken promises.
func (e *env) judge(answers []answer, wrong func(a answer) string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, a := range answers {
		e.requests++
		what := wrong(a)
		if what == "" {
			continue
		}
		if e.wrong++; e.wrong <= 3 {
			e.broken = append(e.broken, strings.TrimSpace(fmt.Sprintf("%s: %v", what, a)))
		}
	}
}

// until waits until f reports true, and ends the scenario if it does not.
func (e *env) until(what string, f func() bool) {
	for end := time.Now().Add(patience); !f(); {
		if time.Now().After(end) || e.Err() != nil {
			e.check(fmt.Errorf("%s: not after %v", what, patience))
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// sleep waits, or ends the scenario if its time is over.
func (e *env) sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-e.Done():
		e.check(e.Err())
	}
}

// pick returns the value for the form that runs.
func pick[T any](e *env, short, long T) T {
	if e.long {
		return long
	}
	return short
}
