package senderauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/senderauth/senderauth/internal/uuid"
)

// Config configures [New]. It is read once, and only Limits is required.
//
// A panic of CheckKey, or of the Validator, is answered with 500, and its value
// is kept out of all logs, for it may hold the key. One of the Limiter, Observe,
// ServeProblem or the function of ChargingBy ends the request as one in a
// handler does: the next handler does not run, and net/http logs the value.
type Config struct {
	_ [0]func()

	// Limits are the token buckets that each sender has, by name: printable
	// ASCII, for the name is sent to clients. "default" is required, and is
	// what a guard charges unless Charging says otherwise. [Sender.Limits]
	// overrides them for a sender.
	Limits map[string]Limit
	// Limiter keeps the buckets. Guards that are given the same one share them,
	// by sender and name. Nil: a [MemoryLimiter] of the guard's own.
	Limiter Limiter
	// FailClosed is for an error of the Limiter. False: the request is served
	// without rate fields, and the event carries the error. True: 503.
	FailClosed bool

	// CheckKey says whether a key has the right form, before any look-up. It
	// sees 1 to 512 visible ASCII characters: anything else is refused
	// already. Nil: a UUID of 36 characters, neither the nil nor the max UUID,
	// and the validator gets it in lower case. With a function the key goes
	// through as it came.
	CheckKey func(key string) bool
	// SenderHeader is the name of the header that names the sender; "":
	// x-sender-id. The texts of refusals name it.
	SenderHeader string
	// KeyHeader is the name of the header that carries the key; "": x-api-key.
	KeyHeader string
	// KeyOnly asks for no sender header: the key alone says whose it is, and
	// Credentials.SenderID is empty.
	KeyOnly bool
	// StripKey hides the key header from the next handler, so that it cannot
	// be logged or forwarded there. The handler gets a copy of the header,
	// which costs about a microsecond; the caller's request is not changed. A
	// guard of another New further in does not find the key either.
	StripKey bool

	// RequireTLS refuses cleartext with 403 "HTTPS is required", before any
	// look-up.
	RequireTLS bool
	// TrustedProxies are the peers whose X-Forwarded-Proto RequireTLS
	// believes: every value of it must be https.
	TrustedProxies []netip.Prefix

	// Realm is the realm of the challenge in a 401; "": api. Printable ASCII.
	Realm string
	// RateFields chooses the fields that tell a client about its limits; the
	// zero value sends both families.
	RateFields RateFields
	// ServeProblem answers refusals in place of the problem itself. It must
	// write a response; p is its own to change. The rate fields are set
	// already. Nil: p.ServeHTTP(w, r).
	ServeProblem func(w http.ResponseWriter, r *http.Request, p *Problem)
	// Observe is told of each decision of each guard, before the next handler
	// runs. It is called on the goroutine of the request, by many at once, and
	// must not block. Nil: nobody is told.
	Observe func(ctx context.Context, e Event)
}

// An Event is one decision of a guard.
type Event struct {
	Outcome Outcome
	// Sender is who was authenticated; the zero Sender where nobody was.
	Sender Sender
	// Limit is the name that refused, or the first that was charged; "": none.
	Limit string
	// Cached says that the answer was a remembered one: of the [*Cache], where
	// that is what New was given, or of a guard of the same New further out.
	Cached bool
	// Elapsed is the time that the decision took.
	Elapsed time.Duration
	// Err is the cause: what the Validator or the Limiter returned. An
	// admitted request has one where a limiter failed open, or where a stale
	// entry stood in for a failed look-up. It does not contain the key unless
	// one of those put it there.
	Err error
}

// An Outcome is what a guard decided: one of a fixed set, fit for a metric's
// label.
type Outcome string

