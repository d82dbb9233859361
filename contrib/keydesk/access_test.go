package keydesk_test

import (
	"html"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/keydesk"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestKeyIsGeneratedWithScopesAndNetworks(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	form := newKeyForm(t, s, senderA)
	form.Set("scopes", " orders:read   orders:write")
	form.Set("networks", "192.0.2.0/24,2001:db8::7")
	pair := s.post(t, senderA, "/generate", form).pair(t)
	sender, err := s.Validate(t.Context(), pair)
	require.NoError(t, err)
	require.Equal(t, []string{"orders:read", "orders:write"}, sender.Scopes)
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::7/128")}, sender.Networks)
	s.get(t, senderA, "/keys/"+sender.KeyID).want(t, 200, "<code>orders:read</code> <code>orders:write</code>", "<code>192.0.2.0/24</code>")

	form = newKeyForm(t, s, senderA)
	form.Set("scopes", "")
	sender, err = s.Validate(t.Context(), s.post(t, senderA, "/generate", form).pair(t))
	require.NoError(t, err)
	require.Empty(t, sender.Scopes, "an empty field gives no scope, and not all")
	s.get(t, senderA, "/keys/"+sender.KeyID).want(t, 200, "nothing that needs one", "every address")

	form = newKeyForm(t, s, senderA)
	form.Del("scopes")
	s.post(t, senderA, "/generate", form).want(t, 422, `id="scopes-error">Enter scopes`)
}

func TestAccessOfAKeyIsChangedUnlessSomebodyElseHasChangedIt(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	issued := s.issue(t, sqlkeys.NewKey{SenderID: senderA})
	page := "/keys/" + issued.Key.ID
	s.get(t, senderA, page+"/access").want(t, 200, `name="before" value="* from  as "`)
	form := url.Values{"scopes": {"orders:read"}, "networks": {"10.0.0.0/8"}, "before": {"* from  as "}, "name": {"web"}}
	s.post(t, senderA, page+"/access", form).want(t, 303)
	sender, err := s.Validate(t.Context(), issued.Credentials)
	require.NoError(t, err)
	require.Equal(t, []string{"orders:read"}, sender.Scopes)
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, sender.Networks)
	s.get(t, senderA, page+"?done=edited").want(t, 200, "The key is changed.", "<bdi>web</bdi>")

	before := s.audit(t)
	s.post(t, senderA, page+"/access", form).want(t, 409, "Somebody changed the key since you opened the form.")
	form.Set("before", "orders:read from 10.0.0.0/8 as web")
	s.post(t, senderA, page+"/access", form).want(t, 303)
	require.Equal(t, before, s.audit(t), "what is as it was is not changed")
	form.Set("networks", "300.0.0.1")
	s.post(t, senderA, page+"/access", form).want(t, 422, `id="networks-error">"300.0.0.1" is not a network`)
	require.NoError(t, s.Revoke(t.Context(), issued.Key.ID))
	for _, r := range []reply{s.get(t, senderA, page+"/access"), s.post(t, senderA, page+"/access", form)} {
		r.want(t, 409, "The key was revoked")
	}
}

func TestAccessOfAKeyWithALineBreakInItsNameIsChanged(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	issued := s.issue(t, sqlkeys.NewKey{SenderID: senderA, Name: "web\nof\racme"})
	page := "/keys/" + issued.Key.ID + "/access"
	m := regexp.MustCompile(`name="before" value="([^"]*)"`).FindStringSubmatch(s.get(t, senderA, page).body)
	require.NotNil(t, m)
	before := strings.NewReplacer("\r", "\r\n", "\n", "\r\n").Replace(html.UnescapeString(m[1])) // as a browser does
	s.post(t, senderA, page, url.Values{"scopes": {"orders:read"}, "networks": {""}, "before": {before}, "name": {"web"}}).want(t, 303)
	sender, err := s.Validate(t.Context(), issued.Credentials)
	require.NoError(t, err)
	require.Equal(t, []string{"orders:read"}, sender.Scopes)
}
