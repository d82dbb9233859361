// Command benchmarks compares the cost of a request with senderauth, with the libraries
// that Go services use instead, and with code written by hand.
//
//	go -C contrib run ./benchmarks
//
// Its README explains what is measured and how, and has the results of the last run with
// -write.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"regexp"
	"runtime"
	"time"
)

// options are the values of the flags.
type options struct {
	rounds int
	turn   time.Duration // minimum length of a turn in process
	load   time.Duration // length of a turn over loopback
	only   *regexp.Regexp
	write  bool
}

func main() {
	log.SetFlags(0)
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "number of rounds; each figure is the median of one value per round")
	flag.DurationVar(&o.turn, "turn", 150*time.Millisecond, "minimum time of each contender for each scenario of a round")
	flag.DurationVar(&o.load, "load", 700*time.Millisecond, "time of each contender for each demand of a round over loopback; 0 skips loopback")
	short := flag.Bool("short", false, "finish in less than two minutes: -rounds 2 -turn 40ms -load 300ms")
	only := flag.String("only", "", "run only contenders whose ID matches this regular expression")
	flag.BoolVar(&o.write, "write", false, "write the tables and charts into the README")
	worker := flag.String("worker", "", "internal: take turns of this contender")
	server := flag.String("server", "", "internal: serve this contender")
	load := flag.Bool("loader", false, "internal: send requests to servers")
	flag.Parse()
	if *short {
		o.rounds, o.turn, o.load = 2, 40*time.Millisecond, 300*time.Millisecond
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		log.Fatal(err)
	}
	switch {
	case *worker != "":
		err = work(*worker)
	case *server != "":
		err = serve(*server)
	case *load:
		err = loadServers()
	default:
		err = compare(o)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// compare measures all contenders and prints the report.
func compare(o options) error {
	began := time.Now()
	var chosen []*contender
	for _, c := range contenders() {
		if o.only.MatchString(c.id) {
			chosen = append(chosen, c)
		}
	}
	if len(chosen) == 0 {
		return errors.New("-only matches no contender")
	}
	if o.rounds < 1 {
		return errors.New("-rounds is below 1")
	}
	r := newResults(chosen)
	if err := r.inProcess(o); err != nil {
		return err
	}
	if o.load > 0 {
		if err := r.endToEnd(o); err != nil {
			return err
		}
	}
	r.took, r.options = time.Since(began), o
	report := r.markdown()
	fmt.Print(report)
	if !o.write {
		return nil
	}
	return r.publish(report)
}

func find(id string) (*contender, error) {
	for _, c := range contenders() {
		if c.id == id {
			return c, nil
		}
	}
	return nil, fmt.Errorf("no contender is called %q", id)
}

// work runs the role of a worker.
func work(id string) error {
	c, err := find(id)
	if err != nil {
		return err
	}
	w, err := newWorker(c, senders)
	if err != nil {
		return err
	}
	if err := tell(w.facts); err != nil {
		return err
	}
	return answer(w.take)
}

// inProcess lets all workers take their turns, in a different order in each round.
func (r *results) inProcess(o options) error {
	workers := make(map[*contender]*process)
	defer func() {
		for _, w := range workers {
			w.stop()
		}
	}()
	for _, c := range r.contenders {
		w, err := start(anywhere, "-worker", c.id)
		if err != nil {
			return err
		}
		workers[c] = w
		var f facts
		if err := w.decoder.Decode(&f); err != nil {
			return fmt.Errorf("%s: %w", c.id, err)
		}
		r.facts[c] = f
	}
	for round := range o.rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d in process\n", round+1, o.rounds)
		for _, t := range shuffled(turns(o.turn)) {
			for _, c := range shuffled(r.contenders) {
				if !c.meets(t) {
					continue
				}
				var s score
				if err := workers[c].ask(t, &s); err != nil {
					return fmt.Errorf("%s, %s: %w", c.id, t.Scenario, err)
				}
				r.add(c, t, s)
			}
		}
	}
	return nil
}

// processors are the values of GOMAXPROCS that turns use.
var processors = []int{1, 2, 8, 32}

// turns returns the turns of a round.
func turns(least time.Duration) (all []turn) {
	for _, demand := range demandNames {
		for _, n := range processors {
			all = append(all, turn{Scenario: demand, Processors: n, Least: least})
		}
	}
	for _, refusal := range refusalNames {
		all = append(all, turn{Scenario: refusal, Processors: 1, Least: least / 2})
	}
	return all
}

var (
	demandNames  = []string{"one", "zipf", "uniform"}
	refusalNames = []string{"no key", "bad key", "limited"}
)

// meets reports whether c has what the turn measures.
func (c *contender) meets(t turn) bool {
	switch t.Scenario {
	case "limited":
		return c.limit != ""
	case "no key", "bad key":
		return c.kind != floor
	}
	return true
}

// machine describes the machine that produced the figures.
func machine() string {
	model := "an unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := regexp.MustCompile(`(?m)^model name\s*:\s*(.+)$`).FindSubmatch(text); m != nil {
			model = string(m[1])
		}
	}
	return fmt.Sprintf("%d cores of %s, %s %s/%s", runtime.NumCPU(), model, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
