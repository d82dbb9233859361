package main

import (
	"cmp"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// markdown returns the report, which goes between the README's markers.
func (r *results) markdown() string {
	var b strings.Builder
	o := r.options
	fmt.Fprintf(&b, "%d rounds of at least %v for each figure, on %s, in %v.", o.rounds, o.turn, machine(), r.took.Round(time.Second))
	if s, ok := r.share(); ok {
		fmt.Fprintf(&b, " In their serial turns the processes had %.0f%% of a core (%.0f to %.0f).", 100*s.median, 100*s.least, 100*s.most)
	}
	b.WriteString("\n")
	r.summary(&b)
	for _, d := range demandNames {
		r.admitted(&b, d)
	}
	r.memory(&b)
	r.refusals(&b)
	r.loopback(&b)
	r.properties(&b)
	r.versions(&b)
	return b.String()
}

// A table is a Markdown table.
type table struct {
	head []string
	rows [][]string
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(b *strings.Builder) {
	line := func(cells []string) { fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | ")) }
	line(t.head)
	line(slices.Repeat([]string{"---"}, len(t.head)))
	for _, row := range t.rows {
		line(row)
	}
}

// number formats v with up to three significant digits.
func number(v float64) string {
	if v == 0 {
		return "0"
	}
	scale := math.Pow(10, math.Floor(math.Log10(math.Abs(v)))-2)
	v = math.Round(v/scale) * scale
	if math.Abs(v) < 100 {
		return fmt.Sprintf("%.2g", v)
	}
	return fmt.Sprintf("%.0f", v)
}

func figure(s spread, ok bool) string {
	if !ok {
		return "–"
	}
	return fmt.Sprintf("%s (%s–%s)", number(s.median), number(s.least), number(s.most))
}

var demandTitles = map[string]string{
	"one":     "one sender",
	"zipf":    "100,000 senders, Zipf",
	"uniform": "100,000 senders, uniform",
	"no key":  "no key",
	"bad key": "a bad key",
	"limited": "over the limit",

	"loopback one":     "one sender",
	"loopback uniform": "10,000 senders",
}

// summary writes the ratios of senderauth to the fastest peer with rate fields.
func (r *results) summary(b *strings.Builder) {
	columns := []cell{{nil, "one", 1}, {nil, "zipf", 1}, {nil, "uniform", 1}, {nil, "uniform", 8}}
	b.WriteString("\n### senderauth compared with the fastest peer that sends rate fields\n\n" +
		"Time of senderauth divided by that of the peer: the median of the ratios of all rounds. In brackets: divided by that of the code by hand, which sends no rate fields.\n\n")
	for _, fields := range []int{1, 3} {
		t := table{head: []string{""}}
		peers := make([]*contender, len(columns))
		names := []string{"the fastest peer"}
		for i, c := range columns {
			title := demandTitles[c.scenario]
			if c.processors > 1 {
				title += fmt.Sprintf(", GOMAXPROCS %d", c.processors)
			}
			t.head = append(t.head, title)
			name := "–"
			if peers[i] = r.fastestPeer(c.scenario, c.processors, fields); peers[i] != nil {
				name = peers[i].name
			}
			names = append(names, name)
		}
		for _, ours := range r.contenders {
			if ours.kind != guard {
				continue
			}
			row := []string{ours.name}
			for i, c := range columns {
				c.contender = ours
				row = append(row, r.inParts(c, peers[i]))
			}
			t.row(row...)
		}
		t.row(names...)
		if fields == 3 {
			b.WriteString("\nAmong the peers that also say when the quota resets:\n\n")
		}
		t.write(b)
	}
}

func (r *results) inParts(c cell, of *contender) string {
	text := "–"
	if of != nil {
		if s, ok := r.ratio(c, of, nanoseconds(c.processors)); ok {
			text = fmt.Sprintf("%.2f", s.median)
		}
	}
	if s, ok := r.ratio(c, byHand, nanoseconds(c.processors)); ok {
		text += fmt.Sprintf(" [%.1f]", s.median)
	}
	return text
}

// admitted writes the time of a request by the number of processors.
func (r *results) admitted(b *strings.Builder, demand string) {
	fmt.Fprintf(b, "\n### Admitted: %s\n\nNanoseconds for each request, median (least–most).\n\n", demandTitles[demand])
	t := table{head: []string{"", "serial"}}
	for _, n := range processors[1:] {
		t.head = append(t.head, fmt.Sprintf("GOMAXPROCS %d", n))
	}
	for _, c := range r.contenders {
		row := []string{c.name}
		for _, n := range processors {
			row = append(row, figure(r.at(cell{c, demand, n}, nanoseconds(n))))
		}
		t.row(row...)
	}
	t.write(b)
}

// memory writes what a request allocates and how much a sender keeps allocated.
func (r *results) memory(b *strings.Builder) {
	b.WriteString("\n### Memory\n\nAllocated for each request of one sender, and held for each of 100,000 senders, without the key store.\n\n")
	t := table{head: []string{"", "bytes allocated", "objects", "bytes held"}}
	for _, c := range r.contenders {
		one := cell{c, "one", 1}
		bytes, ok := r.at(one, func(s score) float64 { return float64(s.Bytes) })
		if !ok {
			continue
		}
		objects, _ := r.at(one, func(s score) float64 { return float64(s.Objects) })
		held := fmt.Sprintf("%.0f", max(0, r.facts[c].Held))
		if key := r.facts[c].HeldKey; key > 0 {
			held += fmt.Sprintf(" (credential %.0f, bucket %.0f)", key, r.facts[c].Held-key)
		}
		t.row(c.name, fmt.Sprintf("%.0f", bytes.median), fmt.Sprintf("%.0f", objects.median), held)
	}
	t.write(b)
}

func (r *results) refusals(b *strings.Builder) {
	b.WriteString("\n### Refused\n\nNanoseconds for each request, serial, median (least–most). The time includes writing the response. There are 1,024 bad keys, which repeat.\n\n")
	t := table{head: []string{""}}
	for _, s := range refusalNames {
		t.head = append(t.head, demandTitles[s])
	}
	for _, c := range r.contenders {
		if c.kind == floor {
			continue
		}
		row := []string{c.name}
		for _, s := range refusalNames {
			row = append(row, figure(r.at(cell{c, s, 1}, nanoseconds(1))))
		}
		t.row(row...)
	}
	t.write(b)
}

// loopback writes the throughput of each server relative to the bare handler, and its
// processor time.
func (r *results) loopback(b *strings.Builder) {
	if r.options.load == 0 {
		return
	}
	fmt.Fprintf(b, "\n### Over loopback\n\nA server of net/http on one core, the load on the other, %d connections, %v for each figure of a round. "+
		"Requests per second relative to the handler alone, median (least–most), and microseconds of the server's processor time for each request. "+
		"“Busy” is the fraction of its core that the server used with one sender. Below 1 it waited for the load.\n\n", connections, r.options.load)
	t := table{head: []string{""}}
	for _, d := range loopbackDemands {
		title := demandTitles["loopback "+d]
		t.head = append(t.head, title+": requests/s", title+": µs")
	}
	t.head = append(t.head, "busy")
	perRequest := func(s score) float64 { return float64(s.CPU) / float64(s.Requests) / 1000 }
	pause := func(s score) float64 { return float64(s.Requests) / s.Elapsed.Seconds() }
	for _, c := range r.contenders {
		row := []string{c.name}
		for _, d := range loopbackDemands {
			at := cell{c, "loopback " + d, 1}
			s, ok := r.ratio(at, bare, pause)
			if !ok {
				continue
			}
			cpu, _ := r.at(at, perRequest)
			row = append(row, fmt.Sprintf("%.2f (%.2f–%.2f)", s.median, s.least, s.most), fmt.Sprintf("%.1f (%.1f–%.1f)", cpu.median, cpu.least, cpu.most))
		}
		if len(row) == 1 {
			continue
		}
		busy, _ := r.at(cell{c, "loopback one", 1}, func(s score) float64 { return float64(s.CPU) / float64(s.Elapsed) })
		t.row(append(row, fmt.Sprintf("%.2f", busy.median))...)
	}
	t.write(b)
}

// properties writes what the contenders do, as their answers show, and what they lack.
func (r *results) properties(b *strings.Builder) {
	b.WriteString("\n### What each does, and lacks\n\n" +
		"The rate fields, Retry-After and the type of a 429 come from responses of this run, with a limit of one request in 10,000 hours.\n\n")
	t := table{head: []string{"", "limit", "rate fields", "Retry-After", "type of a 429", "lacks"}}
	for _, c := range r.contenders {
		f := r.facts[c]
		fields := slices.Sorted(slices.Values(f.Fields))
		t.row(c.name, cmp.Or(c.limit, "none"), cmp.Or(strings.Join(fields, ", "), "none"), cmp.Or(f.RetryAfter, "none"), cmp.Or(f.Type, "none"), c.lacks)
	}
	t.write(b)
}

// versions writes the versions of the measured modules.
func (r *results) versions(b *strings.Builder) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return
	}
	var used []string
	for _, c := range r.contenders {
		used = append(used, c.modules...)
	}
	var list []string
	for _, m := range info.Deps {
		if slices.Contains(used, m.Path) {
			list = append(list, m.Path+" "+m.Version)
		}
	}
	if len(list) > 0 {
		fmt.Fprintf(b, "\nVersions: %s.\n", strings.Join(list, ", "))
	}
}