// The outcomes, with the status that the client sees.
const (
	Admitted      Outcome = "admitted"       // the next handler's
	MissingKey    Outcome = "missing_key"    // 401
	MissingSender Outcome = "missing_sender" // 401
	InvalidSender Outcome = "invalid_sender" // 401: malformed, or disabled
	InvalidKey    Outcome = "invalid_key"    // 401: malformed, or refused
	Mismatch      Outcome = "mismatch"       // 401: another sender's key
	Limited       Outcome = "limited"        // 429
	Insecure      Outcome = "insecure"       // 403: cleartext
	Refused       Outcome = "refused"        // the validator's own Problem
	Unavailable   Outcome = "unavailable"    // 503: the validator, or the limiter with FailClosed
	Canceled      Outcome = "canceled"       // none: the client went away
	Failed        Outcome = "failed"         // 500: a fault of the server's own code
)

// A Guard puts authentication and limits in front of handlers. It is immutable
// and safe for concurrent use; guards that Charging and ChargingBy derive from
// one that [New] made share its validator and its buckets.
type Guard struct {
	root    *root
	charges []namedCharge // what a request is charged, unless choose is set
	choose  func(*http.Request) []string
}

// A root is the validated form of Config, shared by all guards of one New.
type root struct {
	validator Validator
	cache     *Cache // the validator, where it is one
	limiter   Limiter
	memory    *MemoryLimiter // the limiter, where it is one
	limits    map[string]namedCharge

	senderHeader, keyHeader string // canonical
	checkKey                func(string) bool
	keyOnly, stripKey       bool
	requireTLS, failClosed  bool
	proxies                 []netip.Prefix
	realm                   string
	fields                  RateFields
	serveProblem            func(http.ResponseWriter, *http.Request, *Problem)
	observe                 func(context.Context, Event)

	insecure, missingKey, missingSender, invalidSender, invalidKey, mismatch, unavailable, failed *refusal
}

// A refusal is a problem that is always the same, with its answer made once.
type refusal struct {
	problem Problem
	answer  answer
	outcome Outcome
}

// A namedCharge is a charge of one token, with what the fields show of it.
type namedCharge struct {
	Charge
	quoted string // the name
	burst  string
	policy string
}

func newNamedCharge(name string, l Limit) namedCharge {
	quoted := quote(name)
	return namedCharge{
		Charge: Charge{Name: name, Limit: l, Cost: 1},
		quoted: quoted,
		burst:  strconv.Itoa(l.EffectiveBurst()),
		policy: string(l.appendPolicy(nil, quoted)),
	}
}

