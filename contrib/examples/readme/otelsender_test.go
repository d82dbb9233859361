package readme_test

import (
	"context"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/otelsender"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

func withTelemetry(store senderauth.Validator, limits map[string]senderauth.Limit, serve func(*otelsender.Telemetry, *senderauth.Guard) error) error {
	telemetry, err := otelsender.New(otelsender.Config{}) // the global providers
	if err != nil {
		return err
	}
	keys, err := senderauth.NewCache(telemetry.Validator(store), senderauth.CacheConfig{LookupContext: otelsender.LookupContext})
	if err != nil {
		return err
	}
	telemetry.ObserveCache(keys)
	guard, err := senderauth.New(keys, senderauth.Config{Limits: limits, Observe: telemetry.Observe})
	if err != nil {
		return err
	}
	return serve(telemetry, guard)
}

func observeParts(ctx context.Context, telemetry *otelsender.Telemetry, store *sqlkeys.Store, uses *sqlkeys.Recorder, cfg *redislimit.Config) error {
	telemetry.ObserveRecorder(uses)
	expiry, err := store.NewExpiry(sqlkeys.ExpiryConfig{})
	if err != nil {
		return err
	}
	go expiry.Run(ctx) // counts the keys that end soon, every 5 minutes
	telemetry.ObserveKeys(expiry)
	cfg.OnMode = func(m redislimit.Mode, _ error) { telemetry.SetFallback(m == redislimit.Fallback) }
	return nil
}

// collected returns the sum over the time series of each instrument.
func collected(t *testing.T, reader sdkmetric.Reader) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &all))
	sums := make(map[string]int64)
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			var points []metricdata.DataPoint[int64]
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				points = data.DataPoints
			case metricdata.Gauge[int64]:
				points = data.DataPoints
			}
			for _, p := range points {
				sums[m.Name] += p.Value
			}
		}
	}
	return sums
}

func TestTelemetryOfTheReadme(t *testing.T) {
	db, err := sqlkeys.OpenDB(filepath.Join(t.TempDir(), "keys.db"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	store, err := sqlkeys.Open(t.Context(), db, sqlkeys.Config{Migrate: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	uses, err := store.NewRecorder(sqlkeys.RecorderConfig{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, uses.Close(context.Background())) })
	reader := sdkmetric.NewManualReader()
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	limits := map[string]senderauth.Limit{"default": senderauth.PerMinute(9)}
	require.NoError(t, withTelemetry(acme(t), limits, func(telemetry *otelsender.Telemetry, guard *senderauth.Guard) error {
		var cfg redislimit.Config
		require.NoError(t, observeParts(t.Context(), telemetry, store, uses, &cfg))
		require.Equal(t, 200, asAcme(guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), "/").Code)
		cfg.OnMode(redislimit.Fallback, nil)
		return nil
	}))
	got := collected(t, reader)
	delete(got, "senderauth.keys.expiring") // unknown until the first count
	require.Equal(t, map[string]int64{
		"senderauth.requests": 1, "senderauth.errors": 0, "senderauth.recorder.dropped": 0, "senderauth.limiter.fallback": 1,
		"senderauth.cache.lookups": 1, "senderauth.cache.evictions": 0, "senderauth.cache.entries": 1,
	}, got)
}
