package console_test

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/png"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"badgerelay/apns/apnstest"
	"badgerelay/apns/apnstest/console"
)

// browser starts Chromium. Where it is missing the test is skipped, except in
// CI, where it fails.
func browser(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		const missing = "chromium is not installed; it is Debian's package chromium"
		if os.Getenv("CI") == "true" {
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

// screen is one tab that shows the page of one simulator.
type screen struct {
	t   *testing.T
	ctx context.Context
	sim *apnstest.Simulator
}

// look says how a screen is looked at.
type look struct {
	width, height int64
	dark, still   bool // prefers-color-scheme, prefers-reduced-motion
}

var desk = look{width: 1280, height: 800}

// show opens the page of a new simulator with these devices.
func show(t *testing.T, parent context.Context, l look, devices ...seed) *screen {
	t.Helper()
	sim := newSimulator(t, devices...)
	server := httptest.NewServer(console.Handler(sim, nil))
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections) // the page follows events for ever
	ctx, cancel := chromedp.NewContext(parent)
	t.Cleanup(cancel)
	s := &screen{t: t, ctx: ctx, sim: sim}
	s.look(l)
	s.open(server.URL)
	return s
}

func (s *screen) open(url string) {
	s.t.Helper()
	s.do(chromedp.Navigate(url))
	s.wait(`document.querySelector("#wall[data-synced]")`)
}

func (s *screen) do(steps ...chromedp.Action[chromedp.Void]) {
	s.t.Helper()
	if err := chromedp.Do(s.ctx, steps...); err != nil {
		s.t.Fatal(err)
	}
}

func (s *screen) look(l look) {
	s.t.Helper()
	scheme, motion := "light", "no-preference"
	if l.dark {
		scheme = "dark"
	}
	if l.still {
		motion = "reduce"
	}
	s.do(chromedp.EmulateViewport(l.width, l.height))
	if _, err := chromedp.Call(s.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: motion},
	}}); err != nil {
		s.t.Fatal(err)
	}
}

// eval evaluates JavaScript in the page.
func eval[T any](s *screen, expression string, options ...chromedp.EvaluateOption) T {
	s.t.Helper()
	v, err := chromedp.Run(s.ctx, chromedp.Evaluate[T](expression, options...))
	if err != nil {
		s.t.Fatalf("evaluate %s: %v", expression, err)
	}
	return v
}

// wait waits until the expression is true, looking once a frame.
func (s *screen) wait(expression string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, 20*time.Second)
	defer cancel()
	_, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`new Promise((done) => {
		(function look() { if (`+expression+`) done(true); else setTimeout(look, 10); })();
	})`, chromedp.EvalAwaitPromise))
	if err != nil {
		s.t.Fatalf("wait for %s: %v", expression, err)
	}
}

// box is where the element is on the screen, whole pixels.
func (s *screen) box(selector string) image.Rectangle {
	s.t.Helper()
	b := eval[[]float64](s, fmt.Sprintf(`(() => { const b = document.querySelector(%q).getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; })()`, selector))
	return image.Rect(int(b[0]), int(b[1]), int(b[2]+.999), int(b[3]+.999))
}

// picture is what the screen shows, with nothing moving on it.
func (s *screen) picture() image.Image {
	s.t.Helper()
	s.wait(`document.getAnimations().length === 0`)
	data, err := chromedp.Run(s.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		s.t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		s.t.Fatal(err)
	}
	return img
}

// red counts the pixels in the badge's red, icons have none.
func red(img image.Image, within image.Rectangle) int {
	return count(img, within, func(r, g, b uint32) bool { return r > 190 && g < 70 && b < 70 })
}

func count(img image.Image, within image.Rectangle, is func(r, g, b uint32) bool) int {
	n := 0
	for y := within.Min.Y; y < within.Max.Y; y++ {
		for x := within.Min.X; x < within.Max.X; x++ {
			if r, g, b, _ := img.At(x, y).RGBA(); is(r>>8, g>>8, b>>8) {
				n++
			}
		}
	}
	return n
}

// names are the names of everything of the role that the accessibility tree holds.
func (s *screen) names(role string) []string {
	s.t.Helper()
	tree, err := chromedp.Call(s.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		s.t.Fatal(err)
	}
	var names []string
	for _, n := range tree.Nodes {
		if !n.Ignored && n.Role != nil && n.Name != nil && strings.Trim(string(n.Role.Value), `"`) == role {
			names = append(names, strings.Trim(string(n.Name.Value), `"`))
		}
	}
	return names
}

// tile is the CSS selector of what is inside a device's tile.
func tile(d seed, inside string) string {
	return fmt.Sprintf(`.tile[data-token="%s"] %s`, d.token(), inside)
}

// seen reports the names under the devices that are on the screen now: inside
// the viewport and not covered.
func (s *screen) seen() []string {
	s.t.Helper()
	return eval[[]string](s, `[...document.querySelectorAll(".tile .name")].filter((n) => {
		const b = n.getBoundingClientRect(), at = document.elementFromPoint((b.left + b.right) / 2, (b.top + b.bottom) / 2);
		return b.width > 0 && at === n;
	}).map((n) => n.innerText)`)
}
