package demo

import (
	"context"
	"log/slog"

	"github.com/senderauth/senderauth"
)

// logEvent logs what a guard decided. No event holds a key.
func logEvent(ctx context.Context, log *slog.Logger, e senderauth.Event) {
	level := slog.LevelInfo
	switch {
	case e.Outcome == senderauth.Failed || e.Outcome == senderauth.Unavailable:
		level = slog.LevelError
	case e.Outcome == senderauth.Admitted && e.Err != nil:
		level = slog.LevelWarn // served without a limit, or from a stale answer
	case e.Outcome == senderauth.Admitted:
		level = slog.LevelDebug
	}
	if !log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("outcome", string(e.Outcome)),
		slog.Bool("cached", e.Cached),
		slog.Int64("elapsed_us", e.Elapsed.Microseconds()),
	}
	for _, a := range []slog.Attr{
		slog.String("sender", e.Sender.ID),
		slog.String("key_id", e.Sender.KeyID),
		slog.String("limit", e.Limit),
	} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("error", e.Err.Error()))
	}
	log.LogAttrs(ctx, level, "request", attrs...)
}
