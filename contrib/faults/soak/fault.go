package main

import (
	"context"
	"fmt"
	"time"

	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/internal/testservers/redistest"
)

// servers are what the instances share.
type servers struct {
	postgres    *pgtest.Server
	postgresURL string
	redis       *redistest.Server
}

// A fault is something that happens to a server, and what it caused.
type fault struct {
	what   string
	span   span
	seen   int           // answers 503 of a PostgreSQL that is down, instances on their own without Redis
	behind time.Duration // from its end to the last 503, or until all instances use Redis again
}

// schedule injects faults until ctx ends, one server after the other. The last one ends
// before the load does.
func (s *soaker) schedule(ctx context.Context) error {
	every := s.options.every
	start := time.Now()
	for n := 0; ; n++ {
		// PostgreSQL at a quarter, Redis at three quarters of each period.
		at := start.Add(every*time.Duration(n/2) + every*time.Duration(1+n%2*2)/4)
		if at.Add(every / 4).After(start.Add(s.options.length)) {
			return nil
		}
		sleep(ctx, time.Until(at))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		inject := s.breakPostgres
		if n%2 == 1 {
			inject = s.breakRedis
		}
		f, err := inject(ctx, n/2)
		if err != nil {
			return fmt.Errorf("inject a fault: %w", err)
		}
		s.faults = append(s.faults, f)
	}
}

// breakPostgres stops or kills PostgreSQL. Every other time it stays down for longer than
// the caches remember.
func (s *soaker) breakPostgres(ctx context.Context, n int) (fault, error) {
	f, end, down := fault{what: "PostgreSQL stopped"}, s.servers.postgres.Stop, s.options.every/15
	if n%2 == 1 {
		f.what, end, down = "PostgreSQL killed", s.servers.postgres.Kill, s.options.every/150
	}
	before := s.counts.unavailable.Load()
	over := s.promises.postgres.begin()
	f.span.From = time.Now()
	if err := end(); err != nil {
		return f, err
	}
	sleep(ctx, down)
	s.await(ctx, func() bool { return s.counts.unavailable.Load() > before })
	if err := s.servers.postgres.Start(); err != nil {
		return f, err
	}
	over()
	f.span.To = time.Now()
	sleep(ctx, s.promises.bound)
	f.seen = int(s.counts.unavailable.Load() - before)
	f.behind = max(s.counts.lastUnavailable().Sub(f.span.To), 0)
	return f, nil
}

// breakRedis kills Redis, which then comes back empty, or makes it hang.
func (s *soaker) breakRedis(ctx context.Context, n int) (f fault, err error) {
	over := s.redis.begin()
	f.span.From = time.Now()
	resume := s.servers.redis.Resume
	if n%2 == 1 {
		f.what = "Redis hung"
		err = s.servers.redis.Pause()
	} else {
		f.what = "Redis killed"
		resume = s.servers.redis.Start
		err = s.servers.redis.Kill()
		s.lose()
	}
	if err != nil {
		return f, err
	}
	sleep(ctx, max(s.options.every/60, 3*time.Second)) // the busy senders spend another burst
	s.await(ctx, func() bool { f.seen = s.onTheirOwn(ctx); return f.seen == instances })
	if err := resume(); err != nil {
		return f, err
	}
	f.span.To = time.Now()
	s.await(ctx, func() bool { return s.onTheirOwn(ctx) == 0 })
	f.behind = time.Since(f.span.To)
	over()
	return f, nil
}

// onTheirOwn returns how many instances do not call Redis.
func (s *soaker) onTheirOwn(ctx context.Context) (n int) {
	for _, state := range s.poll(ctx) {
		if state.Fallback {
			n++
		}
	}
	return n
}

// await waits until f returns true, but at most 20 seconds.
func (s *soaker) await(ctx context.Context, f func() bool) {
	for end := time.Now().Add(20 * time.Second); !f() && time.Now().Before(end) && ctx.Err() == nil; {
		sleep(ctx, 10*time.Millisecond)
	}
}
