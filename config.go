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
	"strings"
	"time"
)

// Config configures [New], which reads it once. Only Limits is required.
//
// New reports every mistake at once, in the order of the fields.
//
// A panic of CheckKey or of the [Validator] is answered with 500. Its value may hold
// the key, so no log contains it. A panic of the Limiter, Observe, ServeProblem or a
// function given to [Guard.ChargingBy] or [Guard.Costing] ends the request as a panic
// of a handler does: the next handler does not run, and net/http logs the value.
type Config struct {
	_ [0]func()

	// Limits are the token buckets and allowances that each sender has, by name.
	// "default" is required: a guard charges it unless Charging or ChargingBy says otherwise.
	// Names are printable ASCII, because they are sent to clients.
	// [Sender.Limits] overrides a limit for one sender.
	Limits map[string]Limit
	// DryRun names limits that are observed and not enforced. If one of them would
	// have refused a request, the request is served and Event.DryRun names the
	// limit. The rate fields do not mention these limits.
	DryRun []string
	// Limiter keeps the buckets. Guards that share a Limiter share the buckets, by
	// sender and name. Nil means a [MemoryLimiter] of the guard's own.
	Limiter Limiter
	// FailClosed answers 503 when the Limiter returns an error. By default the
	// request is served without rate fields and the error is reported to
	// Observe. A request whose own context has ended is always refused, because
	// clients control that, and must not be able to open a limit.
	FailClosed bool
	// FailedAttempts limits, for each client address, the requests that the
	// Validator refuses with 401. The zero Limit means no limit. While an address is
	// over the limit, its requests cause no lookup and get 429, except those with
	// credentials that the [Cache] has accepted and not evicted since. Requests whose
	// lookups are in flight when the limit is reached go on. No sender's quota is
	// touched.
	//
	// An IPv6 address counts as its /64. Behind TrustedProxies the address comes from
	// X-Forwarded-For. All clients without an address, on a Unix domain socket that
	// is not trusted, count as one. The guard remembers at most 65,536 addresses, and
	// evicts the one whose last failure is the oldest.
	FailedAttempts Limit

	// CheckKey reports whether a key is well formed. It is called before any
	// lookup, with 1 to 512 visible ASCII characters, because any other key is
	// refused already. The Validator then gets the key as it came.
	//
	// Nil means the CheckKey method of the Validator, or of the Validator inside a
	// [Cache]. If there is none, a key is a UUID of 36 characters, neither the nil
	// nor the max UUID, and the Validator gets it in lower case.
	CheckKey func(key string) bool
	// SenderHeader names the header that carries the sender's ID. Empty means
	// x-sender-id. The texts of refusals name this header.
	SenderHeader string
	// KeyHeader names the header that carries the key. Empty means x-api-key. The
	// texts of refusals name this header.
	KeyHeader string
	// KeyScheme is the authentication scheme in front of the key. With KeyHeader
	// "Authorization" and KeyScheme "Bearer" the header is "Authorization: Bearer
	// KEY". Letter case does not matter. It is also the scheme of the challenge.
	// Empty means no scheme, and the challenge ApiKey.
	KeyScheme string
	// KeyOnly asks for no sender header: the key alone identifies the sender, and
	// Credentials.SenderID is empty.
	KeyOnly bool
	// StripKey hides the key header from the next handler, which then cannot log or
	// forward the key. The handler gets a copy of the headers, which costs about a
	// microsecond. The caller's request is not changed. A guard of another New
	// further in does not find the key either.
	StripKey bool

	// RequireTLS refuses cleartext with 403 "HTTPS is required", before any
	// lookup.
	RequireTLS bool
	// TrustedProxies are the peers that are believed. RequireTLS accepts their
	// X-Forwarded-Proto if every value in it is https or wss. FailedAttempts and
	// [Sender.Networks] take the last address of their X-Forwarded-For that is not a
	// trusted proxy for the client's.
	//
	// Such a proxy must overwrite X-Forwarded-Proto and append to X-Forwarded-For. A
	// proxy that passes on the client's own X-Forwarded-Proto lets cleartext in. No
	// layer outside the guard may rewrite Request.RemoteAddr, as chi's RealIP does:
	// the guard would take the client for the peer.
	TrustedProxies []netip.Prefix
	// TrustUnixSocket treats every peer on a Unix domain socket as one of the
	// TrustedProxies. Such a peer has no address that a prefix could name.
	TrustUnixSocket bool

	// Realm is the realm of the challenge in a 401, in printable ASCII. Empty means
	// api.
	Realm string
	// RateFields chooses the fields that tell a client about its limits. Zero means
	// both families.
	RateFields RateFields
	// ExpiryNotice is how long before [Sender.Expires] the responses to a key's
	// authenticated requests start to carry X-Api-Key-Expires: that instant in RFC
	// 3339, in UTC. Refusals carry it, too. It covers a rotated key in its grace
	// period. Zero means never.
	ExpiryNotice time.Duration
	// ServeProblem answers refusals in place of the problem itself. p is complete:
	// its status is 400 to 599, and Title, Type, Challenge and RetryAfter are what
	// would have been sent. The rate fields are set already. The function may change
	// p. It must write a response with the status of p, or with what means the same
	// to a client of another protocol, such as gRPC. Nil means p.ServeHTTP(w, r).
	ServeProblem func(w http.ResponseWriter, r *http.Request, p *Problem, o Outcome)
	// Observe is called with each decision of each guard, before the next handler
	// runs. It runs on the request's goroutine, many at once, and must not block.
	Observe func(ctx context.Context, e Event)
}

