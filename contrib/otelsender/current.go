package otelsender

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/senderauth/senderauth"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// A Recorder counts requests and drops some under load, as the Recorder of contrib/sqlkeys
// does.
type Recorder interface {
	// Dropped returns how many requests were not recorded so far. It must not block.
	Dropped() uint64
}

// Keys knows when the keys of a store expire. An Expiry of contrib/sqlkeys does.
type Keys interface {
	// Expiring returns how many keys work now and stop working within this time, or a
	// negative number while that is unknown. It is called at each collection of the
	// metrics, and must not block: keep the numbers in memory.
	Expiring(within time.Duration) int
}

// ObserveCache reports the counters of a cache as senderauth.cache.lookups, .evictions and
// .entries. It adds up several caches. It panics on a nil c.
func (t *Telemetry) ObserveCache(c *senderauth.Cache) {
	if c == nil {
		panic("otelsender: ObserveCache: the Cache is nil")
	}
	t.current.add(func(p *parts) { p.caches = append(p.caches, c) })
}

// ObserveRecorder reports what a recorder drops as senderauth.recorder.dropped. It adds up
// several recorders. It panics on a nil r.
func (t *Telemetry) ObserveRecorder(r Recorder) {
	if isNil(r) {
		panic("otelsender: ObserveRecorder: the Recorder is nil")
	}
	t.current.add(func(p *parts) { p.recorders = append(p.recorders, r) })
}

// ObserveKeys reports the keys that expire within 1, 7 and 30 days as
// senderauth.keys.expiring. It adds up several stores, and reports nothing while one of them
// does not know. Instances that share a store report the same keys: take the maximum over
// instances, not the sum. It panics on a nil k.
func (t *Telemetry) ObserveKeys(k Keys) {
	if isNil(k) {
		panic("otelsender: ObserveKeys: the Keys are nil")
	}
	t.current.add(func(p *parts) { p.keys = append(p.keys, k) })
}

// SetFallback sets senderauth.limiter.fallback to 1 while a shared limiter decides locally
// because its store is unreachable, and to 0 otherwise. Call it in OnMode of
// contrib/redislimit. It does not block.
func (t *Telemetry) SetFallback(on bool) { t.current.fallback.Store(on) }

// current are the instruments that are read at each collection of the metrics.
type current struct {
	lookups, evictions, dropped metric.Int64ObservableCounter
	entries, inFallback, expiry metric.Int64ObservableGauge

	fallback atomic.Bool
	mu       sync.Mutex
	parts    parts
}

// parts are what the instruments report.
type parts struct {
	caches    []*senderauth.Cache
	recorders []Recorder
	keys      []Keys
}

func (c *current) add(f func(*parts)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.parts)
}

func (c *current) init(m metric.Meter) error {
	var errs [6]error
	c.lookups, errs[0] = m.Int64ObservableCounter("senderauth.cache.lookups", metric.WithUnit("{lookup}"),
		metric.WithDescription("Keys looked up in the cache, by result: hit, rejected (a remembered rejection) or miss."))
	c.evictions, errs[1] = m.Int64ObservableCounter("senderauth.cache.evictions", metric.WithUnit("{entry}"),
		metric.WithDescription("Accepted entries that the cache evicted to make room for others."))
	c.entries, errs[2] = m.Int64ObservableGauge("senderauth.cache.entries", metric.WithUnit("{entry}"),
		metric.WithDescription("Entries that the cache holds, by state: accepted or rejected."))
	// Without a unit: "1" would make the Prometheus exporter call it a ratio.
	c.inFallback, errs[3] = m.Int64ObservableGauge("senderauth.limiter.fallback",
		metric.WithDescription("1 while the shared limiter decides locally because its store is unreachable, otherwise 0."))
	c.dropped, errs[4] = m.Int64ObservableCounter("senderauth.recorder.dropped", metric.WithUnit("{request}"),
		metric.WithDescription("Requests that the recorder of usage dropped."))
	c.expiry, errs[5] = m.Int64ObservableGauge("senderauth.keys.expiring", metric.WithUnit("{key}"),
		metric.WithDescription("Keys that work now and expire within this many days. Instances with the same store report the same keys."))
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	return nil
}

var (
	resultHit      = only(attribute.String("result", "hit"))
	resultRejected = only(attribute.String("result", "rejected"))
	resultMiss     = only(attribute.String("result", "miss"))
	stateAccepted  = only(attribute.String("state", "accepted"))
	stateRejected  = only(attribute.String("state", "rejected"))
)

func (c *current) observe(o metric.Observer) {
	var fallback int64
	if c.fallback.Load() {
		fallback = 1
	}
	o.ObserveInt64(c.inFallback, fallback)
	c.mu.Lock()
	p := c.parts // the slices only grow
	c.mu.Unlock()
	c.observeCaches(o, p.caches)
	if len(p.recorders) > 0 {
		var dropped uint64
		for _, r := range p.recorders {
			dropped += r.Dropped()
		}
		o.ObserveInt64(c.dropped, int64(dropped))
	}
	c.observeKeys(o, p.keys)
}

func (c *current) observeKeys(o metric.Observer, stores []Keys) {
	if len(stores) == 0 {
		return
	}
next:
	for _, days := range []int{1, 7, 30} {
		sum := 0
		for _, k := range stores {
			n := k.Expiring(time.Duration(days) * 24 * time.Hour)
			if n < 0 {
				continue next
			}
			sum += n
		}
		o.ObserveInt64(c.expiry, int64(sum), only(attribute.Int("days", days)))
	}
}

func (c *current) observeCaches(o metric.Observer, caches []*senderauth.Cache) {
	if len(caches) == 0 {
		return
	}
	var sum senderauth.CacheStats
	for _, cache := range caches {
		st := cache.Stats()
		sum.Hits += st.Hits
		sum.RejectedHits += st.RejectedHits
		sum.Misses += st.Misses
		sum.Evictions += st.Evictions
		sum.Entries += st.Entries
		sum.RejectedEntries += st.RejectedEntries
	}
	o.ObserveInt64(c.lookups, int64(sum.Hits), resultHit)
	o.ObserveInt64(c.lookups, int64(sum.RejectedHits), resultRejected)
	o.ObserveInt64(c.lookups, int64(sum.Misses), resultMiss)
	o.ObserveInt64(c.evictions, int64(sum.Evictions))
	o.ObserveInt64(c.entries, int64(sum.Entries), stateAccepted)
	o.ObserveInt64(c.entries, int64(sum.RejectedEntries), stateRejected)
}
