package keydesk

import (
	"fmt"
	"strconv"
	"time"
)

// day, instant and stamp format an instant for people and for machines, in UTC.
func day(t time.Time) string     { return t.UTC().Format("2 Jan 2006") }
func instant(t time.Time) string { return t.UTC().Format("2 Jan 2006, 15:04 UTC") }
func stamp(t time.Time) string   { return t.UTC().Format(time.RFC3339) }

// ago says how long ago an instant was. The last use of a key is accurate to 15
// minutes.
func ago(t time.Time) string {
	switch d := time.Since(t); {
	case d < 30*time.Minute:
		return "just now"
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours ago", int(d.Hours()))
	default:
		return fmt.Sprintf("%d days ago", int(d.Hours()/24))
	}
}

// span says how long a grace period is.
func span(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	}
	if d == time.Hour {
		return "hour"
	}
	return fmt.Sprintf("%d hours", int(d.Hours()))
}

// The following pass several values to a part of a page.

type fieldPart struct {
	Form  *form
	Field string
}

type copyPart struct{ For, What string }

type listPart struct {
	Root, Caption string
	Rows          []keyRow
	WithSender    bool
}

func newFieldPart(f *form, name string) fieldPart { return fieldPart{f, name} }

func newCopyPart(id, what string) copyPart { return copyPart{id, what} }

func newListPart(p page, rows []keyRow, caption string, withSender bool) listPart {
	return listPart{p.Root, caption, rows, withSender}
}

type aboutPart struct {
	Root, Sender, Key string
	Operator          bool
}

func newAboutPart(p page, sender, key string) aboutPart {
	return aboutPart{p.Root, sender, key, p.Actor.Operator}
}

// number writes a number with a space between thousands.
func number[N int | int64](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}
