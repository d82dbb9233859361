package keydesk_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/keydesk"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestNewReportsEveryMistake(t *testing.T) {
	_, err := keydesk.New(nil, keydesk.Config{Prefix: "settings/"})
	require.EqualError(t, err, `keydesk: the store is nil
keydesk: Config.Prefix "settings/": want a path such as /settings/api-keys, without a slash at the end
keydesk: Config.Authorize is nil: say who may see which keys`)
	_, err = keydesk.New(&sqlkeys.Store{}, keydesk.Config{Authorize: authorize, Limits: map[string]senderauth.Limit{"default": {}}})
	require.EqualError(t, err, `keydesk: Config.Limits["default"]: the zero Limit: say Unlimited() or Blocked(), or set Requests and Per`)
	for _, prefix := range []string{"/", "/a/", "/a//b", "/a/../b", "/{x}", "/a%20b", "a"} {
		_, err := keydesk.New(&sqlkeys.Store{}, keydesk.Config{Prefix: prefix, Authorize: authorize})
		require.ErrorContains(t, err, "Config.Prefix", prefix)
	}
}

// Whatever is in front, a person comes from the address without the slash to every
// page by links alone.
func TestPageWorksWhereverItIsMounted(t *testing.T) {
	const prefix = "/settings/api-keys"
	mounts := map[string]struct {
		at    string // where people open it
		mount func(s *site) http.Handler
		cfg   keydesk.Config
	}{
		"root":        {at: "/", mount: func(s *site) http.Handler { return s.handler }},
		"prefix":      {at: prefix, mount: func(s *site) http.Handler { return s.handler }, cfg: keydesk.Config{Prefix: prefix}},
		"StripPrefix": {at: prefix, mount: func(s *site) http.Handler { return http.StripPrefix(prefix, s.handler) }},
		"mux": {at: prefix, cfg: keydesk.Config{Prefix: prefix}, mount: func(s *site) http.Handler {
			mux := http.NewServeMux()
			mux.Handle(prefix+"/", s.handler)
			return mux
		}},
		"proxy": {at: "/console" + prefix, cfg: keydesk.Config{Prefix: prefix}, mount: func(s *site) http.Handler { return behindProxy(t, "/console", s.handler) }},
		"proxy and StripPrefix": {at: "/console" + prefix, mount: func(s *site) http.Handler {
			return behindProxy(t, "/console", http.StripPrefix(prefix, s.handler))
		}},
	}
	for name, m := range mounts {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, m.cfg)
			id := s.issue(t, sqlkeys.NewKey{SenderID: senderA, Name: "web"}).Key.ID
			server := httptest.NewServer(m.mount(s))
			defer server.Close()
			seen := crawl(t, server.URL+m.at)
			base := server.URL + strings.TrimSuffix(m.at, "/") + "/"
			for _, page := range []string{"", "generate", "keys/" + id, "keys/" + id + "/rotate", "keys/" + id + "/revoke", "usage", "limits", "audit", "usage?key=" + id, "audit?key=" + id, "usage?period=30d"} {
				require.Contains(t, seen, base+page)
			}
			res, err := http.DefaultClient.Do(requestAs(t, senderA, "POST", base+"keys/"+id+"/disable"))
			require.NoError(t, err)
			defer res.Body.Close()
			require.Equal(t, 200, res.StatusCode, "the redirect leads back to the key")
			require.Equal(t, base+"keys/"+id+"?done=disabled", res.Request.URL.String())
			require.Equal(t, sqlkeys.Disabled, s.state(t, id))
		})
	}
}

// The links on the page would lead out of the desk, and its forms and its script with them.
func TestPathWithAHiddenSlashIsNoPage(t *testing.T) {
	const prefix = "/settings/api-keys"
	s := newSite(t, keydesk.Config{})
	id := s.issue(t, sqlkeys.NewKey{SenderID: senderA}).Key.ID
	s.handler = http.StripPrefix(prefix, s.handler)
	s.get(t, senderA, prefix+"/keys/"+id+"/revoke").want(t, 200)
	for _, path := range []string{"/keys%2F" + id + "/revoke", "/keys/" + id + "%2frevoke", "%2Fgenerate", "/%2F"} {
		got := s.get(t, senderA, prefix+path)
		require.Equal(t, 404, got.StatusCode, path)
		require.Equal(t, "404 page not found\n", got.body)
	}
}

