package sqlkeys

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// ParsePeppers reads [Config.Peppers] from the text of an environment variable:
// base64, separated by commas, the current pepper first. An empty element
// stands for digests without a pepper. Errors do not show peppers.
func ParsePeppers(s string) ([][]byte, error) {
	if s == "" {
		return nil, nil
	}
	var peppers [][]byte
	for i, text := range strings.Split(s, ",") {
		p, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("sqlkeys: pepper %d: %w: not base64", i, ErrInvalid)
		}
		peppers = append(peppers, p)
	}
	return peppers, nil
}

// pepperID names a pepper in the column of that name. It is a digest of its own: the
// peppers themselves are never stored.
func pepperID(pepper []byte) string {
	if len(pepper) == 0 {
		return "none"
	}
	h := hmac.New(sha256.New, pepper)
	h.Write([]byte("sqlkeys pepper"))
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// pepperIDs returns the names of the configured peppers.
func (s *Store) pepperIDs() []any {
	ids := make([]any, len(s.peppers))
	for i, p := range s.peppers {
		ids[i] = pepperID(p)
	}
	return ids
}

// digests returns what the store may keep of a key, with each configured pepper.
func (s *Store) digests(key string) []any {
	all := make([]any, len(s.peppers))
	for i, p := range s.peppers {
		all[i] = digest(p, key)
	}
	return all
}

// digest returns what the store keeps of a key.
func digest(pepper []byte, key string) []byte {
	if len(pepper) == 0 {
		d := sha256.Sum256([]byte(key))
		return d[:]
	}
	h := hmac.New(sha256.New, pepper)
	h.Write([]byte(key))
	return h.Sum(nil)
}
