package keydesk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

type limitsPage struct {
	scope
	Limits []limitRow
	Known  bool // whether anybody could say what is left
	Failed bool // whether that failed right now
}

// A limitRow is one limit of a sender with what is left of it.
type limitRow struct {
	Name       string
	Limit      senderauth.Limit
	Text       string // such as 200 per minute
	Burst      int
	Own        bool // the sender's plan says it, not the service
	Unused     bool // the plan names a limit that the service does not have
	Bucket     bool // neither unlimited nor blocked
	Remaining  int
	ResetAfter time.Duration
	FullIn     string
}

// showLimits shows the limits of a sender, and what is left of them right now.
func (d *desk) showLimits(v visit) (answer, error) {
	about, err := d.scope(v)
	if err != nil {
		return answer{}, err
	}
	if about.Sender == "" {
		return answer{template: "choose.html", title: "Limits", tab: "limits", body: "limits"}, nil
	}
	p := limitsPage{scope: about, Known: d.limiter != nil}
	x, err := d.store.Sender(v.Context(), about.Sender)
	// A tenant that is no sender yet will have the limits of the service.
	if err != nil && !errors.Is(err, sqlkeys.ErrNotFound) && !errors.Is(err, sqlkeys.ErrUnreadable) {
		return answer{}, err
	}
	p.Limits = d.limitsOf(x)
	if err := d.fill(v.Context(), about.Sender, p.Limits); err != nil {
		d.log.WarnContext(v.Context(), "keydesk: the Limiter does not say what is left", "error", err)
		p.Failed, p.Known = true, false
	}
	return answer{template: "limits.html", title: "Limits", tab: "limits", sender: about.Sender, body: p}, nil
}

// limitsOf returns the limits of a sender: those of the service, replaced by those of
// its plan.
func (d *desk) limitsOf(x sqlkeys.Sender) []limitRow {
	all := maps.Clone(d.limits)
	if all == nil {
		all = make(map[string]senderauth.Limit)
	}
	maps.Copy(all, x.Limits)
	var rows []limitRow
	for _, name := range slices.Sorted(maps.Keys(all)) {
		l := all[name]
		_, own := x.Limits[name]
		_, used := d.limits[name]
		rows = append(rows, limitRow{
			Name:   name,
			Limit:  l,
			Text:   sentence(l),
			Burst:  l.EffectiveBurst(),
			Own:    own,
			Unused: d.limits != nil && !used,
			Bucket: l != senderauth.Unlimited() && l != senderauth.Blocked(),
		})
	}
	return rows
}

// fill asks the limiter what is left of each limit, at no cost.
func (d *desk) fill(ctx context.Context, senderID string, rows []limitRow) error {
	if d.limiter == nil || len(rows) == 0 {
		return nil
	}
	charges := make([]senderauth.Charge, len(rows))
	for i, row := range rows {
		charges[i] = senderauth.Charge{Name: row.Name, Limit: row.Limit}
	}
	balances, err := d.limiter.Take(ctx, senderID, charges)
	if err != nil {
		return err
	}
	if len(balances) != len(rows) {
		return fmt.Errorf("keydesk: the Limiter returned %d balances for %d charges", len(balances), len(rows))
	}
	for i, b := range balances {
		rows[i].Remaining, rows[i].ResetAfter = b.Remaining, max(b.ResetAfter, 0)
		if b.ResetAfter > 0 {
			rows[i].FullIn = wait(b.ResetAfter)
		}
	}
	return nil
}

// sentence describes a limit.
func sentence(l senderauth.Limit) string {
	switch l {
	case senderauth.Unlimited():
		return "unlimited"
	case senderauth.Blocked():
		return "blocked: every request is refused"
	}
	if unit := l.Calendar.Unit(); unit != "" {
		return fmt.Sprintf("%d in each %s, by the clock of %v", l.Requests, unit, l.Calendar.Location())
	}
	per := map[time.Duration]string{time.Second: "second", time.Minute: "minute", time.Hour: "hour", 24 * time.Hour: "day"}[l.Per]
	if per == "" {
		per = l.Per.String()
	}
	return fmt.Sprintf("%d per %s, at most %d at once", l.Requests, per, l.EffectiveBurst())
}

// wait rounds a wait up to whole seconds, or to whole days if it is long.
func wait(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%d days", int(math.Ceil(d.Hours()/24)))
	}
	return (time.Duration(math.Ceil(d.Seconds())) * time.Second).String()
}
