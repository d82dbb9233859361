package sqlkeys

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/senderauth/senderauth"
)

// RecorderConfig configures [Store.NewRecorder]; its zero value is good.
type RecorderConfig struct {
	_ [0]func()

	// Interval is how often what was gathered is written: what a crash loses
	// at most. 0: 10 seconds.
	Interval time.Duration
	// Keys is how many keys are counted between two writes, and how many
	// counts wait for a database that is down. Requests past it are not
	// recorded, and counted in Dropped. 0: 100,000.
	Keys int
}

// A Recorder counts the requests of each key by hour and outcome, and notes
// when a key was last used. Observe is its hook for [senderauth.Config]. It
// gathers in memory and writes in batches from a goroutine of its own, which
// Close ends.
//
// Written is each count once; where PostgreSQL loses the connection during the
// commit of a batch, that batch may be counted twice. A crash loses what was
// gathered since the last write. While the database is down counts wait in
// memory. The time of last use is written at most once in 15 minutes for a
// key, whatever the number of instances.
type Recorder struct {
	store    *Store
	interval time.Duration
	keys     int // of a shard

	seed    maphash.Seed
	shards  [recorderShards]recorderShard
	dropped atomic.Uint64
	failed  atomic.Uint64
	written atomic.Uint64

	// The flusher's own.
	flushing sync.Mutex
	waiting  map[usageRow]int64
	used     map[string]time.Time // keys whose last use was written lately
	unused   map[string]time.Time // keys whose last use is to be written

	stop   chan struct{}
	done   chan struct{}
	abort  context.CancelFunc // ends a write of run
	closed sync.Once
}

const recorderShards = 64

type recorderShard struct {
	mu   sync.Mutex
	keys map[string]*outcomeCounts
	_    [48]byte // to a cache line of 64
}

type outcomeCounts [len(outcomes)]int64

// outcomes are those that an event with a known key can have.
var outcomes = [...]senderauth.Outcome{
	senderauth.Admitted, senderauth.Limited, senderauth.InvalidKey, senderauth.Mismatch,
	senderauth.InvalidSender, senderauth.Refused, senderauth.Unavailable, senderauth.Failed, senderauth.Canceled,
}

type usageRow struct {
	keyID   string
	hour    int64 // Unix seconds
	outcome int
}

// lastUsedInterval is how often the last use of a key is written.
const lastUsedInterval = 15 * time.Minute

const writeTimeout = 10 * time.Second

