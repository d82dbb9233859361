package sqlkeys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/senderauth/senderauth"
)

// A Detail is the [senderauth.Sender.Detail] of a sender that Validate
// returns.
type Detail struct {
	Environment Environment       // of the key
	Metadata    map[string]string // of the sender
}

// lookupSQL finds a key by one of n digests.
func (d *dialect) lookupSQL(n int) string {
	in := make([]string, n)
	for i := range in {
		in[i] = fmt.Sprintf("$%d", i+1)
	}
	return d.rewrite(`SELECT k.id, k.sender_id, ` + stateSQL + `, {until}, k.environment, s.disabled_at, s.limits, s.metadata
		FROM sqlkeys_keys k JOIN sqlkeys_senders s ON s.id = k.sender_id
		WHERE k.digest IN (` + strings.Join(in, ", ") + `)`)
}

// lookupTimeout is that of a look-up whose context has no deadline.
const lookupTimeout = 2 * time.Second

// Validate is [senderauth.Validator]'s: one query, by the digest of the key.
// The reason of a refusal is a [*RefusedError] where the key is known. It
// takes 2 seconds at most where ctx has no deadline, as without a cache.
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
	digests := make([]any, len(s.peppers))
	for i, p := range s.peppers {
		digests[i] = digest(p, key)
	}
	f, err := s.find(ctx, digests)
	if outdated(err) {
		// Each connection of the pool may be one that the server has left.
		for n := s.db.Stats().OpenConnections; n >= 0 && outdated(err) && ctx.Err() == nil; n-- {
			f, err = s.find(ctx, digests)
		}
	}
	if errors.Is(err, sql.ErrNoRows) {
		return senderauth.Sender{}, errUnknown
	}
	if err != nil {
		return senderauth.Sender{}, fmt.Errorf("sqlkeys: look-up: %w", err)
	}

	refused := RefusedError{KeyID: f.keyID, SenderID: f.senderID, State: f.state}
	switch {
	case f.state != Active && f.state != Retiring:
		refused.err = senderauth.ErrInvalidKey
	case c.SenderID != "" && !strings.EqualFold(c.SenderID, f.senderID):
		refused.err = senderauth.ErrKeyMismatch
	case f.disabled.Valid:
		refused.err = senderauth.ErrInvalidSender
	}
	if refused.err != nil {
		return senderauth.Sender{}, &refused
	}
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

var (
	errMalformed = fmt.Errorf("sqlkeys: the key is malformed: %w", senderauth.ErrInvalidKey)
	errUnknown   = fmt.Errorf("sqlkeys: the key is unknown: %w", senderauth.ErrInvalidKey)
)

type foundKey struct {
	keyID, senderID  string
	state            State
	until            time.Time
	environment      Environment
	disabled         sql.Null[any]
	limits, metadata string
}

func (s *Store) find(ctx context.Context, digests []any) (f foundKey, err error) {
	err = s.lookup(ctx, digests...).Scan(&f.keyID, &f.senderID, &f.state, scannedTime{&f.until}, &f.environment, &f.disabled, &f.limits, &f.metadata)
	return f, err
}

// outdated reports that the pool has not noticed yet what the server has done:
// it was restarted (class 57P of PostgreSQL is a shutdown), or a column has
// another type (0A000), so that the statement must be prepared anew.
func outdated(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return strings.HasPrefix(pg.Code, "57P") || pg.Code == "0A000"
	}
	for _, lost := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, lost) {
			return true
		}
	}
	return false
}
