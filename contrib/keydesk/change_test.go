package keydesk_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/keydesk"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

var rotateForm = url.Values{"grace": {"24h"}, "expires": {"same"}, "date": {""}}

func TestRotationShowsTheNewKeyOnce(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	old := s.issue(t, sqlkeys.NewKey{SenderID: senderA, Name: "web", Environment: sqlkeys.Staging, ExpiresAt: time.Now().Add(48 * time.Hour)})
	s.get(t, senderA, "/keys/"+old.Key.ID+"/rotate").want(t, 200, "The old key works for another", `<option value="24h" selected>`)

	page := s.post(t, senderA, "/keys/"+old.Key.ID+"/rotate", rotateForm)
	page.want(t, 200, "The key is shown only this once", "which works for another 24 hours")
	for _, c := range []senderauth.Credentials{old.Credentials, page.pair(t)} {
		_, err := s.Validate(t.Context(), c)
		require.NoError(t, err)
	}
	keys := s.keys(t)
	require.Len(t, keys, 2)
	require.Equal(t, sqlkeys.Retiring, keys[0].State)
	require.WithinDuration(t, time.Now().Add(24*time.Hour), keys[0].GraceUntil, time.Minute)
	require.Equal(t, "web", keys[1].Name)

	s.get(t, senderA, "/keys/"+old.Key.ID).want(t, 200, "Replaced by", keys[1].ID, "Accepted until")

	// A reload, and another tab that was open before.
	for _, again := range []reply{
		s.post(t, senderA, "/keys/"+old.Key.ID+"/rotate", rotateForm),
		s.get(t, senderA, "/keys/"+old.Key.ID+"/rotate"),
	} {
		again.want(t, 409, "Nothing was changed", "The key was rotated already, perhaps in another window.", `href="../../keys/`+keys[1].ID+`"`)
		require.NotContains(t, again.body, page.pair(t).APIKey)
	}
	require.Len(t, s.keys(t), 2)
}

func TestOneOfTwoTabsRotatesAKey(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	id := s.issue(t, sqlkeys.NewKey{SenderID: senderA}).Key.ID
	replies := make(chan reply)
	for range 2 {
		go func() { replies <- s.post(t, senderA, "/keys/"+id+"/rotate", rotateForm) }()
	}
	a, b := <-replies, <-replies
	if a.StatusCode != 200 {
		a, b = b, a
	}
	a.want(t, 200)
	b.want(t, 409, "The key was rotated already, perhaps in another window.")
	require.Len(t, s.keys(t), 2)
}

func TestRotationExplainsWrongFields(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	ends := time.Now().Add(2 * time.Hour)
	id := s.issue(t, sqlkeys.NewKey{SenderID: senderA, ExpiresAt: ends}).Key.ID
	s.get(t, senderA, "/keys/"+id+"/rotate").want(t, 200, `<option value="0" selected>`)
	before := s.audit(t)
	for _, c := range []struct{ name, value, field, text string }{
		{"grace", "24h", "grace", "The old key expires before that, at " + ends.UTC().Format("2 Jan 2006, 15:04 UTC") + "."},
		{"grace", "30d", "grace", "The old key expires before that"},
		{"grace", "-1h", "grace", "Choose one of: 0, 1h, 24h, 7d, 30d."},
		{"grace", "", "grace", "Choose one of: 0, 1h, 24h, 7d, 30d."},
		{"expires", "never", "expires", "Choose one of: same, 30d, 90d, 180d, 365d, date."},
		{"date", "2001-01-01", "date", "The date is not in the future."},
	} {
		form := url.Values{"grace": {"1h"}, "expires": {"same"}}
		if c.name == "date" {
			form.Set("expires", "date")
		}
		form.Set(c.name, c.value)
		s.post(t, senderA, "/keys/"+id+"/rotate", form).want(t, 422, "Nothing was changed.", `id="`+c.field+`-error">`+c.text)
	}
	require.Equal(t, before, s.audit(t))
	s.post(t, senderA, "/keys/"+id+"/rotate", url.Values{"grace": {"1h"}, "expires": {"30d"}}).want(t, 200)
	require.WithinDuration(t, time.Now().Add(30*24*time.Hour), s.keys(t)[1].ExpiresAt, time.Minute)
}