// mistakes collects what is wrong with a configuration, in the order of its
// fields.
type mistakes []error

func (m *mistakes) add(format string, args ...any) {
	*m = append(*m, fmt.Errorf("senderauth: "+format, args...))
}

// validate reports every mistake in cfg, in field order.
func (cfg *Config) validate() error {
	var m mistakes
	cfg.validateLimits(&m)
	cfg.validateHeaders(&m)
	for i, p := range cfg.TrustedProxies {
		if err := validatePrefix(p); err != nil {
			m.add("Config.TrustedProxies[%d]: %w", i, err)
		}
	}
	if cfg.Realm != "" && !printable(cfg.Realm) {
		m.add("Config.Realm: %q is not printable ASCII", cfg.Realm)
	}
	if cfg.RateFields > RateFieldsNone {
		m.add("Config.RateFields: %d is not one of the constants", cfg.RateFields)
	}
	if cfg.ExpiryNotice < 0 {
		m.add("Config.ExpiryNotice: %v is negative", cfg.ExpiryNotice)
	}
	return errors.Join(m...)
}

func (cfg *Config) validateLimits(m *mistakes) {
	if _, ok := cfg.Limits["default"]; !ok {
		m.add(`Config.Limits: "default" is missing`)
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Limits)) {
		if !printable(name) {
			m.add("Config.Limits: the name %q is not printable ASCII", name)
		}
		if name == failedAttempts {
			m.add("Config.Limits: the name %q is that of Config.FailedAttempts in events", name)
		}
		if err := cfg.Limits[name].Validate(); err != nil {
			m.add("Config.Limits[%q]: %w", name, err)
		}
	}
	for i, name := range cfg.DryRun {
		if _, ok := cfg.Limits[name]; !ok {
			m.add("Config.DryRun[%d]: limit %q is not in Config.Limits", i, name)
		}
	}
	if cfg.Limiter != nil && isNil(cfg.Limiter) {
		m.add("Config.Limiter holds a nil %T", cfg.Limiter)
	} else if l, ok := cfg.Limiter.(*MemoryLimiter); ok && l.shards == nil {
		m.add("Config.Limiter is a MemoryLimiter that NewMemoryLimiter did not make")
	}
	if l := cfg.FailedAttempts; l != (Limit{}) {
		if err := l.Validate(); err != nil {
			m.add("Config.FailedAttempts: %w", err)
		} else if l == Unlimited() || l == Blocked() || l.isAllowance() {
			m.add("Config.FailedAttempts: Unlimited(), Blocked() and a Calendar have no meaning here: leave it zero, or set Requests and Per")
		}
	}
}

func (cfg *Config) validateHeaders(m *mistakes) {
	header := func(field, name string) {
		if !isToken(name) {
			m.add("Config.%s: %q is not the name of a header field", field, name)
		}
		if name == "Host" {
			m.add("Config.%s: net/http takes Host out of the header", field)
		}
	}
	header("SenderHeader", cfg.senderHeader())
	if cfg.KeyOnly && cfg.SenderHeader != "" {
		m.add("Config.SenderHeader: %q is not read with KeyOnly", cfg.SenderHeader)
	}
	header("KeyHeader", cfg.keyHeader())
	if cfg.keyHeader() == cfg.senderHeader() && !cfg.KeyOnly {
		m.add("Config.KeyHeader and Config.SenderHeader are both %q", cfg.keyHeader())
	}
	if cfg.KeyScheme != "" && !isToken(cfg.KeyScheme) {
		m.add("Config.KeyScheme: %q is not the name of an authentication scheme", cfg.KeyScheme)
	}
}

// senderHeader returns the canonical name of the sender's header.
func (cfg *Config) senderHeader() string {
	return http.CanonicalHeaderKey(cmp.Or(cfg.SenderHeader, "x-sender-id"))
}

// keyHeader returns the canonical name of the key's header.
func (cfg *Config) keyHeader() string {
	return http.CanonicalHeaderKey(cmp.Or(cfg.KeyHeader, "x-api-key"))
}

// validateValidator reports a validator that cannot be asked.
func validateValidator(v Validator) error {
	if isNil(v) {
		return errors.New("senderauth: New: the Validator is nil")
	}
	if c, ok := v.(*Cache); ok && c.shards == nil {
		return errors.New("senderauth: New: the Validator is a Cache that NewCache did not make")
	}
	return nil
}

// validatePrefix reports a prefix that contains no address of a request.
func validatePrefix(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return errors.New("the prefix is not valid")
	case p.Addr().Is4In6():
		return fmt.Errorf("%v cannot match any peer: write it as IPv4", p)
	}
	return nil
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

// isToken reports whether s is a token of RFC 9110 section 5.6.2.
func isToken(s string) bool {
	const characters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&'*+-.^_`|~"
	return s != "" && strings.Trim(s, characters) == ""
}

// printable reports whether s is printable ASCII and not empty.
func printable(s string) bool { return asciiFrom(' ', s) }

// asciiFrom reports whether s is ASCII from first on, without DEL, and not empty.
func asciiFrom(first byte, s string) bool {
	for i := range len(s) {
		if s[i] < first || s[i] >= 0x7f {
			return false
		}
	}
	return s != ""
}
