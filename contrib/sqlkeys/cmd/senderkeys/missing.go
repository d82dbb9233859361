package main

import (
	"context"
	"errors"
	"iter"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// orMissing yields the error of check if all yields nothing: a mistyped ID must
// not look like a sender or key without rows.
func orMissing[T any](all iter.Seq2[T, error], check func() error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		empty := true
		for v, err := range all {
			empty = false
			if !yield(v, err) {
				return
			}
		}
		if !empty {
			return
		}
		if err := check(); err != nil {
			var none T
			yield(none, err)
		}
	}
}

// named returns a check that the sender and the key of a filter exist. An empty
// ID is not checked. A row that cannot be read exists.
func named(ctx context.Context, s *sqlkeys.Store, senderID, keyID string) func() error {
	return func() error {
		if senderID != "" {
			if _, err := s.Sender(ctx, senderID); errors.Is(err, sqlkeys.ErrNotFound) {
				return err
			}
		}
		if keyID != "" {
			if _, err := s.Key(ctx, keyID); errors.Is(err, sqlkeys.ErrNotFound) {
				return err
			}
		}
		return nil
	}
}
