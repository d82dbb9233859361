package sqlkeys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/senderauth/senderauth"
)

// A Detail is the Detail of each [senderauth.Sender] that Validate returns.
type Detail struct {
	Environment Environment       // of the key
	Metadata    map[string]string // of the sender
}

// lookupTimeout applies if the context has no deadline.
const lookupTimeout = 2 * time.Second

// Validate implements [senderauth.Validator]. It finds the key by its digest,
// in one query. If it refuses a key that it knows, the error is a
// [*RefusedError]. Without a deadline in ctx, as without a cache, it takes at
// most 2 seconds.
func (s *Store) Validate(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
	key, ok := s.canonicalKey(c.APIKey)
	if !ok {
		return senderauth.Sender{}, errMalformed
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, lookupTimeout)
		defer cancel()
	}
	f, err := s.find(ctx, key)
	if errors.Is(err, sql.ErrNoRows) {
		return senderauth.Sender{}, errUnknown
	}
	if err != nil {
		return senderauth.Sender{}, fmt.Errorf("sqlkeys: lookup: %w", err)
	}
	if cause := f.refusal(c.SenderID); cause != nil {
		return senderauth.Sender{}, &RefusedError{KeyID: f.keyID, SenderID: f.senderID, State: f.state, err: cause}
	}
	return f.sender()
}

var (
	errMalformed = fmt.Errorf("sqlkeys: the key is malformed: %w", senderauth.ErrInvalidKey)
	errUnknown   = fmt.Errorf("sqlkeys: the key is unknown: %w", senderauth.ErrInvalidKey)
)

// lookupQuery finds a key by one of n digests.
func lookupQuery(n int) string {
	digests := make([]string, n)
	for i := range digests {
		digests[i] = fmt.Sprintf("$%d", i+1)
	}
	return `SELECT k.id, k.sender_id, ` + stateSQL + `, least(k.expires_at, k.grace_until), k.environment, s.disabled_at, s.limits, s.metadata
		FROM sqlkeys_keys k JOIN sqlkeys_senders s ON s.id = k.sender_id
		WHERE k.digest IN (` + strings.Join(digests, ", ") + `)`
}

// A foundKey is the row of a lookup.
type foundKey struct {
	keyID, senderID  string
	state            State
	until            time.Time // the earlier of its expiry and the end of its grace period
	environment      Environment
	disabled         sql.Null[any] // whether the sender is
	limits, metadata string
}

// find runs the lookup. If it meets a stale connection it tries another one, as
// often as the pool may have stale ones.
func (s *Store) find(ctx context.Context, key string) (foundKey, error) {
	digests := make([]any, len(s.peppers))
	for i, p := range s.peppers {
		digests[i] = digest(p, key)
	}
	f, err := s.findOnce(ctx, digests)
	if s.engine.classify(err) == failureStale {
		for n := s.db.Stats().OpenConnections; n >= 0 && s.engine.classify(err) == failureStale && ctx.Err() == nil; n-- {
			f, err = s.findOnce(ctx, digests)
		}
	}
	return f, err
}

func (s *Store) findOnce(ctx context.Context, digests []any) (f foundKey, err error) {
	err = s.lookup.row(ctx, digests...).Scan(&f.keyID, &f.senderID, &f.state, scannedTime{&f.until}, &f.environment, &f.disabled, &f.limits, &f.metadata)
	return f, err
}

// refusal returns why the key is not accepted for a sender, or nil. An empty
// senderID stands for the owner of the key.
func (f *foundKey) refusal(senderID string) error {
	switch {
	case f.state != Active && f.state != Retiring:
		return senderauth.ErrInvalidKey
	case senderID != "" && !strings.EqualFold(senderID, f.senderID):
		return senderauth.ErrKeyMismatch
	case f.disabled.Valid:
		return senderauth.ErrInvalidSender
	}
	return nil
}

func (f *foundKey) sender() (senderauth.Sender, error) {
	limits, err := decodeLimits(f.limits)
	if err != nil {
		return senderauth.Sender{}, fmt.Errorf("sqlkeys: sender %s: %w", f.senderID, err)
	}
	metadata, err := decodeMap(f.metadata)
	if err != nil {
		return senderauth.Sender{}, fmt.Errorf("sqlkeys: sender %s: %w", f.senderID, err)
	}
	return senderauth.Sender{
		ID:      f.senderID,
		KeyID:   f.keyID,
		Limits:  limits,
		Expires: f.until,
		Detail:  Detail{Environment: f.environment, Metadata: metadata},
	}, nil
}
