package senderauth

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// A Validator says whose credentials are: it is the plug point for the place
// where keys are kept. What it returns decides the answer to the client:
//
//   - a [Sender] and nil: the request is the sender's, and goes on to the limits;
//   - [ErrInvalidKey]: 401 "Invalid API credentials!";
//   - [ErrKeyMismatch]: 401 "API key does not match sender ID";
//   - [ErrInvalidSender]: 401 "Invalid x-sender-id";
//   - an error that is or wraps a [*Problem]: that problem, as it is;
//   - any other error, and a deadline: 503. An outage is never a 401, because
//     clients throw away a key that was refused.
//
// The errors may be wrapped; the text reaches [Config.Observe], never the
// client. It must not contain the key.
//
// An implementation looks the key up first and compares its owner with
// c.SenderID after, so that nobody without an active key learns whether a
// sender exists. Where c.SenderID is empty ([Config.KeyOnly]) the key alone
// decides. Sender.ID comes from the implementation's own record: a guard
// fails closed, with 500, where it is not the sender that the request named.
// Keys are compared as digests, never as text.
//
// A validator sees well-formed credentials only; it must honour ctx, which
// carries the deadline of the [Cache] in front of it, and no other deadline
// where there is no cache. It is called by many goroutines at once. The suite
// senderauthtest.TestValidator tests all of this.
type Validator interface {
	Validate(ctx context.Context, c Credentials) (Sender, error)
}

// A ValidatorFunc is a function that is a [Validator].
type ValidatorFunc func(ctx context.Context, c Credentials) (Sender, error)

// Validate calls f.
func (f ValidatorFunc) Validate(ctx context.Context, c Credentials) (Sender, error) {
	return f(ctx, c)
}

// The refusals that a [Validator] can return, wrapped or bare.
var (
	// ErrInvalidKey: the key is unknown, or it is not active any more or not
	// yet: disabled, rotated and past its grace period, expired, deleted.
	ErrInvalidKey = errors.New("senderauth: invalid API key")
	// ErrKeyMismatch: the key is active and belongs to another sender.
	ErrKeyMismatch = errors.New("senderauth: API key does not match sender ID")
	// ErrInvalidSender: the sender itself is disabled. Only the holder of one
	// of its active keys is told so.
	ErrInvalidSender = errors.New("senderauth: invalid sender")
)

// Credentials are what a request presents. A guard has checked their form: by
// default both are UUIDs of 36 characters in lower case. SenderID is empty
// where [Config.KeyOnly] is set.
//
// APIKey is a secret. Credentials print, log and marshal without it, under
// every verb of package fmt but %p, as a slog value, as JSON and as text.
// Package fmt does not call methods for %p, which go vet reports, nor on an
// unexported field: a struct that hides Credentials in one prints the key.
type Credentials struct {
	SenderID string
	APIKey   string
}

const redacted = "[redacted]"

// Format writes c without the key, whatever the verb.
func (c Credentials) Format(f fmt.State, _ rune) { io.WriteString(f, c.String()) }

// String returns c without the key.
func (c Credentials) String() string {
	return fmt.Sprintf("{SenderID:%q APIKey:%s}", c.SenderID, redacted)
}

// LogValue returns c without the key.
func (c Credentials) LogValue() slog.Value {
	return slog.GroupValue(slog.String("sender_id", c.SenderID), slog.String("api_key", redacted))
}

// MarshalJSON returns c without the key.
func (c Credentials) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct{ SenderID, APIKey string }{c.SenderID, redacted})
}

// MarshalText returns c without the key.
func (c Credentials) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// A Sender is whose the request is: the tenant, by the validator's record.
// It is shared by all requests of the sender: treat Limits and Detail as
// read-only.
type Sender struct {
	// ID is the sender's canonical lower-case UUID, from the validator's
	// record and not from the request.
	ID string
	// KeyID is a public name of the key that was used. It is safe to log.
	KeyID string
	// Limits overrides [Config.Limits] by name: a plan, a tier. Names that the
	// guard does not charge are ignored. Nil: none.
	Limits map[string]Limit
	// Expires is the instant from which on nothing decided from this record is
	// remembered: the earlier of the key's expiry and the end of its grace
	// period. The zero time: no end.
	Expires time.Time
	// Detail is the validator's own, for its handlers. This package never
	// looks at it.
	Detail any
}