// behindProxy returns a proxy that people reach under a path that the handler does
// not see.
func behindProxy(t *testing.T, path string, h http.Handler) http.Handler {
	behind := httptest.NewServer(h)
	t.Cleanup(behind.Close)
	target, err := url.Parse(behind.URL)
	require.NoError(t, err)
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	return http.StripPrefix(path, proxy)
}

func requestAs(t *testing.T, as, method, url string) *http.Request {
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	require.NoError(t, err)
	r.SetBasicAuth(as, "")
	return r
}

// crawl follows every link and returns the addresses of the pages that it found.
func crawl(t *testing.T, start string) map[string]bool {
	seen := make(map[string]bool)
	todo := []string{start}
	for len(todo) > 0 {
		var address string
		address, todo = todo[0], todo[1:]
		res, err := http.DefaultClient.Do(requestAs(t, senderA, "GET", address))
		require.NoError(t, err)
		body := new(strings.Builder)
		_, err = io.Copy(body, res.Body)
		res.Body.Close()
		require.NoError(t, err)
		require.Equal(t, 200, res.StatusCode, address)
		if seen[res.Request.URL.String()] {
			continue
		}
		seen[res.Request.URL.String()] = true
		for _, m := range regexp.MustCompile(`(?:href|src)="([^"#]+)"`).FindAllStringSubmatch(body.String(), -1) {
			next, err := res.Request.URL.Parse(m[1])
			require.NoError(t, err)
			if !seen[next.String()] {
				todo = append(todo, next.String())
			}
		}
	}
	return seen
}

func TestAuthorizeDecidesHowStrangersAreAnswered(t *testing.T) {
	outage := errors.New("the session store at 10.0.0.7 is down")
	for name, c := range map[string]struct {
		actor    keydesk.Actor
		err      error
		status   int
		text     string
		location string
	}{
		"forbidden":       {err: keydesk.ErrForbidden, status: 403, text: "You have no access to these API keys."},
		"signed out":      {err: keydesk.SignIn("/login?next=keys"), status: 303, location: "/login?next=keys"},
		"problem":         {err: &senderauth.Problem{Status: 402, Detail: "Pay first"}, status: 402, text: "Pay first"},
		"outage":          {err: outage, status: 503, text: "The keys cannot be read or changed at the moment."},
		"nobody":          {status: 403, text: "You have no access to these API keys."},
		"both":            {actor: keydesk.Actor{SenderID: senderA, Operator: true}, status: 403, text: "You have no access"},
		"malformed":       {actor: keydesk.Actor{SenderID: "acme"}, status: 403, text: "You have no access"},
		"nil UUID":        {actor: keydesk.Actor{SenderID: "00000000-0000-0000-0000-000000000000"}, status: 403, text: "You have no access"},
		"in upper case":   {actor: keydesk.Actor{SenderID: strings.ToUpper(senderA)}, status: 200, text: "web"},
		"without any key": {actor: keydesk.Actor{SenderID: senderB}, status: 200, text: "No keys yet."},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, keydesk.Config{Authorize: func(*http.Request) (keydesk.Actor, error) { return c.actor, c.err }})
			s.issue(t, sqlkeys.NewKey{SenderID: senderA, Name: "web"})
			got := s.get(t, "", "/")
			got.want(t, c.status, c.text)
			require.Equal(t, c.location, got.Header.Get("Location"))
			require.NotContains(t, got.body, "10.0.0.7")
			if c.status != 200 {
				require.NotContains(t, got.body, "web")
			}
		})
	}
}

