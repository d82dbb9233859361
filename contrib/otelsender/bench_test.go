package otelsender_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/otelsender"
	"github.com/stretchr/testify/require"
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
