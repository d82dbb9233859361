package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
)

func writeHeader(w io.Writer) {
	fmt.Fprint(w, "| Scenario | Load held | Faults injected | Wrong answers | Lost | Memory | Goroutines |\n|---|---|---|--:|---|--:|--:|\n")
}

func writeRow(w io.Writer, s scenario, o options, r result) {
	name := s.id + " " + s.name
	if o.delay > 0 {
		name += fmt.Sprintf(", servers %v away", o.delay)
	}
	fmt.Fprintf(w, "| %s | %s | %s | %d of %d | %s | +%.0f MiB | +%d |\n", name, r.load, strings.Join(r.faults, "; "),
		r.wrong, r.requests, cmp.Or(strings.Join(r.lost, "; "), "nothing"), float64(r.memory)/(1<<20), r.goroutines)
}