func TestKeyIsDisabledEnabledAndRevoked(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	issued := s.issue(t, sqlkeys.NewKey{SenderID: senderA, Name: "web"})
	page := "/keys/" + issued.Key.ID
	accepted := func() bool {
		_, err := s.Validate(t.Context(), issued.Credentials)
		return err == nil
	}

	done := s.post(t, senderA, page+"/disable", nil)
	done.want(t, 303)
	require.Equal(t, "../../keys/"+issued.Key.ID+"?done=disabled", done.Header.Get("Location"))
	require.False(t, accepted())
	s.get(t, senderA, page+"?done=disabled").want(t, 200, "The key is disabled.", "Enable")
	s.post(t, senderA, page+"/rotate", rotateForm).want(t, 409, "The key is disabled. Enable it first.")

	s.post(t, senderA, page+"/enable", nil).want(t, 303)
	require.True(t, accepted())

	s.get(t, senderA, page+"/revoke").want(t, 200, "This cannot be undone.", "Revoke for good")
	require.True(t, accepted(), "the question changes nothing")
	s.post(t, senderA, page+"/revoke", nil).want(t, 303)
	require.False(t, accepted())
	require.Equal(t, sqlkeys.Revoked, s.state(t, issued.Key.ID))

	before := s.audit(t)
	for _, again := range []reply{
		s.post(t, senderA, page+"/revoke", nil),
		s.get(t, senderA, page+"/revoke"),
		s.post(t, senderA, page+"/disable", nil),
		s.post(t, senderA, page+"/enable", nil),
		s.post(t, senderA, page+"/rotate", rotateForm),
		s.get(t, senderA, page+"/rotate"),
	} {
		again.want(t, 409, "The key was revoked, perhaps in another window.")
	}
	require.Equal(t, before, s.audit(t))
	var actions []string
	for _, e := range before {
		actions = append(actions, e.Actor+" "+e.Action)
	}
	require.Equal(t, []string{"unknown sender.create", "unknown sender.create", "unknown key.issue",
		"ada key.disable", "ada key.enable", "ada key.revoke"}, actions)
}

func TestPageOfAKeyOffersWhatItsStateAllows(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	shown := func(id string) (all []string) {
		page := s.get(t, senderA, "/keys/"+id)
		page.want(t, 200)
		for _, action := range []string{"rotate", "access", "disable", "enable", "revoke"} {
			if regexpAction(action).MatchString(page.body) {
				all = append(all, action)
			}
		}
		return all
	}
	active := s.issue(t, sqlkeys.NewKey{SenderID: senderA}).Key.ID
	pending := s.issue(t, sqlkeys.NewKey{SenderID: senderA, NotBefore: time.Now().Add(time.Hour)}).Key.ID
	retiring := s.issue(t, sqlkeys.NewKey{SenderID: senderA}).Key.ID
	rotated := s.issue(t, sqlkeys.NewKey{SenderID: senderA}).Key.ID
	disabled := s.issue(t, sqlkeys.NewKey{SenderID: senderA}).Key.ID
	revoked := s.issue(t, sqlkeys.NewKey{SenderID: senderA}).Key.ID
	_, err := s.Rotate(t.Context(), retiring, sqlkeys.Rotation{Grace: time.Hour})
	require.NoError(t, err)
	_, err = s.Rotate(t.Context(), rotated, sqlkeys.Rotation{})
	require.NoError(t, err)
	require.NoError(t, s.Disable(t.Context(), disabled))
	require.NoError(t, s.Revoke(t.Context(), revoked))

	require.Equal(t, []string{"rotate", "access", "disable", "revoke"}, shown(active))
	require.Equal(t, []string{"rotate", "access", "disable", "revoke"}, shown(pending))
	require.Equal(t, []string{"access", "disable", "revoke"}, shown(retiring))
	require.Equal(t, []string{"revoke"}, shown(rotated))
	require.Equal(t, []string{"access", "enable", "revoke"}, shown(disabled))
	require.Empty(t, shown(revoked))
}
