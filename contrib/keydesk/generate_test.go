package keydesk_test

import (
	"maps"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/keydesk"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestGeneratedKeyIsShownOnceAndWorks(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	form := newKeyForm(t, s, senderA)
	form.Set("format", "prefixed")
	page := s.post(t, senderA, "/generate", form)
	page.want(t, 200, "The key is shown only this once", "Copy the API key")
	require.Equal(t, "no-store", page.Header.Get("Cache-Control"))
	pair := page.pair(t)
	require.Equal(t, senderA, pair.SenderID)
	sender, err := s.Validate(t.Context(), pair)
	require.NoError(t, err)

	k, err := s.Key(t.Context(), sender.KeyID)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(90*24*time.Hour), k.ExpiresAt, time.Minute)
	require.Equal(t, sqlkeys.Key{
		ID: k.ID, SenderID: senderA, State: sqlkeys.Active, Name: "web", Environment: sqlkeys.Staging,
		Format: sqlkeys.FormatPrefixed, Scopes: []string{senderauth.AllScopes}, CreatedAt: k.CreatedAt, ExpiresAt: k.ExpiresAt,
	}, k)
	last := s.audit(t)[2]
	require.Equal(t, sqlkeys.AuditEntry{ID: last.ID, At: last.At, Actor: "ada", Action: "key.issue", SenderID: senderA, KeyID: k.ID}, last)
	for _, path := range []string{"/", "/generate", "/keys/" + k.ID, "/keys/" + k.ID + "/rotate", "/keys/" + k.ID + "/revoke"} {
		require.NotContains(t, s.get(t, senderA, path).body, pair.APIKey)
	}
	require.Empty(t, s.log.String())
}

// A reload, a second click and a retry through another instance all send the form
// again.
func TestOneFormMakesOneKey(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	other, err := keydesk.New(s.Store, keydesk.Config{Authorize: authorize})
	require.NoError(t, err)
	form := newKeyForm(t, s, senderA)

	pages := make([]reply, 8)
	var all sync.WaitGroup
	for i := range pages {
		all.Go(func() {
			instance := *s
			if i%2 == 1 {
				instance.handler = other
			}
			pages[i] = instance.post(t, senderA, "/generate", form)
		})
	}
	all.Wait()
	made := slices.IndexFunc(pages, func(p reply) bool { return p.StatusCode == 200 })
	require.GreaterOrEqual(t, made, 0)
	pair := pages[made].pair(t)
	keys := s.keys(t)
	require.Len(t, keys, 1)
	for i, p := range pages {
		if i != made {
			p.want(t, 409, "This form has made its key already", "revoke "+keys[0].ID+" and generate another one")
			require.NotContains(t, p.body, pair.APIKey)
			require.Contains(t, p.body, `href="./keys/`+keys[0].ID+`"`)
		}
	}

	// The same token in the hands of another tenant is another form.
	s.post(t, senderB, "/generate", form).want(t, 200)
	require.Len(t, s.keys(t), 2)
	s.post(t, senderA, "/generate", newKeyForm(t, s, senderA)).want(t, 200)
	require.Len(t, s.keys(t), 3)
}

func TestOperatorGeneratesForASender(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	s.get(t, operator, "/generate?sender="+senderA).want(t, 200, `value="`+senderA+`"`)
	require.NotContains(t, s.get(t, operator, "/generate").body, senderA, "with several senders, an operator chooses")
	form := newKeyForm(t, s, operator)
	for sender, text := range map[string]string{
		"":                                     "Enter the ID of a sender: a UUID of 36 characters.",
		"acme":                                 "Enter the ID of a sender: a UUID of 36 characters.",
		"cccccccc-3a0e-4d6e-9c2b-0f7f5a1c0a11": "There is no sender with that ID.",
	} {
		form.Set("sender", sender)
		s.post(t, operator, "/generate", form).want(t, 422, text)
	}
	require.Empty(t, s.keys(t))
	form.Set("sender", " "+strings.ToUpper(senderA)+" ")
	page := s.post(t, operator, "/generate", form)
	page.want(t, 200)
	require.Equal(t, senderA, page.pair(t).SenderID)

	require.NoError(t, s.DisableSender(t.Context(), senderA))
	form = newKeyForm(t, s, operator)
	form.Set("sender", senderA)
	s.post(t, operator, "/generate", form).want(t, 200, "The sender is disabled.")
}

func TestTenantThatIsNoSenderIsTold(t *testing.T) {
	const unknown = "cccccccc-3a0e-4d6e-9c2b-0f7f5a1c0a11"
	s := newSite(t, keydesk.Config{})
	s.post(t, unknown, "/generate", newKeyForm(t, s, unknown)).want(t, 409, "Your account is not set up for API keys yet.")
	s.get(t, unknown, "/").want(t, 200, "No keys yet.")
}