// New returns a guard that asks v whose a request is and charges the limit
// "default". Every mistake in cfg is reported at once, each with its field; a
// nil v is one. The guard is nil then, and its methods panic.
//
// Put a [Cache] in front of a validator that does I/O.
func New(v Validator, cfg Config) (*Guard, error) {
	var errs []error
	report := func(format string, args ...any) { errs = append(errs, fmt.Errorf("senderauth: "+format, args...)) }

	if isNil(v) {
		report("New: the Validator is nil")
	} else if c, ok := v.(*Cache); ok && c.shards == nil {
		report("New: the Validator is a Cache that NewCache did not make")
	}
	g := &root{
		validator:    v,
		limiter:      cfg.Limiter,
		limits:       make(map[string]namedCharge, len(cfg.Limits)),
		senderHeader: http.CanonicalHeaderKey(cmp.Or(cfg.SenderHeader, "x-sender-id")),
		keyHeader:    http.CanonicalHeaderKey(cmp.Or(cfg.KeyHeader, "x-api-key")),
		checkKey:     cfg.CheckKey,
		keyOnly:      cfg.KeyOnly,
		stripKey:     cfg.StripKey,
		requireTLS:   cfg.RequireTLS,
		failClosed:   cfg.FailClosed,
		proxies:      slices.Clone(cfg.TrustedProxies),
		realm:        cfg.Realm,
		fields:       cfg.RateFields,
		serveProblem: cfg.ServeProblem,
		observe:      cfg.Observe,
	}
	if _, ok := cfg.Limits["default"]; !ok {
		report(`Config.Limits: "default" is missing`)
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Limits)) {
		if !printable(name) {
			report("Config.Limits: the name %q is not printable ASCII", name)
		}
		if err := cfg.Limits[name].Validate(); err != nil {
			report("Config.Limits[%q]: %w", name, err)
			continue
		}
		g.limits[name] = newNamedCharge(name, cfg.Limits[name])
	}
	if cfg.Limiter == nil {
		g.limiter = NewMemoryLimiter(MemoryLimiterConfig{})
	} else if isNil(cfg.Limiter) {
		report("Config.Limiter holds a nil %T", cfg.Limiter)
	} else if m, ok := cfg.Limiter.(*MemoryLimiter); ok && m.shards == nil {
		report("Config.Limiter is a MemoryLimiter that NewMemoryLimiter did not make")
	}
	for field, name := range map[string]string{"SenderHeader": g.senderHeader, "KeyHeader": g.keyHeader} {
		if !fieldName(name) {
			report("Config.%s: %q is not the name of a header field", field, name)
		}
		if name == "Host" {
			report("Config.%s: net/http takes Host out of the header", field)
		}
	}
	if g.senderHeader == g.keyHeader && !cfg.KeyOnly {
		report("Config.KeyHeader and Config.SenderHeader are both %q", g.keyHeader)
	}
	if cfg.Realm != "" && !printable(cfg.Realm) {
		report("Config.Realm: %q is not printable ASCII", cfg.Realm)
	}
	if cfg.RateFields > RateFieldsNone {
		report("Config.RateFields: %d is not one of the constants", cfg.RateFields)
	}
	for i, p := range cfg.TrustedProxies {
		switch {
		case !p.IsValid():
			report("Config.TrustedProxies[%d]: the prefix is not valid", i)
		case p.Addr().Is4In6():
			report("Config.TrustedProxies[%d]: %v is of no peer: write it as IPv4", i, p)
		}
	}
	if len(errs) > 0 {
		slices.SortFunc(errs, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
		return nil, errors.Join(errs...)
	}

	g.cache, _ = v.(*Cache)
	g.memory, _ = g.limiter.(*MemoryLimiter)
	keyName, senderName := strings.ToLower(g.keyHeader), strings.ToLower(g.senderHeader)
	g.insecure = g.refusal(Insecure, http.StatusForbidden, "HTTPS is required")
	g.missingKey = g.refusal(MissingKey, http.StatusUnauthorized, "Header "+keyName+" not found")
	g.missingSender = g.refusal(MissingSender, http.StatusUnauthorized, "Header "+senderName+" not found")
	g.invalidSender = g.refusal(InvalidSender, http.StatusUnauthorized, "Invalid "+senderName)
	g.invalidKey = g.refusal(InvalidKey, http.StatusUnauthorized, "Invalid API credentials!")
	g.mismatch = g.refusal(Mismatch, http.StatusUnauthorized, "API key does not match sender ID")
	g.failed = g.refusal(Failed, http.StatusInternalServerError, "An internal error occurred.")
	g.unavailable = g.refusal(Unavailable, http.StatusServiceUnavailable, "The service is temporarily unavailable. Please retry.")
	return &Guard{root: g, charges: []namedCharge{g.limits["default"]}}, nil
}

func (g *root) refusal(o Outcome, status int, detail string) *refusal {
	p := Problem{Status: status, Detail: detail}
	if status == http.StatusUnauthorized {
		p.Challenge = challenge(g.realm)
	}
	if status == http.StatusServiceUnavailable {
		p.RetryAfter = time.Second
	}
	return &refusal{problem: p, answer: p.compile(g.realm), outcome: o}
}

// isNil reports a nil interface, or one that holds a nil pointer or function.
func isNil(v any) bool {
	if v == nil {
		return true
	}
	switch rv := reflect.ValueOf(v); rv.Kind() {
	case reflect.Pointer, reflect.Func, reflect.Map, reflect.Slice, reflect.Chan:
		return rv.IsNil()
	}
	return false
}

// fieldName reports whether s is a token of RFC 9110 section 5.6.2.
func fieldName(s string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
		if !alnum && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != ""
}

