// Package otelsender reports what a senderauth guard decides to OpenTelemetry, as metrics
// and on spans.
//
// It uses only the API of OpenTelemetry. The program chooses an SDK and its exporters. The
// metrics have attributes for outcomes and limits, never for senders or keys, so clients
// cannot add time series.
package otelsender

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// Config configures [New]. Its zero value uses the global providers.
type Config struct {
	_ [0]func()

	// MeterProvider makes the instruments. Nil means the global provider, which may be
	// set after New.
	MeterProvider metric.MeterProvider
	// TracerProvider makes the spans of lookups. Nil means the global provider, which
	// may be set after New.
	TracerProvider trace.TracerProvider
	// OmitIDs keeps the IDs of senders and keys off spans.
	OmitIDs bool
}

// Telemetry reports the decisions of guards, the state of caches and the lookups of
// validators. Make one with [New] for each MeterProvider. It is safe for concurrent use.
//
// Telemetry recovers a panic of a provider's instrument or span, so it has no effect on
// the request. The error handler of OpenTelemetry gets the first one. Metrics and spans
// are recorded on the request's goroutine. The SDK does not block it, because its readers
// and processors export on goroutines of their own.
type Telemetry struct {
	requests requests
	current  current
	tracer   trace.Tracer
	omitIDs  bool
	panicked sync.Once
}

const scope = "github.com/senderauth/senderauth/contrib/otelsender"

// New returns a Telemetry with all its instruments. It returns an error if a provider is a
// nil pointer, fails or panics.
func New(cfg Config) (t *Telemetry, err error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil {
			t, err = nil, fmt.Errorf("otelsender: New: a provider panicked: %v", p)
		}
	}()
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = otel.GetMeterProvider()
	}
	if cfg.TracerProvider == nil {
		cfg.TracerProvider = otel.GetTracerProvider()
	}
	t = &Telemetry{tracer: cfg.TracerProvider.Tracer(scope), omitIDs: cfg.OmitIDs}
	meter := cfg.MeterProvider.Meter(scope)
	if err := errors.Join(t.requests.init(meter), t.current.init(meter)); err != nil {
		return nil, fmt.Errorf("otelsender: New: %w", err)
	}
	q, c := &t.requests, &t.current
	_, err = meter.RegisterCallback(t.observe, q.count, q.dryRuns, q.errors, c.lookups, c.evictions, c.entries, c.inFallback, c.dropped, c.expiry)
	if err != nil {
		return nil, fmt.Errorf("otelsender: New: %w", err)
	}
	return t, nil
}

// observe reads all values at a collection. A panic of a Recorder or of Keys must not end
// the reader's goroutine, and with it the program.
func (t *Telemetry) observe(_ context.Context, o metric.Observer) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("otelsender: reading the current values panicked: %v", p)
		}
	}()
	t.requests.observe(o)
	t.current.observe(o)
	return nil
}

func (cfg *Config) validate() error {
	var errs []error
	if cfg.MeterProvider != nil && isNil(cfg.MeterProvider) {
		errs = append(errs, fmt.Errorf("otelsender: Config.MeterProvider holds a nil %T", cfg.MeterProvider))
	}
	if cfg.TracerProvider != nil && isNil(cfg.TracerProvider) {
		errs = append(errs, fmt.Errorf("otelsender: Config.TracerProvider holds a nil %T", cfg.TracerProvider))
	}
	return errors.Join(errs...)
}

// isNil reports a nil interface, or one that holds a nil pointer or function.
func isNil(v any) bool {
	if v == nil {
		return true
	}
	rv := reflect.ValueOf(v)
	return (rv.Kind() == reflect.Pointer || rv.Kind() == reflect.Func) && rv.IsNil()
}

// contain is deferred around calls of a provider, so that its panic does not end the
// request. It reports the first one only, because a broken provider may panic for every
// request.
func (t *Telemetry) contain() {
	if p := recover(); p != nil {
		t.panicked.Do(func() { otel.Handle(fmt.Errorf("otelsender: a provider panicked: %v", p)) })
	}
}
