package sqlkeys

import (
	"errors"
	"fmt"

	"github.com/senderauth/senderauth"
)

// What the methods of a [Store] refuse to do, wrapped with the sender or the
// key that it is about.
var (
	ErrNotFound  = errors.New("not found")
	ErrDuplicate = errors.New("exists already")
	ErrRevoked   = errors.New("revoked")
	ErrExpired   = errors.New("expired")
	ErrRotated   = errors.New("rotated already")
	ErrDisabled  = errors.New("disabled")
	// ErrInvalid: an argument that cannot be right, such as an expiry in the
	// past.
	ErrInvalid = errors.New("invalid")
)

// What [Open] finds instead of the schema that it needs.
var (
	ErrSchemaMissing = errors.New("the schema is missing: migrate first")
	ErrSchemaOlder   = errors.New("the schema is older than this program: migrate first")
	ErrSchemaNewer   = errors.New("the schema is newer than this program: use a newer program")
)

// A RefusedError is why [Store.Validate] refused a key that it knows. It is
// for hooks: the client is told only what the error wraps,
// [senderauth.ErrInvalidKey], [senderauth.ErrKeyMismatch] or
// [senderauth.ErrInvalidSender].
type RefusedError struct {
	KeyID    string
	SenderID string // the owner of the key
	State    State  // of the key
	err      error
}

func (e *RefusedError) Error() string {
	switch e.err {
	case senderauth.ErrKeyMismatch:
		return fmt.Sprintf("sqlkeys: key %s is of sender %s: %v", e.KeyID, e.SenderID, e.err)
	case senderauth.ErrInvalidSender:
		return fmt.Sprintf("sqlkeys: sender %s is disabled: %v", e.SenderID, e.err)
	}
	return fmt.Sprintf("sqlkeys: key %s is %s: %v", e.KeyID, e.State, e.err)
}

func (e *RefusedError) Unwrap() error { return e.err }
