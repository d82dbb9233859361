package conformance

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"index/suffixarray"
	"net/url"
	"regexp"
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

// window is the length of the parts of keys that no output may contain. Eight
// characters of a random UUID do not occur by chance.
const window = 8

// Run all vectors and search all output for keys and parts of keys: the server's log,
// each event and context as text and as JSON, and the responses.
func TestNoKeyInAnyOutput(t *testing.T) {
	s := load(t)
	var out lockedBuffer
	for _, v := range s.Vectors {
		t.Run(v.ID, func(t *testing.T) {
			x := s.run(t, v, &out)
			out.Write(x.received.Bytes())
		})
	}
	// The output is not empty: it reports every outcome.
	for _, outcome := range []string{"admitted", "missing_key", "missing_sender", "invalid_sender", "invalid_key", "mismatch", "limited", "insecure", "unavailable", "failed"} {
		require.Contains(t, out.String(), `"outcome":"`+outcome+`"`)
	}

	output := search{suffixarray.New(bytes.ToLower(out.Bytes())), suffixarray.New(out.Bytes())}
	keys := s.presentedKeys()
	require.Greater(t, len(keys), 40)
	for _, key := range keys {
		for _, part := range s.parts(key) {
			if form := output.find(part); form != "" {
				t.Errorf("the output contains %q of the key %q, %s", part, key, form)
			}
		}
	}
}

func TestSearchFindsEncodedKeys(t *testing.T) {
	const key = "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01"
	part := key[9:17]
	for _, said := range []string{
		"a key " + key, strings.ToUpper(key), part,
		base64.StdEncoding.EncodeToString([]byte("x" + key)), base64.RawURLEncoding.EncodeToString([]byte(key)),
		base64.StdEncoding.EncodeToString([]byte("xy" + part + "z")),
		hex.EncodeToString([]byte(key)), "%30%62" + percent(part), fmt.Sprintf("%q", []byte(part)), fmt.Sprint([]byte(key)),
	} {
		output := search{suffixarray.New([]byte(strings.ToLower(said))), suffixarray.New([]byte(said))}
		require.NotEmpty(t, output.find(part), said)
	}
	output := search{suffixarray.New([]byte("nothing")), suffixarray.New([]byte("nothing"))}
	require.Empty(t, output.find(part))
}

// presentedKeys returns everything that a client sends as a key, in any part of a
// request, and every key of the store.
func (s *suite) presentedKeys() []string {
	seen := map[string]bool{}
	for _, c := range s.Credentials {
		seen[c.Key] = true
	}
	field := regexp.MustCompile(`(?i)x[-_.]?api[-_.]?key2?["'=: ]+([^\r\n"&]+)`)
	for _, v := range s.Vectors {
		for _, m := range field.FindAllStringSubmatch(v.wire(), -1) {
			key, _, _ := strings.Cut(m[1], " HTTP/1.") // if the key is in a request line
			seen[key] = true
		}
	}
	var keys []string
	for k := range seen {
		if len(k) >= window {
			keys = append(keys, k)
		}
	}
	return keys
}

// parts returns the parts of a key to search for. It omits parts that a sender's ID
// contains as well, because one vector swaps key and ID, and IDs are logged.
func (s *suite) parts(key string) []string {
	seen := map[string]bool{}
	var parts []string
	for i := 0; i+window <= len(key); i++ {
		part := key[i : i+window]
		public := seen[part]
		seen[part] = true
		for _, sender := range s.Senders {
			public = public || strings.Contains(sender.ID, strings.ToLower(part))
		}
		if !public {
			parts = append(parts, part)
		}
	}
	return parts
}

// search searches an output, both as it is and in lower case.
type search struct{ lower, exact *suffixarray.Index }

// find returns how the output encodes the part, or "" if it does not contain it.
func (s search) find(part string) string {
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
		if len(s.lower.Lookup([]byte(text), 1)) > 0 {
			return form
		}
	}
	for _, cased := range []string{part, lower, strings.ToUpper(part)} {
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			for shift := range 3 {
				// Cut the first and last characters, which also encode neighbouring bytes.
				text := enc.EncodeToString([]byte(strings.Repeat("\x00", shift) + cased))
				from := (shift*8 + 5) / 6
				to := (shift + len(cased)) * 8 / 6
				if len(s.exact.Lookup([]byte(text[from:to]), 1)) > 0 {
					return "in base64"
				}
			}
		}
	}
	return ""
}

func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02x", s[i])
	}
	return b.String()
}
