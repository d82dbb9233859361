package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// A config is what an instance consists of. An instance in a process of its own gets it
// as JSON.
type config struct {
	Postgres     string        // URL of the keys
	Connections  int           // most connections to PostgreSQL; zero means 16
	Watch        bool          // follow the changes of the keys
	Redis        string        // host:port of the shared limits; empty means limits of its own
	Instances    int           // how many share Redis
	Lease        time.Duration // of redislimit.Config
	RedisTimeout time.Duration // of a decision in Redis
	FailClosed   bool          // for all limiters
	TTL          time.Duration // of senderauth.CacheConfig, as those below
	RejectedTTL  time.Duration
	StaleTTL     time.Duration
	Timeout      time.Duration // LookupTimeout
	MaxLookups   int
	Entries      int
	Limit        senderauth.Limit // "default"; zero means no limit

	Validator senderauth.Validator                            `json:"-"` // instead of Postgres
	Around    func(senderauth.Validator) senderauth.Validator `json:"-"` // wraps the validator
	Handler   http.Handler                                    `json:"-"` // behind the guard; nil answers 200
	Logger    *slog.Logger                                    `json:"-"` // of the events; nil discards them
}

// An instance is a server with a guard and all that the guard depends on.
type instance struct {
	url     string
	cache   *senderauth.Cache
	db      *sql.DB        // nil without Postgres
	store   *sqlkeys.Store // nil without Postgres
	limiter senderauth.Limiter
	guard   *senderauth.Guard
	server  *http.Server
	feed    feed

	served  atomic.Int64 // calls of the handler
	charged atomic.Int64 // calls of the limiter

	mu     sync.Mutex
	modes  []modeChange
	events map[senderauth.Outcome]int
	closes []func() error // in the order in which the parts were opened
}

// start starts an instance that ends with the scenario.
func (e *env) start(cfg config) *instance {
	i, err := newInstance(e, cfg)
	e.check(err)
	e.cleanup(i.close)
	if cfg.Watch {
		e.until("the instance follows the changes", func() bool { return i.feed.purges.Load() > 0 })
	}
	return i
}

func newInstance(ctx context.Context, cfg config) (i *instance, err error) {
	i = &instance{events: map[senderauth.Outcome]int{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, i.close())
		}
	}()
	v := cfg.Validator
	if cfg.Postgres != "" {
		if err := i.openStore(ctx, cfg); err != nil {
			return i, err
		}
		v = i.store
	}
	if cfg.Around != nil {
		v = cfg.Around(v)
	}
	i.cache, err = senderauth.NewCache(v, senderauth.CacheConfig{TTL: cfg.TTL, RejectedTTL: cfg.RejectedTTL, StaleTTL: cfg.StaleTTL,
		LookupTimeout: cfg.Timeout, MaxLookups: cfg.MaxLookups, Entries: cfg.Entries})
	if err != nil {
		return i, err
	}
	if cfg.Watch {
		i.watch()
	}
	if err := i.openLimiter(cfg); err != nil {
		return i, err
	}
	limit := senderauth.Unlimited()
	if cfg.Limit != (senderauth.Limit{}) {
		limit = cfg.Limit
	}
	observe := senderauth.Observers(i.observe)
	if cfg.Logger != nil {
		observe = senderauth.Observers(i.observe, senderauth.LogEvents(cfg.Logger, nil))
	}
	i.guard, err = senderauth.New(i.cache, senderauth.Config{
		Limits: map[string]senderauth.Limit{"default": limit}, Limiter: countingLimiter{i}, FailClosed: cfg.FailClosed, Observe: observe,
	})
	if err != nil {
		return i, err
	}
	return i, i.serve(cfg.Handler)
}

func (i *instance) openStore(ctx context.Context, cfg config) (err error) {
	if i.db, err = sqlkeys.OpenDB(cfg.Postgres); err != nil {
		return err
	}
	i.closes = append(i.closes, i.db.Close)
	i.db.SetMaxOpenConns(cmp.Or(cfg.Connections, 16))
	if i.store, err = sqlkeys.Open(ctx, i.db, sqlkeys.Config{}); err != nil {
		return err
	}
	i.closes = append(i.closes, i.store.Close)
	return nil
}

func (i *instance) watch() {
	i.feed.Forgetter = i.cache
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- i.store.Watch(ctx, &i.feed) }()
	i.closes = append(i.closes, func() error {
		cancel()
		return <-ended
	})
}

func (i *instance) openLimiter(cfg config) error {
	if cfg.Redis == "" {
		i.limiter = senderauth.NewMemoryLimiter(senderauth.MemoryLimiterConfig{})
		return nil
	}
	logging.Disable() // go-redis reports each failed attempt to connect
	client := redis.NewClient(&redis.Options{Addr: cfg.Redis, ContextTimeoutEnabled: true})
	i.closes = append(i.closes, client.Close)
	l, err := redislimit.New(client, redislimit.Config{
		Instances: cmp.Or(cfg.Instances, 1), Lease: cfg.Lease, Timeout: cfg.RedisTimeout, FailClosed: cfg.FailClosed, OnMode: i.onMode,
	})
	if err != nil {
		return err
	}
	i.closes = append(i.closes, l.Close)
	i.limiter = l
	return nil
}

// serve serves HTTP/1.1 and HTTP/2 without TLS.
func (i *instance) serve(h http.Handler) error {
	if h == nil {
		h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") })
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	i.url = "http://" + l.Addr().String()
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	i.server = &http.Server{
		Protocols: &both,
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		Handler: i.guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			i.served.Add(1)
			h.ServeHTTP(w, r)
		})),
	}
	ended := make(chan error, 1)
	go func() { ended <- i.server.Serve(l) }()
	i.closes = append(i.closes, func() error {
		err := i.server.Close()
		if failed := <-ended; failed != http.ErrServerClosed {
			err = errors.Join(err, failed)
		}
		return err
	})
	return nil
}

// close closes what newInstance opened, the last part first.
func (i *instance) close() error {
	var errs []error
	for n := len(i.closes) - 1; n >= 0; n-- {
		errs = append(errs, i.closes[n]())
	}
	i.closes = nil
	return errors.Join(errs...)
}

func (i *instance) observe(_ context.Context, e senderauth.Event) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.events[e.Outcome]++
}

// outcomes returns how many requests had an outcome.
func (i *instance) outcomes(o senderauth.Outcome) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.events[o]
}

func (i *instance) onMode(m redislimit.Mode, _ error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.modes = append(i.modes, modeChange{time.Now(), m})
}

// A modeChange is when the limiter of an instance stopped or resumed calling Redis.
type modeChange struct {
	at   time.Time
	mode redislimit.Mode
}

// A countingLimiter counts the calls of the instance's limiter.
type countingLimiter struct{ *instance }

func (l countingLimiter) Take(ctx context.Context, senderID string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
	l.charged.Add(1)
	return l.limiter.Take(ctx, senderID, charges)
}

// A feed counts what Watch reports.
type feed struct {
	sqlkeys.Forgetter
	purges, forgets atomic.Int64
	last            atomic.Value // the sender of the last Forget
}

func (f *feed) Purge() {
	f.Forgetter.Purge()
	f.purges.Add(1)
}

func (f *feed) Forget(senderID string) {
	f.Forgetter.Forget(senderID)
	f.forgets.Add(1)
	f.last.Store(senderID)
}
