package senderauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/senderauth/senderauth/internal/uuid"
)

// An authenticator answers the first question: who is calling. It is immutable.
type authenticator struct {
	validator Validator
	cache     *Cache // the validator, if it is one

	requireTLS bool
	peers      peers
	attempts   *attemptLimiter // nil: no limit

	senderHeader, keyHeader string // canonical
	keyScheme               string
	checkKey                func(string) bool // nil: a UUID
	keyOnly                 bool
}

func newAuthenticator(v Validator, cfg *Config) *authenticator {
	a := &authenticator{
		validator:    v,
		requireTLS:   cfg.RequireTLS,
		peers:        peers{slices.Clone(cfg.TrustedProxies), cfg.TrustUnixSocket},
		senderHeader: cfg.senderHeader(),
		keyHeader:    cfg.keyHeader(),
		keyScheme:    cfg.KeyScheme,
		checkKey:     cfg.CheckKey,
		keyOnly:      cfg.KeyOnly,
	}
	a.cache, _ = v.(*Cache)
	if a.checkKey == nil {
		a.checkKey = keyCheckerOf(v)
	}
	if cfg.FailedAttempts != (Limit{}) {
		a.attempts = newAttemptLimiter(cfg.FailedAttempts, &a.peers)
	}
	return a
}

// keyCheckerOf returns the CheckKey method of v, or of the validator that v
// caches, if there is one.
func keyCheckerOf(v Validator) func(string) bool {
	if c, ok := v.(*Cache); ok {
		v = c.validator
	}
	if k, ok := v.(interface{ CheckKey(key string) bool }); ok {
		return k.CheckKey
	}
	return nil
}

// presented is what a request presented, in the form that is used from here on.
type presented struct {
	Credentials
	sender, key uuid.UUID
	uuids       bool // sender and key are set
}

// authenticate decides who is calling, in the order that the package's
// documentation gives. It leaves d.outcome alone if a sender was found.
func (a *authenticator) authenticate(r *http.Request, d *decision) {
	if a.requireTLS {
		if err := a.peers.checkTLS(r); err != nil {
			d.refuse(Insecure, err)
			return
		}
	}
	var p presented
	if !a.read(r.Header, &p, d) {
		return
	}
	if a.cache == nil {
		a.ask(r, &p, d)
	} else {
		a.askCache(r, &p, d)
	}
	if d.sender == nil {
		a.reject(r, d)
	} else if len(d.sender.Networks) > 0 {
		a.checkNetwork(r, d)
	}
}

// checkNetwork refuses a key that is used from outside its networks.
func (a *authenticator) checkNetwork(r *http.Request, d *decision) {
	addr := a.peers.address(r)
	for _, n := range d.sender.Networks {
		if n.Contains(addr) {
			return
		}
	}
	d.refuse(WrongNetwork, errNetwork)
	if a.attempts != nil {
		a.attempts.fail(r)
	}
}

var errNetwork = errors.New("senderauth: the client's address is outside Sender.Networks")

// What Event.Err says about requests that are refused by form.
var (
	errAbsent      = errors.New("senderauth: the header is absent or empty")
	errSenderLines = errors.New("senderauth: the sender's header is there more than once")
	errSenderForm  = errors.New("senderauth: the sender's ID is not a UUID of 36 characters, or it is the nil or max UUID")
	errKeyLines    = errors.New("senderauth: the key's header is there more than once")
	errKeyScheme   = errors.New("senderauth: the key's header does not begin with Config.KeyScheme and a space")
	errKeyForm     = errors.New("senderauth: the key is not a UUID of 36 characters, or it is the nil or max UUID")
	errKeyChars    = fmt.Errorf("senderauth: the key is not 1 to %d visible ASCII characters", maxKeyLength)
	errKeyChecked  = errors.New("senderauth: CheckKey refused the key")
)

