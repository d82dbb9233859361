package main

import (
	"sync"
	"time"

	"github.com/senderauth/senderauth"
)

// A key is the model of an API key: what was done to it, and when. Its methods are safe
// for concurrent use.
type key struct {
	id          string
	credentials senderauth.Credentials

	mu      sync.Mutex
	changes []change
	// The key expires, or its grace period ends, at an instant of this span.
	// It is zero for a key without an end.
	end     span
	refused [instances]time.Time // when an instance had refused it since the last change
}

// A change makes a key active or inactive. It was committed between begun and done. A
// zero done means that this is not known to have happened yet.
type change struct {
	active      bool
	begun, done time.Time
}

// newKey returns a key that was made active between begun and now.
func newKey(id string, c senderauth.Credentials, begun, end time.Time) *key {
	k := &key{id: id, credentials: c, changes: []change{{active: true, begun: begun, done: time.Now()}}}
	if !end.IsZero() {
		k.end = span{end, end}
	}
	return k
}

// begin notes that the key is about to be changed. The result notes that it was.
func (k *key) begin(active bool) (done func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := len(k.changes)
	k.changes = append(k.changes, change{active: active, begun: time.Now()})
	k.refused = [instances]time.Time{}
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.changes[n].done = time.Now()
	}
}

// endsWithin notes when the key expires or its grace period ends.
func (k *key) endsWithin(from, to time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.end = span{from, to}
}

// last returns the last change that was done before at, and whether a change to active
// and one to inactive began after it and before until.
func (k *key) lastLocked(at, until time.Time) (last change, toActive, toInactive bool) {
	for _, c := range k.changes {
		switch {
		case !c.done.IsZero() && c.done.Before(at):
			last, toActive, toInactive = c, false, false
		case !c.begun.After(until) && c.active:
			toActive = true
		case !c.begun.After(until):
			toInactive = true
		}
	}
	return last, toActive, toInactive
}

// mayBeAdmitted says why an instance may not have admitted a request with the key, or
// returns "".
func (k *key) mayBeAdmitted(a answer, p promises) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.end.To.IsZero() && !a.sent.Before(k.end.To) {
		return "the key had ended"
	}
	last, toActive, _ := k.lastLocked(a.sent, a.got)
	if last.active || toActive {
		return ""
	}
	if at := k.refused[a.instance]; !at.IsZero() && at.Before(a.sent) {
		return "the instance had refused the key"
	}
	if a.sent.After(p.known(last.done, p.ttl)) {
		return "the instance should have known that the key was revoked"
	}
	return ""
}

// mayBeRefused says why an instance may not have refused the key, or returns "".
func (k *key) mayBeRefused(a answer, p promises) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.end.From.IsZero() && !a.got.Before(k.end.From) {
		return ""
	}
	last, _, toInactive := k.lastLocked(a.sent, a.got)
	if !last.active || toInactive {
		return ""
	}
	if last != k.changes[0] && !a.sent.After(p.known(last.done, p.rejectedTTL)) {
		return "" // it was inactive before, and that may still be remembered
	}
	return "the key was active"
}

// noteRefusal remembers that an instance has refused the key.
func (k *key) noteRefusal(a answer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	// Only a refusal of a request sent after the last change began is due to it.
	if last := k.changes[len(k.changes)-1]; last.active || a.sent.Before(last.begun) {
		return
	}
	if k.refused[a.instance].IsZero() {
		k.refused[a.instance] = a.got
	}
}

// promises are what the instances promise about time.
type promises struct {
	// An instance learns of a change within bound after its commit. If PostgreSQL is
	// down then, it learns of it within bound after PostgreSQL accepts connections.
	bound            time.Duration
	ttl, rejectedTTL time.Duration // what an instance remembers ends at the latest then
	postgres         *outages
	// stalls are when other programs did not let the instances run. They count like an
	// outage of PostgreSQL, whose lookups time out then.
	stalls *outages
}

// known returns when an instance at the latest knows of a change that was done at a
// time, if it remembers the state before for ttl.
func (p promises) known(done time.Time, ttl time.Duration) time.Time {
	by := done.Add(p.bound)
	for _, o := range p.away(done, never) {
		if o.touches(done, by) {
			by = latest(by, earliest(done.Add(ttl), o.To.Add(p.bound)))
		}
	}
	return by
}

// away returns when PostgreSQL did not answer, as far as it touches from..to.
func (p promises) away(from, to time.Time) []span {
	return union(append(p.postgres.touching(from, to), p.stalls.touching(from, to)...))
}

// mayBeUnavailable says why an instance may not have answered 503, or returns "".
func (p promises) mayBeUnavailable(a answer) string {
	if len(p.away(a.sent.Add(-p.bound), a.got)) == 0 {
		return "PostgreSQL was up"
	}
	return ""
}