// validate reports a record that no guard may act on: a fault of the
// validator, not of the client.
func (s *Sender) validate(cr Credentials) error {
	if s.ID == "" {
		return &faultError{errors.New("senderauth: the validator returned an unusable sender: Sender.ID is empty")}
	}
	if cr.SenderID != "" && s.ID != cr.SenderID {
		return &faultError{errors.New("senderauth: the validator returned another sender than the one in the request")}
	}
	for name, l := range s.Limits {
		if err := l.validate(); err != nil {
			return &faultError{fmt.Errorf("senderauth: the validator returned an unusable sender: Sender.Limits[%q]: %w", name, err)}
		}
	}
	return nil
}

// A faultError is a mistake of the server's own code. The client is told 500.
type faultError struct{ err error }

func (e *faultError) Error() string { return e.err.Error() }
func (e *faultError) Unwrap() error { return e.err }

// Static returns a [Validator] for a fixed set of credentials: from
// environment variables, or in tests. It holds SHA-256 digests, not keys. A
// sender may have several keys; a key has one sender. Every mistake is
// reported at once: no credentials at all, a sender ID that is not a UUID, a
// key that is not 1 to 512 visible ASCII characters, a key given twice. A
// message names the position and no value, for that may be a key in the wrong
// place.
//
// Letter case does not matter in a sender ID, nor in a key that is a UUID.
func Static(c ...Credentials) (Validator, error) {
	if len(c) == 0 {
		return nil, errors.New("senderauth: Static: no credentials")
	}
	var errs []error
	owners := make(static, len(c))
	for i, cr := range c {
		id, ok := canonicalUUID(cr.SenderID)
		if !ok {
			errs = append(errs, fmt.Errorf("senderauth: Static: credentials %d: SenderID is not a UUID of 36 characters, or is the nil or max UUID", i))
		}
		if !visible(cr.APIKey) {
			errs = append(errs, fmt.Errorf("senderauth: Static: credentials %d: APIKey is not 1 to %d visible ASCII characters", i, maxKeyLength))
			continue
		}
		digest := staticDigest(cr.APIKey)
		if _, twice := owners[digest]; twice {
			errs = append(errs, fmt.Errorf("senderauth: Static: credentials %d: APIKey is given twice", i))
		}
		owners[digest] = id
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return owners, nil
}

// static maps the digest of each key to its owner. The map compares digests of
// random keys: what its timing tells is of no use in finding a preimage.
type static map[[sha256.Size]byte]string

func (s static) Validate(_ context.Context, c Credentials) (Sender, error) {
	id, ok := s[staticDigest(c.APIKey)]
	switch {
	case !ok:
		return Sender{}, ErrInvalidKey
	case c.SenderID != "" && c.SenderID != id:
		return Sender{}, ErrKeyMismatch
	}
	return Sender{ID: id}, nil
}

func staticDigest(key string) [sha256.Size]byte {
	if lower, ok := canonicalUUID(key); ok {
		key = lower
	}
	return sha256.Sum256([]byte(key))
}

// maxKeyLength bounds what is hashed: net/http lets a value of almost 1 MiB
// through.
const maxKeyLength = 512

// visible reports whether key is 1 to 512 visible ASCII characters.
func visible(key string) bool {
	if len(key) == 0 || len(key) > maxKeyLength {
		return false
	}
	for i := range len(key) {
		if key[i] <= ' ' || key[i] >= 0x7f {
			return false
		}
	}
	return true
}

type uuid [16]byte

var maxUUID = uuid{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// parseUUID reads exactly the 36 characters of RFC 9562 section 4, in either
// letter case, and refuses the nil and the max UUID (sections 5.9 and 5.10).
// The packages for UUIDs accept other forms as well, and one accepts any
// characters around them. lower reports that s has no capital.
func parseUUID(s string) (u uuid, lower, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return uuid{}, false, false
	}
	bad, small := byte(0), byte(0x20)
	for i, at := range uuidDigits {
		hi, lo := s[at], s[at+1]
		h, l := hexValue[hi], hexValue[lo]
		bad |= h | l
		small &= hi & lo
		u[i] = h<<4 | l&0x0f
	}
	if bad&0xf0 != 0 || u == (uuid{}) || u == maxUUID {
		return uuid{}, false, false
	}
	return u, small != 0, true
}

// canonicalUUID returns s in lower case.
func canonicalUUID(s string) (string, bool) {
	_, lower, ok := parseUUID(s)
	if ok && !lower {
		s = lowerASCII(s)
	}
	return s, ok
}

func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return string(b)
}

// uuidDigits are the places of the sixteen pairs of digits.
var uuidDigits = [16]int{0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34}

// hexValue is the value of a hexadecimal digit, or 0xff.
var hexValue = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i := range 16 {
		t["0123456789abcdef"[i]] = byte(i)
		t["0123456789ABCDEF"[i]] = byte(i)
	}
	return t
}()
