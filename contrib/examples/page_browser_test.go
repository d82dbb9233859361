package examples_test

import (
	"flag"
	"math"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

var screenshots = flag.Bool("screenshots", false, "write the pictures of the README of keydesk")

// From the link that the program prints to keys that work, and no longer do.
func TestKeysPageInABrowser(t *testing.T) {
	db := databases["sqlite"](t)
	p := start(t, "quickstart", nil, "-db", db)
	// curl returns the status of a request with a pair, as somebody would send it.
	curl := func(id, key string) string {
		out, err := exec.CommandContext(t.Context(), "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}",
			"-H", "x-sender-id: "+id, "-H", "x-api-key: "+key, "http://"+p.addr+"/v1/contacts").Output()
		require.NoError(t, err)
		return string(out)
	}
	b := openTab(t)
	b.load(200, chromedp.Navigate(p.link(t)))
	first := idOf(t, p)

	b.click(200, "Generate new API key")
	b.do(chromedp.SendKeys(`input[name=name]`, "billing worker"))
	b.click(200, "Generate")
	id, key := b.copied("sender ID"), b.copied("API key")
	require.Equal(t, first, id, "the only sender is filled in")
	require.Equal(t, "SENT_SENDER_ID="+id+"\nSENT_API_KEY="+key, b.copied(".env lines"))
	require.Equal(t, "200", curl(id, key))
	b.screenshot("issued.png")

	b.load(409, chromedp.Reload())
	require.Contains(t, b.text("main"), "This form has made its key already")
	require.NotContains(t, b.text("main"), key)

	b.load(200, chromedp.Click(`main .button.primary`)) // to the key
	require.Contains(t, b.text("h1"), "billing worker")
	b.click(200, "Edit")
	b.do(chromedp.SetValue(`input[name=networks]`, "10.0.0.1/8"))
	b.click(422, "Change")
	b.do(chromedp.SetValue(`input[name=networks]`, "127.0.0.0/8"))
	b.click(200, "Change")
	b.click(200, "Rotate")
	b.click(200, "Rotate")
	newID, newKey := envOf(t, b.copied(".env lines"))
	require.Equal(t, id, newID)
	require.NotEqual(t, key, newKey)
	require.Equal(t, "200", curl(id, newKey))
	require.Equal(t, "200", curl(id, key), "the old key has a grace period")
	b.load(409, chromedp.Reload())
	require.Contains(t, b.text("main"), "The key was rotated already")

	b.click(200, "Show the key that replaced it")
	b.click(200, "Revoke …")
	b.click(200, "Revoke for good")
	require.Contains(t, b.text("main"), "The key is revoked for good.")
	require.Equal(t, "401", curl(id, newKey), "the guard of the program knows at once")
	require.Equal(t, "200", curl(id, key))

	for _, tab := range []string{"Keys", "Usage", "Limits", "Audit trail", "Senders"} {
		b.load(200, chromedp.Click(`//nav//a[text()="`+tab+`"]`))
	}
	b.click(200, "Create a sender")
	b.click(200, "Create")
	b.click(200, "Disable the sender")
	b.load(200, chromedp.Navigate("http://"+p.addr+"/settings/api-keys/senders/"+first))
	if *screenshots {
		b.picture(db, first)
	}
}

// picture fills the store with a month of a sender, and takes pictures of it.
func (b *tab) picture(source, sender string) {
	store, db := openStore(b.t, source)
	for _, n := range []sqlkeys.NewKey{
		{Name: "web shop", ExpiresAt: time.Now().AddDate(0, 0, 60)},
		{Name: "nightly export", ExpiresAt: time.Now().AddDate(0, 0, 9)},
		{Name: "web shop", Environment: sqlkeys.Staging, Format: sqlkeys.FormatPrefixed},
		{Name: "laptop of Ada", Environment: sqlkeys.Development, ExpiresAt: time.Now().AddDate(0, 0, 30)},
	} {
		n.SenderID = sender
		issued, err := store.Issue(b.t.Context(), n)
		require.NoError(b.t, err)
		if n.Name != "web shop" || n.Environment != "" {
			continue
		}
		_, err = db.Exec(`UPDATE sqlkeys_keys SET created_at = created_at - 97 * 86400000 WHERE id = ?`, issued.Key.ID)
		require.NoError(b.t, err)
		for h := range 7 * 24 {
			at := time.Now().Add(-time.Duration(h) * time.Hour).Truncate(time.Hour)
			wave := 4200 + int(3800*math.Sin(float64(at.Hour()-8)/12*math.Pi)) + h*7919%700
			for outcome, n := range map[senderauth.Outcome]int{senderauth.Admitted: wave, senderauth.Limited: wave / 12 * (h % 3), senderauth.InvalidKey: h * 31 % 90} {
				_, err := db.Exec(`INSERT INTO sqlkeys_usage (key_id, hour, outcome, requests) VALUES (?, ?, ?, ?)`, issued.Key.ID, at.UnixMilli(), string(outcome), n)
				require.NoError(b.t, err)
			}
		}
	}
	page := func(path string) {
		b.load(200, chromedp.Navigate(strings.Split(evaluate[string](b, `location.href`), "/settings/")[0]+"/settings/api-keys/"+path+"?sender="+sender))
	}
	page("")
	b.screenshot("keys.png")
	b.do(chromedp.EmulateViewport(420, 800))
	b.screenshot("keys-phone.png")
	b.do(chromedp.EmulateViewport(1200, 800))
	page("usage")
	b.scheme("dark")
	b.screenshot("usage.png")
}
