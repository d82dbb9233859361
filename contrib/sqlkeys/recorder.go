package sqlkeys

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/senderauth/senderauth"
)

// RecorderConfig configures [Store.NewRecorder]. The zero value works.
type RecorderConfig struct {
	_ [0]func()

	// Interval is the time between two writes, and so the most that a crash
	// loses. Zero means 10 seconds.
	Interval time.Duration
	// Keys bounds the keys counted between two writes, and the counts that
	// wait while the database is down. Requests beyond it are not recorded but
	// counted in Dropped. Zero means 100,000.
	Keys int
}

func (cfg *RecorderConfig) validate() error {
	var errs []error
	if cfg.Interval < 0 {
		errs = append(errs, fmt.Errorf("sqlkeys: RecorderConfig.Interval: %v is below 0", cfg.Interval))
	}
	if cfg.Keys < 0 {
		errs = append(errs, fmt.Errorf("sqlkeys: RecorderConfig.Keys: %d is below 0", cfg.Keys))
	}
	return errors.Join(errs...)
}

// A Recorder counts the requests of each key by hour and outcome, and notes
// when a key was last used. Pass its method Observe to [senderauth.Config]. A
// Recorder counts in memory and writes batches from a goroutine, which Close
// ends.
//
// It writes each count once: if the connection breaks during a commit, it asks
// PostgreSQL what became of the transaction. A crash loses the counts since the
// last write. While the database is down, counts wait in memory. All instances
// together write the last use of a key at most once in 15 minutes.
//
// Events may also have key IDs of other validators. The recorder drops IDs that
// PostgreSQL cannot store or index, which are those that are not UTF-8 text of at
// most 255 bytes.
type Recorder struct {
	store    *Store
	interval time.Duration
	keys     int // of a shard

	seed    maphash.Seed
	shards  [recorderShards]recorderShard
	dropped atomic.Uint64
	failed  atomic.Uint64
	written atomic.Uint64

	flushing sync.Mutex // guards the following
	waiting  map[usageRow]int64
	doubtful *usagePiece          // what may have been committed; nil if nothing is in doubt
	used     map[string]time.Time // keys whose last use was written within lastUsedInterval
	unused   map[string]time.Time // keys whose last use has yet to be written

	stop   chan struct{}
	done   chan struct{}
	abort  context.CancelFunc // ends a write of run
	closed sync.Once
}

const recorderShards = 64

type recorderShard struct {
	mu   sync.Mutex
	keys map[string]*outcomeCounts
	_    [48]byte // fills a cache line of 64 bytes
}

type outcomeCounts [len(outcomes)]int64

// outcomes are those of events with a known key.
var outcomes = [...]senderauth.Outcome{
	senderauth.Admitted, senderauth.Limited, senderauth.InvalidKey, senderauth.Mismatch,
	senderauth.InvalidSender, senderauth.WrongNetwork, senderauth.OutOfScope, senderauth.Refused, senderauth.Unavailable, senderauth.Failed, senderauth.Canceled,
}

// writeTimeout is how long the goroutine writes at a time. What it does not
// manage in that time waits for the next turn.
const writeTimeout = 10 * time.Second

// NewRecorder starts a recorder. Close it after the server has stopped, and
// before you close the pool.
func (s *Store) NewRecorder(cfg RecorderConfig) (*Recorder, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Interval == 0 {
		cfg.Interval = 10 * time.Second
	}
	if cfg.Keys == 0 {
		cfg.Keys = 100_000
	}
	r := &Recorder{
		store:    s,
		interval: cfg.Interval,
		keys:     (cfg.Keys + recorderShards - 1) / recorderShards,
		seed:     maphash.MakeSeed(),
		waiting:  make(map[usageRow]int64),
		used:     make(map[string]time.Time),
		unused:   make(map[string]time.Time),
		stop:     make(chan struct{}),
		done:     make(chan struct{}),
	}
	for i := range r.shards {
		r.shards[i].keys = make(map[string]*outcomeCounts)
	}
	ctx, abort := context.WithCancel(context.Background())
	r.abort = abort
	go r.run(ctx)
	return r, nil
}

