// Package redislimit is the [senderauth.Limiter] that all instances of a
// service share, on Redis 7 or Valkey: single, behind Sentinel, or a Cluster.
//
//	client := redis.NewClient(&redis.Options{Addr: "localhost:6379", ContextTimeoutEnabled: true})
//	limiter, err := redislimit.New(client, redislimit.Config{Instances: 3})
//	defer limiter.Close()
//	guard, err := senderauth.New(keys, senderauth.Config{Limits: limits, Limiter: limiter})
//
// Each decision is one script call, for all charges of a request. Over any T
// seconds the whole fleet admits at most Burst + T x Requests/Per requests, by
// the clock of Redis.
//
// While Redis is away an instance decides by itself, with its share of each
// limit, and returns to Redis when that is back. Each such change lets a sender
// have at most one burst more.
package redislimit

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
)

// Config configures [New]. Only Instances is required.
type Config struct {
	_ [0]func()

	// Instances is how many processes share the limits: while Redis is away,
	// each of them admits that part of them. It is not needed with
	// CountInstances or FailClosed.
	Instances int
	// CountInstances is asked instead, at each decision that is made without
	// Redis. It must not block; what is below 1 counts as 1.
	CountInstances func() int

	// Lease turns lease mode on: an instance takes tokens from Redis ahead of
	// need and serves from memory, the more the faster a sender is, and none
	// for a slow one. Leased tokens lapse after this time, or after a quarter
	// of the time that fills the bucket where that is less. 100 milliseconds
	// is good; 0: exact mode. The fleet never admits more than in exact mode;
	// it admits less by what instances hold of a sender that others ask for.
	Lease time.Duration

	// Timeout is how long a decision waits for Redis, or up to a tenth less. In
	// lease mode one may wait for a call of the same sender first, that comes
	// back in time, and then for its own. 0: 50 milliseconds.
	Timeout time.Duration
	// Failures in a row after which Redis is not asked any more. 0: 5.
	Failures int
	// ProbeEvery is how often Redis is tried while it is not asked. 0: 250
	// milliseconds.
	ProbeEvery time.Duration
	// FailClosed returns ErrUnavailable where Redis cannot be asked, instead
	// of deciding without it. The guard's own FailClosed then makes it a 503.
	FailClosed bool
	// OnMode is told when the instance stops asking Redis, with the error that
	// was the last straw, and when it asks again. It must neither block nor
	// call the limiter. Nil: nobody is told.
	OnMode func(m Mode, err error)

	// Prefix starts each key in Redis: {Prefix:v1:sender}:name. "": senderauth.
	Prefix string
}

// A Mode is how an instance decides.
type Mode string

const (
	Shared Mode = "shared" // by Redis
	Away   Mode = "away"   // without: by the instance's share of each limit, or not at all with FailClosed
)

// ErrUnavailable is what an error of [Limiter.Take] is where Redis could not be
// asked and Config.FailClosed is set.
var ErrUnavailable = errors.New("redislimit: Redis is not available")

// A Limiter is the [senderauth.Limiter] on Redis. It is safe for concurrent
// use.
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
	leases     *leases // nil: exact mode
	parts      []part  // of the key space; one but for a Cluster

	mu     sync.Mutex
	away   int // parts
	closed bool
	stop   chan struct{}
	ours   sync.WaitGroup // goroutines
}

// New returns a limiter that keeps its buckets where client says. It does not
// connect: a service starts without Redis, too. The client stays the caller's
// to close, after [Limiter.Close].
//
// The client must have ContextTimeoutEnabled, or a decision could take its
// ReadTimeout of seconds. Its MaxRetries does not matter. Every mistake in cfg
// is reported at once.
func New(client redis.UniversalClient, cfg Config) (*Limiter, error) {
	var errs []error
	report := func(format string, args ...any) { errs = append(errs, fmt.Errorf("redislimit: "+format, args...)) }

	parts, timeouts := 1, true
	if v := reflect.ValueOf(client); !v.IsValid() {
		report("New: the client is nil")
	} else if v.Kind() == reflect.Pointer && v.IsNil() {
		report("New: the client is a nil %T", client)
	} else {
		switch c := client.(type) {
		case *redis.Client:
			timeouts = c.Options().ContextTimeoutEnabled
		case *redis.ClusterClient:
			timeouts = c.Options().ContextTimeoutEnabled
			parts = clusterParts
		case *redis.Ring:
			timeouts = c.Options().ContextTimeoutEnabled
		}
	}
	if !timeouts {
		report("New: the client's ContextTimeoutEnabled is false: a call could take its ReadTimeout")
	}
	if cfg.Instances < 1 && cfg.CountInstances == nil && !cfg.FailClosed || cfg.Instances < 0 {
		report("Config.Instances is %d: how many processes share the limits?", cfg.Instances)
	}
	if cfg.Instances > 0 && cfg.CountInstances != nil {
		report("Config.Instances and Config.CountInstances are both set")
	}
	for field, d := range map[string]time.Duration{"Timeout": cfg.Timeout, "ProbeEvery": cfg.ProbeEvery, "Lease": cfg.Lease} {
		if d < 0 {
			report("Config.%s %v is below 0", field, d)
		}
	}
	if cfg.Failures < 0 || cfg.Failures > math.MaxInt32 {
		report("Config.Failures %d is not in 0..%d", cfg.Failures, math.MaxInt32)
	}
	if strings.ContainsAny(cfg.Prefix, "{}") {
		report("Config.Prefix %q has a brace, which marks the part of a key that chooses the slot of a Cluster", cfg.Prefix)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}

	l := &Limiter{
		client:     client,
		head:       "{" + cmp.Or(cfg.Prefix, "senderauth") + ":v1:",
		timeout:    cmp.Or(cfg.Timeout, 50*time.Millisecond),
		deadlines:  deadlines{timeout: cmp.Or(cfg.Timeout, 50*time.Millisecond)},
		failClosed: cfg.FailClosed,
		instances:  cfg.CountInstances,
		onMode:     cfg.OnMode,
		local:      senderauth.NewMemoryLimiter(senderauth.MemoryLimiterConfig{}),
		parts:      make([]part, parts),
		stop:       make(chan struct{}),
	}
	if l.instances == nil {
		l.instances = func() int { return cfg.Instances }
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
		l.leases = newLeases(cfg.Lease)
		l.spawn(l.tend)
	}
	return l, nil
}

// spawn runs f on a goroutine that Close waits for, unless that was called.
func (l *Limiter) spawn(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.ours.Go(f)
	}
	return !l.closed
}

// change counts the parts that are away: the mode changes with the first and
// with the last of them.
func (l *Limiter) change(open bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock() // events do not overtake one another
	was := l.away
	if open {
		l.away++
	} else {
		l.away--
	}
	switch {
	case l.onMode == nil:
	case was == 0:
		l.onMode(Away, err)
	case l.away == 0:
		l.onMode(Shared, nil)
	}
}

// Close ends what the limiter runs in the background. A Take after it fails.
// It returns nil, also the second time.
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
