package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func parseLimits(texts []string) (map[string]senderauth.Limit, error) {
	pairs, err := parsePairs("limit", texts)
	if err != nil {
		return nil, err
	}
	limits := make(map[string]senderauth.Limit, len(pairs))
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		limits[name], err = sqlkeys.ParseLimit(pairs[name])
		errs = append(errs, err)
	}
	return limits, errors.Join(errs...)
}

func parsePairs(flag string, texts []string) (map[string]string, error) {
	pairs := make(map[string]string, len(texts))
	for _, text := range texts {
		name, value, ok := strings.Cut(text, "=")
		if _, twice := pairs[name]; !ok || name == "" || twice {
			return nil, fmt.Errorf("-%s %q: %w: want NAME=VALUE, each name once", flag, text, sqlkeys.ErrInvalid)
		}
		pairs[name] = value
	}
	return pairs, nil
}

// parseSpan reads a duration, or a number of days such as 90d.
func parseSpan(flag, text string) (time.Duration, error) {
	span, ok := readSpan(text)
	if !ok {
		return 0, fmt.Errorf("-%s %q: %w: want a duration such as 90d or 12h", flag, text, sqlkeys.ErrInvalid)
	}
	return span, nil
}

func readSpan(text string) (time.Duration, bool) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= -36500 && n <= 36500 {
			return time.Duration(n) * 24 * time.Hour, true
		}
	}
	span, err := time.ParseDuration(text)
	return span, err == nil
}

// parseFuture reads a time, a date, or a duration from now. An empty text is
// the zero time.
func parseFuture(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	return parseInstant(flag, text, 1)
}

// parsePast reads a time, a date, or a duration before now.
func parsePast(flag, text string) (time.Time, error) {
	at, err := parseInstant(flag, text, -1)
	if err == nil && at.After(time.Now()) {
		return time.Time{}, fmt.Errorf("-%s %q: %w: it is in the future", flag, text, sqlkeys.ErrInvalid)
	}
	return at, err
}

// parseInstant reads a time, a date, which begins at midnight UTC, or a
// duration to add to now in the direction 1 or -1.
func parseInstant(flag, text string, direction time.Duration) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	span, ok := readSpan(text)
	if !ok {
		return time.Time{}, fmt.Errorf("-%s %q: %w: want a duration such as 90d or 12h, a date such as 2027-01-31, or an RFC 3339 time", flag, text, sqlkeys.ErrInvalid)
	}
	return time.Now().Add(direction * span), nil
}
