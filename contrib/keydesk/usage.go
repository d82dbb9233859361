package keydesk

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// A period is how far back a chart of the usage goes, and how wide its bars are.
type period struct {
	ID, Label string
	Bars      int
	Bar       time.Duration
}

var periods = []period{
	{"24h", "24 hours", 24, time.Hour},
	{"7d", "7 days", 7 * 24, time.Hour},
	{"30d", "30 days", 30, 24 * time.Hour},
}

type usagePage struct {
	scope
	Period  period
	Periods []period
	Chart   chart
	Totals  []total
	All     int64
}

// A total is how many requests of a period had one outcome.
type total struct {
	Outcome  senderauth.Outcome
	Class    string
	Means    string
	Requests int64
}

// showUsage shows the requests of a sender, or of one of its keys.
func (d *desk) showUsage(v visit) (answer, error) {
	about, err := d.scope(v)
	if err != nil {
		return answer{}, err
	}
	if about.Sender == "" {
		return answer{template: "choose.html", title: "Usage", tab: "usage", body: "usage"}, nil
	}
	p := usagePage{scope: about, Period: periodOf(v), Periods: periods}
	first := p.Period.first(time.Now())
	bars, err := d.bars(v, about, p.Period, first)
	if err != nil {
		return answer{}, err
	}
	p.Chart = newChart(bars, p.Period)
	p.Totals, p.All = totalsOf(bars)
	return answer{template: "usage.html", title: "Usage", tab: "usage", sender: about.Sender, body: p}, nil
}

// periodOf returns the period that a request asks for, or the first one.
func periodOf(v visit) period {
	for _, p := range periods {
		if p.ID == v.URL.Query().Get("period") {
			return p
		}
	}
	return periods[0]
}

// first returns the start of the first bar. The last bar is the current one.
func (p period) first(now time.Time) time.Time {
	return now.UTC().Truncate(p.Bar).Add(-time.Duration(p.Bars-1) * p.Bar)
}

// A bar counts the requests of an hour or a day by outcome.
type bar struct {
	Start  time.Time
	Counts map[senderauth.Outcome]int64
}

func (d *desk) bars(v visit, about scope, p period, first time.Time) ([]bar, error) {
	bars := make([]bar, p.Bars)
	for i := range bars {
		bars[i] = bar{first.Add(time.Duration(i) * p.Bar), make(map[senderauth.Outcome]int64)}
	}
	f := sqlkeys.UsageFilter{SenderID: about.Sender, KeyID: about.Key, Since: first}
	for u, err := range d.store.UsageByHour(v.Context(), f) {
		if err != nil {
			return nil, err
		}
		// The clock of the process that counted may be ahead.
		if i := int(u.Hour.Sub(first) / p.Bar); i >= 0 && i < len(bars) {
			bars[i].Counts[u.Outcome] += u.Requests
		}
	}
	return bars, nil
}

// totalsOf adds up all bars, the most frequent outcome first.
func totalsOf(bars []bar) (totals []total, all int64) {
	sums := make(map[senderauth.Outcome]int64)
	for _, b := range bars {
		for o, n := range b.Counts {
			sums[o] += n
			all += n
		}
	}
	for _, o := range slices.Sorted(maps.Keys(sums)) {
		totals = append(totals, total{o, classOf(o), meanings[o], sums[o]})
	}
	slices.SortStableFunc(totals, func(a, b total) int { return cmp.Compare(b.Requests, a.Requests) })
	return totals, all
}

// classes are the colors of a chart, from the bottom up.
var classes = []string{"admitted", "limited", "refused", "broken"}

// classOf returns the color of an outcome.
func classOf(o senderauth.Outcome) string {
	switch o {
	case senderauth.Admitted:
		return "admitted"
	case senderauth.Limited:
		return "limited"
	case senderauth.Unavailable, senderauth.Canceled, senderauth.Failed:
		return "broken"
	}
	return "refused"
}

// meanings say what an outcome means for the owner of a key.
var meanings = map[senderauth.Outcome]string{
	senderauth.Admitted:      "served",
	senderauth.Limited:       "429: more than a limit allows",
	senderauth.InvalidKey:    "401: the key did not work any more, or not yet",
	senderauth.Mismatch:      "401: sent with the ID of another sender",
	senderauth.InvalidSender: "401: the sender is disabled",
	senderauth.Refused:       "refused by the service",
	senderauth.Insecure:      "403: sent without HTTPS",
	senderauth.Unavailable:   "503: the service could not check the key",
	senderauth.Canceled:      "503: the request ended early",
	senderauth.Failed:        "500: a fault of the service",
}