// check panics where the program starts, not where each request would.
func (g *Guard) check() {
	if g == nil || g.root == nil {
		panic("senderauth: the Guard was not made by New, or New returned an error")
	}
}

// Charging returns a guard that charges these limits instead, all of them or
// none. Without names it only authenticates. It panics on a name that is not
// in Config.Limits or is given twice: those are literals in a program.
func (g *Guard) Charging(names ...string) *Guard {
	g.check()
	charges, err := g.root.charges(make([]namedCharge, 0, len(names)), names)
	if err != nil {
		panic(err)
	}
	return &Guard{root: g.root, charges: charges}
}

// ChargingBy returns a guard that charges the limits that f names for a
// request: by the pattern that a router matched, say. f gets the request of an
// authenticated sender, with the sender in its context, and must not change
// it. A name that is not in Config.Limits or is given twice is answered with
// 500. It panics on a nil f.
func (g *Guard) ChargingBy(f func(*http.Request) []string) *Guard {
	g.check()
	if f == nil {
		panic("senderauth: ChargingBy: the function is nil")
	}
	return &Guard{root: g.root, choose: f}
}

// charges appends the charges with these names to dst.
func (g *root) charges(dst []namedCharge, names []string) ([]namedCharge, error) {
	for i, name := range names {
		c, ok := g.limits[name]
		if !ok {
			return nil, &faultError{fmt.Errorf("senderauth: limit %q is not in Config.Limits", name)}
		}
		if slices.Contains(names[:i], name) {
			return nil, &faultError{fmt.Errorf("senderauth: limit %q is charged twice", name)}
		}
		dst = append(dst, c)
	}
	return dst, nil
}

// Wrap returns a handler that lets to next the requests of known senders that
// are within their limits, and refuses the others. next finds the sender with
// [SenderFrom], and gets w untouched. Around a handler that already is behind
// a guard of the same New, the inner guard does not authenticate again: it
// only charges its own limits. It panics on a nil next.
//
// The response is kept out of shared caches by Cache-Control: private, unless
// next sets the field itself, or deletes it as http.FileServer does with an
// error.
func (g *Guard) Wrap(next http.Handler) http.Handler {
	g.check()
	if isNil(next) {
		panic("senderauth: Wrap: the handler is nil")
	}
	return &handler{guard: g, next: next}
}

type handler struct {
	guard *Guard
	next  http.Handler
}

// A decision is what a guard finds out about a request.
type decision struct {
	outcome Outcome
	err     error
	sender  *Sender // nil: not authenticated
	entry   *entry  // of the cache, where the sender comes from there
	cached  bool
	limit   string        // that refused, or was charged first
	retry   time.Duration // of Limited; negative: never
	refusal *refusal      // one of the fixed ones, or
	problem *Problem      // the validator's own
}

func (d *decision) refuse(r *refusal, err error) {
	d.outcome, d.refusal, d.err = r.outcome, r, err
}

// ServeHTTP decides first and answers after, in the order that the package's
// documentation gives.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g := h.guard.root
	var start time.Time
	if g.observe != nil {
		start = time.Now()
	}
	d := decision{outcome: Admitted}
	outer := admissionFrom(r.Context())
	if outer != nil && outer.guard != nil && outer.guard.root == g {
		d.sender, d.cached = outer.sender, true
	} else {
		outer = nil
		g.authenticate(r, &d)
	}

	charges := h.guard.charges
	var inner *admission // what next gets; nil so far, or r as it is
	if d.outcome == Admitted && h.guard.choose != nil {
		seen := r
		if outer == nil {
			inner = h.guard.admit(r, d.sender)
			seen = &inner.request
		}
		var err error
		if charges, err = g.charges(nil, h.guard.choose(seen)); err != nil {
			d.refuse(g.failed, err)
		}
	}
	if d.outcome == Admitted && len(charges) > 0 {
		if outer != nil {
			charges = withLooks(charges, outer.guard.charges)
		}
		g.charge(r.Context(), w.Header(), &d, charges)
	}
	if g.observe != nil {
		e := Event{Outcome: d.outcome, Limit: d.limit, Cached: d.cached, Elapsed: time.Since(start), Err: d.err}
		if d.sender != nil {
			e.Sender = *d.sender
		}
		g.observe(r.Context(), e)
	}
	if d.outcome != Admitted {
		g.answer(w, r, &d)
		return
	}
	if outer != nil && len(charges) == 0 {
		h.next.ServeHTTP(w, r)
		return
	}
	if inner == nil {
		inner = h.guard.admit(r, d.sender)
	}
	if outer != nil || h.guard.choose != nil {
		inner.guard = &Guard{root: g, charges: charges} // for guards further in
	}
	keepPrivate(w.Header(), inner)
	defer inner.handBack(r) // to one who recovers, too
	h.next.ServeHTTP(w, &inner.request)
}

