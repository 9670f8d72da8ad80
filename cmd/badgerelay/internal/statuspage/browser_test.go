package statuspage

import (
	"context"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// browser starts Chromium. Where it is missing the test is skipped, except in
// CI, where it fails.
func browser(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		const missing = "chromium is not installed; it is Debian's package chromium"
		if os.Getenv("CI") != "" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(),
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true))
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	t.Cleanup(func() { _ = chromedp.Cancel(ctx) }) // waits until it is gone, so that its directory can go
	return ctx
}

// TestPageInABrowser looks at the page as people do. With STATUSPAGE_PICTURES
// set to a directory it leaves what it saw there.
func TestPageInABrowser(t *testing.T) {
	ctx := browser(t)
	p, h := newPage(t, newSample())
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	for _, look := range []struct {
		name          string
		width, height int64
		scheme        string
		key           bool
	}{
		{"narrow-dark", 360, 740, "dark", false}, // before a key is in a cookie
		{"wide-light", 1280, 900, "light", true},
		{"wide-dark", 1280, 900, "dark", true},
		{"narrow-light", 360, 740, "light", true},
	} {
		t.Run(look.name, func(t *testing.T) {
			tab, cancel := chromedp.NewContext(ctx)
			defer cancel()
			address := server.URL + "/status"
			if look.key {
				secret, _ := p.Keys.Create()
				address += "?key=" + secret
			}
			if _, err := chromedp.Call(tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
				{Name: "prefers-color-scheme", Value: look.scheme},
			}}); err != nil {
				t.Fatal(err)
			}
			if err := chromedp.Do(tab, chromedp.EmulateViewport(look.width, look.height), chromedp.Navigate(address)); err != nil {
				t.Fatal(err)
			}
			eval := func(expression string) float64 {
				t.Helper()
				v, err := chromedp.Run(tab, chromedp.Evaluate[float64](expression))
				if err != nil {
					t.Fatalf("evaluate %s: %v", expression, err)
				}
				return v
			}
			if got := eval(`document.documentElement.scrollWidth`); int64(got) > look.width {
				t.Errorf("the page is %v wide on a screen of %d", got, look.width)
			}
			if got := eval(`parseFloat(getComputedStyle(document.querySelector("header")).borderLeftWidth)`); got != 10 {
				t.Errorf("the style is not applied: a border of %v", got)
			}
			if dark := eval(`parseInt(getComputedStyle(document.body).backgroundColor.match(/\d+/)[0])`) < 128; dark != (look.scheme == "dark") {
				t.Errorf("the background is dark: %v, in the scheme %s", dark, look.scheme)
			}
			if got := eval(`Math.min(...[...document.querySelectorAll("h1, h2, h3, p, dt, dd, th, td, caption, small, footer, .chip, .near")].filter((e) => e.innerText.trim()).map(` + contrast + `))`); got < 4.5 {
				t.Errorf("the faintest text has a contrast of %.2f to 1, want 4.5", got)
			}
			if got := eval(`document.body.innerText.includes("fabrikam.com") ? 1 : 0`) == 1; got != look.key {
				t.Errorf("organizations are shown: %v, with a key: %v", got, look.key)
			}
			broken, err := chromedp.Run(tab, chromedp.Evaluate[string](iconBreaksPolicy, chromedp.EvalAwaitPromise))
			if err != nil || broken != "" {
				t.Errorf("the icon breaks the policy: %s, %v", broken, err)
			}
			if directory := os.Getenv("STATUSPAGE_PICTURES"); directory != "" {
				height := int64(eval(`document.documentElement.scrollHeight`))
				if err := chromedp.Do(tab, chromedp.EmulateViewport(look.width, height)); err != nil {
					t.Fatal(err)
				}
				picture, err := chromedp.Run(tab, chromedp.CaptureScreenshot())
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(directory, look.name+".png"), picture, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// contrast computes an element's, as WCAG 2.2 defines it.
const contrast = `((e) => {
	const rgb = (c) => c.match(/[\d.]+/g).map(Number);
	const light = ([r, g, b]) => { const f = (v) => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; return .2126 * f(r) + .7152 * f(g) + .0722 * f(b); };
	let back = e; while (back.parentElement && (rgb(getComputedStyle(back).backgroundColor)[3] ?? 1) === 0) back = back.parentElement;
	const [a, b] = [light(rgb(getComputedStyle(e).color)), light(rgb(getComputedStyle(back).backgroundColor))];
	return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
})`

// iconBreaksPolicy is the directive that forbids the page's icon, which is loaded as an
// image, because headless Chromium fetches no icons; empty: none.
const iconBreaksPolicy = `new Promise((done) => {
	document.addEventListener("securitypolicyviolation", (e) => done(e.violatedDirective + " " + e.blockedURI));
	const image = new Image();
	image.onload = image.onerror = () => setTimeout(() => done(""), 100);
	image.src = document.querySelector("link[rel=icon]").href;
})`