// NewRecorder starts a recorder. The caller closes it, after the server has
// stopped and before the pool is closed.
func (s *Store) NewRecorder(cfg RecorderConfig) (*Recorder, error) {
	var errs []error
	if cfg.Interval < 0 {
		errs = append(errs, fmt.Errorf("sqlkeys: RecorderConfig.Interval: %v is below 0", cfg.Interval))
	}
	if cfg.Keys < 0 {
		errs = append(errs, fmt.Errorf("sqlkeys: RecorderConfig.Keys: %d is below 0", cfg.Keys))
	}
	if err := errors.Join(errs...); err != nil {
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

// Observe counts one event. It is fit for [senderauth.Config.Observe]: it
// waits for nothing but a lock of its own. Events in which no known key was
// shown are not counted. A request that passes a guard inside of another
// counts once; where the inner one refuses it, it counts with both outcomes.
func (r *Recorder) Observe(ctx context.Context, e senderauth.Event) {
	id := e.Sender.KeyID
	if id == "" && e.Err != nil {
		id = refusedKey(e.Err)
	}
	outcome := slices.Index(outcomes[:], e.Outcome)
	if id == "" || outcome < 0 {
		return
	}
	if e.Outcome == senderauth.Admitted {
		if outer, ok := senderauth.SenderFrom(ctx); ok && outer.KeyID == id {
			return
		}
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

// refusedKey is apart for its allocation.
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
		// At the latest when the hour ends, for counts belong to the hour in
		// which they are taken out.
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

// Flush writes what was gathered. What cannot be written waits for the next
// time. It waits for another write under way first, 10 seconds at most.
func (r *Recorder) Flush(ctx context.Context) error {
	return r.flush(ctx, time.Now().Truncate(time.Hour))
}

// Close ends the recorder and writes what was gathered, until ctx ends. A
// second Close only flushes.
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

// RecorderStats are counters since NewRecorder, and a level.
type RecorderStats struct {
	Written  uint64 // requests
	Dropped  uint64 // requests that are lost for want of room
	Failures uint64 // writes that failed, and were or will be tried again
	Waiting  int    // counts that the database did not take yet
}

// Stats waits for a write under way, 10 seconds at most.
func (r *Recorder) Stats() RecorderStats {
	r.flushing.Lock()
	defer r.flushing.Unlock()
	return RecorderStats{
		Written:  r.written.Load(),
		Dropped:  r.dropped.Load(),
		Failures: r.failed.Load(),
		Waiting:  len(r.waiting),
	}
}

func (r *Recorder) flush(ctx context.Context, hour time.Time) error {
	r.flushing.Lock()
	defer r.flushing.Unlock()
	r.take(hour, time.Now())
	if len(r.waiting) == 0 && len(r.unused) == 0 {
		return nil
	}
	rows := make([]usageRow, 0, len(r.waiting))
	for row := range r.waiting {
		rows = append(rows, row)
	}
	used := make([]string, 0, len(r.unused))
	for id := range r.unused {
		used = append(used, id)
	}
	// In one order, so that instances that write at once do not lock each
	// other out.
	slices.SortFunc(rows, func(a, b usageRow) int {
		if c := strings.Compare(a.keyID, b.keyID); c != 0 {
			return c
		}
		if a.hour != b.hour {
			return int(a.hour - b.hour)
		}
		return a.outcome - b.outcome
	})
	slices.Sort(used)
	err := r.store.dialect.transact(ctx, r.store.db, func(q querier) error {
		t := &tx{querier: q, store: r.store, ctx: ctx}
		for some := range slices.Chunk(rows, insertRows) {
			if err := t.addUsage(some, r.waiting); err != nil {
				return err
			}
		}
		for some := range slices.Chunk(used, insertRows) {
			if err := t.setLastUsed(some, r.unused); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, n := range r.waiting {
		r.written.Add(uint64(n))
	}
	for id, at := range r.unused {
		r.used[id] = at
	}
	clear(r.waiting)
	clear(r.unused)
	return nil
}

// take moves the counts out of the shards.
func (r *Recorder) take(hour, now time.Time) {
	limit := r.keys * recorderShards
	for id, at := range r.used {
		if now.Sub(at) >= lastUsedInterval {
			delete(r.used, id)
		}
	}
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		keys := s.keys
		s.keys = make(map[string]*outcomeCounts, len(keys))
		s.mu.Unlock()
		for id, counts := range keys {
			for outcome, n := range counts {
				row := usageRow{id, hour.Unix(), outcome}
				switch _, ok := r.waiting[row]; {
				case n == 0:
				case ok || len(r.waiting) < limit:
					r.waiting[row] += n
				default:
					r.dropped.Add(uint64(n))
				}
			}
			if _, lately := r.used[id]; !lately && counts[0]+counts[1] > 0 && len(r.used)+len(r.unused) < limit {
				r.unused[id] = now
			}
		}
	}
}

func (t *tx) addUsage(rows []usageRow, counts map[usageRow]int64) error {
	args := make([]any, 0, 4*len(rows))
	for _, row := range rows {
		args = append(args, row.keyID, t.store.dialect.instant(time.Unix(row.hour, 0)), string(outcomes[row.outcome]), counts[row])
	}
	_, err := t.exec(`INSERT INTO sqlkeys_usage (key_id, hour, outcome, requests) VALUES `+t.store.dialect.values(len(rows), 4)+`
		ON CONFLICT (key_id, hour, outcome) DO UPDATE SET requests = sqlkeys_usage.requests + excluded.requests`, args...)
	if err != nil {
		return fmt.Errorf("sqlkeys: write the usage: %w", err)
	}
	return nil
}

func (t *tx) setLastUsed(ids []string, at map[string]time.Time) error {
	args := make([]any, 0, 2*len(ids))
	for _, id := range ids {
		args = append(args, id, t.store.dialect.instant(at[id]))
	}
	since := `interval '15 minutes'`
	if t.store.dialect == &sqliteDialect {
		since = fmt.Sprint(lastUsedInterval.Milliseconds())
	}
	_, err := t.exec(`INSERT INTO sqlkeys_last_used (key_id, last_used_at) VALUES `+t.store.dialect.values(len(ids), 2)+`
		ON CONFLICT (key_id) DO UPDATE SET last_used_at = excluded.last_used_at
		WHERE sqlkeys_last_used.last_used_at <= excluded.last_used_at - `+since, args...)
	if err != nil {
		return fmt.Errorf("sqlkeys: write the last use: %w", err)
	}
	return nil
}

// Usage is how often a key met an outcome in an hour.
type Usage struct {
	SenderID string
	KeyID    string
	Hour     time.Time // its beginning
	Outcome  senderauth.Outcome
	Requests int64
}

// UsageFilter chooses usage; the zero one chooses all.
type UsageFilter struct {
	_ [0]func()

	SenderID string
	KeyID    string
	Since    time.Time // hours that end after it
	Until    time.Time // hours that begin before it; zero: no end
}

// Usage is what recorders wrote, by hour, key and outcome. It holds a
// connection until the loop ends; an error ends it.
func (s *Store) Usage(ctx context.Context, f UsageFilter) iter.Seq2[Usage, error] {
	query := `SELECT k.sender_id, u.key_id, u.hour, u.outcome, u.requests
		FROM sqlkeys_usage u JOIN sqlkeys_keys k ON k.id = u.key_id WHERE 1 = 1`
	var args []any
	where := func(condition string, arg any) {
		args = append(args, arg)
		query += fmt.Sprintf(" AND "+condition, len(args))
	}
	if f.SenderID != "" {
		id, err := senderID(f.SenderID)
		if err != nil {
			return failed[Usage](err)
		}
		where(`k.sender_id = $%d`, id)
	}
	if f.KeyID != "" {
		if err := checkKeyID(f.KeyID); err != nil {
			return failed[Usage](err)
		}
		where(`u.key_id = $%d`, f.KeyID)
	}
	if !f.Since.IsZero() {
		where(`u.hour > $%d`, s.dialect.instant(f.Since.Add(-time.Hour)))
	}
	if !f.Until.IsZero() {
		where(`u.hour < $%d`, s.dialect.instant(f.Until))
	}
	return stream(ctx, s, query+` ORDER BY u.hour, u.key_id, u.outcome`, args, func(row interface{ Scan(...any) error }) (Usage, error) {
		var u Usage
		if err := row.Scan(&u.SenderID, &u.KeyID, scannedTime{&u.Hour}, &u.Outcome, &u.Requests); err != nil {
			return Usage{}, fmt.Errorf("sqlkeys: read the usage: %w", err)
		}
		return u, nil
	})
}
