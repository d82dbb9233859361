package keydesk_test

import (
	"fmt"
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

func TestAuditShowsTheLastEntries(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	keys := make([]sqlkeys.NewKey, 250)
	for i := range keys {
		keys[i] = sqlkeys.NewKey{SenderID: senderA, ID: fmt.Sprintf("key_aaaaaaaaaaaaaa%c%c", 'a'+i/26, 'a'+i%26)}
	}
	_, err := s.IssueAll(t.Context(), keys)
	require.NoError(t, err)
	page := s.get(t, senderA, "/audit")
	page.want(t, 200, "The last 200 changes are shown.", keys[249].ID, keys[50].ID)
	require.Equal(t, 200, strings.Count(page.body, `scope="row"`))
	require.NotContains(t, page.body, keys[49].ID)
}
