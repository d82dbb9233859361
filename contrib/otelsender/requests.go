package otelsender

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/senderauth/senderauth"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// buckets are the upper bounds of senderauth.decision.duration, in seconds: a cached key
// takes about a microsecond, and a lookup at most CacheConfig.LookupTimeout (2 seconds).
var buckets = []float64{
	1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4,
	1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2.5,
}

// outcomes are the values of the attribute "outcome".
var outcomes = []senderauth.Outcome{
	senderauth.Admitted, senderauth.MissingKey, senderauth.MissingSender, senderauth.InvalidSender,
	senderauth.InvalidKey, senderauth.Mismatch, senderauth.WrongNetwork, senderauth.OutOfScope, senderauth.Limited, senderauth.Insecure,
	senderauth.Refused, senderauth.Unavailable, senderauth.Canceled, senderauth.Failed,
}

const (
	// maxLimits is how many names of limits get time series of their own: with 32, the
	// time series of all instruments stay below 200.
	maxLimits = 32
	other     = "_OTHER"
)

// requests are the instruments that each decision is recorded by. The counters are kept
// here and read at each collection, because an SDK takes a quarter of a microsecond for an
// addition with attributes. An SDK makes exemplars for the histogram only.
type requests struct {
	count    metric.Int64ObservableCounter
	dryRuns  metric.Int64ObservableCounter
	errors   metric.Int64ObservableCounter
	duration metric.Float64Histogram

	validator, limiter atomic.Int64 // errors

	known  atomic.Pointer[map[series]*counter] // replaced to add one
	mu     sync.Mutex                          // held to replace known
	limits map[string]bool                     // that have series of their own
}

// A series is the attributes that a request is counted by.
type series struct {
	outcome senderauth.Outcome // empty: of dryRuns
	limit   string             // empty: no attribute
}

// A counter is the number of requests of a series.
type counter struct {
	n          atomic.Int64
	attributes metric.MeasurementOption
}

func (r *requests) init(m metric.Meter) error {
	var err1, err2, err3, err4 error
	r.count, err1 = m.Int64ObservableCounter("senderauth.requests", metric.WithUnit("{request}"),
		metric.WithDescription("Requests that the guard decided, by outcome and by the limit that refused or was charged first."))
	r.dryRuns, err4 = m.Int64ObservableCounter("senderauth.dry_run.refusals", metric.WithUnit("{request}"),
		metric.WithDescription("Requests that a limit of Config.DryRun would have refused, by the first such limit."))
	r.errors, err2 = m.Int64ObservableCounter("senderauth.errors", metric.WithUnit("{error}"),
		metric.WithDescription("Decisions during which the validator or the limiter failed."))
	r.duration, err3 = m.Float64Histogram("senderauth.decision.duration", metric.WithUnit("s"), metric.WithExplicitBucketBoundaries(buckets...),
		metric.WithDescription("Time that the guard took to decide."))
	r.limits = make(map[string]bool)
	r.known.Store(&map[series]*counter{})
	return errors.Join(err1, err2, err3, err4)
}

func only(kvs ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(kvs...))
}

var (
	sourceValidator = only(attribute.String("source", "validator"))
	sourceLimiter   = only(attribute.String("source", "limiter"))
)

func (r *requests) observe(o metric.Observer) {
	for s, c := range *r.known.Load() {
		instrument := r.count
		if s.outcome == "" {
			instrument = r.dryRuns
		}
		o.ObserveInt64(instrument, c.n.Load(), c.attributes)
	}
	o.ObserveInt64(r.errors, r.validator.Load(), sourceValidator)
	o.ObserveInt64(r.errors, r.limiter.Load(), sourceLimiter)
}

// record counts a decision. A guard inside another one counts only if it refuses, because
// the outer one has counted the request.
func (r *requests) record(ctx context.Context, e *senderauth.Event) {
	switch failedPart(e) {
	case "validator":
		r.validator.Add(1)
	case "limiter":
		r.limiter.Add(1)
	}
	if e.DryRun != "" { // also of an inner guard, which charges other limits than the outer one
		r.counter(series{limit: e.DryRun}).n.Add(1)
	}
	if e.Inner && e.Outcome == senderauth.Admitted {
		return
	}
	r.counter(decided(e)).n.Add(1)
	r.duration.Record(ctx, e.Elapsed.Seconds())
}

// decided returns the series of a decision. Only admitted and limited requests have the
// attribute "limit": the other outcomes do not depend on one.
func decided(e *senderauth.Event) series {
	switch e.Outcome {
	case senderauth.Admitted, senderauth.Limited:
		return series{e.Outcome, e.Limit}
	case "":
		return series{outcome: other}
	}
	return series{outcome: e.Outcome}
}

func (r *requests) counter(s series) *counter {
	if known, ok := (*r.known.Load())[s]; ok {
		return known
	}
	return r.add(s)
}

// add makes a series. Names beyond maxLimits share one, and so do unknown outcomes.
func (r *requests) add(s series) *counter {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.outcome != "" && !slices.Contains(outcomes, s.outcome) {
		s.outcome = other
	}
	if s.limit != "" && !r.limits[s.limit] {
		if len(r.limits) < maxLimits {
			r.limits[strings.Clone(s.limit)] = true
		} else {
			s.limit = other
		}
	}
	all := *r.known.Load()
	if known, ok := all[s]; ok {
		return known
	}
	var kvs []attribute.KeyValue
	if s.outcome != "" {
		kvs = append(kvs, attribute.String("outcome", string(s.outcome)))
	}
	if s.limit != "" {
		kvs = append(kvs, attribute.String("limit", valid(s.limit)))
	}
	all = maps.Clone(all)
	all[s] = &counter{attributes: only(kvs...)}
	r.known.Store(&all)
	return all[s]
}

// valid replaces what is not UTF-8, because exporters drop the whole batch of a text that
// has any.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// failedPart returns "validator" or "limiter" if that part of the server failed during the
// decision, and otherwise "". If both did, it returns "limiter".
func failedPart(e *senderauth.Event) string {
	failed := false
	switch {
	case e.LimiterFailed:
		return "limiter"
	case e.Err == nil || e.Inner: // the validator was not asked by an inner guard
	case e.Outcome == senderauth.Admitted || e.Outcome == senderauth.Limited:
		failed = e.Sender.ID != "" // a stale cache entry was served
	case e.Outcome == senderauth.Unavailable || e.Outcome == senderauth.Failed:
		failed = e.Sender.ID == ""
	case e.Outcome == senderauth.Refused:
		failed = !refuses(e.Err)
	}
	if failed {
		return "validator"
	}
	return ""
}
