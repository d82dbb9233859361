// Command timing tells whether the time of a refusal depends on a secret: on how much of
// a presented key is right, or on whether the sender in the request exists.
//
//	go run ./timing [-samples 1000000] [-slow 100000] [-run PATTERN]
//
// For each question it sends requests of two classes in random order and compares their
// times with Welch's t-test, after dudect (Reparaz, Balasch and Verbauwhede, 2017). It
// prints a table with a row for each question and each part that answers, and exits with
// status 1 if a row has |t| of 4.5 or more, or medians that differ by more than 1 µs. Pin
// it to one processor for less noise.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"regexp"
)

func main() {
	log.SetFlags(0)
	samples := flag.Int("samples", 1_000_000, "samples of each class, in process")
	slow := flag.Int("slow", 100_000, "samples of each class with a database, or over TCP on 127.0.0.1")
	pattern := flag.String("run", "", "measure only the rows that match this `pattern`")
	flag.Parse()
	wanted, err := regexp.Compile(*pattern)
	if err != nil {
		log.Fatal(err)
	}
	kept, err := run(os.Stdout, wanted, *samples, *slow)
	if err != nil {
		log.Fatal(err)
	}
	if !kept {
		os.Exit(1)
	}
}

// run measures every wanted row, prints it, and reports whether no row shows a difference.
func run(w io.Writer, wanted *regexp.Regexp, samples, slow int) (kept bool, err error) {
	fmt.Fprint(w, "| Classes | Decided by | Samples of each | Medians | Difference of medians | largest abs(t), of the fastest |\n|---|---|--:|--:|--:|--:|\n")
	kept = true
	for _, q := range questions {
		for _, p := range paths {
			if !wanted.MatchString(q.name + ", " + p.name) {
				continue
			}
			n := samples
			if p.slow {
				n = slow
			}
			times, err := p.measure(q, n)
			if err != nil {
				return false, fmt.Errorf("%s, %s: %w", q.name, p.name, err)
			}
			c := times.compare()
			kept = kept && !c.differs()
			fmt.Fprintf(w, "| %s | %s | %d | %v, %v | %v | %.2f, %s |\n", q.name, p.name, n, c.medians[0], c.medians[1], c.difference(), c.t, share(c.crop))
		}
	}
	return kept, nil
}
