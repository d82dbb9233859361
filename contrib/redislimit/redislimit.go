// Package redislimit implements the [senderauth.Limiter] that all instances of a
// service share, on Redis 7 or Valkey: a single server, Sentinel, or a Cluster.
//
//	client := redis.NewClient(&redis.Options{Addr: "localhost:6379", ContextTimeoutEnabled: true})
//	limiter, err := redislimit.New(client, redislimit.Config{Instances: 3})
//	defer limiter.Close()
//	guard, err := senderauth.New(keys, senderauth.Config{Limits: limits, Limiter: limiter})
//
// Each decision is one script call for all charges of a request. Over any T
// seconds the whole fleet admits at most Burst + T x Requests/Per requests, by
// the clock of Redis. An allowance of a day or month is never exceeded, and the clock of
// Redis says which one it is.
//
// While Redis is unreachable, each instance decides locally by its share of each
// limit. It returns to Redis as soon as Redis answers again. A local bucket starts
// from what Redis last said, and Redis learns what was admitted locally.
package redislimit

import (
	"cmp"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
)

// ErrUnavailable is the error of [Limiter.Take] if Redis could not decide and
// Config.FailClosed is set.
var ErrUnavailable = errors.New("redislimit: Redis is not available")

// A Limiter is the [senderauth.Limiter] on Redis. It is safe for concurrent use.
type Limiter struct {
	client     redis.UniversalClient
	head       string // of each key, up to the sender
	timeout    time.Duration
	failClosed bool
	instances  func() int
	onMode     func(Mode, error)
	scales     scales
	deadlines  deadlines
	local      *senderauth.MemoryLimiter
	ledger     *ledger   // nil if the limiter never decides locally
	leases     *leaseMap // nil in exact mode
	parts      []part    // of the key space; one except for a Cluster

	inspected atomic.Bool // for eviction, since the limiter last connected

	mu     sync.Mutex
	open   int  // breakers
	evicts bool // Redis, as OnMode was told
	closed bool
	stop   chan struct{}
	ours   sync.WaitGroup // goroutines
}

// New returns a limiter that keeps its buckets on the Redis of client. It does
// not connect, so a service also starts while Redis is down. New reports every
// mistake in cfg at once. Close the client after [Limiter.Close].
//
// The client must have ContextTimeoutEnabled. Otherwise a decision could take the
// client's ReadTimeout of seconds. The client's MaxRetries does not matter.
func New(client redis.UniversalClient, cfg Config) (*Limiter, error) {
	if err := validate(client, &cfg); err != nil {
		return nil, err
	}
	timeout := cmp.Or(cfg.Timeout, 50*time.Millisecond)
	l := &Limiter{
		client:     client,
		head:       keyHead(cfg.Prefix),
		timeout:    timeout,
		failClosed: cfg.FailClosed,
		instances:  cfg.CountInstances,
		onMode:     cfg.OnMode,
		scales:     scales{lease: cfg.Lease},
		deadlines:  deadlines{timeout: timeout},
		local:      senderauth.NewMemoryLimiter(senderauth.MemoryLimiterConfig{}),
		parts:      make([]part, 1),
		stop:       make(chan struct{}),
	}
	if !cfg.FailClosed {
		l.ledger = newLedger()
	}
	if l.instances == nil {
		l.instances = func() int { return cfg.Instances }
	}
	if _, ok := client.(*redis.ClusterClient); ok {
		l.parts = make([]part, clusterParts)
	}
	for i := range l.parts {
		l.parts[i].client = client
		l.parts[i].breaker = breaker{
			after:  int32(cmp.Or(cfg.Failures, 5)),
			every:  cmp.Or(cfg.ProbeEvery, 250*time.Millisecond),
			stop:   l.stop,
			spawn:  l.spawn,
			change: l.change,
		}
	}
	if cfg.Lease > 0 {
		l.leases = newLeaseMap()
		l.spawn(func() { l.tend(max(cfg.Lease/10, 2*time.Millisecond)) })
	}
	return l, nil
}

// spawn runs f on a goroutine that Close waits for. After Close it does not run f and
// returns false.
func (l *Limiter) spawn(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.ours.Go(f)
	}
	return !l.closed
}

// Close ends the limiter's goroutines. Afterwards Take fails. While Redis hangs, Close may
// wait for an attempt to connect, which takes up to ten times Config.Timeout. Close always
// returns nil.
func (l *Limiter) Close() error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.stop)
	}
	l.mu.Unlock()
	l.ours.Wait()
	return nil
}
