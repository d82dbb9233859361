package otelsender_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/otelsender"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

// benchWriter is a ResponseWriter that costs nothing.
type benchWriter struct{ header http.Header }

func (w *benchWriter) Header() http.Header         { return w.header }
func (w *benchWriter) WriteHeader(int)             {}
func (w *benchWriter) Write(b []byte) (int, error) { return len(b), nil }

// BenchmarkObserve measures an admitted request of a cached sender with and without
// metrics, with the SDK and its default settings.
func BenchmarkObserve(b *testing.B) {
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
	telemetry, err := otelsender.New(otelsender.Config{MeterProvider: provider})
	require.NoError(b, err)
	for _, c := range []struct {
		name    string
		observe func(context.Context, senderauth.Event)
	}{
		{"nil", nil},
		{"empty", func(context.Context, senderauth.Event) {}},
		{"metrics", telemetry.Observe},
	} {
		handler := guardOf(b, senderauth.Config{
			Limits:     map[string]senderauth.Limit{"default": senderauth.PerSecond(1_000_000_000)},
			RateFields: senderauth.RateFieldsNone,
			Observe:    c.observe,
		}).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			r := of(1)
			w := &benchWriter{header: make(http.Header)}
			for b.Loop() {
				clear(w.header)
				handler.ServeHTTP(w, r)
			}
		})
		b.Run(c.name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				r := httptest.NewRequest("GET", "/", nil)
				r.Header = of(1).Header
				w := &benchWriter{header: make(http.Header)}
				for pb.Next() {
					clear(w.header)
					handler.ServeHTTP(w, r)
				}
			})
		})
	}
}

// BenchmarkRecord compares Observe alone with the least that an SDK takes for the same: a
// counter with attributes that were made before, and a histogram.
func BenchmarkRecord(b *testing.B) {
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
	telemetry, err := otelsender.New(otelsender.Config{MeterProvider: provider})
	require.NoError(b, err)
	meter := provider.Meter("floor")
	counter, err := meter.Int64Counter("requests")
	require.NoError(b, err)
	histogram, err := meter.Float64Histogram("duration", metric.WithExplicitBucketBoundaries(1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1))
	require.NoError(b, err)
	attributes := metric.WithAttributeSet(attribute.NewSet(attribute.String("outcome", "admitted"), attribute.String("limit", "default")))
	ctx := b.Context()
	e := senderauth.Event{Outcome: senderauth.Admitted, Limit: "default", Sender: senderauth.Sender{ID: senderID(1)}, Elapsed: 900}
	for name, f := range map[string]func(){
		"SDK counter":   func() { counter.Add(ctx, 1, attributes) },
		"SDK histogram": func() { histogram.Record(ctx, e.Elapsed.Seconds()) },
		"Observe":       func() { telemetry.Observe(ctx, e) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
}
