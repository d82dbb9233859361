package sqlkeys

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// ParsePeppers reads [Config.Peppers] as an environment variable holds them:
// in base64, the current one first, with commas between. An empty one between
// commas stands for digests without a pepper. An error does not show them.
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
