package sqlkeys

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

const maxMetadata = 16 << 10 // bytes of JSON

func checkMetadata(m map[string]string) error {
	for name, value := range m {
		if !isText(name) || !isText(value) {
			return fmt.Errorf("metadata %q is not UTF-8 text", name)
		}
	}
	if n := len(encodeMap(m)); n > maxMetadata {
		return fmt.Errorf("the metadata has %d bytes, more than %d", n, maxMetadata)
	}
	return nil
}

// isText reports whether both engines can store s unchanged.
func isText(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

// toText replaces what isText refuses.
func toText(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// encodeMap returns m as a column stores it: a JSON object of strings.
func encodeMap(m map[string]string) string {
	if len(m) == 0 {
		return "{}"
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // a map of strings can always be marshaled
	}
	return string(b)
}

func decodeMap(text string) (map[string]string, error) {
	if text == "{}" {
		return nil, nil
	}
	var m map[string]string
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return nil, fmt.Errorf("sqlkeys: a stored object of strings: %w", err)
	}
	return m, nil
}
