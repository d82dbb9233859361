package senderauth

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"time"
)

// A decision is what a guard concludes about one request. It is computed
// without a ResponseWriter; the responder turns it into an answer.
type decision struct {
	outcome Outcome
	err     error
	problem *Problem // the Validator's own, of Refused

	sender    *Sender      // nil: not authenticated
	account   *accountHint // of the sender's cache entry, if there is one
	cached    bool
	inner     bool
	claimedID string

	limiterFailed bool

	limit  string        // that refused, or was charged first
	dryRun string        // that would have refused
	retry  time.Duration // of Limited; negative: never
	tally  tally

	next *admission // what the next handler gets; nil: not made yet
}

// refuse ends the decision. It returns false, for the caller to return.
func (d *decision) refuse(o Outcome, err error) bool {
	d.outcome, d.err = o, err
	return false
}

// limited refuses because limit has no tokens before retry is over; negative
// means never.
func (d *decision) limited(limit string, retry time.Duration) {
	if retry == 0 {
		retry = 1 // a Limiter's slip must not tell clients to come back at once
	}
	// The longest wait decides, and never is longest.
	if d.outcome != Limited || retry < 0 || d.retry >= 0 && retry > d.retry {
		d.outcome, d.limit, d.retry = Limited, limit, retry
	}
}

// overAllowance reports that the limit that refused is an allowance, not a bucket.
func (d *decision) overAllowance() bool {
	if d.tally.bill == nil {
		return false // Config.FailedAttempts refused
	}
	for _, c := range d.tally.charges() {
		if c.Name == d.limit {
			return c.Limit.isAllowance()
		}
	}
	return false
}

// event is the decision as Config.Observe sees it.
func (d *decision) event(elapsed time.Duration) Event {
	e := Event{
		Outcome: d.outcome, Limit: d.limit, DryRun: d.dryRun, Inner: d.inner,
		Cached: d.cached, LimiterFailed: d.limiterFailed, Elapsed: elapsed, Err: d.err,
	}
	if d.sender != nil {
		e.Sender = *d.sender
	} else {
		e.ClaimedSender = fingerprint(d.claimedID)
	}
	return e
}

// fingerprint names a sender ID in events without showing it; "" for none.
func fingerprint(senderID string) string {
	if senderID == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(senderID))
	return hex.EncodeToString(sum[:8])
}

// status is what the client is told by a refusal other than Refused.
func (o Outcome) status() int {
	switch o {
	case MissingKey, MissingSender, InvalidSender, InvalidKey, Mismatch, WrongNetwork:
		return http.StatusUnauthorized
	case Insecure, OutOfScope:
		return http.StatusForbidden
	case Limited:
		return http.StatusTooManyRequests
	case Unavailable, Canceled:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
