package sqlkeys

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
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
