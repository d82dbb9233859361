package keydesk_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/keydesk"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

const (
	senderA  = "aaaaaaaa-3a0e-4d6e-9c2b-0f7f5a1c0a11"
	senderB  = "bbbbbbbb-3a0e-4d6e-9c2b-0f7f5a1c0a11"
	operator = "operator"
)

// A site is a desk on a store with two senders. The user name of a request says who
// makes it: the ID of a sender, or operator.
type site struct {
	*sqlkeys.Store
	db      *sql.DB
	handler http.Handler
	log     *bytes.Buffer
}

func authorize(r *http.Request) (keydesk.Actor, error) {
	switch user, _, _ := r.BasicAuth(); user {
	case "":
		return keydesk.Actor{}, keydesk.ErrForbidden
	case "nobody":
		return keydesk.Actor{}, nil
	case operator:
		return keydesk.Actor{Name: "olga", Operator: true}, nil
	default:
		return keydesk.Actor{Name: "ada", SenderID: user}, nil
	}
}

func newSite(t testing.TB, cfg keydesk.Config) *site {
	db, err := sqlkeys.OpenDB(filepath.Join(t.TempDir(), "keys.db"))
	require.NoError(t, err)
	store, err := sqlkeys.Open(t.Context(), db, sqlkeys.Config{Migrate: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, errors.Join(store.Close(), db.Close())) })
	for _, id := range []string{senderA, senderB} {
		_, err := store.CreateSender(t.Context(), sqlkeys.NewSender{ID: id})
		require.NoError(t, err)
	}
	s := &site{Store: store, db: db, log: new(bytes.Buffer)}
	if cfg.Authorize == nil {
		cfg.Authorize = authorize
	}
	cfg.Logger = slog.New(slog.NewTextHandler(s.log, nil))
	s.handler, err = keydesk.New(store, cfg)
	require.NoError(t, err)
	return s
}

func (s *site) issue(t testing.TB, n sqlkeys.NewKey) sqlkeys.Issued {
	issued, err := s.Issue(context.Background(), n)
	require.NoError(t, err)
	return issued
}

// keys returns all keys of the store.
func (s *site) keys(t testing.TB) []sqlkeys.Key {
	var all []sqlkeys.Key
	for k, err := range s.Keys(t.Context(), sqlkeys.KeyFilter{}) {
		require.NoError(t, err)
		all = append(all, k)
	}
	return all
}

func (s *site) state(t testing.TB, keyID string) sqlkeys.State {
	k, err := s.Key(t.Context(), keyID)
	require.NoError(t, err)
	return k.State
}

// audit returns all entries of the audit.
func (s *site) audit(t testing.TB) []sqlkeys.AuditEntry {
	var all []sqlkeys.AuditEntry
	for e, err := range s.Audit(t.Context(), sqlkeys.AuditFilter{}) {
		require.NoError(t, err)
		all = append(all, e)
	}
	return all
}

// A reply is a response with its body.
type reply struct {
	*http.Response
	body string
}

func (s *site) send(t testing.TB, as string, r *http.Request) reply {
	if as != "" {
		r.SetBasicAuth(as, "")
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	res := w.Result()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return reply{res, string(body)}
}

func (s *site) get(t testing.TB, as, path string) reply {
	return s.send(t, as, httptest.NewRequest("GET", path, nil))
}

func (s *site) post(t testing.TB, as, path string, form url.Values) reply {
	r := httptest.NewRequest("POST", path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return s.send(t, as, r)
}

// want checks the status and that the page has all of the texts.
func (r reply) want(t testing.TB, status int, texts ...string) {
	t.Helper()
	require.Equal(t, status, r.StatusCode, r.body)
	for _, text := range texts {
		require.Contains(t, html.UnescapeString(r.body), text)
	}
}

// A form for a new key, as the page sends it.
func newKeyForm(t testing.TB, s *site, as string) url.Values {
	page := s.get(t, as, "/generate")
	page.want(t, 200)
	token := regexp.MustCompile(`name="token" value="(\w+)"`).FindStringSubmatch(page.body)
	require.NotNil(t, token, page.body)
	return url.Values{"token": {token[1]}, "name": {"web"}, "environment": {"staging"}, "format": {"uuid"}, "expires": {"90d"}, "date": {""}, "scopes": {"*"}, "networks": {""}}
}

// pair reads the two .env lines of a page.
func (r reply) pair(t testing.TB) senderauth.Credentials {
	m := regexp.MustCompile(`(?m)SENT_SENDER_ID=(\S+)\nSENT_API_KEY=([^\s<]+)`).FindStringSubmatch(r.body)
	require.NotNil(t, m, r.body)
	return senderauth.Credentials{SenderID: m[1], APIKey: m[2]}
}

func regexpAction(action string) *regexp.Regexp {
	return regexp.MustCompile(`(?:href|action)="[^"]*/` + action + `"`)
}

// limits are those of the service.
var limits = map[string]senderauth.Limit{
	"default":  {Requests: 200, Per: time.Minute, Burst: 50},
	"messages": senderauth.PerMinute(60),
}

// count writes what a recorder would have written.
func (s *site) count(t testing.TB, keyID string, at time.Time, o senderauth.Outcome, requests int) {
	_, err := s.db.Exec(`INSERT INTO sqlkeys_usage (key_id, hour, outcome, requests) VALUES (?, ?, ?, ?)`,
		keyID, at.Truncate(time.Hour).UnixMilli(), string(o), requests)
	require.NoError(t, err)
}