// admit makes the request that next gets.
func (g *Guard) admit(r *http.Request, s *Sender) *admission {
	a := &admission{Context: r.Context(), sender: s, guard: g}
	a.request = *r.WithContext(a)
	if root := g.root; root.stripKey && len(r.Header[root.keyHeader]) > 0 {
		a.request.Header = r.Header.Clone()
		delete(a.request.Header, root.keyHeader)
	}
	return a
}

// handBack shows outer layers which route a mux inside has matched, and
// net/http which temporary files of a form it must remove.
func (a *admission) handBack(r *http.Request) {
	r.Pattern, r.MultipartForm = a.request.Pattern, a.request.MultipartForm
}

// keepPrivate keeps the response out of shared caches: only Authorization does
// that by itself (RFC 9111 section 3.5).
func keepPrivate(h http.Header, a *admission) {
	for _, v := range h["Cache-Control"] {
		for d := range strings.SplitSeq(v, ",") {
			// private="…" is about the fields that it names.
			if d = strings.Trim(d, " \t"); strings.EqualFold(d, "no-store") || strings.EqualFold(d, "private") {
				return
			}
		}
	}
	a.cacheControl[0] = "private"
	h["Cache-Control"] = a.cacheControl[:]
}

// authenticate finds out whose the request is.
func (g *root) authenticate(r *http.Request, d *decision) {
	if g.requireTLS && r.TLS == nil && !g.forwardedTLS(r) {
		d.refuse(g.insecure, nil)
		return
	}
	keys, senders := r.Header[g.keyHeader], r.Header[g.senderHeader]
	switch {
	case absent(keys):
		d.refuse(g.missingKey, nil)
		return
	case g.keyOnly:
	case absent(senders):
		d.refuse(g.missingSender, nil)
		return
	}
	var cr Credentials
	var id, key uuid.UUID
	if !g.keyOnly {
		cr.SenderID = senders[0]
		var lower, ok bool
		if id, lower, ok = uuid.Parse(cr.SenderID); !ok || len(senders) > 1 {
			d.refuse(g.invalidSender, nil)
			return
		}
		if !lower {
			cr.SenderID = uuid.Lower(cr.SenderID)
		}
	}
	cr.APIKey = keys[0]
	if len(keys) > 1 {
		d.refuse(g.invalidKey, nil)
		return
	}
	if g.checkKey == nil {
		var lower, ok bool
		if key, lower, ok = uuid.Parse(cr.APIKey); !ok {
			d.refuse(g.invalidKey, nil)
			return
		}
		if !lower {
			cr.APIKey = uuid.Lower(cr.APIKey)
		}
	} else if ok, err := g.wellFormed(cr.APIKey); err != nil {
		d.refuse(g.failed, err)
		return
	} else if !ok {
		d.refuse(g.invalidKey, nil)
		return
	}

	if g.cache == nil {
		s, err := call(r.Context(), g.validator, cr)
		if err != nil {
			d.err = err
		} else {
			d.sender = &s
		}
	} else {
		var of digest
		if g.checkKey == nil && !g.keyOnly {
			of = g.cache.digestUUIDs(id, key)
		} else {
			of = g.cache.digest(cr)
		}
		if d.entry, d.cached, d.err = g.cache.lookup(r.Context(), of, cr); d.entry != nil {
			d.sender = &d.entry.sender
		}
	}
	if d.sender == nil {
		g.reject(r, d)
	}
}

