package keydesk_test

import (
	"fmt"
	"html"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/keydesk"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestAuditShowsWhoChangedWhat(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	a := s.issue(t, sqlkeys.NewKey{SenderID: senderA}).Key.ID
	s.issue(t, sqlkeys.NewKey{SenderID: senderB})
	s.post(t, operator, "/keys/"+a+"/disable", nil).want(t, 303)
	s.post(t, senderA, "/keys/"+a+"/enable", nil).want(t, 303)

	page := s.get(t, senderA, "/audit")
	page.want(t, 200, "olga", "disabled a key", "ada", "enabled a key", "generated a key", "created the sender")
	require.Less(t, strings.Index(page.body, "enabled a key"), strings.Index(page.body, "created the sender"), "the newest first")
	require.NotContains(t, page.body, senderB)
	require.Equal(t, 4, strings.Count(page.body, `scope="row"`))

	require.Equal(t, 3, strings.Count(s.get(t, senderA, "/audit?key="+a).body, `scope="row"`))
	require.Equal(t, 6, strings.Count(s.get(t, operator, "/audit").body, `scope="row"`))
	require.Equal(t, 2, strings.Count(s.get(t, operator, "/audit?sender="+senderB).body, `scope="row"`))
}

// Each list is read page by page, by links alone.
func TestLongListsHavePages(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	keys := make([]sqlkeys.NewKey, 250)
	for i := range keys {
		keys[i] = sqlkeys.NewKey{SenderID: senderA, ID: fmt.Sprintf("key_aaaaaaaaaaaaaa%c%c", 'a'+i/26, 'a'+i%26)}
	}
	_, err := s.IssueAll(t.Context(), keys)
	require.NoError(t, err)
	for range 120 {
		_, err := s.CreateSender(t.Context(), sqlkeys.NewSender{})
		require.NoError(t, err)
	}
	for _, c := range []struct {
		as, path string
		rows     int
	}{
		{senderA, "/", 250}, {operator, "/", 250}, {operator, "/?sender=" + senderA, 250},
		{senderA, "/audit", 251}, {senderA, "/audit?key=" + keys[0].ID, 1}, {operator, "/audit?sender=" + senderA, 251},
		{operator, "/senders", 122},
	} {
		seen := make(map[string]bool)
		base, _, _ := strings.Cut(c.path, "?")
		for path := c.path; path != ""; {
			page := s.get(t, c.as, path)
			page.want(t, 200)
			rows := regexp.MustCompile(`<tr role="row"><th role="rowheader".*</tr>`).FindAllString(page.body, -1)
			require.LessOrEqual(t, len(rows), 100)
			for _, row := range rows {
				seen[row] = true
			}
			require.Equal(t, path != c.path, strings.Contains(page.body, "The newest"))
			path = ""
			if m := regexp.MustCompile(`href="(\?[^"]+)" rel="next"`).FindStringSubmatch(page.body); m != nil {
				path = base + html.UnescapeString(m[1])
			}
		}
		require.Len(t, seen, c.rows, "%s %s", c.as, c.path)
	}
	for _, path := range []string{"/", "/audit", "/senders"} {
		s.get(t, operator, path+"?after=nonsense").want(t, 404, "There is no such page of the list.")
	}
}
