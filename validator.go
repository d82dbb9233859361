package senderauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"
)

// A Validator resolves [Credentials] to a [Sender]. Implement it on top of
// wherever your keys live. What it returns decides the answer to the client:
//
//   - a [Sender] and nil: the guard charges the sender's limits next;
//   - [ErrInvalidKey]: 401 "Invalid API credentials!";
//   - [ErrKeyMismatch]: 401 "API key does not match sender ID";
//   - [ErrInvalidSender]: 401 "Invalid x-sender-id";
//   - an error that is or wraps a [*Problem]: that problem, as it is;
//   - any other error, a deadline included: 503. An outage is never a 401, because
//     clients throw away a key that was refused.
//
// The errors may be wrapped. Their text reaches [Config.Observe], never the
// client, and must not contain the key.
//
// Look the key up first and compare its owner with c.SenderID afterwards, so that
// nobody without an active key learns whether a sender exists. If c.SenderID is
// empty ([Config.KeyOnly]), the key alone decides. Take Sender.ID from your own
// record: a guard fails closed, with 500, if it is not the sender that the request
// named. Compare keys as digests, never as text.
//
// A Validator sees well-formed credentials only, and many goroutines call it at once.
// It must honour ctx. Behind a [Cache], ctx carries the deadline of the Cache, and no
// values of a request except those that [CacheConfig.LookupContext] hands on. Without a
// Cache, ctx is the request's.
//
// If the keys are not UUIDs, give the Validator a method CheckKey(key string) bool; see
// [Config.CheckKey]. The suite senderauthtest.TestValidator tests a Validator.
type Validator interface {
	Validate(ctx context.Context, c Credentials) (Sender, error)
}

// A ValidatorFunc is a function used as a [Validator].
type ValidatorFunc func(ctx context.Context, c Credentials) (Sender, error)

// Validate calls f.
func (f ValidatorFunc) Validate(ctx context.Context, c Credentials) (Sender, error) {
	return f(ctx, c)
}

// A [Validator] refuses a request with one of these errors, wrapped or bare.
var (
	// ErrInvalidKey means that the key is unknown or not active: disabled, expired,
	// deleted, not valid yet, or rotated and past its grace period.
	ErrInvalidKey = errors.New("senderauth: invalid API key")
	// ErrKeyMismatch means that the key is active and belongs to another sender.
	ErrKeyMismatch = errors.New("senderauth: API key does not match sender ID")
	// ErrInvalidSender means that the sender itself is disabled. Return it only for
	// an active key of that sender.
	ErrInvalidSender = errors.New("senderauth: invalid sender")
)

// Credentials are what a request presents. A guard has checked their form: by
// default both are UUIDs of 36 characters in lower case. SenderID is empty with
// [Config.KeyOnly].
//
// APIKey is a secret, and SenderID may be one, because clients that mix up the two
// headers send their key there. So Credentials print, log and marshal without either,
// in package fmt, as a slog value, as JSON and as text. The key is left out, and the
// fingerprint of [Event.ClaimedSender] replaces the sender ID.
//
// Package fmt shows the key in two cases, because it calls no method there: under the
// verb %p, which go vet reports, and if Credentials are in an unexported field of a
// struct.
type Credentials struct {
	SenderID string
	APIKey   string
}

const redacted = "[redacted]"

// Format writes what String returns, whatever the verb.
func (c Credentials) Format(f fmt.State, _ rune) { io.WriteString(f, c.String()) }

// String returns c without the key and the sender ID.
func (c Credentials) String() string {
	return fmt.Sprintf("{SenderID:%s APIKey:%s}", fingerprint(c.SenderID), redacted)
}

// LogValue returns c without the key and the sender ID.
func (c Credentials) LogValue() slog.Value {
	return slog.GroupValue(slog.String("claimed_sender", fingerprint(c.SenderID)), slog.String("api_key", redacted))
}

// MarshalJSON returns c without the key and the sender ID.
func (c Credentials) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct{ SenderID, APIKey string }{fingerprint(c.SenderID), redacted})
}

// MarshalText returns what String returns.
func (c Credentials) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// A Sender is the authenticated tenant, as recorded by the [Validator]. All
// requests of the sender share it: treat its maps and slices, and Detail, as read-only.
type Sender struct {
	// ID is the sender's canonical lower-case UUID, from the Validator's record and
	// not from the request. With [Config.KeyOnly] it may have any form but empty.
	ID string
	// KeyID is the public name of the key that was used. It is safe to log.
	KeyID string
	// Limits overrides [Config.Limits] by name, as a plan does. A name that no guard
	// charges has no effect. Nil means none.
	Limits map[string]Limit
	// Expires is the earlier of the key's expiry and the end of its grace period. At
	// that instant every cached decision about the key ends. The zero time means
	// never.
	Expires time.Time
	// Networks are the only addresses from which the key may be used. A guard answers
	// requests from others as it answers an unknown key. Behind a proxy, name the proxy
	// in [Config.TrustedProxies]. Empty means any address.
	Networks []netip.Prefix
	// Scopes is what the key may do, for [Guard.Requiring] and [Sender.HasScope]: names
	// such as orders:read, or [AllScopes]. Empty means nothing that requires a scope.
	Scopes []string
	// Detail is the Validator's own data for the program's handlers. This package
	// never looks at it.
	Detail any
}

// validate reports a record that no guard may act on. That is a fault of the
// Validator, not of the client.
func (s *Sender) validate(cr Credentials) error {
	if s.ID == "" {
		return &faultError{errors.New("senderauth: the validator returned an unusable sender: Sender.ID is empty")}
	}
	if cr.SenderID != "" && s.ID != cr.SenderID {
		return &faultError{errors.New("senderauth: the validator returned another sender than the one in the request")}
	}
	for name, l := range s.Limits {
		if err := l.Validate(); err != nil {
			return &faultError{fmt.Errorf("senderauth: the validator returned an unusable sender: Sender.Limits[%q]: %w", name, err)}
		}
	}
	for i, n := range s.Networks {
		if err := validatePrefix(n); err != nil {
			return &faultError{fmt.Errorf("senderauth: the validator returned an unusable sender: Sender.Networks[%d]: %w", i, err)}
		}
	}
	return nil
}

// A faultError is a mistake in the server's own code. The client gets 500.
type faultError struct{ err error }

func (e *faultError) Error() string { return e.err.Error() }
func (e *faultError) Unwrap() error { return e.err }

// maxKeyLength bounds what is hashed, because net/http lets a value of almost 1 MiB
// through.
const maxKeyLength = 512

// visible reports whether key is 1 to 512 visible ASCII characters.
func visible(key string) bool { return len(key) <= maxKeyLength && asciiFrom('!', key) }