// absent reports a header that is not there, or is empty in every line.
func absent(values []string) bool {
	for _, v := range values {
		if v != "" {
			return false
		}
	}
	return true
}

// wellFormed calls Config.CheckKey. A panic in it would be logged by net/http
// with its text, which may hold the key.
func (g *root) wellFormed(key string) (ok bool, err error) {
	if !visible(key) {
		return false, nil
	}
	defer func() {
		if p := recover(); p != nil {
			ok, err = false, panicError("Config.CheckKey", p)
		}
	}()
	return g.checkKey(key), nil
}

// reject turns the validator's error into the answer.
func (g *root) reject(r *http.Request, d *decision) {
	var own *Problem
	var fault *faultError
	err := d.err
	switch {
	case errors.As(err, &own):
		d.outcome, d.problem = Refused, own
	case errors.Is(err, ErrInvalidKey):
		d.refuse(g.invalidKey, err)
	case errors.Is(err, ErrKeyMismatch):
		d.refuse(g.mismatch, err)
	case errors.Is(err, ErrInvalidSender):
		d.refuse(g.invalidSender, err)
	case errors.As(err, &fault):
		d.refuse(g.failed, err)
	case errors.Is(r.Context().Err(), context.Canceled):
		d.outcome = Canceled
	default:
		d.refuse(g.unavailable, err)
	}
}

// forwardedTLS reports whether a trusted proxy says that the client came over
// TLS: with one value or more, all of them https.
func (g *root) forwardedTLS(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	addr := peer.Addr().Unmap().WithZone("")
	if !slices.ContainsFunc(g.proxies, func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return false
	}
	lines := r.Header["X-Forwarded-Proto"]
	for _, line := range lines {
		for proto := range strings.SplitSeq(line, ",") {
			if !strings.EqualFold(strings.Trim(proto, " \t"), "https") {
				return false
			}
		}
	}
	return len(lines) > 0
}

// withLooks adds looks at what outer guards have charged and charges does not,
// so that the fields tell of all limits that the request met.
func withLooks(charges, outer []namedCharge) []namedCharge {
	all := slices.Clone(charges)
	for _, o := range outer {
		if !slices.ContainsFunc(charges, func(c namedCharge) bool { return c.Name == o.Name }) {
			o.Cost = 0
			all = append(all, o)
		}
	}
	return all
}

// charge asks the limiter and sets the rate fields.
func (g *root) charge(ctx context.Context, h http.Header, d *decision, charges []namedCharge) {
	var dueBuf [2]Charge
	due := dueBuf[:0]
	for i := range charges {
		due = append(due, charges[i].Charge)
		if l, ok := d.sender.Limits[charges[i].Name]; ok {
			due[i].Limit = l
		}
	}
	d.limit = due[0].Name

	var balanceBuf [2]Balance
	balances := balanceBuf[:0]
	var unix int64
	if g.memory != nil {
		// Without the interface neither slice is on the heap.
		var hint *accountHint
		if d.entry != nil {
			hint = &d.entry.account
		}
		var now int64
		balances, now = g.memory.take(balances, d.sender.ID, due, hint)
		unix = g.memory.unix(now)
	} else {
		var err error
		balances, err = g.limiter.Take(ctx, d.sender.ID, slices.Clone(due))
		if err == nil && len(balances) != len(due) {
			err = fmt.Errorf("senderauth: the limiter returned %d balances for %d charges", len(balances), len(due))
		}
		if err != nil {
			g.degrade(ctx, d, err)
			return
		}
		unix = time.Now().UnixNano()
	}

	var rateBuf [2]rate
	rates := rateBuf[:0]
	for i := range due {
		b := balances[i] // a copy: the limiter may have kept its own
		if b.Refused {
			if b.RetryAfter == 0 {
				b.RetryAfter = 1 // a limiter's slip must not tell clients to come back at once
			}
			if d.outcome == Admitted {
				d.outcome, d.limit, d.retry = Limited, due[i].Name, b.RetryAfter
			}
			// The longest wait decides, and never is longest.
			if b.RetryAfter < 0 || d.retry >= 0 && b.RetryAfter > d.retry {
				d.limit, d.retry = due[i].Name, b.RetryAfter
			}
		}
		if due[i].Limit != Unlimited() {
			rates = append(rates, rate{&charges[i], due[i].Limit, b})
		}
	}
	if d.outcome == Limited {
		// Before there are fields to look at: the answer has only to write.
		clearRepresentation(h)
	}
	g.fields.set(h, rates, unix)
}