func TestOutageOfTheDatabaseIsAnswered503(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	id := s.issue(t, sqlkeys.NewKey{SenderID: senderA}).Key.ID
	form := newKeyForm(t, s, senderA)
	require.NoError(t, s.db.Close())
	for _, got := range []reply{
		s.get(t, senderA, "/"),
		s.get(t, operator, "/"),
		s.get(t, operator, "/?sender="+senderA),
		s.post(t, senderA, "/generate", form),
		s.get(t, senderA, "/keys/"+id),
		s.post(t, senderA, "/keys/"+id+"/revoke", nil),
		s.get(t, senderA, "/usage"),
		s.get(t, senderA, "/limits"),
		s.get(t, senderA, "/audit"),
		s.get(t, operator, "/senders"),
		s.post(t, operator, "/create-sender", url.Values{"id": {"cccccccc-3a0e-4d6e-9c2b-0f7f5a1c0a11"}}),
		s.post(t, operator, "/senders/"+senderA+"/disable", nil),
	} {
		got.want(t, 503, "Nothing is lost: try again in a minute.")
		require.Equal(t, "5", got.Header.Get("Retry-After"))
		require.NotContains(t, got.body, "sql")
	}
	require.Contains(t, s.log.String(), "sql: database is closed")
}

func TestListShowsTheOwnKeys(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	old := s.issue(t, sqlkeys.NewKey{SenderID: senderA, Name: "old one"}).Key
	gone := s.issue(t, sqlkeys.NewKey{SenderID: senderA, Name: "gone"}).Key
	s.issue(t, sqlkeys.NewKey{SenderID: senderB, Name: "of another"})
	require.NoError(t, s.Revoke(t.Context(), gone.ID))
	_, err := s.db.Exec(`UPDATE sqlkeys_keys SET created_at = created_at - 91*86400000 WHERE id = ?`, old.ID)
	require.NoError(t, err)

	page := s.get(t, senderA, "/")
	page.want(t, 200, "old one", "91 days old: rotate", "gone", "Keys that ended", old.ID, gone.ID, "active", "revoked")
	require.NotContains(t, page.body, "of another")
	require.Equal(t, 1, strings.Count(page.body, "days old"), "a key that ended needs no rotation")

	s.get(t, operator, "/").want(t, 200, "old one", "of another", "All senders")
	one := s.get(t, operator, "/?sender="+senderB)
	one.want(t, 200, "of another", `Sender <a href="./senders/`+senderB+`">`)
	require.NotContains(t, one.body, "old one")
	s.get(t, operator, "/?sender=cccccccc-3a0e-4d6e-9c2b-0f7f5a1c0a11").want(t, 404, "There is no sender with that ID.")
	s.get(t, operator, "/?sender=acme").want(t, 404, "There is no sender with that ID.")
}

func TestNamesAreShownAsText(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	names := []string{`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='alert(1)`, `</title><svg onload=alert(1)>`, `{{.Root}}`, "a\x00b\u202egnp", `javascript:alert(1)`}
	for _, name := range names {
		metadata := map[string]string{name: name}
		if strings.Contains(name, "\x00") {
			name, metadata = "\u202egnp", nil
		}
		id := s.issue(t, sqlkeys.NewKey{SenderID: senderA, Name: name, Metadata: metadata}).Key.ID
		for _, path := range []string{"/", "/keys/" + id, "/keys/" + id + "/rotate", "/keys/" + id + "/revoke"} {
			page := s.get(t, senderA, path)
			page.want(t, 200, name)
			require.NotRegexp(t, `(?i)<script>|<img|<svg onload|<[^>"]*\son\w+=|href="javascript`, page.body)
		}
		form := newKeyForm(t, s, senderA)
		form.Set("name", name)
		form.Set("expires", "soon") // the page shows the name again
		page := s.post(t, senderA, "/generate", form)
		require.Equal(t, 422, page.StatusCode)
		require.NotRegexp(t, `(?i)<script>|<img|<svg onload|<[^>"]*\son\w+=`, page.body)
	}
}

func TestStaticFilesAreCachedUnderAnAddressOfTheirContent(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	page := s.get(t, "", "/")
	page.want(t, 403)
	found := regexp.MustCompile(`(?:href|src)="\./(static/[^"]+)"`).FindAllStringSubmatch(page.body, -1)
	require.Len(t, found, 3)
	for _, m := range found {
		require.Regexp(t, `\?v=[0-9a-f]{12}$`, m[1])
		file := s.get(t, "", "/"+m[1])
		file.want(t, 200)
		require.Equal(t, "public, max-age=31536000, immutable", file.Header.Get("Cache-Control"))
		require.Regexp(t, `^(text/css; charset=utf-8|text/javascript; charset=utf-8|image/svg\+xml)$`, file.Header.Get("Content-Type"))
	}
}
