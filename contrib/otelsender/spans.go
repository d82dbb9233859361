package otelsender

import (
	"context"
	"errors"

	"github.com/senderauth/senderauth"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Observe records a decision in the metrics, and on the span in ctx if that span is
// recording. It does not change the span's status. Use it as [senderauth.Config].Observe.
// [senderauth.Observers] joins it with others.
func (t *Telemetry) Observe(ctx context.Context, e senderauth.Event) {
	defer t.contain()
	t.requests.record(ctx, &e)
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		t.annotate(span, e)
	}
}

// annotate puts a decision on the span of the request. What an inner guard admits is left
// out, because it would replace the attributes of the outer one.
func (t *Telemetry) annotate(span trace.Span, e senderauth.Event) {
	attrs := make([]attribute.KeyValue, 0, 7)
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, attribute.String(key, valid(value)))
		}
	}
	text("senderauth.dry_run", e.DryRun)
	if failedPart(&e) != "" {
		text("senderauth.error", e.Err.Error())
	}
	if !e.Inner || e.Outcome != senderauth.Admitted {
		text("senderauth.outcome", string(e.Outcome))
		text("senderauth.limit", e.Limit)
		attrs = append(attrs, attribute.Bool("senderauth.cached", e.Cached))
		if !t.omitIDs {
			text("senderauth.sender.id", e.Sender.ID)
			text("senderauth.key.id", e.Sender.KeyID)
		}
	}
	span.SetAttributes(attrs...)
}

// LookupContext hands the span of a request on to the lookup that the request starts. Set
// it as [senderauth.CacheConfig].LookupContext. Without it, a Cache hands on nothing, and
// [Telemetry.Validator] makes no spans behind a Cache.
func LookupContext(request context.Context) context.Context {
	return trace.ContextWithSpanContext(context.Background(), trace.SpanContextFromContext(request))
}

// Validator returns v with a span "senderauth.lookup" around each call whose context has a
// span. The span's status is Error if v fails, and unset if v refuses the key. A CheckKey
// method of v is kept.
//
// Put it inside the [senderauth.Cache], and set the [LookupContext] of the Cache. Validator
// panics if v is a Cache. It returns a nil v as it is, and [senderauth.New] reports it.
func (t *Telemetry) Validator(v senderauth.Validator) senderauth.Validator {
	if isNil(v) {
		return v
	}
	if _, ok := v.(*senderauth.Cache); ok {
		panic("otelsender: Validator: the Validator is a Cache: wrap the Validator inside it")
	}
	traced := &validator{t, v}
	if c, ok := v.(keyChecker); ok {
		return checkingValidator{traced, c}
	}
	return traced
}

// A validator traces the calls of another one.
type validator struct {
	telemetry *Telemetry
	traced    senderauth.Validator
}

// A keyChecker is a validator whose keys are not UUIDs.
type keyChecker interface{ CheckKey(key string) bool }

type checkingValidator struct {
	*validator
	keyChecker
}

var errPanicked = errors.New("otelsender: the validator panicked")

// Validate calls the validator. span.End is not deferred itself: it would record the value
// of a panic, which may hold the key.
func (v *validator) Validate(ctx context.Context, c senderauth.Credentials) (s senderauth.Sender, err error) {
	ctx, span := v.telemetry.startLookup(ctx)
	if span == nil {
		return v.traced.Validate(ctx, c)
	}
	err = errPanicked // until it has returned
	defer func() { v.telemetry.endLookup(span, err) }()
	return v.traced.Validate(ctx, c)
}

// startLookup returns a nil span if there is no span to be the parent, or the provider
// panics.
func (t *Telemetry) startLookup(ctx context.Context) (child context.Context, span trace.Span) {
	child = ctx
	defer t.contain()
	if trace.SpanContextFromContext(ctx).IsValid() {
		child, span = t.tracer.Start(ctx, "senderauth.lookup")
	}
	return child, span
}

func (t *Telemetry) endLookup(span trace.Span, err error) {
	defer t.contain()
	defer span.End()
	if err != nil && !refuses(err) {
		span.SetStatus(codes.Error, valid(err.Error()))
	}
}

// refuses reports an error of a validator that did its work: it refuses the key.
func refuses(err error) bool {
	var p *senderauth.Problem
	if errors.As(err, &p) {
		return p != nil && p.Status >= 400 && p.Status < 500
	}
	return errors.Is(err, senderauth.ErrInvalidKey) || errors.Is(err, senderauth.ErrKeyMismatch) || errors.Is(err, senderauth.ErrInvalidSender)
}