// degrade decides without a limiter.
func (g *root) degrade(ctx context.Context, d *decision, err error) {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		d.outcome, d.err = Canceled, err
	case g.failClosed:
		d.refuse(g.unavailable, err)
	default:
		// Served without its limits: an outage of the limiter's engine should
		// not take the customers' API with it. Config.FailClosed says otherwise.
		d.err = errors.Join(d.err, err) // beside what a stale entry covers
	}
}

// answer writes the refusal.
func (g *root) answer(w http.ResponseWriter, r *http.Request, d *decision) {
	if d.outcome != Limited {
		// They would be those of a guard outside, and tell of quota on a 401.
		dropRateFields(w.Header())
	}
	switch {
	case d.outcome == Canceled:
		// Nothing is written, and nothing must be: without this net/http would
		// finish the response as an empty 200, which somebody who is there
		// after all would take for success.
		http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0))
	case g.serveProblem != nil:
		p := g.problem(d)
		g.serveProblem(w, r, &p)
	case d.refusal != nil:
		d.refusal.answer.ServeHTTP(w, r)
	case d.outcome == Limited:
		a := limited(d.retry)
		a.write(w, r)
	default:
		a := d.problem.compile(g.realm)
		a.ServeHTTP(w, r)
	}
}

// problem is the refusal for Config.ServeProblem, which may change it.
func (g *root) problem(d *decision) Problem {
	var p Problem
	switch {
	case d.refusal != nil:
		p = d.refusal.problem
		p.Err = d.err
	case d.outcome == Limited:
		p = Problem{Status: http.StatusTooManyRequests, Detail: limitedDetail(d.retry), RetryAfter: max(d.retry, 0)}
	default:
		p = *d.problem
		p.Extensions = maps.Clone(p.Extensions)
		if p.status() == http.StatusUnauthorized {
			p.Challenge = cmp.Or(p.Challenge, challenge(g.realm))
		}
	}
	return p
}

// limitedDetail is the text of the documented API. One second is "1 seconds".
func limitedDetail(retry time.Duration) string {
	if retry < 0 {
		return "Rate limit exceeded."
	}
	return "Rate limit exceeded. Please retry after " + strconv.FormatInt(seconds(retry), 10) + " seconds."
}

// limited is Problem.compile for a 429, without the work of encoding a text
// that needs none: two allocations for nine.
func limited(retry time.Duration) answer {
	a := answer{status: http.StatusTooManyRequests}
	a.body = append(make([]byte, 0, 160), `{"status":429,"title":"Too Many Requests","detail":"Rate limit exceeded.`...)
	var buf [24]byte
	digits := buf[:0]
	if retry >= 0 {
		digits = strconv.AppendInt(digits, seconds(retry), 10)
		a.body = append(append(append(a.body, " Please retry after "...), digits...), " seconds."...)
	}
	a.body = append(a.body, `","type":"about:blank"}`...)
	n := len(digits)
	both := string(strconv.AppendInt(digits, int64(len(a.body)), 10))
	a.retryAfter, a.length = both[:n], both[n:]
	return a
}
