package sqlkeys

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/senderauth/senderauth"
)

// ParseLimit reads what [FormatLimit] writes: REQUESTS/PER, REQUESTS/PER:BURST,
// "unlimited" or "blocked". PER is a duration such as 1m30s, or s, m, h or d
// for one second, minute, hour or day.
//
// REQUESTS/day and REQUESTS/month are allowances ([senderauth.PerDay] and
// [senderauth.PerMonth]) in UTC. With @ZONE they are those of a zone of the IANA
// database, such as 10000/month@Europe/Berlin. If a machine lacks that database, its
// program must import time/tzdata.
func ParseLimit(s string) (senderauth.Limit, error) {
	l, ok, err := parseAllowance(s)
	if err != nil {
		return senderauth.Limit{}, fmt.Errorf("sqlkeys: limit %q: %w: %w", s, ErrInvalid, err)
	}
	if !ok {
		l, ok = parseLimit(s)
	}
	if !ok {
		return senderauth.Limit{}, fmt.Errorf("sqlkeys: limit %q: %w: want REQUESTS/PER[:BURST], such as 200/1m:50, or unlimited, or blocked", s, ErrInvalid)
	}
	if wrong := outOfRange(l); wrong != "" {
		return senderauth.Limit{}, fmt.Errorf("sqlkeys: limit %q: %w: %s", s, ErrInvalid, wrong)
	}
	return l, nil
}

// outOfRange says what [senderauth.Limit.Validate] says, but in the words of
// the text that was parsed.
func outOfRange(l senderauth.Limit) string {
	if l.Validate() == nil {
		return ""
	}
	var wrong []string
	if l.Requests < 1 || l.Requests > maxStored {
		wrong = append(wrong, fmt.Sprintf("REQUESTS is %d, not in 1..%d", l.Requests, maxStored))
	}
	if l.Per < time.Microsecond && l.Calendar.Unit() == "" {
		wrong = append(wrong, fmt.Sprintf("PER is %v, below a microsecond", l.Per))
	}
	if l.Burst < 0 || l.Burst > maxStored {
		wrong = append(wrong, fmt.Sprintf("BURST is %d, not in 1..%d", l.Burst, maxStored))
	}
	return strings.Join(wrong, ", ")
}

// parseLimit checks the syntax only.
func parseLimit(s string) (l senderauth.Limit, ok bool) {
	switch s {
	case "unlimited":
		return senderauth.Unlimited(), true
	case "blocked":
		return senderauth.Blocked(), true
	}
	requests, rest, ok := strings.Cut(s, "/")
	if !ok {
		return l, false
	}
	per, burst, hasBurst := strings.Cut(rest, ":")
	switch per {
	case "s", "m", "h":
		per = "1" + per
	case "d":
		per = "24h"
	}
	var err error
	if l.Requests, err = strconv.Atoi(requests); err != nil {
		return l, false
	}
	if l.Per, err = time.ParseDuration(per); err != nil {
		return l, false
	}
	if hasBurst {
		if l.Burst, err = strconv.Atoi(burst); err != nil || l.Burst == 0 {
			return l, false
		}
	}
	return l, true
}

// FormatLimit returns a limit as the store keeps it.
func FormatLimit(l senderauth.Limit) string {
	switch l {
	case senderauth.Unlimited():
		return "unlimited"
	case senderauth.Blocked():
		return "blocked"
	}
	if l.Calendar.Unit() != "" {
		return formatAllowance(l)
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
		if !isText(name) {
			errs = append(errs, fmt.Errorf("limit %q: the name is not UTF-8 text", name))
		}
		if err := limits[name].Validate(); err != nil {
			errs = append(errs, fmt.Errorf("limit %q: %w", name, err))
		}
		if c := limits[name].Calendar; c.Unit() != "" {
			if _, err := location(c.Location().String()); err != nil {
				errs = append(errs, fmt.Errorf("limit %q: %w", name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// formatLimits returns the text of each limit.
func formatLimits(limits map[string]senderauth.Limit) map[string]string {
	texts := make(map[string]string, len(limits))
	for name, l := range limits {
		texts[name] = FormatLimit(l)
	}
	return texts
}

// decodeLimits reads what a column stores. Its error wraps ErrUnreadable and
// comes with the limits that can be read.
func decodeLimits(text string) (map[string]senderauth.Limit, error) {
	texts, err := decodeMap(text)
	if len(texts) == 0 {
		return nil, err
	}
	errs := []error{err}
	limits := make(map[string]senderauth.Limit, len(texts))
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		l, err := decodeLimit(texts[name])
		if _, isAllowance, zoneErr := parseAllowance(texts[name]); isAllowance && zoneErr != nil {
			errs = append(errs, fmt.Errorf("%w: %q is %q: %w", ErrUnreadable, name, texts[name], zoneErr))
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%w: %q is %q, not a limit such as 200/1m:50", ErrUnreadable, name, texts[name]))
			continue
		}
		limits[name] = l
	}
	return limits, errors.Join(errs...)
}

// maxStored is the largest Requests and Burst that [senderauth.Limit.Validate]
// accepts.
const maxStored = 1_000_000_000

// decodeLimit reads a stored limit. Earlier versions stored counts above
// maxStored. It reads those as maxStored, so that their senders go on working.
func decodeLimit(s string) (senderauth.Limit, error) {
	l, ok := parseLimit(s)
	if !ok || l == senderauth.Unlimited() || l == senderauth.Blocked() {
		return ParseLimit(s)
	}
	l.Requests, l.Burst = min(l.Requests, maxStored), min(l.Burst, maxStored)
	if l.Validate() != nil {
		return ParseLimit(s)
	}
	return l, nil
}
