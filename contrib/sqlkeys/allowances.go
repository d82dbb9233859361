package sqlkeys

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/senderauth/senderauth"
)

// parseAllowance reads REQUESTS/day or REQUESTS/month, with @ZONE or without. It reports
// false for a text of another form, and an error for a zone that is unknown.
func parseAllowance(s string) (l senderauth.Limit, ok bool, err error) {
	requests, rest, _ := strings.Cut(s, "/")
	unit, zone, hasZone := strings.Cut(rest, "@")
	n, err := strconv.Atoi(requests)
	if err != nil || unit != "day" && unit != "month" {
		return l, false, nil
	}
	place := time.UTC
	if hasZone {
		if place, err = location(zone); err != nil {
			return l, true, err
		}
	}
	if unit == "day" {
		return senderauth.PerDay(n, place), true, nil
	}
	return senderauth.PerMonth(n, place), true, nil
}

// formatAllowance returns what parseAllowance reads.
func formatAllowance(l senderauth.Limit) string {
	s := fmt.Sprintf("%d/%s", l.Requests, l.Calendar.Unit())
	if zone := l.Calendar.Location().String(); zone != "UTC" {
		s += "@" + zone
	}
	return s
}

// locations remembers time zones by their names, because loading one reads a file. There are
// as many as the IANA database has.
var locations sync.Map

// location returns a zone of the IANA database.
func location(name string) (*time.Location, error) {
	if z, ok := locations.Load(name); ok {
		return z.(*time.Location), nil
	}
	if name == "" || name == "Local" {
		return nil, errors.New("unknown time zone " + strconv.Quote(name) + ": name one of the IANA database, such as Europe/Berlin")
	}
	z, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("unknown time zone %q: is it in the IANA database, and does this machine have that?", name)
	}
	known, _ := locations.LoadOrStore(strings.Clone(name), z)
	return known.(*time.Location), nil
}
