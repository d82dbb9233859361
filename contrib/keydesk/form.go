package keydesk

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// maxForm is the size of the largest form, in bytes.
const maxForm = 64 << 10

// parseForm reads the form of a POST. Values in the URL are no part of it.
func parseForm(r *http.Request) error {
	if ct := r.Header.Get("Content-Type"); ct != "" {
		if media, _, err := mime.ParseMediaType(ct); err != nil || media != "application/x-www-form-urlencoded" {
			return &refusal{status: http.StatusUnsupportedMediaType, title: "Not a form", text: "The request is not a form of this page."}
		}
	}
	r.Body = http.MaxBytesReader(nil, r.Body, maxForm)
	err := r.ParseForm()
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return &refusal{status: http.StatusRequestEntityTooLarge, title: "Too large", text: "The form is larger than 64 KiB. Nothing was changed."}
	case err != nil:
		return &refusal{status: http.StatusBadRequest, title: "Not a form", text: "The form could not be read. Nothing was changed."}
	}
	return nil
}

// A form has what somebody entered, and what is wrong with it.
type form struct {
	values url.Values
	errs   map[string]string
}

func newForm(values url.Values) *form { return &form{values, make(map[string]string)} }

// Value returns what was entered.
func (f *form) Value(name string) string { return f.values.Get(name) }

// Is reports whether an option is the one that was chosen.
func (f *form) Is(name, value string) bool { return f.values.Get(name) == value }

// Error returns what is wrong with a field, or "".
func (f *form) Error(name string) string { return f.errs[name] }

// Failed reports whether any field is wrong.
func (f *form) Failed() bool { return len(f.errs) > 0 }

// fail notes what is wrong with a field, unless something is already.
func (f *form) fail(name, text string, args ...any) {
	if f.errs[name] == "" {
		f.errs[name] = fmt.Sprintf(text, args...)
	}
}

// maxName is the length of the longest name of a key, in bytes.
const maxName = 200

// name reads the name of a key.
func (f *form) name(field string) string {
	s := strings.TrimSpace(f.Value(field))
	switch {
	case len(s) > maxName:
		f.fail(field, "The name has %d bytes. At most %d are possible.", len(s), maxName)
	case !utf8.ValidString(s):
		f.fail(field, "The name is not valid text (UTF-8).")
	case strings.ContainsFunc(s, isHidden):
		f.fail(field, "The name has control characters or marks of text direction, such as a line break or a tab.")
	}
	return s
}

// isHidden reports characters that would make a line read as something else.
func isHidden(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}

// choice reads a field that has one of a few values.
func (f *form) choice(field string, values ...string) string {
	s := f.Value(field)
	if !slices.Contains(values, s) {
		f.fail(field, "Choose one of: %s.", strings.Join(values, ", "))
	}
	return s
}

// lifetimes are the choices of how long a key or a grace period lasts.
var lifetimes = map[string]time.Duration{
	"0":    0,
	"1h":   time.Hour,
	"24h":  24 * time.Hour,
	"7d":   7 * 24 * time.Hour,
	"30d":  30 * 24 * time.Hour,
	"90d":  90 * 24 * time.Hour,
	"180d": 180 * 24 * time.Hour,
	"365d": 365 * 24 * time.Hour,
}

// expiry reads the end of a key: a lifetime, "date" with a second field, or an
// endless choice, which stands for the zero time.
func (f *form) expiry(field, dateField, endless string, now time.Time) time.Time {
	switch choice := f.choice(field, endless, "30d", "90d", "180d", "365d", "date"); choice {
	case endless:
		return time.Time{}
	case "date":
		return f.date(dateField, now)
	default:
		return now.Add(lifetimes[choice])
	}
}

// date reads a day in the future, which begins at midnight UTC.
func (f *form) date(field string, now time.Time) time.Time {
	t, err := time.Parse(time.DateOnly, f.Value(field))
	switch {
	case err != nil:
		f.fail(field, "Enter a date as year-month-day, such as %s.", now.AddDate(0, 3, 0).Format(time.DateOnly))
	case !t.After(now):
		f.fail(field, "The date is not in the future. The key ends when the day begins, at midnight UTC.")
	}
	return t
}

// grace reads how long an old key goes on working, at most until its own end.
func (f *form) grace(field string, k sqlkeys.Key, now time.Time) time.Duration {
	g := lifetimes[f.choice(field, "0", "1h", "24h", "7d", "30d")]
	f.withinLife(field, g, k, now)
	return g
}

// withinLife checks that a grace period ends before the key does.
func (f *form) withinLife(field string, g time.Duration, k sqlkeys.Key, now time.Time) {
	if !k.ExpiresAt.IsZero() && now.Add(g).After(k.ExpiresAt) && g > 0 {
		f.fail(field, "The old key expires before that, at %s.", instant(k.ExpiresAt))
	}
}
