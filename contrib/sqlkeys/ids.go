package sqlkeys

import (
	"crypto/rand"
	"fmt"
	"strings"

	googleuuid "github.com/google/uuid"

	"github.com/senderauth/senderauth/internal/uuid"
)

// canonicalSenderID returns s in lower case. Its error does not show a text
// that is longer than a UUID, which may be a key.
func canonicalSenderID(s string) (string, error) {
	id, ok := uuid.Canonical(s)
	if !ok {
		if len(s) > 36 {
			s = "…"
		}
		return "", fmt.Errorf("sqlkeys: sender %q: %w: not a UUID of 36 characters, or the nil or max UUID", s, ErrInvalid)
	}
	return id, nil
}

// newUUID returns a random UUID, for a sender or as a key.
func newUUID() (string, error) {
	u, err := googleuuid.NewRandom()
	if err != nil {
		return "", fmt.Errorf("sqlkeys: %w", err)
	}
	return u.String(), nil
}

const keyIDPrefix = "key_"

// newKeyID returns 80 random bits that are independent of the key.
func newKeyID() string {
	return keyIDPrefix + strings.ToLower(rand.Text()[:16])
}

// checkKeyID returns an error that does not show id, which may be the key.
func checkKeyID(id string) error {
	text, ok := strings.CutPrefix(id, keyIDPrefix)
	if !ok || len(text) != 16 || strings.Trim(text, "abcdefghijklmnopqrstuvwxyz234567") != "" {
		return fmt.Errorf("sqlkeys: key ID: %w: not key_ and 16 characters", ErrInvalid)
	}
	return nil
}

// maxUsageKeyID is the length in bytes of the longest key ID that usage is
// recorded for. The index of the usage takes at most 2,700 bytes.
const maxUsageKeyID = 255
