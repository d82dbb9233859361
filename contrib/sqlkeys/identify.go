package sqlkeys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// Identify returns the key that a secret belongs to, in any state, for example to revoke a
// key that has leaked. The secret may be of another form than [Store.CheckKey] accepts.
// Identify returns [ErrNotFound] if no key was made from the secret with one of
// [Config.Peppers]. Its errors do not show the secret.
func (s *Store) Identify(ctx context.Context, secret string) (Key, error) {
	secret, _ = s.canonicalKey(secret)
	k, err := scanKey(s.row(ctx, selectKeys+` WHERE `+byDigest(len(s.peppers)), s.digests(secret)...))
	if errors.Is(err, sql.ErrNoRows) {
		return Key{}, fmt.Errorf("sqlkeys: a key with that secret and one of the peppers: %w", ErrNotFound)
	}
	return k, err
}
