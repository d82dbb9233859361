package conformance

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"index/suffixarray"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// lockedBuffer is a buffer for several writers at once.
type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

// String returns what has been written so far.
func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// window is the length of the parts of keys that no output may contain. Eight hexadecimal
// digits do occur by chance, in the addresses and random IDs of a log; hexWindow do not.
const window, hexWindow = 8, 12

var hexadecimal = regexp.MustCompile(`^[0-9A-Fa-f]+$`)

// search searches an output, both as it is and in lower case.
type search struct{ lower, exact *suffixarray.Index }

func newSearch(output []byte) search {
	return search{suffixarray.New(bytes.ToLower(output)), suffixarray.New(output)}
}

// findKey returns how the output encodes the first part of the key that it contains, or
// "". It leaves out parts that s says are public.
func (o search) findKey(s *suite, key string) string {
	key = strings.TrimPrefix(key, "sender_") // of a prefixed key, which is public
	texts := []string{key}
	raw := ""
	if uuidForm.MatchString(key) {
		compact := strings.ReplaceAll(key, "-", "")
		texts = append(texts, compact)
		b, _ := hex.DecodeString(compact)
		raw = string(b)
	}
	for _, text := range texts {
		for _, part := range s.parts(text) {
			if form := o.find(part); form != "" {
				return form
			}
		}
	}
	for _, part := range s.parts(raw) {
		if o.has(part) {
			return "in binary"
		}
		if o.base64(part) {
			return "in binary, in base64"
		}
	}
	return ""
}

// parts returns the parts of a key to search for. It omits parts that a sender's ID
// contains as well, because one vector swaps key and ID, and IDs are logged. It also omits
// those of fewer than four different bytes, such as zeros, and of consecutive digits.
func (s *suite) parts(key string) []string {
	seen := map[string]bool{}
	var parts []string
	for i := 0; i+window <= len(key); i++ {
		part := key[i : i+window]
		if hexadecimal.MatchString(part) {
			part = key[i:min(i+hexWindow, len(key))]
		}
		if hexadecimal.MatchString(part) && len(part) < hexWindow {
			continue
		}
		public := seen[part] || s.public(part)
		seen[part] = true
		if !public {
			parts = append(parts, part)
		}
	}
	return parts
}

func (s *suite) public(part string) bool {
	different := slices.Compact(slices.Sorted(slices.Values([]byte(part))))
	if len(different) < 4 || strings.Contains("0123456789abcdef", part) {
		return true
	}
	for _, sender := range s.Senders {
		compact := strings.ReplaceAll(sender.ID, "-", "")
		raw, _ := hex.DecodeString(compact)
		for _, id := range []string{sender.ID, compact, string(raw)} {
			if strings.Contains(id, part) || strings.Contains(id, strings.ToLower(part)) {
				return true
			}
		}
	}
	return false
}

func (o search) has(text string) bool { return len(o.exact.Lookup([]byte(text), 1)) > 0 }

// find returns how the output encodes the part, or "" if it does not contain it.
func (o search) find(part string) string {
	lower := strings.ToLower(part)
	for form, text := range map[string]string{
		"as it is":           lower,
		"URL-escaped":        strings.ToLower(url.QueryEscape(part)),
		"escaped in a path":  strings.ToLower(url.PathEscape(part)),
		"as %XX":             strings.ToLower(percent(part)),
		"quoted":             strings.Trim(fmt.Sprintf("%q", lower), `"`),
		"in hexadecimal":     hex.EncodeToString([]byte(part)),
		"as a list of bytes": strings.Trim(fmt.Sprint([]byte(part)), "[]"),
	} {
		if text == lower && form != "as it is" {
			continue
		}
		if len(o.lower.Lookup([]byte(text), 1)) > 0 {
			return form
		}
	}
	for _, cased := range slices.Compact([]string{part, lower, strings.ToUpper(part)}) {
		if o.base64(cased) {
			return "in base64"
		}
	}
	return ""
}

// base64 reports whether the output contains the part within something in base64.
func (o search) base64(part string) bool {
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for shift := range 3 {
			// Cut the first and last characters, which also encode neighbouring bytes.
			text := enc.EncodeToString([]byte(strings.Repeat("\x00", shift) + part))
			from := (shift*8 + 5) / 6
			to := (shift + len(part)) * 8 / 6
			if enc == base64.RawURLEncoding && !strings.ContainsAny(text, "-_") {
				continue // it is the same
			}
			if o.has(text[from:to]) {
				return true
			}
		}
	}
	return false
}

func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02x", s[i])
	}
	return b.String()
}

// disguises are ways in which an output may show a key.
func disguises(key string) map[string]string {
	raw, _ := hex.DecodeString(strings.ReplaceAll(key, "-", ""))
	part := key[9:17]
	return map[string]string{
		"whole":            "a key " + key,
		"upper case":       strings.ToUpper(key),
		"part":             part,
		"base64":           base64.StdEncoding.EncodeToString([]byte("x" + key)),
		"base64 for URLs":  base64.RawURLEncoding.EncodeToString([]byte(key)),
		"part in base64":   base64.StdEncoding.EncodeToString([]byte("xy" + part + "z")),
		"upper in base64":  base64.StdEncoding.EncodeToString([]byte(strings.ToUpper(key))),
		"hexadecimal":      hex.EncodeToString([]byte(key)),
		"upper hex":        strings.ToUpper(hex.EncodeToString([]byte(part))),
		"URL-escaped":      "%30%62" + percent(part),
		"quoted":           fmt.Sprintf("%q", []byte(part)),
		"list of bytes":    fmt.Sprint([]byte(key)),
		"without hyphens":  strings.ReplaceAll(key, "-", ""),
		"binary in base64": base64.StdEncoding.EncodeToString(raw),
	}
}

func TestSearchFindsEncodedKeys(t *testing.T) {
	const key = "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01"
	s := &suite{}
	for name, said := range disguises(key) {
		require.NotEmpty(t, newSearch([]byte(said)).findKey(s, key), name)
	}
	raw, _ := hex.DecodeString(strings.ReplaceAll(key, "-", ""))
	require.NotEmpty(t, newSearch(raw[3:11]).findKey(s, key))
	require.Empty(t, newSearch([]byte("nothing")).findKey(s, key))
	require.Empty(t, newSearch([]byte("0b9d3c1 6f52-4c 00000000")).findKey(s, key), "seven characters")
}
