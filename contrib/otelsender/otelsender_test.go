package otelsender_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/otelsender"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/embedded"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// A meter reads the metrics of a Telemetry.
type meter struct {
	*otelsender.Telemetry
	reader *sdkmetric.ManualReader
}

func newMeter(t testing.TB) meter {
	t.Helper()
	reader := sdkmetric.NewManualReader()
	telemetry, err := otelsender.New(otelsender.Config{MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))})
	require.NoError(t, err)
	return meter{telemetry, reader}
}

// values returns the value of each time series, and the count of a histogram.
func (m meter) values(t testing.TB) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, m.reader.Collect(t.Context(), &all))
	got := make(map[string]int64)
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			add := func(set attribute.Set, n int64) { got[m.Name+"{"+set.Encoded(attribute.DefaultEncoder())+"}"] = n }
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, p.Value)
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, p.Value)
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, int64(p.Count))
				}
			default:
				t.Fatalf("%s has data of type %T", m.Name, data)
			}
		}
	}
	return got
}

func TestRequestsAreCountedByOutcomeAndLimit(t *testing.T) {
	m := newMeter(t)
	guard := guardOf(t, senderauth.Config{Limits: limits, Observe: m.Observe})
	h := guard.Wrap(guard.Charging("messages").Wrap(ok))
	bad := of(2)
	bad.Header.Set("x-api-key", apiKey(3))
	require.Equal(t, 200, serve(h, of(1)))
	require.Equal(t, 429, serve(h, of(1)), "by the inner guard")
	require.Equal(t, 401, serve(h, bad))
	require.Equal(t, map[string]int64{
		"senderauth.requests{limit=default,outcome=admitted}": 2, // the outer guard
		"senderauth.requests{limit=messages,outcome=limited}": 1,
		"senderauth.requests{outcome=invalid_key}":            1,
		"senderauth.errors{source=limiter}":                   0,
		"senderauth.errors{source=validator}":                 0,
		"senderauth.decision.duration{}":                      4,
		"senderauth.limiter.fallback{}":                       0,
	}, m.values(t))
}

// A limit that is tried refuses nobody, and the operator sees whom it would refuse.
func TestDryRunIsCountedByLimit(t *testing.T) {
	m := newMeter(t)
	guard := guardOf(t, senderauth.Config{Limits: limits, Observe: m.Observe, DryRun: []string{"messages"}})
	h := guard.Wrap(guard.Charging("messages").Wrap(ok))
	for range 3 {
		require.Equal(t, 200, serve(h, of(1)), "the limit messages would admit one")
	}
	require.Equal(t, 429, serve(h, of(1)), "by the limit default")
	require.Equal(t, map[string]int64{
		"senderauth.requests{limit=default,outcome=admitted}": 3,
		"senderauth.requests{limit=default,outcome=limited}":  1,
		"senderauth.dry_run.refusals{limit=messages}":         2,
		"senderauth.errors{source=limiter}":                   0,
		"senderauth.errors{source=validator}":                 0,
		"senderauth.decision.duration{}":                      4,
		"senderauth.limiter.fallback{}":                       0,
	}, m.values(t))
}

var errOutage = errors.New("connection refused")

type limiterFunc func() error

func (f limiterFunc) Take(context.Context, string, []senderauth.Charge) ([]senderauth.Balance, error) {
	return nil, f()
}

func TestErrorsAreCountedBySource(t *testing.T) {
	down := senderauth.ValidatorFunc(func(context.Context, senderauth.Credentials) (senderauth.Sender, error) {
		return senderauth.Sender{}, errOutage
	})
	up := senderauth.ValidatorFunc(knowsAll)
	fails := limiterFunc(func() error { return errOutage })
	for name, c := range map[string]struct {
		v                  senderauth.Validator
		cfg                senderauth.Config
		validator, limiter int64
	}{
		"the validator":        {v: down, validator: 1},
		"the validator panics": {v: senderauth.ValidatorFunc(func(context.Context, senderauth.Credentials) (senderauth.Sender, error) { panic("fault") }), validator: 1},
		"the limiter, open":    {v: up, cfg: senderauth.Config{Limiter: fails}, limiter: 1},
		"the limiter, closed":  {v: up, cfg: senderauth.Config{Limiter: fails, FailClosed: true}, limiter: 1},
		"nobody, the key is refused": {v: senderauth.ValidatorFunc(func(context.Context, senderauth.Credentials) (senderauth.Sender, error) {
			return senderauth.Sender{}, senderauth.ErrInvalidKey
		})},
		"nobody, a Problem of the 4xx": {v: senderauth.ValidatorFunc(func(context.Context, senderauth.Credentials) (senderauth.Sender, error) {
			return senderauth.Sender{}, &senderauth.Problem{Status: 403}
		})},
		"the validator, a Problem 503": {v: senderauth.ValidatorFunc(func(context.Context, senderauth.Credentials) (senderauth.Sender, error) {
			return senderauth.Sender{}, &senderauth.Problem{Status: 503}
		}), validator: 1},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMeter(t)
			c.cfg.Limits, c.cfg.Observe = limits, m.Observe
			guard, err := senderauth.New(c.v, c.cfg)
			require.NoError(t, err)
			serve(guard.Wrap(ok), of(1))
			got := m.values(t)
			require.Equal(t, c.validator, got["senderauth.errors{source=validator}"])
			require.Equal(t, c.limiter, got["senderauth.errors{source=limiter}"])
		})
	}
}

