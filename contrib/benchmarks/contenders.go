package main

import (
	"net/http"
	"time"
)

// A kind says what a contender does.
type kind string

const (
	floor kind = "floor" // a lower bound for any middleware
	hand  kind = "hand"  // written by hand for this comparison
	guard kind = "guard" // senderauth
	peer  kind = "peer"  // authenticates and limits
	check kind = "check" // authenticates only
)

// A contender is one way to authenticate senders and limit their requests.
type contender struct {
	id    string // for flags
	name  string // for tables
	kind  kind
	limit string // the algorithm that limits a sender
	lacks string // what it lacks, apart from what its answers show
	// modules are the modules whose versions go into the report.
	modules []string
	build   func(site) (handlers, error)
	// token makes the sender's value of Authorization. Nil means that the sender
	// presents its key as x-api-key.
	token func(sender string) string
}

// A site is the service that a contender protects.
type site struct {
	store *keyStore
	quota quota
	// visit is the handler's work. It gets the sender of the request.
	visit func(sender string)
}

// handlers are a contender wrapped around the site's handler.
type handlers struct {
	full http.Handler
	// authenticate charges no limit. It serves only to attribute the memory of full to
	// credentials and buckets. Nil if the contender has no such form.
	authenticate http.Handler
}

// A quota allows requests every per, all of which may come at once.
type quota struct {
	requests int
	per      time.Duration
}

// ample never refuses during a run; scarce admits one request.
var (
	ample  = quota{requests: 1_000_000_000, per: time.Hour}
	scarce = quota{requests: 1, per: 10_000 * time.Hour}
)

func (q quota) perSecond() float64 { return float64(q.requests) / q.per.Seconds() }

// contenders returns all contenders in the order of the tables.
func contenders() []*contender {
	return []*contender{
		bare, contextValue, byHand, composition,
		guardAll, guardX, guardNone, guardGin, guardEcho,
		echo4, echo5, ginUlule, httprateKeys, goLimiterKeys, throttledKeys, tollboothKeys,
		jwtHMAC, jwtEd25519,
	}
}
