// Command benchmarks measures decisions on a Redis, side by side with other limiters
// on Redis: decisions per second, p50 and p99, and commands per decision.
//
//	go run . -redis redis://localhost:6379 -for 3s
//
// It writes keys that expire.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"regexp"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

var ctx = context.Background()

func main() {
	url := flag.String("redis", "redis://localhost:6379", "the Redis to measure with")
	each := flag.Duration("for", 3*time.Second, "time for each row and number of callers")
	rounds := flag.Int("rounds", 1, "number of rounds; the best round of each row is printed")
	only := flag.String("only", "", "measure only rows whose name matches this regular expression")
	flag.Parse()
	if err := run(*url, *each, *rounds, *only); err != nil {
		log.Fatal(err)
	}
}

func run(url string, each time.Duration, rounds int, only string) error {
	names, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	o, err := redis.ParseURL(url)
	if err != nil {
		return err
	}
	o.ContextTimeoutEnabled = true
	o.PoolSize = 64
	client := redis.NewClient(o)
	defer client.Close()
	var commands counter
	client.AddHook(&commands)
	if err := client.Ping(ctx).Err(); err != nil {
		return err
	}
	rows, closeRows, err := newRows(client)
	if err != nil {
		return err
	}
	defer closeRows()
	rows = slices.DeleteFunc(rows, func(r row) bool { return !names.MatchString(r.name) })

	fmt.Printf("%-36s %8s %12s %10s %10s %12s\n", "", "callers", "decisions/s", "p50", "p99", "commands/dec")
	for _, callers := range []int{1, 16, 64} {
		best, err := bestRounds(rows, rounds, func(f func(int) error) (result, error) {
			return measure(&commands, callers, each, f)
		})
		if err != nil {
			return err
		}
		for i, row := range rows {
			if r := best[i]; r.perSecond > 0 {
				fmt.Printf("%-36s %8d %12.0f %10v %10v %12.4f\n", row.name, callers, r.perSecond, r.p50, r.p99, r.commands)
			}
		}
	}
	return nil
}

// bestRounds measures every row in each round and returns the best result of each row.
func bestRounds(rows []row, rounds int, measure func(func(int) error) (result, error)) ([]result, error) {
	best := make([]result, len(rows))
	for range rounds {
		for i, row := range rows {
			r, err := measure(row.decide)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", row.name, err)
			}
			if r.perSecond > best[i].perSecond {
				best[i] = r
			}
		}
	}
	return best, nil
}
