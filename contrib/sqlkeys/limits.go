package sqlkeys

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/senderauth/senderauth"
)

// ParseLimit reads what [FormatLimit] writes: REQUESTS/PER or
// REQUESTS/PER:BURST, where PER is a duration such as 1m30s, or one of s, m, h
// and d for a single second, minute, hour or day; or "unlimited" or "blocked".
func ParseLimit(s string) (senderauth.Limit, error) {
	switch s {
	case "unlimited":
		return senderauth.Unlimited(), nil
	case "blocked":
		return senderauth.Blocked(), nil
	}
	bad := func() (senderauth.Limit, error) {
		return senderauth.Limit{}, fmt.Errorf("sqlkeys: limit %q: %w: want REQUESTS/PER[:BURST], as in 200/1m:50, or unlimited, or blocked", s, ErrInvalid)
	}
	requests, rest, ok := strings.Cut(s, "/")
	per, burst, hasBurst := strings.Cut(rest, ":")
	if !ok {
		return bad()
	}
	var l senderauth.Limit
	var err error
	if l.Requests, err = strconv.Atoi(requests); err != nil {
		return bad()
	}
	switch per {
	case "s", "m", "h":
		per = "1" + per
	case "d":
		per = "24h"
	}
	if l.Per, err = time.ParseDuration(per); err != nil {
		return bad()
	}
	if hasBurst {
		if l.Burst, err = strconv.Atoi(burst); err != nil || l.Burst == 0 {
			return bad()
		}
	}
	if err := l.Validate(); err != nil {
		return senderauth.Limit{}, fmt.Errorf("sqlkeys: limit %q: %w: %w", s, ErrInvalid, err)
	}
	return l, nil
}

// FormatLimit writes a limit as the store keeps it.
func FormatLimit(l senderauth.Limit) string {
	switch l {
	case senderauth.Unlimited():
		return "unlimited"
	case senderauth.Blocked():
		return "blocked"
	}
	s := fmt.Sprintf("%d/%s", l.Requests, l.Per)
	if l.Burst != 0 {
		s += ":" + strconv.Itoa(l.Burst)
	}
	return s
}

func checkLimits(limits map[string]senderauth.Limit) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		if name == "" {
			errs = append(errs, errors.New("a limit without a name"))
		}
		if !keepable(name) {
			errs = append(errs, fmt.Errorf("limit %q: the name is not UTF-8 text", name))
		}
		if err := limits[name].Validate(); err != nil {
			errs = append(errs, fmt.Errorf("limit %q: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// encodeLimits writes the limits as one JSON object of strings.
func encodeLimits(limits map[string]senderauth.Limit) string {
	m := make(map[string]string, len(limits))
	for name, l := range limits {
		m[name] = FormatLimit(l)
	}
	return encodeMap(m)
}

func decodeLimits(text string) (map[string]senderauth.Limit, error) {
	m, err := decodeMap(text)
	if err != nil || len(m) == 0 {
		return nil, err
	}
	limits := make(map[string]senderauth.Limit, len(m))
	for name, s := range m {
		if limits[name], err = ParseLimit(s); err != nil {
			return nil, err
		}
	}
	return limits, nil
}

const maxMetadata = 16 << 10

func checkMetadata(m map[string]string) error {
	for name, value := range m {
		if !keepable(name) || !keepable(value) {
			return fmt.Errorf("metadata %q is not UTF-8 text", name)
		}
	}
	if n := len(encodeMap(m)); n > maxMetadata {
		return fmt.Errorf("the metadata has %d bytes; %d are the most", n, maxMetadata)
	}
	return nil
}

// keepable reports text that both databases keep as it is.
func keepable(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

func encodeMap(m map[string]string) string {
	if len(m) == 0 {
		return "{}"
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(b)
}

func decodeMap(text string) (map[string]string, error) {
	if text == "{}" {
		return nil, nil
	}
	var m map[string]string
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return nil, fmt.Errorf("sqlkeys: a stored object of strings: %w", err)
	}
	return m, nil
}
