package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// A sample is the size of an instance at a time.
type sample struct {
	at         time.Duration // since the start of the load
	rss, heap  float64       // MiB; heap without garbage
	goroutines int
}

// measure takes 30 samples of each instance.
func (s *soaker) measure(ctx context.Context) error {
	for {
		sleep(ctx, s.options.length/30)
		if ctx.Err() != nil {
			return nil
		}
		for i, p := range s.fleet {
			state, err := p.state(ctx, s.client, true)
			rss, err2 := p.rss()
			if err := errors.Join(err, err2); err != nil {
				return err
			}
			s.samples[i] = append(s.samples[i], sample{
				at: time.Since(s.start), rss: float64(rss) / (1 << 20), heap: float64(state.Heap) / (1 << 20), goroutines: state.Goroutines,
			})
		}
	}
}

// A report is the result of a soak.
type report struct {
	options    options
	took       time.Duration
	counts     *counts
	faults     []fault
	stalls     []span // of the machine
	samples    [instances][]sample
	goroutines int                   // more than before the load, after it
	recorded   sqlkeys.RecorderStats // of all instances
	usage      int                   // requests, as the database has them
}

// grown returns by how many MiB the last third of the samples is above the second third,
// on average, and the slope of both in MiB an hour.
func grown(samples []sample, of func(sample) float64) (by, slope float64) {
	third := len(samples) / 3
	if third == 0 {
		return 0, 0
	}
	mean := func(some []sample) (at, size float64) {
		for _, s := range some {
			at += s.at.Hours() / float64(len(some))
			size += of(s) / float64(len(some))
		}
		return at, size
	}
	late := samples[third:]
	_, second := mean(samples[third : 2*third])
	_, last := mean(samples[2*third:])
	at, size := mean(late)
	var covariance, variance float64
	for _, s := range late {
		covariance += (s.at.Hours() - at) * (of(s) - size)
		variance += (s.at.Hours() - at) * (s.at.Hours() - at)
	}
	return last - second, covariance / variance
}

func rss(s sample) float64  { return s.rss }
func heap(s sample) float64 { return s.heap }

// A soak is flat if its last third takes at most so much more than the second.
const flatRSS, flatHeap = 2, 0.5 // MiB

