package senderauth

import (
	"time"
	"unique"
)

// A Calendar divides time into the days or the months of a time zone. It makes a
// [Limit] an allowance: [PerDay] and [PerMonth] set it. Calendars can be compared
// with ==, and so can Limits: two are equal if they have the same unit and the same
// *time.Location. The zero Calendar belongs to a token bucket and has no periods.
//
// The methods are for a [Limiter] of your own. Periods have consecutive numbers, which
// are the same in all zones: the number of a day stands for its date, and the number of
// a month for that month. If a Limiter keeps the number of the last period and never
// goes back, it grants each day or month once, even if the zone changes or the clock is
// set back.
type Calendar struct {
	of unique.Handle[calendar] // a pointer's size, because each charge has one
}

type calendar struct {
	monthly bool
	zone    *time.Location
}

// PerDay returns an allowance of n requests a day, from midnight to midnight in zone. All
// of them may come at once, and nothing flows back before midnight. A nil zone means UTC.
func PerDay(n int, zone *time.Location) Limit { return allowance(n, calendar{zone: zone}) }

// PerMonth returns an allowance of n requests a month, from midnight on the first day to
// midnight on the first day of the next month in zone. All of them may come at once, and
// nothing flows back before the month ends. A nil zone means UTC.
//
// [time.LoadLocation] finds a zone such as "Europe/Berlin". If the operating
// system has no time zones, as in an empty container, import the package time/tzdata.
func PerMonth(n int, zone *time.Location) Limit {
	return allowance(n, calendar{monthly: true, zone: zone})
}

func allowance(n int, c calendar) Limit {
	if c.zone == nil {
		c.zone = time.UTC
	}
	return Limit{Requests: n, Calendar: Calendar{unique.Make(c)}}
}

// Unit returns "day" or "month", and "" for the zero Calendar.
func (c Calendar) Unit() string {
	switch {
	case c == Calendar{}:
		return ""
	case c.of.Value().monthly:
		return "month"
	}
	return "day"
}

// Location returns the time zone, and nil for the zero Calendar.
func (c Calendar) Location() *time.Location {
	if c == (Calendar{}) {
		return nil
	}
	return c.of.Value().zone
}

// String returns the unit and the zone, such as "month@Europe/Berlin", and "" for the
// zero Calendar.
func (c Calendar) String() string {
	if c == (Calendar{}) {
		return ""
	}
	return c.Unit() + "@" + c.Location().String()
}

// Period returns the number of the day or month that t is in. It panics on the zero
// Calendar.
func (c Calendar) Period(t time.Time) int {
	period, _ := c.of.Value().at(t)
	return period
}

// Bounds returns when a period starts and when it ends, which is when the next one
// starts. A day that a clock change shortens or lengthens has its true length. Bounds
// panics on the zero Calendar.
func (c Calendar) Bounds(period int) (start, end time.Time) {
	of := c.of.Value()
	return of.start(period), of.start(period + 1)
}

// at returns the period that t is in and its end. A clock that is set back across
// midnight does not bring the day before back.
func (c calendar) at(t time.Time) (period int, end time.Time) {
	period = c.number(t)
	for end = c.start(period + 1); !t.Before(end); end = c.start(period + 1) {
		period++
	}
	return period, end
}

// number returns the number of the day or month that a calendar on the wall shows.
func (c calendar) number(t time.Time) int {
	year, month, day := t.In(c.zone).Date()
	if c.monthly {
		return year*12 + int(month) - 1
	}
	const hours = 24
	return int(time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Sub(time.Unix(0, 0)) / (hours * time.Hour))
}

// start returns the first instant at which a clock on the wall shows the day or month,
// or a later one: a change of the clock can skip midnight, and even a whole day.
func (c calendar) start(period int) time.Time {
	t := c.midnight(period)
	from, to := t.ZoneBounds() // between two changes of the clock
	hour, minute, second := t.Clock()
	switch shown := c.number(t); {
	case shown < period:
		return to // midnight was skipped
	case shown > period || hour+minute+second > 0:
		return from
	case from.IsZero():
		return t
	}
	// A clock that is set back can show midnight twice.
	_, before := from.Add(-1).Zone()
	_, after := t.Zone()
	if first := t.Add(time.Duration(after-before) * time.Second); first.Before(from) && before > after {
		return first
	}
	return t
}

// midnight returns the first midnight of a period. If a change of the clock skips
// midnight or repeats it, it is one of the instants around the change.
func (c calendar) midnight(period int) time.Time {
	if c.monthly {
		return time.Date(0, time.Month(period+1), 1, 0, 0, 0, 0, c.zone)
	}
	return time.Date(1970, time.January, 1+period, 0, 0, 0, 0, c.zone)
}