func TestWrongFieldIsExplainedBesideItAndNothingChanges(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	tomorrow, today := time.Now().UTC().AddDate(0, 0, 1).Format(time.DateOnly), time.Now().UTC().Format(time.DateOnly)
	const hidden = "The name has control characters or marks of text direction, such as a line break or a tab."
	form := newKeyForm(t, s, senderA)
	for _, c := range []struct {
		change map[string]string
		field  string
		text   string // empty means that the form is right
	}{
		{change: map[string]string{"name": strings.Repeat("é", 100)}},
		{map[string]string{"name": strings.Repeat("é", 100) + "n"}, "name", "The name has 201 bytes. At most 200 are possible."},
		{map[string]string{"name": "a\xff"}, "name", "The name is not valid text (UTF-8)."},
		{map[string]string{"name": "a\x00b"}, "name", hidden},
		{map[string]string{"name": "a\nb"}, "name", hidden},
		{map[string]string{"name": "a\u202egnp"}, "name", hidden},
		{change: map[string]string{"name": "  👩‍💻 tabs and spaces at the ends go \t"}},
		{change: map[string]string{"name": ""}},
		{map[string]string{"environment": "moon"}, "environment", "Choose one of: development, staging, production."},
		{map[string]string{"environment": ""}, "environment", "Choose one of: development, staging, production."},
		{map[string]string{"format": "hex"}, "format", "Choose one of: uuid, prefixed."},
		{map[string]string{"expires": "91d"}, "expires", "Choose one of: never, 30d, 90d, 180d, 365d, date."},
		{map[string]string{"expires": "date"}, "date", "Enter a date as year-month-day, such as "},
		{map[string]string{"expires": "date", "date": today}, "date", "The date is not in the future."},
		{map[string]string{"expires": "date", "date": "2001-02-03"}, "date", "The date is not in the future."},
		{map[string]string{"expires": "date", "date": "2031-02-30"}, "date", "Enter a date as year-month-day, such as "},
		{map[string]string{"expires": "date", "date": "10000-01-01"}, "date", "Enter a date as year-month-day, such as "},
		{change: map[string]string{"expires": "date", "date": tomorrow}},
		{change: map[string]string{"expires": "date", "date": "9999-12-31"}},
		{map[string]string{"scopes": `a"b`}, "scopes", `"a\"b" is not a scope`},
		{map[string]string{"scopes": "orders:read caf\u00e9"}, "scopes", `"caf\u00e9" is not a scope`},
		{map[string]string{"scopes": strings.Repeat("s ", 65)}, "scopes", "There are 65 scopes. At most 64 are possible."},
		{map[string]string{"scopes": strings.Repeat("s", 2049)}, "scopes", "The scopes have more than 2048 bytes."},
		{change: map[string]string{"scopes": strings.Repeat("s ", 64)}},
		{change: map[string]string{"scopes": ""}},
		{map[string]string{"networks": "10.0.0.1/8"}, "networks", `"10.0.0.1/8" is not a network such as 10.0.0.0/8`},
		{map[string]string{"networks": "everywhere"}, "networks", `"everywhere" is not a network`},
		{map[string]string{"networks": strings.Repeat("10.0.0.0/8 ", 65)}, "networks", "There are 65 networks. At most 64 are possible."},
		{change: map[string]string{"networks": "10.0.0.0/8, 2001:db8::7"}},
		{change: map[string]string{"expires": "never", "date": "nonsense that is not used"}},
	} {
		before := s.audit(t)
		changed := maps.Clone(form)
		for name, value := range c.change {
			changed.Set(name, value)
		}
		page := s.post(t, senderA, "/generate", changed)
		if c.text == "" {
			page.want(t, 200)
			form = newKeyForm(t, s, senderA)
			continue
		}
		page.want(t, 422, "Nothing was changed.", `id="`+c.field+`-error">`+c.text, `aria-describedby="`+c.field+`-error`)
		require.Equal(t, 1, strings.Count(page.body, `aria-invalid="true"`), "only that field is wrong")
		require.Contains(t, page.body, form.Get("token"), "the corrected form can be sent")
		require.Equal(t, before, s.audit(t))
	}
	for _, k := range s.keys(t) {
		require.Equal(t, strings.TrimSpace(k.Name), k.Name)
	}
}

func TestWhatIsNoFormChangesNothing(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	form := newKeyForm(t, s, senderA)
	post := func(contentType, body string) reply {
		r := httptest.NewRequest("POST", "/generate?"+form.Encode(), strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		return s.send(t, senderA, r)
	}
	post("application/x-www-form-urlencoded", "").want(t, 422, "The form is incomplete.") // the values in the URL do not count
	post("application/json", `{}`).want(t, 415, "The request is not a form of this page.")
	post("multipart/form-data; boundary=x", "").want(t, 415)
	post("application/x-www-form-urlencoded", "a=%zz").want(t, 400, "The form could not be read.")
	post("application/x-www-form-urlencoded", "name="+strings.Repeat("n", 64<<10)).want(t, 413, "The form is larger than 64 KiB.")
	for _, token := range []string{"", "short", strings.Repeat("t", 65)} {
		wrong := maps.Clone(form)
		wrong.Set("token", token)
		s.post(t, senderA, "/generate", wrong).want(t, 422, "The form is incomplete.")
	}
	require.Empty(t, s.keys(t))
	s.post(t, senderA, "/generate", url.Values(form)).want(t, 200)
}
