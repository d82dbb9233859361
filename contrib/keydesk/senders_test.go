package keydesk_test

import (
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/keydesk"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestOperatorCreatesASender(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	page := s.get(t, operator, "/create-sender")
	page.want(t, 200)
	m := regexp.MustCompile(`name="id" value="([0-9a-f-]{36})"`).FindStringSubmatch(page.body)
	require.NotNil(t, m, page.body)
	form := url.Values{"id": {m[1]}, "name": {"Acme <Inc>"}, "limits": {"default=200/1m:50\r\n\r\n messages = 60/1m \r\n"}, "metadata": {"company=Acme <&>\nquote==a"}}
	done := s.post(t, operator, "/create-sender", form)
	done.want(t, 303)
	require.Equal(t, "./senders/"+m[1]+"?done=sender-created", done.Header.Get("Location"))
	made, err := s.Sender(t.Context(), m[1])
	require.NoError(t, err)
	require.Equal(t, sqlkeys.Sender{
		ID: m[1], Name: "Acme <Inc>", CreatedAt: made.CreatedAt,
		Limits:   map[string]senderauth.Limit{"default": {Requests: 200, Per: time.Minute, Burst: 50}, "messages": senderauth.PerMinute(60)},
		Metadata: map[string]string{"company": "Acme <&>", "quote": "=a"},
	}, made)
	require.Equal(t, "olga", s.audit(t)[2].Actor)
	s.get(t, operator, "/senders/"+m[1]+"?done=sender-created").want(t, 200, "The sender is created.", "200 per minute, at most 50 at once", "Acme <&>")
	s.get(t, operator, "/senders").want(t, 200, m[1], "company", senderA, "Acme <Inc>")
	s.get(t, operator, "/senders/"+m[1]).want(t, 200, "Acme <Inc>")

	s.post(t, operator, "/create-sender", form).want(t, 409, "There is a sender with that ID already")
	require.Equal(t, 3, senderCount(t, s))
}

func TestWrongSenderIsExplainedBesideTheField(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	before := s.audit(t)
	for _, c := range []struct{ field, value, text string }{
		{"id", "acme", "Enter the ID of a sender"},
		{"id", "", "Enter the ID of a sender"},
		{"limits", "default", `"default" is not NAME=VALUE, such as messages=60/1m.`},
		{"limits", "=60/1m", `"=60/1m" is not NAME=VALUE`},
		{"limits", "default=fast", `"fast" is not a limit.`},
		{"limits", "default=1000000001/1m", `"1000000001/1m" is not a limit.`},
		{"limits", "default=0/1m", `"0/1m" is not a limit.`},
		{"limits", "a=1/1m\na=2/1m", `"a" is there twice.`},
		{"metadata", "a\xff=b", "A line is not valid text"},
		{"metadata", "a\x00=b", "A line is not valid text"},
		{"metadata", "a=" + strings.Repeat("b", 17<<10), "16 KiB"},
	} {
		form := url.Values{"id": {"cccccccc-3a0e-4d6e-9c2b-0f7f5a1c0a11"}, "limits": {""}, "metadata": {""}}
		form.Set(c.field, c.value)
		s.post(t, operator, "/create-sender", form).want(t, 422, "Nothing was changed.", `id="`+c.field+`-error">`, c.text)
		if c.field == "limits" {
			s.post(t, operator, "/senders/"+senderA+"/plan", url.Values{"limits": {c.value}, "before": {""}}).want(t, 422, `id="limits-error">`, c.text)
		}
	}
	require.Equal(t, before, s.audit(t))
}

func TestPlanIsChangedUnlessSomebodyElseHasChangedIt(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	page := "/senders/" + senderA
	s.post(t, operator, page+"/plan", url.Values{"limits": {"default=5/1s"}, "before": {""}}).want(t, 303)
	s.get(t, operator, page+"/plan").want(t, 200, `name="before" value="default=5/1s"`, ">default=5/1s</textarea>")
	s.post(t, operator, page+"/plan", url.Values{"limits": {"default=unlimited"}, "before": {""}}).want(t, 409, "Somebody changed the plan since you opened the form.")
	x, err := s.Sender(t.Context(), senderA)
	require.NoError(t, err)
	require.Equal(t, map[string]senderauth.Limit{"default": senderauth.PerSecond(5)}, x.Limits)
	s.post(t, operator, page+"/plan", url.Values{"limits": {""}, "before": {"default=5/1s"}}).want(t, 303)
	x, err = s.Sender(t.Context(), senderA)
	require.NoError(t, err)
	require.Empty(t, x.Limits)
}

func TestSenderIsDisabledAndEnabled(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	pair := s.issue(t, sqlkeys.NewKey{SenderID: senderA}).Credentials
	s.post(t, operator, "/senders/"+senderA+"/disable", nil).want(t, 303)
	_, err := s.Validate(t.Context(), pair)
	require.ErrorIs(t, err, senderauth.ErrInvalidSender)
	s.get(t, operator, "/senders/"+senderA+"?done=sender-disabled").want(t, 200, "The sender is disabled.", "Enable the sender")
	s.post(t, operator, "/senders/"+senderA+"/enable", nil).want(t, 303)
	_, err = s.Validate(t.Context(), pair)
	require.NoError(t, err)
	for _, path := range []string{"", "/plan"} {
		s.get(t, operator, "/senders/cccccccc-3a0e-4d6e-9c2b-0f7f5a1c0a11"+path).want(t, 404, "There is no sender with that ID.")
		s.get(t, operator, "/senders/acme"+path).want(t, 404, "There is no sender with that ID.")
	}
}
