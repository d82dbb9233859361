package otelsender_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/otelsender"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// A tracing records spans.
type tracing struct {
	*otelsender.Telemetry
	provider *sdktrace.TracerProvider
	spans    *tracetest.SpanRecorder
}

func newTracing(t *testing.T, cfg otelsender.Config) tracing {
	t.Helper()
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	cfg.TracerProvider = provider
	telemetry, err := otelsender.New(cfg)
	require.NoError(t, err)
	return tracing{telemetry, provider, spans}
}

// serve sends r inside a span, and returns that span.
func (tr tracing) serve(h http.Handler, r *http.Request) sdktrace.ReadOnlySpan {
	ctx, span := tr.provider.Tracer("test").Start(r.Context(), "request")
	serve(h, r.WithContext(ctx))
	span.End()
	ended := tr.spans.Ended()
	return ended[len(ended)-1]
}

func (tr tracing) guard(t *testing.T, v senderauth.Validator) http.Handler {
	t.Helper()
	cache, err := senderauth.NewCache(tr.Validator(v), senderauth.CacheConfig{LookupContext: otelsender.LookupContext})
	require.NoError(t, err)
	guard, err := senderauth.New(cache, senderauth.Config{Limits: limits, Observe: tr.Observe})
	require.NoError(t, err)
	return guard.Wrap(guard.Charging("messages").Wrap(ok))
}

func attributes(s sdktrace.ReadOnlySpan) map[string]string {
	got := make(map[string]string)
	for _, a := range s.Attributes() {
		got[string(a.Key)] = a.Value.String()
	}
	return got
}

func TestDecisionIsOnTheSpan(t *testing.T) {
	tr := newTracing(t, otelsender.Config{})
	h := tr.guard(t, senderauth.ValidatorFunc(knowsAll))
	want := map[string]string{
		"senderauth.outcome": "admitted", "senderauth.limit": "default", "senderauth.cached": "false",
		"senderauth.sender.id": senderID(1), "senderauth.key.id": "key_" + senderID(1)[24:],
	}
	require.Equal(t, want, attributes(tr.serve(h, of(1))))
	limited := tr.serve(h, of(1))
	want["senderauth.outcome"], want["senderauth.limit"], want["senderauth.cached"] = "limited", "messages", "true"
	require.Equal(t, want, attributes(limited), "the inner guard refused")
	require.Equal(t, codes.Unset, limited.Status().Code)
}

func TestOmitIDs(t *testing.T) {
	tr := newTracing(t, otelsender.Config{OmitIDs: true})
	got := attributes(tr.serve(tr.guard(t, senderauth.ValidatorFunc(knowsAll)), of(1)))
	require.Equal(t, map[string]string{"senderauth.outcome": "admitted", "senderauth.limit": "default", "senderauth.cached": "false"}, got)
}

func TestLookupHasASpanOnAMiss(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		status codes.Code
	}{
		"accepted": {nil, codes.Unset},
		"refused":  {senderauth.ErrInvalidKey, codes.Unset},
		"problem":  {fmt.Errorf("billing: %w", &senderauth.Problem{Status: 403}), codes.Unset},
		"outage":   {errOutage, codes.Error},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTracing(t, otelsender.Config{})
			h := tr.guard(t, senderauth.ValidatorFunc(func(ctx context.Context, cr senderauth.Credentials) (senderauth.Sender, error) {
				if c.err != nil {
					return senderauth.Sender{}, c.err
				}
				return knowsAll(ctx, cr)
			}))
			parent := tr.serve(h, of(1))
			require.Len(t, tr.spans.Ended(), 2)
			lookup := tr.spans.Ended()[0]
			require.Equal(t, "senderauth.lookup", lookup.Name())
			require.Equal(t, parent.SpanContext().SpanID(), lookup.Parent().SpanID())
			require.Equal(t, c.status, lookup.Status().Code)
			if c.err == nil {
				tr.serve(h, of(1))
				require.Len(t, tr.spans.Ended(), 3, "a hit has none")
			}
		})
	}
}

// The value of a panic may hold the key.
func TestPanicOfTheValidatorIsNotOnItsSpan(t *testing.T) {
	tr := newTracing(t, otelsender.Config{})
	h := tr.guard(t, senderauth.ValidatorFunc(func(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) { panic(c.APIKey) }))
	tr.serve(h, of(1))
	lookup := tr.spans.Ended()[0]
	require.Equal(t, codes.Error, lookup.Status().Code)
	require.NotContains(t, fmt.Sprint(lookup.Status(), lookup.Attributes(), lookup.Events()), apiKey(1))
	require.Empty(t, lookup.Events())
}

func TestNoSpanWithoutAParent(t *testing.T) {
	tr := newTracing(t, otelsender.Config{})
	require.Equal(t, 200, serve(tr.guard(t, senderauth.ValidatorFunc(knowsAll)), of(1)))
	require.Empty(t, tr.spans.Started())
}

type prefixed struct{ senderauth.ValidatorFunc }

func (prefixed) CheckKey(key string) bool { return key == "sk_1" }

func TestValidatorKeepsCheckKey(t *testing.T) {
	tr := newTracing(t, otelsender.Config{})
	h := tr.guard(t, prefixed{func(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		return senderauth.Sender{ID: c.SenderID}, nil
	}})
	r := of(1)
	require.Equal(t, 401, serve(h, r))
	r.Header.Set("x-api-key", "sk_1")
	require.Equal(t, 200, serve(h, r))
	require.NotImplements(t, (*interface{ CheckKey(string) bool })(nil), tr.Validator(senderauth.ValidatorFunc(knowsAll)))
}

// brokenTracer panics at each span.
type brokenTracer struct{ noop.TracerProvider }

func (brokenTracer) Tracer(string, ...trace.TracerOption) trace.Tracer { return brokenSpans{} }

type brokenSpans struct{ noop.Tracer }

func (brokenSpans) Start(context.Context, string, ...trace.SpanStartOption) (context.Context, trace.Span) {
	panic("broken")
}

func TestPanicOfATracerHasNoEffectOnTheRequest(t *testing.T) {
	tr := newTracing(t, otelsender.Config{})
	telemetry, err := otelsender.New(otelsender.Config{TracerProvider: brokenTracer{}})
	require.NoError(t, err)
	tr.Telemetry = telemetry
	h := tr.guard(t, senderauth.ValidatorFunc(knowsAll))
	require.Equal(t, "admitted", attributes(tr.serve(h, of(1)))["senderauth.outcome"])
}
