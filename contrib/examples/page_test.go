package examples_test

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// link returns the address that the program printed for a browser.
func (p *process) link(t *testing.T) string {
	t.Helper()
	p.introduction()
	m := invitation.FindStringSubmatch(p.stdout.String())
	require.NotNil(t, m, p.stdout.String())
	require.True(t, strings.HasPrefix(m[1], "http://"+p.addr+"/settings/api-keys/?link="), m[1])
	return m[1]
}

func TestLinkOpensTheKeysPageInOneBrowser(t *testing.T) {
	p := start(t, "quickstart", nil, "-db", databases["sqlite"](t))
	link := p.link(t)
	page, _, _ := strings.Cut(link, "?")
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	first, second := &http.Client{Jar: jar}, &http.Client{}
	get := func(c *http.Client, url string) (int, string) {
		res, err := c.Get(url)
		require.NoError(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NotContains(t, res.Request.URL.RawQuery, "link", "the address of the page is without the link")
		return res.StatusCode, string(body)
	}
	const closed = "Open the link that the program printed when it started. It works once: start the program again for another one.\n"
	shut := func(url string) {
		t.Helper()
		res, err := second.Get(url)
		require.NoError(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.Equal(t, 403, res.StatusCode)
		require.Equal(t, closed, string(body))
	}
	shut(page)
	shut(page + "?link=guess")
	shut(page + "keys/key_aaaaaaaaaaaaaaaa")

	status, body := get(first, link)
	require.Equal(t, 200, status)
	require.Contains(t, body, "Generate new API key")
	status, body = get(first, page+"limits?sender="+idOf(t, p))
	require.Equal(t, 200, status)
	require.Contains(t, body, "10 per minute, at most 5 at once", "the limits are those of the program")

	shut(link)
	status, _ = get(first, link)
	require.Equal(t, 200, status, "the browser that opened it may open it again")
	require.Equal(t, 401, p.do(t, request{target: "GET /settings/api-keysandmore"}).StatusCode, "the guard is in front of everything else")
}

func TestTwoKeysPagesStayOpenInOneBrowser(t *testing.T) {
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	browser := &http.Client{Jar: jar}
	var links []string
	for range 2 {
		links = append(links, start(t, "quickstart", nil, "-db", databases["sqlite"](t)).link(t))
	}
	for _, link := range append(links, links...) {
		res, err := browser.Get(link)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, 200, res.StatusCode, link)
	}
}

// idOf returns the sender that the program printed.
func idOf(t *testing.T, p *process) string {
	id, _, _ := printed(t, p)
	return id
}

func TestOtherProgramsHaveNoKeysPage(t *testing.T) {
	p := start(t, "chi", pair)
	require.Equal(t, 401, p.do(t, request{target: "GET /settings/api-keys/"}).StatusCode)
	require.Empty(t, p.stdout.String())
}