type drops uint64

func (d drops) Dropped() uint64 { return uint64(d) }

type expiring struct{}

func (expiring) Expiring(within time.Duration) int { return int(within / (24 * time.Hour)) }

// unknown are keys of which nothing is known yet.
type unknown struct{}

func (unknown) Expiring(time.Duration) int { return -1 }

func TestUnknownNumberOfKeysIsNotReported(t *testing.T) {
	m := newMeter(t)
	m.ObserveKeys(expiring{})
	require.Contains(t, m.values(t), "senderauth.keys.expiring{days=7}")
	m.ObserveKeys(unknown{})
	require.NotContains(t, m.values(t), "senderauth.keys.expiring{days=7}")
}

func TestCurrentValuesAreReadAtEachCollection(t *testing.T) {
	m := newMeter(t)
	cache := newCache(t, senderauth.ValidatorFunc(knowsAll))
	m.ObserveCache(cache)
	m.ObserveRecorder(drops(3))
	m.ObserveRecorder(drops(4))
	m.ObserveKeys(expiring{})
	m.SetFallback(true)
	good := senderauth.Credentials{SenderID: senderID(1), APIKey: apiKey(1)}
	bad := senderauth.Credentials{SenderID: senderID(1), APIKey: apiKey(2)}
	for _, c := range []senderauth.Credentials{good, good, good, bad, bad} {
		cache.Validate(t.Context(), c)
	}
	got := m.values(t)
	for name, want := range map[string]int64{
		"senderauth.cache.lookups{result=hit}":      2,
		"senderauth.cache.lookups{result=rejected}": 1,
		"senderauth.cache.lookups{result=miss}":     2,
		"senderauth.cache.evictions{}":              0,
		"senderauth.cache.entries{state=accepted}":  1,
		"senderauth.cache.entries{state=rejected}":  1,
		"senderauth.recorder.dropped{}":             7,
		"senderauth.keys.expiring{days=1}":          1,
		"senderauth.keys.expiring{days=7}":          7,
		"senderauth.keys.expiring{days=30}":         30,
		"senderauth.limiter.fallback{}":             1,
	} {
		require.Contains(t, got, name)
		require.Equal(t, want, got[name], name)
	}
	m.SetFallback(false)
	require.Zero(t, m.values(t)["senderauth.limiter.fallback{}"])
}

// Prometheus has a time series for each bucket of a histogram, for its sum and its count.
func TestTimeSeriesAreBounded(t *testing.T) {
	m := newMeter(t)
	names := make(map[string]senderauth.Limit)
	for i := range 40 {
		names[fmt.Sprintf(`limit "%d" \{}`, i)] = senderauth.PerMinute(1)
	}
	names["default"] = senderauth.PerMinute(1)
	own := senderauth.ValidatorFunc(func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		s, err := knowsAll(ctx, c)
		s.Limits = map[string]senderauth.Limit{"of " + c.SenderID: senderauth.Blocked()}
		return s, err
	})
	cache := newCache(t, own)
	m.ObserveCache(cache)
	m.ObserveRecorder(drops(0))
	m.ObserveKeys(expiring{})
	guard, err := senderauth.New(cache, senderauth.Config{Limits: names, Observe: m.Observe})
	require.NoError(t, err)
	h := guard.Wrap(ok)
	for i := range 100_000 {
		r := of(i)
		if i%3 == 0 {
			r.Header.Set("x-sender-id", fmt.Sprintf("\"\xff{%d}\n", i))
		}
		serve(h, r)
	}
	for name := range names {
		if name != "default" {
			serve(guard.Charging(name).Wrap(ok), of(1))
			serve(guard.Charging(name).Wrap(ok), of(1))
		}
	}
	for i := range 1000 { // whatever calls Observe
		m.Observe(t.Context(), senderauth.Event{DryRun: fmt.Sprint("\xff", i)})
		m.Observe(t.Context(), senderauth.Event{Outcome: senderauth.Outcome(fmt.Sprint(i)), Limit: fmt.Sprint("\xff", i)})
		m.Observe(t.Context(), senderauth.Event{Outcome: senderauth.Limited, Limit: fmt.Sprint("\xff", i)})
	}
	series := len(m.values(t)) + 20 + 2
	require.Less(t, series, 200)
	require.Contains(t, m.values(t), "senderauth.requests{limit=_OTHER,outcome=limited}")
	require.Contains(t, m.values(t), "senderauth.dry_run.refusals{limit=_OTHER}")
}

