package examples_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/internal/testservers"
)

// A tab of a real browser.
type tab struct {
	context.Context
	t   *testing.T
	axe string // the source of axe-core
}

func openTab(t *testing.T) *tab {
	t.Helper()
	if _, err := exec.LookPath("chromium"); err != nil {
		testservers.Missing(t, "no chromium")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath("chromium"))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &tab{Context: ctx, t: t, axe: axe(t)}
	b.do(chromedp.EmulateViewport(1200, 800))
	for _, name := range []string{"clipboard-read", "clipboard-write"} {
		_, err := chromedp.CallBrowser(ctx, browser.SetPermission, browser.SetPermissionParams{
			Permission: &browser.PermissionDescriptor{Name: name},
			Setting:    browser.PermissionSettingGranted,
		})
		require.NoError(t, err)
	}
	return b
}

const axeVersion, axeSum = "4.10.3", "880970c081707360e64f34cea25ff91892f5bc95675b0776925b9709dd8a68bb"

// axe returns the source of axe-core, which npm installs for the test: it is no part of
// this repository.
func axe(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("npm"); err != nil {
		testservers.Missing(t, "no npm")
	}
	dir := t.TempDir()
	install := exec.CommandContext(t.Context(), "npm", "install", "--prefix", dir, "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "axe-core@"+axeVersion)
	out, err := install.CombinedOutput()
	require.NoError(t, err, "%s", out)
	source, err := os.ReadFile(filepath.Join(dir, "node_modules/axe-core/axe.min.js"))
	require.NoError(t, err)
	sum := sha256.Sum256(source)
	require.Equal(t, axeSum, hex.EncodeToString(sum[:]), "axe.min.js is another file than the one that was reviewed")
	return string(source)
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	require.NoError(b.t, chromedp.Do(b, steps...))
}

// load runs steps that lead to another page, and checks its status and its accessibility.
func (b *tab) load(status int64, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	res, err := chromedp.RunResponse(b, steps...)
	require.NoError(b.t, err)
	require.Equal(b.t, status, res.Status, b.text("main"))
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(scheme)
		require.Empty(b.t, b.violations(), "%s, %s", res.URL, scheme)
	}
	b.scheme("light")
}

// click clicks a link or a button with that text, and waits for the page that it leads to.
func (b *tab) click(status int64, text string) {
	b.t.Helper()
	b.load(status, chromedp.Click(`//main//*[self::a or self::button][normalize-space()="`+text+`"]`))
}

func (b *tab) text(selector string) string {
	b.t.Helper()
	text, err := chromedp.Run(b, chromedp.TextContent(selector))
	require.NoError(b.t, err)
	return text
}

func evaluate[T any](b *tab, script string) T {
	b.t.Helper()
	v, err := chromedp.Run(b, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	require.NoError(b.t, err)
	return v
}

// violations returns what axe-core calls serious or critical on the page.
func (b *tab) violations() []string {
	b.t.Helper()
	evaluate[bool](b, b.axe+`; true`)
	return evaluate[[]string](b, `axe.run().then(r => r.violations
		.filter(v => v.impact === "serious" || v.impact === "critical")
		.map(v => v.id + ": " + v.nodes.map(n => n.html).join(" ")))`)
}

func (b *tab) scheme(name string) {
	b.t.Helper()
	_, err := chromedp.Call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: name},
			{Name: "prefers-reduced-motion", Value: "reduce"}, // no color is measured half-way
		},
	})
	require.NoError(b.t, err)
}

// copied clicks a copy button and returns what is in the clipboard.
func (b *tab) copied(what string) string {
	b.t.Helper()
	b.do(chromedp.Click(`button[aria-label="Copy the ` + what + `"]`))
	b.do(chromedp.WaitReady(`//*[@id="copied"][text()="Copied the ` + what + `."]`))
	return evaluate[string](b, `navigator.clipboard.readText()`)
}

// screenshot writes what the tab shows to the documentation, if the flag asks for it.
func (b *tab) screenshot(name string) {
	b.t.Helper()
	if !*screenshots {
		return
	}
	// A picture must not have a key in it: show that of the other examples.
	evaluate[bool](b, `{
		const secret = document.getElementById("api-key")?.textContent;
		for (const e of document.querySelectorAll("#api-key, #env")) {
			e.textContent = e.textContent.replace(secret, "`+key+`");
		}
	} true`)
	png, err := chromedp.Run(b, chromedp.CaptureScreenshot())
	require.NoError(b.t, err)
	require.NoError(b.t, os.WriteFile(filepath.Join("../keydesk/docs", name), png, 0o644))
}

// envOf reads the two lines of an .env file.
func envOf(t *testing.T, text string) (id, key string) {
	t.Helper()
	lines := strings.Split(text, "\n")
	require.Len(t, lines, 2)
	id, ok := strings.CutPrefix(lines[0], "SENT_SENDER_ID=")
	require.True(t, ok, lines[0])
	key, ok = strings.CutPrefix(lines[1], "SENT_API_KEY=")
	require.True(t, ok)
	return id, key
}
