package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/term"
)

const (
	progressDelay    = time.Second // commands that are faster show nothing
	progressInterval = 200 * time.Millisecond
)

// A progress shows how far a long command is, in one line of standard error that it
// rewrites. It shows nothing unless standard error is a terminal. While it runs, write to
// standard error through it, so that the texts do not mix. Its methods are safe for
// concurrent use.
type progress struct {
	what, unit string
	began      time.Time
	done       atomic.Int64
	end        func() // ends the progress and removes its line

	mu    sync.Mutex
	w     io.Writer
	shown bool
}

// progress starts one. what says what the command does, as "Deleting". unit is what it
// counts, as "rows", and is empty if it cannot count.
func (a *app) progress(what, unit string) *progress {
	return newProgress(a.err, isTerminal(a.err) && a.env("TERM") != "dumb", what, unit)
}

// isTerminal reports whether a person sees what is written to w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// newProgress starts a progress that only passes on what is written to it unless it is live.
func newProgress(w io.Writer, live bool, what, unit string) *progress {
	p := &progress{what: what, unit: unit, began: time.Now(), w: w}
	p.end = sync.OnceFunc(func() {})
	if !live {
		return p
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		p.run(stop)
	}()
	p.end = sync.OnceFunc(func() {
		close(stop)
		<-ended
	})
	return p
}

// add counts n more.
func (p *progress) add(n int) { p.done.Add(int64(n)) }

// Write removes the line, and writes b to standard error.
func (p *progress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clearLocked()
	return p.w.Write(b)
}

func (p *progress) run(stop <-chan struct{}) {
	next := time.NewTimer(progressDelay)
	defer next.Stop()
	for {
		select {
		case <-stop:
			p.mu.Lock()
			defer p.mu.Unlock()
			p.clearLocked()
			return
		case <-next.C:
			p.show()
			next.Reset(progressInterval)
		}
	}
}

const toStart, clearRest = "\r", "\x1b[K" // of the line

func (p *progress) show() {
	count := ""
	if p.unit != "" {
		count = fmt.Sprintf(" %d %s,", p.done.Load(), p.unit)
	}
	line := fmt.Sprintf("%s:%s %ds", p.what, count, int(time.Since(p.began).Seconds()))
	p.mu.Lock()
	defer p.mu.Unlock()
	io.WriteString(p.w, toStart+line+clearRest)
	p.shown = true
}

func (p *progress) clearLocked() {
	if p.shown {
		io.WriteString(p.w, toStart+clearRest)
		p.shown = false
	}
}
