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

// A Detail is the Detail of the [senderauth.Sender] that [Store.Validate] returns.
type Detail struct {
	Environment Environment       // of the key
	KeyName     string            // for people
	KeyMetadata map[string]string // of the key
	Metadata    map[string]string // of the sender
}

// lookupTimeout applies if the context has no deadline.
const lookupTimeout = 2 * time.Second

// Validate implements [senderauth.Validator]. It finds the key by its digest,
// in one query. If it refuses a key that it knows, the error is a
// [*RefusedError]. It never accepts a key that it refused as revoked, even if the
// database has forgotten that. It remembers the 10,000 such keys that were looked up
// last. Without a deadline in ctx, as without a cache, it takes at most 2 seconds.
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
	m, err := s.find(ctx, key)
	if errors.Is(err, sql.ErrNoRows) {
		return senderauth.Sender{}, errUnknown
	}
	if err != nil {
		return senderauth.Sender{}, fmt.Errorf("sqlkeys: lookup: %w", err)
	}
	// A revocation is for good. A database that has failed over to a replica that lags may
	// have lost it.
	if m.state == Revoked {
		s.revoked.Add(m.keyID, struct{}{})
	} else if _, known := s.revoked.Get(m.keyID); known { // and stays remembered, because it is in use
		m.state = Revoked
	}
	if cause := m.refusal(c.SenderID); cause != nil {
		return senderauth.Sender{}, &RefusedError{KeyID: m.keyID, SenderID: m.senderID, State: m.state, err: cause}
	}
	return m.sender()
}

var (
	errMalformed = fmt.Errorf("sqlkeys: the key is malformed: %w", senderauth.ErrInvalidKey)
	errUnknown   = fmt.Errorf("sqlkeys: the key is unknown: %w", senderauth.ErrInvalidKey)
)

// lookupQuery finds a key by one of n digests.
func lookupQuery(n int) string {
	return `SELECT k.id, k.sender_id, ` + stateSQL + `, least(k.expires_at, k.grace_until), k.environment, k.name, k.metadata,
		k.scopes, k.networks, s.disabled_at, s.limits, s.metadata
		FROM sqlkeys_keys k JOIN sqlkeys_senders s ON s.id = k.sender_id
		WHERE ` + byDigest(n)
}

// byDigest selects the row of a key by one of n digests. If the key was stored twice, with
// different peppers, it selects the row that is refused. If neither is, it selects the older
// one, so that an import does not move a key to another sender.
func byDigest(n int) string {
	if n == 1 {
		return `k.digest = $1`
	}
	return `k.digest IN (` + placeholders(1, n) + `) ORDER BY ` + worksSQL + `, k.created_at, k.id LIMIT 1`
}

// placeholders returns n placeholders, separated by commas.
func placeholders(first, n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("$%d", first+i)
	}
	return strings.Join(names, ", ")
}

// A match is the row that a lookup finds.
type match struct {
	keyID, senderID  string
	state            State
	until            time.Time // the earlier of its expiry and the end of its grace period
	environment      Environment
	name, metadata   string
	scopes, networks string
	disabled         sql.Null[any] // set if the sender is disabled

	limits, senderMetadata string
}

// find runs the lookup. If it meets a stale connection it tries another one, as
// often as the pool may have stale ones.
func (s *Store) find(ctx context.Context, key string) (match, error) {
	digests := s.digests(key)
	m, err := s.findOnce(ctx, digests)
	if s.engine.classify(err) == failureStale {
		for n := s.db.Stats().OpenConnections; n >= 0 && s.engine.classify(err) == failureStale && ctx.Err() == nil; n-- {
			m, err = s.findOnce(ctx, digests)
		}
	}
	return m, err
}

func (s *Store) findOnce(ctx context.Context, digests []any) (m match, err error) {
	err = s.lookup.row(ctx, digests...).Scan(&m.keyID, &m.senderID, &m.state, scannedTime{&m.until}, &m.environment, &m.name, &m.metadata,
		&m.scopes, &m.networks, &m.disabled, &m.limits, &m.senderMetadata)
	return m, err
}

// refusal returns why the key is not accepted for a sender, or nil. An empty
// senderID stands for the owner of the key.
func (m *match) refusal(senderID string) error {
	switch {
	case m.state != Active && m.state != Retiring:
		return senderauth.ErrInvalidKey
	case senderID != "" && !strings.EqualFold(senderID, m.senderID):
		return senderauth.ErrKeyMismatch
	case m.disabled.Valid:
		return senderauth.ErrInvalidSender
	}
	return nil
}

// sender returns what the row says. It fails if a part of the row cannot be read: a right
// must not get lost, nor a restriction.
func (m *match) sender() (senderauth.Sender, error) {
	sender := senderauth.Sender{ID: m.senderID, KeyID: m.keyID, Expires: m.until}
	detail := Detail{Environment: m.environment, KeyName: m.name}
	var key [3]error
	detail.KeyMetadata, key[0] = decodeMap(m.metadata)
	sender.Scopes, key[1] = decodeScopes(m.scopes)
	sender.Networks, key[2] = decodeNetworks(m.networks)
	var owner [2]error
	sender.Limits, owner[0] = decodeLimits(m.limits)
	detail.Metadata, owner[1] = decodeMap(m.senderMetadata)
	err := errors.Join(
		inRow("key "+m.keyID, key[:], "metadata", "scopes", "networks"),
		inRow("sender "+m.senderID, owner[:], "limits", "metadata"))
	if err != nil {
		return senderauth.Sender{}, err
	}
	sender.Detail = detail
	return sender, nil
}
