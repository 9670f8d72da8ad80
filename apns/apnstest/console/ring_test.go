package console_test

import (
	"fmt"
	"testing"

	"github.com/chromedp/chromedp"
)

// clipped counts the devices whose ring, which shows that a badge has just come,
// reaches beyond the tile, where the browser draws nothing: at its widest, and under a
// mouse, which lifts the device.
const clipped = `(() => {
	const rules = [...document.styleSheets].flatMap((s) => [...s.cssRules]);
	const reaches = (style) => (parseFloat(style.outlineWidth) || 0) + (parseFloat(style.outlineOffset) || 0);
	const ring = Math.max(...[...rules.find((r) => r.name === "ring").cssRules].map((frame) => reaches(frame.style)));
	const lift = -parseFloat(rules.find((r) => r.selectorText === ".device:hover").style.translate.split(" ")[1]);
	if (!(ring > 8 && lift > 1)) throw new Error("there is no ring: " + [ring, lift]);
	return [...document.querySelectorAll(".tile")].filter((tile) => {
		const t = tile.getBoundingClientRect(), d = tile.querySelector(".device").getBoundingClientRect();
		return d.top - ring - lift < t.top || d.left - ring < t.left || d.right + ring > t.right || d.bottom + ring > t.bottom;
	}).length;
})()`

// TestRingsAreWhole looks at walls of iPads and iPhones on the screens of iPads, an
// iPhone and a desk.
func TestRingsAreWhole(t *testing.T) {
	ctx := browser(t)
	pads, phones := []seed{}, []seed{}
	for n := 1; n <= 12; n++ {
		pads = append(pads, seed{name: fmt.Sprint("iPad ", n), mailbox: "ann@example.org", model: "iPad", n: n})
		phones = append(phones, seed{name: fmt.Sprint("iPhone ", n), mailbox: "bob@example.org", model: "iPhone", n: 100 + n})
	}
	for name, devices := range map[string][]seed{"iPads": pads, "iPhones": phones, "both": append(pads[:6:6], phones[:6]...)} {
		t.Run(name, func(t *testing.T) {
			s := show(t, ctx, desk, devices...)
			for _, l := range []look{desk, {width: 744, height: 1133}, {width: 1133, height: 744}, {width: 820, height: 1180}, {width: 1180, height: 820}, {width: 1024, height: 1366}, {width: 1366, height: 1024}, {width: 320, height: 1133}, {width: 390, height: 844}, {width: 360, height: 740}} {
				s.look(l)
				for _, size := range []string{"small", "large"} {
					s.do(chromedp.Click(fmt.Sprintf(`.sizes label:has(input%s)`, map[string]string{"small": "[value=small]", "large": ":not([value=small])"}[size])))
					if n := eval[int](s, clipped); n > 0 {
						t.Errorf("%d by %d, %s: the rings of %d devices are cut", l.width, l.height, size, n)
					}
				}
			}
		})
	}
}

// TestIconIsAllowed has the page's own icon loaded as an image, which its policy judges
// alike.
func TestIconIsAllowed(t *testing.T) {
	s := show(t, browser(t), desk)
	if broken := eval[string](s, iconBreaksPolicy, chromedp.EvalAwaitPromise); broken != "" {
		t.Errorf("the icon breaks the policy: %s", broken)
	}
}

// iconBreaksPolicy is the directive that forbids the page's icon; empty: none.
const iconBreaksPolicy = `new Promise((done) => {
	document.addEventListener("securitypolicyviolation", (e) => done(e.violatedDirective + " " + e.blockedURI));
	const image = new Image();
	image.onload = image.onerror = () => setTimeout(() => done(""), 100);
	image.src = document.querySelector("link[rel=icon]").href;
})`
