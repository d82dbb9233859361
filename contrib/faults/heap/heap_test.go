package heap

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
	"github.com/stretchr/testify/require"
)

const keys = 10_000

// F-41: a service with 10,000 valid keys in its cache has none of them in its heap.
func TestHeapHoldsNoKey(t *testing.T) {
	for _, c := range []struct {
		settings
		protocol string
	}{
		{settings{Validator: "sqlkeys", Cache: true}, "HTTP/1.1"},
		{settings{Validator: "sqlkeys", Cache: true}, "HTTP/2.0"},
		{settings{Validator: "Static"}, "HTTP/1.1"},
		{settings{Validator: "ValidatorFunc", Cache: true}, "HTTP/2.0"},
	} {
		t.Run(fmt.Sprintf("%s, cache %v, %s", c.Validator, c.Cache, c.protocol), func(t *testing.T) {
			require.Empty(t, keysInHeap(t, c.settings, c.protocol))
		})
	}
}

// The search finds keys that somebody does keep, in text and in binary, whole and in part.
func TestSearchFindsKeysInHeap(t *testing.T) {
	for _, what := range []string{"keeps map keys", "keeps bytes", "keeps half of one"} {
		t.Run(what, func(t *testing.T) {
			require.Len(t, keysInHeap(t, settings{Validator: what, Cache: true}, "HTTP/1.1"), keys)
		})
	}
}

// keysInHeap presents all keys to a child, in both letter cases, and returns those that
// its heap holds, by their numbers.
func keysInHeap(t *testing.T, s settings, protocol string) map[int]bool {
	dir := t.TempDir()
	s.Source, s.Dump = filepath.Join(dir, "keys"), filepath.Join(dir, "heap")
	credentials := issue(t, s)
	c := startChild(t, s)
	present(t, c.url, protocol, credentials)
	cached := c.end(t)
	if s.Cache {
		// A cache that does not know the form of keys holds one in both letter cases.
		require.GreaterOrEqual(t, cached, keys)
	}
	heap, err := os.ReadFile(s.Dump)
	require.NoError(t, err)
	if s.Cache {
		require.True(t, bytes.Contains(heap, []byte(credentials[keys/2].SenderID)), "not even the senders are in the heap")
	}
	return search(heap, credentials)
}

// issue makes the keys that the validator of s accepts.
func issue(t *testing.T, s settings) (all []senderauth.Credentials) {
	if s.Validator != "sqlkeys" {
		var lines strings.Builder
		for range keys {
			c := senderauth.Credentials{SenderID: uuid.NewString(), APIKey: uuid.NewString()}
			all = append(all, c)
			fmt.Fprintln(&lines, c.SenderID, c.APIKey)
		}
		require.NoError(t, os.WriteFile(s.Source, []byte(lines.String()), 0o600))
		return all
	}
	db, err := sqlkeys.OpenDB(s.Source)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	store, err := sqlkeys.Open(context.Background(), db, sqlkeys.Config{Migrate: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	var wanted []sqlkeys.NewKey
	for n := range keys {
		if n%10 == 0 {
			sender, err := store.CreateSender(context.Background(), sqlkeys.NewSender{})
			require.NoError(t, err)
			wanted = append(wanted, sqlkeys.NewKey{SenderID: sender.ID, Format: sqlkeys.FormatPrefixed})
			continue
		}
		wanted = append(wanted, sqlkeys.NewKey{SenderID: wanted[n-1].SenderID})
	}
	issued, err := store.IssueAll(context.Background(), wanted)
	require.NoError(t, err)
	for _, k := range issued {
		all = append(all, k.Credentials)
	}
	return all
}

// present sends a request with each pair of credentials, and one with the key in upper
// case if it is a UUID, and closes the connections.
func present(t *testing.T, url, protocol string, credentials []senderauth.Credentials) {
	transport := &http.Transport{MaxIdleConnsPerHost: 8, Protocols: new(http.Protocols)}
	transport.Protocols.SetHTTP1(protocol == "HTTP/1.1")
	transport.Protocols.SetUnencryptedHTTP2(protocol == "HTTP/2.0")
	defer transport.CloseIdleConnections()
	var next, wrong atomic.Int64
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for n := next.Add(1) - 1; n < int64(len(credentials)); n = next.Add(1) - 1 {
				c := credentials[n]
				forms := []string{c.APIKey}
				if len(c.APIKey) == 36 {
					forms = append(forms, strings.ToUpper(c.APIKey))
				}
				for _, key := range forms {
					r, _ := http.NewRequest(http.MethodGet, url, nil)
					r.Header.Set("X-Sender-Id", c.SenderID)
					r.Header.Set("X-Api-Key", key)
					resp, err := transport.RoundTrip(r)
					if err != nil || resp.StatusCode != http.StatusOK || resp.Proto != protocol {
						wrong.Add(1)
					}
					if err == nil {
						io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
					}
				}
			}
		})
	}
	clients.Wait()
	require.Zero(t, wrong.Load(), "a valid key is refused")
}

// window is the length of the parts of keys to search for. Sixteen characters are at least
// 52 random bits, and a UUID in binary has sixteen bytes, too.
const window = 16

// search returns the numbers of the keys of which the heap holds a part, in either letter
// case, or a UUID in binary.
func search(heap []byte, credentials []senderauth.Credentials) map[int]bool {
	parts := map[[window]byte]int{}
	add := func(text string, n int) {
		for i := 0; i+window <= len(text); i++ {
			parts[[window]byte([]byte(text[i:]))] = n
		}
	}
	raw := map[[window]byte]int{}
	for n, c := range credentials {
		add(c.APIKey, n)
		if u, err := uuid.Parse(c.APIKey); err == nil {
			add(strings.ReplaceAll(c.APIKey, "-", ""), n)
			raw[u] = n
		}
	}
	found := map[int]bool{}
	look := func(in map[[window]byte]int, text []byte) {
		for i := 0; i+window <= len(text); i++ {
			if n, ok := in[[window]byte(text[i:])]; ok {
				found[n] = true
			}
		}
	}
	look(raw, heap)
	for i, b := range heap { // bytes.ToLower would change what is not text
		if 'A' <= b && b <= 'Z' {
			heap[i] = b | 0x20
		}
	}
	look(parts, heap)
	return found
}

// binary returns the bytes of a UUID.
func binary(key string) any {
	u := uuid.MustParse(key)
	return &u
}
