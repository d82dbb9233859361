package main

import (
	"errors"
	"fmt"
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
	for name, text := range pairs {
		limits[name], err = sqlkeys.ParseLimit(text)
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
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= -36500 && n <= 36500 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	span, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("-%s %q: %w: want a duration such as 90d or 12h", flag, text, sqlkeys.ErrInvalid)
	}
	return span, nil
}

// parseInstant reads a time, or a duration from now. An empty text is the zero
// time.
func parseInstant(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	span, err := parseSpan(flag, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w, or an RFC 3339 time", err)
	}
	return time.Now().Add(span), nil
}
