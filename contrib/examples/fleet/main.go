// Command fleet shows three instances of a service that share keys and limits. It starts
// them with a PostgreSQL and a Redis of their own, from the installed programs, and sends
// requests. Then it revokes a key, kills Redis and brings it back, and tells what the
// clients saw. All traffic stays on 127.0.0.1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
	"golang.org/x/term"
)

func main() {
	if _, ok := os.LookupEnv(instanceVariable); ok {
		serveInstance()
		return
	}
	flags := flag.NewFlagSet("fleet", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	once := flags.Bool("once", false, "play one round and exit; without it, rounds follow each other until Ctrl-C")
	err := flags.Parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		flags.SetOutput(os.Stdout)
		flags.Usage()
		return
	}
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		err = run(ctx, os.Stdout, term.IsTerminal(int(os.Stdout.Fd())), *once)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

// run plays rounds until ctx ends, or one, and returns the promises that were broken.
func run(ctx context.Context, w io.Writer, live, once bool) (err error) {
	s, err := startServers(ctx)
	defer func() { err = errors.Join(err, s.close()) }()
	if err != nil {
		return err
	}
	screen := newScreen(w, live, s.instances)
	screen.say("PostgreSQL on %s keeps the keys, Redis on %s the limits", s.postgres.Addr(), s.redis.Addr())
	for _, i := range s.instances {
		screen.say("%s serves on %s", i.name, i.addr)
	}
	keys, err := issue(ctx, s.store)
	if err != nil {
		return err
	}
	load := startLoad(ctx, s.instances, keys)
	screen.say("%d senders below their limit and one above it send %d requests a second", len(keys.steady), perSecond)
	stopDrawing := screen.draw()

	r := round{servers: s, screen: screen}
	for err == nil && ctx.Err() == nil {
		if err = r.play(ctx); once {
			break
		}
	}
	took := load.stop()
	stopDrawing()
	if errors.Is(err, context.Canceled) {
		err = nil // Ctrl-C
	}
	return errors.Join(err, summarize(screen, s.instances, load.greedy.Load(), took, r.restarts))
}

// A round revokes a key, kills Redis and brings it back.
type round struct {
	*servers
	screen   *screen
	restarts int // of Redis so far
}

func (r *round) play(ctx context.Context) error {
	issued, err := r.store.Issue(ctx, sqlkeys.NewKey{SenderID: r.admin.ID, Name: "to be revoked"})
	if err != nil {
		return err
	}
	steps := []func() error{
		func() error { return r.revoke(ctx, issued) },
		func() error { return r.killRedis(ctx) },
		func() error { return r.startRedis(ctx) },
	}
	for _, step := range steps {
		if err := pause(ctx, 2*time.Second); err != nil {
			return err
		}
		if err := step(); err != nil {
			return err
		}
	}
	return pause(ctx, 2*time.Second)
}

func (r *round) killRedis(ctx context.Context) error {
	killed := time.Now()
	if err := r.redis.Kill(); err != nil {
		return err
	}
	r.screen.say("Redis is killed")
	for _, i := range r.instances {
		at, err := i.logged(ctx, "limits are not shared: Redis is unreachable")
		if err != nil {
			return err
		}
		r.screen.say("  %s enforces its third of each limit %v later", i.name, milliseconds(at.Sub(killed)))
	}
	return nil
}

func (r *round) startRedis(ctx context.Context) error {
	r.restarts++
	if err := r.redis.Start(); err != nil {
		return err
	}
	started := time.Now()
	r.screen.say("Redis is back, empty")
	for _, i := range r.instances {
		at, err := i.logged(ctx, "limits are shared again")
		if err != nil {
			return err
		}
		r.screen.say("  %s uses it %v later", i.name, milliseconds(max(0, at.Sub(started))))
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func milliseconds(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