func TestNewReportsMistakes(t *testing.T) {
	_, err := otelsender.New(otelsender.Config{MeterProvider: (*sdkmetric.MeterProvider)(nil), TracerProvider: (*sdktrace.TracerProvider)(nil)})
	require.EqualError(t, err, "otelsender: Config.MeterProvider holds a nil *metric.MeterProvider\notelsender: Config.TracerProvider holds a nil *trace.TracerProvider")
	_, err = otelsender.New(otelsender.Config{MeterProvider: panicking{}})
	require.EqualError(t, err, "otelsender: New: a provider panicked: broken")
	telemetry, err := otelsender.New(otelsender.Config{})
	require.NoError(t, err, "nil means the global providers")
	require.Panics(t, func() { telemetry.ObserveCache(nil) })
	require.Panics(t, func() { telemetry.ObserveRecorder(nil) })
	require.Panics(t, func() { telemetry.ObserveKeys(nil) })
	require.Nil(t, telemetry.Validator(nil))
	require.Panics(t, func() { telemetry.Validator(newCache(t, senderauth.ValidatorFunc(knowsAll))) })
}

type panicking struct{ embedded.MeterProvider }

func (panicking) Meter(string, ...metric.MeterOption) metric.Meter { panic("broken") }

// broken is a provider whose histogram panics.
type broken struct{ noop.MeterProvider }

func (broken) Meter(string, ...metric.MeterOption) metric.Meter { return brokenMeter{} }

type brokenMeter struct{ noop.Meter }

func (brokenMeter) Float64Histogram(string, ...metric.Float64HistogramOption) (metric.Float64Histogram, error) {
	return brokenHistogram{}, nil
}

type brokenHistogram struct{ noop.Float64Histogram }

func (brokenHistogram) Record(context.Context, float64, ...metric.RecordOption) { panic("broken") }

func TestPanicOfAnInstrumentHasNoEffectOnTheRequest(t *testing.T) {
	telemetry, err := otelsender.New(otelsender.Config{MeterProvider: broken{}})
	require.NoError(t, err)
	require.Equal(t, 200, serve(guardOf(t, senderauth.Config{Limits: limits, Observe: telemetry.Observe}).Wrap(ok), of(1)))
}

// blocked exports nothing until the test ends.
type blocked struct {
	sdkmetric.Exporter
	began, end chan struct{}
}

func (b blocked) Temporality(k sdkmetric.InstrumentKind) metricdata.Temporality {
	return sdkmetric.DefaultTemporalitySelector(k)
}
func (b blocked) Aggregation(k sdkmetric.InstrumentKind) sdkmetric.Aggregation {
	return sdkmetric.DefaultAggregationSelector(k)
}
func (b blocked) Export(context.Context, *metricdata.ResourceMetrics) error {
	b.began <- struct{}{}
	<-b.end
	return nil
}
func (b blocked) ForceFlush(context.Context) error { return nil }
func (b blocked) Shutdown(context.Context) error   { return nil }

func TestBlockedExporterHasNoEffectOnTheRequest(t *testing.T) {
	b := blocked{began: make(chan struct{}), end: make(chan struct{})}
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewPeriodicReader(b)))
	telemetry, err := otelsender.New(otelsender.Config{MeterProvider: provider})
	require.NoError(t, err)
	h := guardOf(t, senderauth.Config{Limits: limits, Observe: telemetry.Observe}).Wrap(ok)
	flushed := make(chan error, 1)
	go func() { flushed <- provider.ForceFlush(context.Background()) }()
	<-b.began
	require.Equal(t, 200, serve(h, of(1)))
	close(b.end)
	require.NoError(t, <-flushed)
}

func TestPanicOfARecorderIsAnErrorOfTheCollection(t *testing.T) {
	m := newMeter(t)
	m.ObserveRecorder(panicker{})
	var all metricdata.ResourceMetrics
	require.ErrorContains(t, m.reader.Collect(t.Context(), &all), "otelsender: reading the current values panicked")
}

type panicker struct{}

func (panicker) Dropped() uint64 { panic("fault") }

func TestMetricsNameNoSender(t *testing.T) {
	m := newMeter(t)
	h := guardOf(t, senderauth.Config{Limits: limits, Observe: m.Observe}).Wrap(ok)
	serve(h, of(1))
	for _, name := range slices.Collect(maps.Keys(m.values(t))) {
		require.NotContains(t, name, senderID(1))
		require.NotContains(t, name, "key_")
	}
}
