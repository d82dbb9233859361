package main

import (
	"net/http"
	"time"
)

// A kind says what a contender is measured for.
type kind string

const (
	floor kind = "floor" // what no middleware can be faster than
	hand  kind = "hand"  // written by hand for this comparison
	guard kind = "guard" // senderauth
	peer  kind = "peer"  // authenticates and limits
	check kind = "check" // authenticates only
)

// A contender is one way to find out who is calling and to limit how often.
type contender struct {
	id    string // for flags
	name  string // for tables
	kind  kind
	limit string // what limits a sender
	lacks string // beside what the answers show
	// modules are those whose versions the report names.
	modules []string
	build   func(site) (handlers, error)
	// token makes what the sender presents, as Authorization. Nil: the key of
	// the store, as x-api-key.
	token func(sender string) string
}

// A site is what a contender is put in front of.
type site struct {
	store *keyStore
	quota quota
	// visit is the handler's work: it is told whose the request is.
	visit func(sender string)
}

// handlers are a contender in front of the site.
type handlers struct {
	full http.Handler
	// authenticate charges no limit. Nil where the contender has no such form;
	// it is used only to tell apart what full holds in memory.
	authenticate http.Handler
}

// A quota is requests every per, and as many at once.
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

// contenders are in the order of the tables.
func contenders() []*contender {
	return []*contender{
		bare, contextValue, byHand, composition,
		guardAll, guardX, guardNone, guardGin, guardEcho,
		echo4, echo5, ginUlule, httprateKeys, goLimiterKeys, throttledKeys, tollboothKeys,
		jwtHMAC, jwtEd25519,
	}
}
