package senderauth

import (
	"context"
	"crypto/sha256"
	"errors"

	"github.com/senderauth/senderauth/internal/uuid"
)

// Static returns a [Validator] for a fixed set of credentials: from environment
// variables, or in tests. It holds SHA-256 digests, not keys. A sender may have
// several keys, each with [AllScopes], but a key has one sender. Letter case does not
// matter in a sender ID, nor in a key that is a UUID. If any key is not a UUID, the
// Validator has a CheckKey method that accepts keys of any form.
//
// Static reports every mistake at once: no credentials at all, a sender ID that is
// not a UUID, a key that is not 1 to 512 visible ASCII characters or is the nil or
// max UUID, and a key given twice. The messages name the position and no value,
// because the value may be a key in the wrong place.
func Static(c ...Credentials) (Validator, error) {
	if len(c) == 0 {
		return nil, errors.New("senderauth: Static: no credentials")
	}
	var m mistakes
	owners, anyForm := make(static, len(c)), false
	for i, cr := range c {
		id, ok := uuid.Canonical(cr.SenderID)
		if !ok {
			m.add("Static: credentials %d: SenderID is not a UUID of 36 characters, or is the nil or max UUID", i)
		}
		if !visible(cr.APIKey) {
			m.add("Static: credentials %d: APIKey is not 1 to %d visible ASCII characters", i, maxKeyLength)
			continue
		}
		if uuid.IsNilOrMax(cr.APIKey) {
			m.add("Static: credentials %d: APIKey is the nil or max UUID", i)
			continue
		}
		if _, ok := uuid.Canonical(cr.APIKey); !ok {
			anyForm = true
		}
		digest := staticDigest(cr.APIKey)
		if _, twice := owners[digest]; twice {
			m.add("Static: credentials %d: APIKey is given twice", i)
		}
		owners[digest] = id
	}
	if len(m) > 0 {
		return nil, errors.Join(m...)
	}
	if anyForm {
		return staticAnyForm{owners}, nil
	}
	return owners, nil
}

// static maps the digest of each key to its owner. The timing of the map's
// comparisons tells about digests, which does not help to find a key.
type static map[[sha256.Size]byte]string

func (s static) Validate(_ context.Context, c Credentials) (Sender, error) {
	id, ok := s[staticDigest(c.APIKey)]
	switch {
	case !ok:
		return Sender{}, ErrInvalidKey
	case c.SenderID != "" && c.SenderID != id:
		return Sender{}, ErrKeyMismatch
	}
	return Sender{ID: id, Scopes: allScopes}, nil
}

var allScopes = []string{AllScopes}

// staticAnyForm is a static with a key that is not a UUID.
type staticAnyForm struct{ static }

// CheckKey accepts every form: a guard has checked the characters already.
func (staticAnyForm) CheckKey(string) bool { return true }

func staticDigest(key string) [sha256.Size]byte {
	key, _ = uuid.Canonical(key)
	return sha256.Sum256([]byte(key))
}
