package senderauth

import (
	"maps"
	"time"
)

// An allowanceTable holds what the senders of one shard have used of their
// allowances. It is guarded by the lock of the shard, and separate from the
// accounts, which have no room for it in their two cache lines.
type allowanceTable struct {
	used  map[allowanceKey]usage // nil until something is used
	peak  int                    // len(used) since the map was made
	floor int64                  // what was used in periods before this Unix time in nanoseconds is forgotten
}

// zonesApart is how far the clocks of two time zones can be apart. Until then a sender
// whose zone changes could ask for a period that is over elsewhere.
const zonesApart = 26 * time.Hour

// An allowanceKey names one allowance of one sender. Days and months of one name are
// apart, so that a sender whose limit changes between them, and back, is granted
// neither twice.
type allowanceKey struct {
	sender, name string
	monthly      bool
}

// A usage is what was used of an allowance in its latest period.
type usage struct {
	calendar Calendar
	period   int
	end      int64 // of the period, as Unix time in nanoseconds
	tokens   int
}

// current returns the usage in the present period. That is never before the last one
// that was charged, nor before the floor: a clock that is set back must not grant an
// allowance again.
func (t *allowanceTable) current(sender string, c *Charge, now int64) (allowanceKey, usage) {
	of := c.Limit.Calendar.of.Value()
	key := allowanceKey{sender, c.Name, of.monthly}
	u := t.used[key]
	if u.calendar == c.Limit.Calendar && now < u.end {
		return key, u
	}
	period, end := of.at(time.Unix(0, max(now, t.floor)))
	switch {
	case u.calendar == Calendar{} || period > u.period:
		u.period, u.tokens = period, 0
	case period < u.period:
		end = of.start(u.period + 1)
	}
	u.calendar, u.end = c.Limit.Calendar, end.UnixNano()
	return key, u
}

// balance decides c at now, which is Unix time in nanoseconds, and returns the
// balance that taking c leaves. It takes nothing.
func (t *allowanceTable) balance(sender string, c *Charge, now int64) Balance {
	_, u := t.current(sender, c, now)
	allowed, left := c.Limit.Requests, max(c.Limit.Requests-u.tokens, 0)
	b := Balance{ResetAfter: time.Duration(u.end - now)}
	switch {
	case c.Cost > allowed:
		b.Refused, b.RetryAfter = true, -1
	case c.Cost > left:
		b.Refused, b.RetryAfter = true, b.ResetAfter
	default:
		left -= c.Cost
	}
	b.Remaining = left
	return b
}

// take uses what balance has decided. A table with more than mark usages reclaims.
func (t *allowanceTable) take(sender string, c *Charge, now int64, mark int) {
	key, u := t.current(sender, c, now)
	u.tokens += c.Cost
	if t.used == nil {
		t.used = make(map[allowanceKey]usage)
	}
	t.used[key] = u
	t.peak = max(t.peak, len(t.used))
	if len(t.used) > mark {
		t.reclaim(now)
	}
}

// reclaim looks at four usages, which is more than a request can add, and forgets
// those whose period is over in all zones. Go starts each range over a map at a random element.
func (t *allowanceTable) reclaim(now int64) {
	looks := 4
	for key, u := range t.used {
		if over := u.end + int64(zonesApart); over <= now {
			t.floor = max(t.floor, over)
			delete(t.used, key)
		}
		if looks--; looks == 0 {
			break
		}
	}
	// A map does not give memory back by itself.
	if n := len(t.used); n < t.peak/4 && n <= mostMoved {
		used := make(map[allowanceKey]usage, n)
		maps.Copy(used, t.used)
		t.used, t.peak = used, n
	}
}

// reset forgets what a sender has used.
func (t *allowanceTable) reset(sender string) {
	maps.DeleteFunc(t.used, func(key allowanceKey, _ usage) bool { return key.sender == sender })
}