// Observe counts one event. Use it as Observe of [senderauth.Config]. It waits
// for nothing but a short lock, and ignores events without a known key. A
// request that passes one guard inside another counts once. If the inner guard
// refuses it, it counts once for each of the two outcomes.
func (r *Recorder) Observe(_ context.Context, e senderauth.Event) {
	id := e.Sender.KeyID
	if id == "" && e.Err != nil {
		id = refusedKey(e.Err)
	}
	outcome := slices.Index(outcomes[:], e.Outcome)
	if id == "" || outcome < 0 {
		return
	}
	if e.Inner && e.Outcome == senderauth.Admitted {
		return // an outer guard has counted it
	}
	s := &r.shards[maphash.String(r.seed, id)%recorderShards]
	s.mu.Lock()
	c := s.keys[id]
	if c == nil {
		if len(s.keys) >= r.keys {
			s.mu.Unlock()
			r.dropped.Add(1)
			return
		}
		c = new(outcomeCounts)
		s.keys[id] = c
	}
	c[outcome]++
	s.mu.Unlock()
}

// refusedKey is a separate function because errors.As allocates. Only events with an error
// pay for it.
func refusedKey(err error) string {
	if refused, ok := err.(*RefusedError); ok {
		return refused.KeyID
	}
	var refused *RefusedError
	if errors.As(err, &refused) {
		return refused.KeyID
	}
	return ""
}

func (r *Recorder) run(ctx context.Context) {
	defer close(r.done)
	for {
		// Write at the end of each hour at the latest, because counts belong to
		// the hour in which they are written.
		now := time.Now()
		wait := min(r.interval, now.Truncate(time.Hour).Add(time.Hour).Sub(now))
		timer := time.NewTimer(wait)
		select {
		case <-r.stop:
			timer.Stop()
			return
		case <-timer.C:
		}
		hour := now.Truncate(time.Hour)
		write, cancel := context.WithTimeout(ctx, writeTimeout)
		if err := r.flush(write, hour); err != nil {
			r.failed.Add(1)
			r.store.log.Warn("sqlkeys: the recorder cannot write", "error", err)
		}
		cancel()
	}
}

// Flush writes the counts. It first waits for a write in progress, for at most
// 10 seconds. Counts that it cannot write stay for the next write.
func (r *Recorder) Flush(ctx context.Context) error {
	return r.flush(ctx, time.Now().Truncate(time.Hour))
}

// Close ends the recorder's goroutine and writes the remaining counts. It gives up
// when ctx ends. A second Close only flushes.
func (r *Recorder) Close(ctx context.Context) error {
	r.closed.Do(func() { close(r.stop) })
	select {
	case <-r.done:
	case <-ctx.Done():
	}
	r.abort()
	<-r.done
	return r.Flush(ctx)
}

// RecorderStats holds counters that start with NewRecorder, and the counts that
// wait now.
type RecorderStats struct {
	Written  uint64 // requests
	Dropped  uint64 // requests lost because of RecorderConfig.Keys, or because their key ID cannot be stored
	Failures uint64 // failed writes, which the recorder retries
	Waiting  int    // counts that are not written yet
}

// Dropped returns RecorderStats.Dropped without waiting for a write.
func (r *Recorder) Dropped() uint64 { return r.dropped.Load() }

// Stats returns the counters. It first waits for a write in progress, for at most
// 10 seconds.
func (r *Recorder) Stats() RecorderStats {
	r.flushing.Lock()
	defer r.flushing.Unlock()
	return RecorderStats{
		Written:  r.written.Load(),
		Dropped:  r.dropped.Load(),
		Failures: r.failed.Load(),
		Waiting:  r.waitingLocked(),
	}
}