// verdict returns what is broken.
func (r *report) verdict() error {
	var errs []error
	want := func(kept bool, format string, args ...any) {
		if !kept {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	want(r.counts.wrong == 0, "%d of %d answers are wrong:\n%s", r.counts.wrong, r.counts.total(), strings.Join(r.counts.examples, "\n"))
	for _, f := range r.faults {
		want(f.seen > 0, "%s: no instance noticed", f.what)
	}
	want(len(r.faults) >= 2, "only %d faults", len(r.faults))
	want(r.counts.revoked.Load() > 0, "no key was revoked")
	want(r.goroutines <= 0, "an instance has %d goroutines more than before the load", r.goroutines)
	want(r.recorded.Dropped == 0, "the recorders dropped %d requests", r.recorded.Dropped)
	charged := r.counts.of(200) + r.counts.of(429)
	want(r.usage >= charged, "the recorders counted %d requests, and there were %d", r.usage, charged)
	if r.options.judgeMemory {
		for i, s := range r.samples {
			byRSS, _ := grown(s, rss)
			byHeap, _ := grown(s, heap)
			want(byRSS <= flatRSS && byHeap <= flatHeap, "instance %d grows: its RSS by %.2f MiB, its live objects by %.2f MiB", i, byRSS, byHeap)
		}
	}
	return errors.Join(errs...)
}

func (r *report) print(w io.Writer) {
	c := r.counts
	fmt.Fprintf(w, "%d requests in %v to %d instances: %d keys revoked, %d rotated, %d expired, %d disabled and enabled. %d wrong answers.\n",
		c.total(), r.took.Round(time.Second), instances, c.revoked.Load(), c.rotated.Load(), c.expired.Load(), c.disabled.Load(), c.wrong)
	fmt.Fprintf(w, "From a revocation to the refusal by the slowest instance, while PostgreSQL was up: p50 %v, p99 %v, max %v.\n",
		quantile(c.delays, 0.5), quantile(c.delays, 0.99), quantile(c.delays, 1))
	if len(r.stalls) > 0 {
		long := slices.MaxFunc(r.stalls, func(a, b span) int { return cmp.Compare(a.To.Sub(a.From), b.To.Sub(b.From)) })
		fmt.Fprintf(w, "The machine stalled %d times, for at most %v.\n", len(r.stalls), long.To.Sub(long.From).Round(time.Millisecond))
	}
	early, late := r.latency()
	fmt.Fprintf(w, "p99 of the answers 200: %v in the second third, %v in the last.\n", early, late)
	fmt.Fprintf(w, "The recorders counted %d requests of the %d that were admitted or limited, and dropped %d.\n\n", r.usage, c.of(200)+c.of(429), r.recorded.Dropped)
	table(w, "credentials|200|401|429|503", func(row func(cells ...any)) {
		for _, k := range []kind{own, foreign, unknown, malformed} {
			row(k, c.answers[outcome{k, 200}], c.answers[outcome{k, 401}], c.answers[outcome{k, 429}], c.answers[outcome{k, 503}])
		}
	})
	table(w, "fault|at|for|seen|recovered after", func(row func(cells ...any)) {
		for _, f := range r.faults {
			seen := fmt.Sprintf("%d answers 503", f.seen)
			if strings.HasPrefix(f.what, "Redis") {
				seen = fmt.Sprintf("%d instances on their own", f.seen)
			}
			row(f.what, f.span.From.Sub(c.began).Round(time.Second), f.span.To.Sub(f.span.From).Round(100*time.Millisecond), seen, f.behind.Round(10*time.Millisecond))
		}
	})
	table(w, "instance|RSS, first|RSS, a third|RSS, last|slope after the third|live objects, a third|live objects, last|slope|goroutines", func(row func(cells ...any)) {
		for i, s := range r.samples {
			if len(s) < 3 {
				continue
			}
			third, last := s[len(s)/3], s[len(s)-1]
			_, slope := grown(s, rss)
			_, heapSlope := grown(s, heap)
			most := slices.MaxFunc(s, func(a, b sample) int { return a.goroutines - b.goroutines }).goroutines
			row(i, mib(s[0].rss), mib(third.rss), mib(last.rss), fmt.Sprintf("%+.2f MiB/h", slope),
				mib(third.heap), mib(last.heap), fmt.Sprintf("%+.2f MiB/h", heapSlope), fmt.Sprintf("at most %d, in the end %+d", most, r.goroutines))
		}
	})
}

// latency returns the 99th percentiles of the second and the last third of the minutes.
func (r *report) latency() (early, late time.Duration) {
	minutes := r.counts.took
	third := max(len(minutes)/3, 1)
	return quantile(slices.Concat(minutes[min(third, len(minutes)-1):min(2*third, len(minutes))]...), 0.99),
		quantile(slices.Concat(minutes[min(2*third, len(minutes)-1):]...), 0.99)
}

func mib(v float64) string { return fmt.Sprintf("%.1f MiB", v) }

func quantile(of []time.Duration, q float64) time.Duration {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(of))
	return sorted[min(int(q*float64(len(of))), len(of)-1)].Round(100 * time.Microsecond)
}

// table prints a table in Markdown.
func table(w io.Writer, head string, rows func(row func(cells ...any))) {
	columns := strings.Split(head, "|")
	fmt.Fprintf(w, "| %s |\n|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	rows(func(cells ...any) {
		fmt.Fprint(w, "|")
		for _, c := range cells {
			fmt.Fprintf(w, " %v |", c)
		}
		fmt.Fprintln(w)
	})
	fmt.Fprintln(w)
}
