// Command soak runs three instances of a service on one PostgreSQL and one Redis, and
// checks every answer that they give against a model. Clients send good, revoked and bad
// keys, keys change all the time, and the servers die and come back.
//
//	go run . [-for 30m] [-rate 300] [-every 5m] [-bound 3s] [-ttl 10s]
//
// It prints tables and exits with status 1 if an answer is wrong, memory grows, or a
// fault did not happen. The servers are its own, and all traffic stays on 127.0.0.1.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/internal/testservers/redistest"
)

func main() {
	log.SetFlags(log.Ltime)
	if given := os.Getenv(instanceEnv); given != "" {
		if err := runInstance(given); err != nil {
			log.Fatal(err)
		}
		return
	}
	var o options
	flag.DurationVar(&o.length, "for", 30*time.Minute, "length of the load")
	flag.IntVar(&o.rate, "rate", 300, "requests a second")
	flag.DurationVar(&o.every, "every", 5*time.Minute, "time between two faults of a server")
	flag.DurationVar(&o.bound, "bound", 3*time.Second, "time in which an instance learns of a change, and recovers after PostgreSQL is back")
	flag.DurationVar(&o.ttl, "ttl", 10*time.Second, "TTL of the caches; every other outage of PostgreSQL lasts a fifteenth of -every")
	flag.Parse()
	o.judgeMemory = true
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := soak(ctx, o); err != nil {
		stop()
		log.Fatal(err)
	}
}

// soak runs the soak on its own servers and prints what happened.
func soak(ctx context.Context, o options) (err error) {
	postgres, err := pgtest.Run()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, postgres.Remove()) }()
	redis, err := redistest.Run()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, redis.Remove()) }()
	r, err := run(ctx, o, servers{postgres: postgres, postgresURL: pgtest.URLAt(postgres.Addr()), redis: redis})
	if err != nil {
		return err
	}
	r.print(os.Stdout)
	return r.verdict()
}
