package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// A screen shows what happens, line by line, and below that a table of the instances. On a
// terminal the table is redrawn four times a second. Elsewhere it is written in the end.
type screen struct {
	w         io.Writer
	live      bool
	start     time.Time
	instances []*instance

	mu    sync.Mutex
	drawn int // lines of the table on the terminal
}

func newScreen(w io.Writer, live bool, instances []*instance) *screen {
	return &screen{w: w, live: live, start: time.Now(), instances: instances}
}

// say writes a line above the table.
func (s *screen) say(format string, v ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	fmt.Fprintf(s.w, "%5.1f s  %s\n", time.Since(s.start).Seconds(), fmt.Sprintf(format, v...))
	if s.live {
		s.table()
	}
}

// draw keeps the table up to date until the returned function is called, which writes it a
// last time.
func (s *screen) draw() (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for s.live {
			select {
			case <-quit:
				return
			case <-time.After(time.Second / 4):
				s.redraw()
			}
		}
	}()
	return func() {
		close(quit)
		<-ended
		s.redraw()
		s.live, s.drawn = false, 0 // the table stays
	}
}

func (s *screen) redraw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	s.table()
}

// clear removes the table from the terminal.
func (s *screen) clear() {
	if s.drawn > 0 {
		fmt.Fprintf(s.w, "\x1b[%dA\x1b[J", s.drawn)
		s.drawn = 0
	}
}

func (s *screen) table() {
	var text strings.Builder
	t := tabwriter.NewWriter(&text, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\n\tadmitted\trefused\tp50\tp99\t\n")
	for _, i := range s.instances {
		admitted, refused, _ := i.seen.counts()
		p50, p99 := i.seen.quantiles()
		fmt.Fprintf(t, "%s\t%d\t%d\t%.1f ms\t%.1f ms\t\n", i.name, admitted, refused, p50.Seconds()*1000, p99.Seconds()*1000)
	}
	fmt.Fprintln(t)
	t.Flush()
	if s.live {
		s.drawn = strings.Count(text.String(), "\n")
	}
	io.WriteString(s.w, text.String())
}

// summarize compares what the clients saw with what the instances promise.
func summarize(s *screen, instances []*instance, greedy int64, took time.Duration, restarts int) error {
	var admitted, refused, wrong int
	var errs []error
	for _, i := range instances {
		a, r, w := i.seen.counts()
		admitted, refused, wrong = admitted+a, refused+r, wrong+len(w)
		if len(w) > 0 {
			errs = append(errs, fmt.Errorf("%s gave %d wrong answers, the first: %s", i.name, len(w), w[0]))
		}
	}
	s.say("%d requests admitted, %d refused, %d wrong answers", admitted, refused, wrong)
	// A Redis that comes back empty, and the change to it and back, each give away at
	// most one burst.
	most := burst + int64(took.Seconds()*perMinute/60) + 2*burst*int64(restarts)
	s.say("The sender above its limit got %d requests in %.1f s: %d + %.1f a second, and at most %d more for each outage of Redis", greedy, took.Seconds(), burst, perMinute/60.0, 2*burst)
	if greedy > most {
		errs = append(errs, fmt.Errorf("the sender above its limit got %d requests, more than %d", greedy, most))
	}
	return errors.Join(errs...)
}
