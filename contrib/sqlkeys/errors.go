package sqlkeys

import (
	"errors"
	"fmt"

	"github.com/senderauth/senderauth"
)

// The methods of a [Store] return errors that wrap one of these, and name the sender
// or the key concerned.
var (
	ErrNotFound  = errors.New("not found")
	ErrDuplicate = errors.New("exists already")
	ErrRevoked   = errors.New("revoked")
	ErrExpired   = errors.New("expired")
	ErrRotated   = errors.New("rotated already")
	ErrDisabled  = errors.New("disabled")
	// ErrInvalid reports an argument that can never be right, such as an
	// expiry in the past.
	ErrInvalid = errors.New("invalid")
	// ErrPepperMissing reports that Adopt does not find a key, and that the sender has
	// a refused key whose pepper is unknown. The two may be one key. The error names
	// the refused key, and says why its pepper is unknown. If it is not in
	// Config.Peppers, configure that pepper again. If it is not recorded, the key is
	// older than the column pepper of sqlkeys_keys: the README has the UPDATE that
	// records it. To give the sender another key, use Issue.
	ErrPepperMissing = errors.New("pepper missing")
	// ErrUnreadable reports a row that somebody has edited by hand, so that a
	// part of it cannot be read. It comes with a value that has the rest.
	ErrUnreadable = errors.New("unreadable")
)

// [Open] returns one of these if it cannot use the schema of the database.
var (
	ErrSchemaMissing = errors.New("the schema is missing: migrate first")
	ErrSchemaOlder   = errors.New("the schema is older than this program: migrate first")
	ErrSchemaNewer   = errors.New("the schema is newer than this program: use a newer program")
)

// A RefusedError says why [Store.Validate] refused a key that it knows. It is for
// Observe of [senderauth.Config]. The client learns only what the error wraps:
// [senderauth.ErrInvalidKey], [senderauth.ErrKeyMismatch] or
// [senderauth.ErrInvalidSender].
type RefusedError struct {
	KeyID    string
	SenderID string // the owner of the key
	State    State  // of the key
	err      error
}

// Error names the key or the sender, and the reason.
func (e *RefusedError) Error() string {
	switch e.err {
	case senderauth.ErrKeyMismatch:
		return fmt.Sprintf("sqlkeys: key %s belongs to sender %s: %v", e.KeyID, e.SenderID, e.err)
	case senderauth.ErrInvalidSender:
		return fmt.Sprintf("sqlkeys: sender %s is disabled: %v", e.SenderID, e.err)
	}
	return fmt.Sprintf("sqlkeys: key %s is %s: %v", e.KeyID, e.State, e.err)
}

// Unwrap returns the error that the client learns.
func (e *RefusedError) Unwrap() error { return e.err }

// inRow joins the errors of the parts of a row, and names the row and the part in each.
// errs[i] belongs to parts[i] and is nil if that part can be read.
func inRow(row string, errs []error, parts ...string) error {
	for i, err := range errs {
		if err != nil {
			errs[i] = fmt.Errorf("sqlkeys: %s: %s: %w", row, parts[i], err)
		}
	}
	return errors.Join(errs...)
}
