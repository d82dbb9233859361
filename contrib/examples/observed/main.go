// Command observed serves the quickstart's API with telemetry: traces and metrics on
// standard output, and metrics for Prometheus at /metrics.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/examples/internal/demo"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/exporters/stdout/stdoutmetric"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

func main() {
	flush, err := export()
	if err != nil {
		fmt.Fprintln(os.Stderr, "observed:", err)
		os.Exit(1)
	}
	defer flush()
	demo.Main("observed", routes, label)
}

// export sets the global providers, which demo.Main uses through otelsender. The function
// that it returns exports what is left.
func export() (flush func(), _ error) {
	spans, err1 := stdouttrace.New()
	metrics, err2 := stdoutmetric.New()
	scraped, err3 := prometheus.New(prometheus.WithoutScopeInfo())
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	tracers := sdktrace.NewTracerProvider(sdktrace.WithBatcher(spans))
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(scraped), sdkmetric.WithReader(sdkmetric.NewPeriodicReader(metrics)))
	otel.SetTracerProvider(tracers)
	otel.SetMeterProvider(meters)
	return func() {
		tracers.Shutdown(context.Background())
		meters.Shutdown(context.Background())
	}, nil
}

// label adds the outcome to the metrics of otelhttp. Outcomes are a fixed set; never add
// the sender.
func label(ctx context.Context, e senderauth.Event) {
	if l, ok := otelhttp.LabelerFromContext(ctx); ok && !e.Inner {
		l.Add(attribute.String("senderauth.outcome", string(e.Outcome)))
	}
}

// routes puts otelhttp outside the guard, so that refusals are traced too. In production
// serve /metrics on an address that clients cannot reach.
func routes(guard *senderauth.Guard) http.Handler {
	api := otelhttp.NewHandler(guarded(guard), "api")
	metrics := promhttp.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/metrics" {
			metrics.ServeHTTP(w, r)
			return
		}
		api.ServeHTTP(w, r)
	})
}

// guarded is the API of the quickstart.
func guarded(guard *senderauth.Guard) http.Handler {
	mux := http.NewServeMux()
	limits := make(map[string][]string) // by pattern
	handle := func(pattern string, answer func(senderauth.Sender, *http.Request) http.Handler, names ...string) {
		limits[pattern] = names
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			sender, _ := senderauth.SenderFrom(r.Context())
			answer(sender, r).ServeHTTP(w, r)
		})
	}
	handle("GET /v1/contacts", func(s senderauth.Sender, _ *http.Request) http.Handler { return demo.Contacts(s) }, "default")
	handle("GET /v1/contacts/{id}", func(s senderauth.Sender, r *http.Request) http.Handler {
		return demo.ContactByID(s, r.PathValue("id"))
	}, "default")
	handle("POST /v1/messages", func(s senderauth.Sender, r *http.Request) http.Handler { return demo.Send(s, r.Body) }, "messages")
	handle("POST /v1/users", func(s senderauth.Sender, r *http.Request) http.Handler { return demo.Invite(s, r.Body) }, "default", "sensitive")
	return guard.ChargingBy(func(r *http.Request) []string {
		if _, pattern := mux.Handler(r); limits[pattern] != nil {
			return limits[pattern]
		}
		return []string{"default"}
	}).Wrap(mux)
}
