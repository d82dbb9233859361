// Command faults breaks what a guard depends on while clients send requests, and counts
// what the clients see. It starts its own PostgreSQL and Redis servers, and all traffic
// stays on 127.0.0.1.
//
//	go run . [-run PATTERN] [-delay 25ms] [-short] [-v]
//
// It prints a table with a row for each scenario, and exits with status 1 if a promise is
// broken or a fault did not happen.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"time"
)

func main() {
	log.SetFlags(0)
	if runAsInstance() {
		return
	}
	pattern := flag.String("run", "", "run only the scenarios whose ID or name matches this `pattern`")
	delay := flag.Duration("delay", 0, "delay what PostgreSQL and Redis are sent, and what they answer, by this much; run only the scenarios that need one of them")
	short := flag.Bool("short", false, "run the short form, as the test of this module does: it judges no times")
	verbose := flag.Bool("v", false, "say what happens during the scenarios")
	flag.Parse()
	wanted, err := regexp.Compile(*pattern)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if !run(ctx, os.Stdout, wanted, options{long: !*short, delay: *delay, verbose: *verbose}) {
		stop()
		os.Exit(1)
	}
}

// all returns the scenarios in the order of their IDs.
func all() []scenario {
	return slices.Concat(storeScenarios, postgresScenarios, redisScenarios, clockScenarios, revocationScenarios, floodScenarios, quotaScenarios, connectionScenarios, lifecycleScenarios)
}

// run runs the wanted scenarios one after the other and reports whether all promises
// were kept.
func run(ctx context.Context, w io.Writer, wanted *regexp.Regexp, o options) bool {
	writeHeader(w)
	var broken []string
	for _, s := range all() {
		if !wanted.MatchString(s.id+" "+s.name) || o.delay > 0 && !s.server {
			continue
		}
		began := time.Now()
		r := s.try(ctx, o)
		writeRow(w, s, o, r)
		if o.verbose {
			log.Printf("%s took %v", s.id, time.Since(began).Round(time.Millisecond))
		}
		for _, b := range r.broken {
			broken = append(broken, fmt.Sprintf("%s: %s (the process stood still for up to %v)", s.id, b, r.stalled.Round(time.Millisecond)))
		}
		if ctx.Err() != nil {
			broken = append(broken, ctx.Err().Error())
			break
		}
	}
	for _, b := range broken {
		fmt.Fprintf(w, "\nBROKEN %s\n", b)
	}
	return len(broken) == 0
}
