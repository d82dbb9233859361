package sqlkeys

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
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

// decodeMap reads what encodeMap writes. Its error wraps ErrUnreadable and
// comes with the values that are strings.
func decodeMap(text string) (map[string]string, error) {
	if text == "{}" {
		return nil, nil
	}
	var m map[string]string
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return decodeStrings(text)
	}
	return m, nil
}

// decodeStrings names the values that are no strings. It does not show them,
// because errors are logged.
func decodeStrings(text string) (map[string]string, error) {
	var values map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &values); err != nil {
		return nil, fmt.Errorf("%w: not a JSON object", ErrUnreadable)
	}
	m := make(map[string]string)
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(values)) {
		var s string
		if err := json.Unmarshal(values[name], &s); err != nil {
			errs = append(errs, fmt.Errorf("%w: %q is not a string", ErrUnreadable, name))
			continue
		}
		m[name] = s
	}
	return m, errors.Join(errs...)
}
