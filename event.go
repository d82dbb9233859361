package senderauth

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// An Event is one decision of a guard, as [Config.Observe] sees it. It holds no key,
// unless the Validator or the Limiter put one into its error.
type Event struct {
	Outcome Outcome
	// Sender is the authenticated sender, also of a request from a wrong network. It
	// is the zero Sender if the Validator refused the request or was not asked.
	Sender Sender
	// ClaimedSender is a fingerprint of the well-formed sender ID of a request that
	// was not authenticated: the first 16 hexadecimal digits of its SHA-256, as
	// printf %s "$id" | sha256sum | cut -c1-16 prints them. It is not the ID itself,
	// because clients that mix up the two headers send their key there. Anybody can
	// claim any ID, so never bill or block by it.
	ClaimedSender string
	// Limit is the name of the limit that refused, or of the first one charged.
	// It is empty if nothing was charged, and "failed_attempts" if
	// [Config.FailedAttempts] refused.
	Limit string
	// DryRun is the first limit of [Config.DryRun] that would have refused the
	// request.
	DryRun string
	// Inner reports a decision of [Guard.Charge], or of a guard inside another guard
	// of the same New. To count requests, skip these events. To count refusals, count
	// them, too.
	Inner bool
	// Cached reports that the [Cache] given to New answered without a lookup, or
	// that a guard further out did.
	Cached bool
	// LimiterFailed reports that the Limiter failed, with its error in Err. If it is
	// false and an admitted request has an Err, a stale cache entry stood in for a
	// failed lookup.
	LimiterFailed bool
	// Elapsed is how long the decision took.
	Elapsed time.Duration
	// Err is the cause of a refusal. An admitted request has one if a limiter
	// failed open, or if a stale cache entry stood in for a failed lookup.
	Err error
}

// An Outcome is what a guard decided. The set is fixed, so that an Outcome is
// fit for a metric's label.
type Outcome string

// The outcomes, with the status that the client sees.
const (
	Admitted      Outcome = "admitted"       // the status of the next handler
	MissingKey    Outcome = "missing_key"    // 401
	MissingSender Outcome = "missing_sender" // 401
	InvalidSender Outcome = "invalid_sender" // 401: malformed, or disabled
	InvalidKey    Outcome = "invalid_key"    // 401: malformed, unknown, or not active
	Mismatch      Outcome = "mismatch"       // 401: another sender's key
	WrongNetwork  Outcome = "wrong_network"  // 401: a good key from an address outside Sender.Networks
	OutOfScope    Outcome = "out_of_scope"   // 403: the key lacks a scope of Guard.Requiring
	Limited       Outcome = "limited"        // 429
	Insecure      Outcome = "insecure"       // 403: cleartext
	Refused       Outcome = "refused"        // the status of the Validator's own Problem
	Unavailable   Outcome = "unavailable"    // 503: the Validator failed, or the Limiter with FailClosed
	Canceled      Outcome = "canceled"       // 503: the request's context ended
	Failed        Outcome = "failed"         // 500: a fault of the server's own code
)

// Level returns the level at which [LogEvents] logs e: Error for unavailable and
// failed, Warn for an admitted request with an error, Info for the other refusals
// and for what a dry run would have refused, Debug for admitted and canceled.
func (e Event) Level() slog.Level {
	switch e.Outcome {
	case Unavailable, Failed:
		return slog.LevelError
	case Admitted:
		switch {
		case e.Err != nil:
			return slog.LevelWarn
		case e.DryRun != "":
			return slog.LevelInfo
		}
		return slog.LevelDebug
	case Canceled:
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// LogValue returns e as a group of the attributes that are set. It implements
// [slog.LogValuer].
func (e Event) LogValue() slog.Value {
	attrs := make([]slog.Attr, 1, 10)
	attrs[0] = slog.String("outcome", string(e.Outcome))
	for _, a := range []slog.Attr{
		slog.String("sender_id", e.Sender.ID),
		slog.String("key_id", e.Sender.KeyID),
		slog.String("claimed_sender", e.ClaimedSender),
		slog.String("limit", e.Limit),
		slog.String("dry_run", e.DryRun),
	} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	if e.Inner {
		attrs = append(attrs, slog.Bool("inner", true))
	}
	attrs = append(attrs, slog.Bool("cached", e.Cached), slog.Duration("elapsed", e.Elapsed))
	if e.Err != nil {
		attrs = append(attrs, slog.String("error", e.Err.Error()))
	}
	return slog.GroupValue(attrs...)
}

// Observers returns a function for [Config.Observe] that calls each of fs in
// order. Nil functions are skipped.
func Observers(fs ...func(context.Context, Event)) func(context.Context, Event) {
	var all []func(context.Context, Event)
	for _, f := range fs {
		if f != nil {
			all = append(all, f)
		}
	}
	return func(ctx context.Context, e Event) {
		for _, f := range all {
			f(ctx, e)
		}
	}
}

// recordsPerSecond is what one outcome may log above level Debug.
const recordsPerSecond = 10

// LogEvents returns a function for [Config.Observe] that logs each event to l,
// with the message "senderauth" and the attributes of [Event.LogValue]. level
// chooses the level. Nil means [Event.Level].
//
// Above level Debug it writes at most 10 records a second for each outcome, so
// that neither an outage nor a flood of bad keys floods the log. The next record
// of that outcome says in the attribute "suppressed" how many were left out.
// LogEvents panics on a nil l.
func LogEvents(l *slog.Logger, level func(Event) slog.Level) func(context.Context, Event) {
	if l == nil {
		panic("senderauth: LogEvents: the Logger is nil")
	}
	if level == nil {
		level = Event.Level
	}
	valves := logValves{byOutcome: map[Outcome]*logValve{}}
	return func(ctx context.Context, e Event) {
		at := level(e)
		if !l.Enabled(ctx, at) {
			return
		}
		suppressed := 0
		if at > slog.LevelDebug {
			var ok bool
			if suppressed, ok = valves.open(e.Outcome); !ok {
				return
			}
		}
		attrs := e.LogValue().Group()
		if suppressed > 0 {
			attrs = append(attrs, slog.Int("suppressed", suppressed))
		}
		l.LogAttrs(ctx, at, "senderauth", attrs...)
	}
}

// logValves bound the records of each outcome.
type logValves struct {
	mu        sync.Mutex
	byOutcome map[Outcome]*logValve
}

type logValve struct {
	limit      *rate.Limiter
	suppressed int // since the last record
}

// open reports whether a record may be written, and how many were suppressed
// since the last one.
func (l *logValves) open(o Outcome) (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.byOutcome[o]
	if v == nil {
		v = &logValve{limit: rate.NewLimiter(recordsPerSecond, recordsPerSecond)}
		l.byOutcome[o] = v
	}
	if !v.limit.AllowN(time.Now(), 1) {
		v.suppressed++
		return 0, false
	}
	suppressed, v.suppressed = v.suppressed, 0
	return suppressed, true
}