// read reads the two headers into p. It reports false, with the refusal in d, if
// they are not well formed.
func (a *authenticator) read(h http.Header, p *presented, d *decision) bool {
	keys, senders := h[a.keyHeader], h[a.senderHeader]
	if absent(keys) {
		return d.refuse(MissingKey, errAbsent)
	}
	lower, ok := true, true
	if !a.keyOnly {
		if absent(senders) {
			return d.refuse(MissingSender, errAbsent)
		}
		if len(senders) > 1 {
			return d.refuse(InvalidSender, errSenderLines)
		}
		p.SenderID = senders[0]
		if p.sender, lower, ok = uuid.Parse(p.SenderID); !ok {
			return d.refuse(InvalidSender, errSenderForm)
		}
		if !lower {
			p.SenderID = uuid.Lower(p.SenderID)
		}
		d.claimedID = p.SenderID
	}
	if len(keys) > 1 {
		return d.refuse(InvalidKey, errKeyLines)
	}
	p.APIKey = keys[0]
	if a.keyScheme != "" {
		if p.APIKey, ok = cutScheme(p.APIKey, a.keyScheme); !ok {
			return d.refuse(InvalidKey, errKeyScheme)
		}
	}
	if a.checkKey != nil {
		return a.checkForm(p.APIKey, d)
	}
	if p.key, lower, ok = uuid.Parse(p.APIKey); !ok {
		return d.refuse(InvalidKey, errKeyForm)
	}
	if !lower {
		p.APIKey = uuid.Lower(p.APIKey)
	}
	p.uuids = !a.keyOnly
	return true
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

// cutScheme cuts an authentication scheme and the spaces after it (RFC 9110
// section 11.4) from the value of a header.
func cutScheme(value, scheme string) (string, bool) {
	n := len(scheme)
	if len(value) <= n || value[n] != ' ' || !strings.EqualFold(value[:n], scheme) {
		return "", false
	}
	return strings.TrimLeft(value[n:], " "), true
}

// checkForm calls CheckKey. net/http would log the text of a panic in it, which
// may hold the key.
func (a *authenticator) checkForm(key string, d *decision) (ok bool) {
	if !visible(key) {
		return d.refuse(InvalidKey, errKeyChars)
	}
	defer func() {
		if p := recover(); p != nil {
			ok = d.refuse(Failed, panicError("CheckKey", p))
		}
	}()
	return a.checkKey(key) || d.refuse(InvalidKey, errKeyChecked)
}

// ask asks a validator that is not a Cache.
func (a *authenticator) ask(r *http.Request, p *presented, d *decision) {
	if a.attempts != nil && a.stop(r, d) {
		return
	}
	s, err := call(r.Context(), a.validator, p.Credentials)
	if err != nil {
		d.err = err
		return
	}
	d.sender = &s
}

// askCache asks the Cache without the copies that its interface costs.
func (a *authenticator) askCache(r *http.Request, p *presented, d *decision) {
	var of digest
	if p.uuids {
		of = a.cache.digestUUIDs(p.sender, p.key)
	} else {
		of = a.cache.digest(p.Credentials)
	}
	if a.attempts != nil && !a.cache.knows(of) && a.stop(r, d) {
		return
	}
	e, cached, err := a.cache.lookup(r.Context(), of, p.Credentials)
	d.cached, d.err = cached, err
	if e != nil {
		d.sender, d.account = &e.sender, &e.account
	}
}

// stop reports that the address has failed too often, with the refusal in d.
func (a *authenticator) stop(r *http.Request, d *decision) bool {
	wait := a.attempts.wait(r)
	if wait > 0 {
		d.limited(failedAttempts, wait)
		d.err = errFailedAttempts
	}
	return wait > 0
}

var errFailedAttempts = errors.New("senderauth: the client's address is over Config.FailedAttempts")

// reject turns the Validator's error into the refusal.
func (a *authenticator) reject(r *http.Request, d *decision) {
	if d.outcome == Limited {
		return // the Validator was not asked
	}
	var own *Problem
	var fault *faultError
	switch err := d.err; {
	case errors.As(err, &own):
		d.outcome, d.problem = Refused, own
	case errors.Is(err, ErrInvalidKey):
		d.outcome = InvalidKey
	case errors.Is(err, ErrKeyMismatch):
		d.outcome = Mismatch
	case errors.Is(err, ErrInvalidSender):
		d.outcome = InvalidSender
	case errors.As(err, &fault):
		d.outcome = Failed
	case errors.Is(r.Context().Err(), context.Canceled):
		d.outcome = Canceled
	default:
		d.outcome = Unavailable
	}
	failed := d.outcome.status() == http.StatusUnauthorized || own != nil && own.status() == http.StatusUnauthorized
	if a.attempts != nil && failed {
		a.attempts.fail(r)
	}
}
