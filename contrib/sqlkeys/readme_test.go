package sqlkeys_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func run(ctx context.Context, serve func(*senderauth.Guard) error) error {
	db, err := sqlkeys.OpenDB(os.Getenv("SENDERAUTH_DB"))
	if err != nil {
		return err
	}
	defer db.Close()
	store, err := sqlkeys.Open(ctx, db, sqlkeys.Config{Migrate: true})
	if err != nil {
		return err
	}
	defer store.Close()
	keys, err := senderauth.NewCache(store, senderauth.CacheConfig{})
	if err != nil {
		return err
	}
	go store.Watch(ctx, keys) // a revoked key is refused at once
	uses, err := store.NewRecorder(sqlkeys.RecorderConfig{})
	if err != nil {
		return err
	}
	defer uses.Close(context.WithoutCancel(ctx)) // writes the rest
	guard, err := senderauth.New(keys, senderauth.Config{
		Limits:  map[string]senderauth.Limit{"default": senderauth.PerMinute(200)},
		Observe: uses.Observe,
	})
	if err != nil {
		return err
	}
	return serve(guard)
}

// The snippet in the README is a part of this file, and it works.
func TestReadmeSnippetWorks(t *testing.T) {
	own, err := os.ReadFile("readme_test.go")
	require.NoError(t, err)
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	snippets := strings.Split(string(readme), "```go\n")[1:]
	require.Len(t, snippets, 1)
	snippet, _, _ := strings.Cut(snippets[0], "```")
	require.Contains(t, string(own), "\n\t"+strings.ReplaceAll(strings.TrimSpace(snippet), "\n", "\n\t")+"\n")

	source := filepath.Join(t.TempDir(), "keys.db")
	s := open(t, source, sqlkeys.Config{})
	k, prefixed := s.issue(t, sqlkeys.NewKey{}), s.issue(t, sqlkeys.NewKey{Format: sqlkeys.FormatPrefixed})
	t.Setenv("SENDERAUTH_DB", source)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	require.NoError(t, run(ctx, func(g *senderauth.Guard) error {
		send := func(c senderauth.Credentials) int {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("x-sender-id", c.SenderID)
			r.Header.Set("x-api-key", c.APIKey)
			w := httptest.NewRecorder()
			g.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
			return w.Code
		}
		require.Equal(t, http.StatusOK, send(k.Credentials))
		require.Equal(t, http.StatusOK, send(prefixed.Credentials))
		require.Equal(t, http.StatusUnauthorized, send(senderauth.Credentials{SenderID: k.Key.SenderID, APIKey: k.Key.SenderID}))
		stop()
		return nil
	}))
	require.Len(t, usageOf(t, s, sqlkeys.UsageFilter{KeyID: k.Key.ID}), 1, "the recorder was closed")
}

// The README names tests that exist.
func TestReadmeNamesTests(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	files, err := filepath.Glob("*_test.go")
	require.NoError(t, err)
	commands, err := filepath.Glob("cmd/senderkeys/*_test.go")
	require.NoError(t, err)
	var code strings.Builder
	for _, file := range append(files, commands...) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		code.Write(text)
	}
	names := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(string(readme), -1)
	require.NotEmpty(t, names)
	for _, name := range names {
		require.True(t, strings.Contains(code.String(), "\nfunc "+name[1]+"(t *testing.T) {\n"), name[1])
	}
}

// The statement in the README finds the keys that have a scope.
func TestReadmeFindsKeysByScope(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, statement, _ := strings.Cut(string(readme), "-- who may write orders\n")
	statement, _, _ = strings.Cut(statement, ";")
	onBothStores(t, func(t *testing.T, s fixture) {
		var want, got []string
		for _, scopes := range [][]string{nil, {"orders:write"}, {"a", "orders:write", "b"}} {
			want = append(want, s.issue(t, sqlkeys.NewKey{Scopes: scopes}).Key.ID)
		}
		for _, scopes := range [][]string{none, {"orders:writers"}, {"a:orders:write", "orders"}} {
			s.issue(t, sqlkeys.NewKey{Scopes: scopes})
		}
		rows, err := s.db.Query(statement)
		require.NoError(t, err)
		defer rows.Close()
		for rows.Next() {
			var id string
			require.NoError(t, rows.Scan(&id))
			got = append(got, id)
		}
		require.NoError(t, rows.Err())
		require.ElementsMatch(t, want, got)
	})
}
