package console_test

import (
	"context"
	"fmt"
	"image"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"badgerelay/apns/apnstest"
	"badgerelay/apns/apnstest/console"
)

func TestPage(t *testing.T) {
	ctx := browser(t)
	phone := seed{name: "iPhone 1", mailbox: "first@example.org", model: "iPhone", n: 1}
	pad := seed{name: "iPad 2", mailbox: "second@example.org", model: "iPad", n: 2}

	t.Run("moves", func(t *testing.T) { testMoves(t, ctx) })
	t.Run("reconnects", func(t *testing.T) { testReconnects(t, ctx) })
	t.Run("holds 5000 devices", func(t *testing.T) { testManyDevices(t, ctx) })

	t.Run("the badge is on the icon while the count is not 0", func(t *testing.T) {
		s := show(t, ctx, look{width: 400, height: 500}, phone, pad)
		for _, d := range []seed{phone, pad} {
			icon := s.box(tile(d, ".icon"))
			corner := image.Rect((icon.Min.X+icon.Max.X)/2, icon.Min.Y-16, icon.Max.X+16, (icon.Min.Y+icon.Max.Y)/2)
			if got := red(s.picture(), corner); got != 0 {
				t.Errorf("%s: %d red pixels on the icon before any badge", d.name, got)
			}
			for _, badge := range []struct {
				count uint32
				text  string
			}{{7, "7"}, {45678, "45,678"}, {2147483647, "2.1B"}} {
				s.sim.SetBadge(d.deviceToken(), badge.count)
				s.wait(fmt.Sprintf(`document.querySelector('%s').innerText === %q`, tile(d, ".badge"), badge.text))
				if got := red(s.picture(), corner); got < 200 {
					t.Errorf("%s: %d red pixels at badge %s, want the badge", d.name, got, badge.text)
				}
				if at := s.box(tile(d, ".badge")); !at.In(s.box(tile(d, ""))) {
					t.Errorf("%s: the badge %s at %v leaves its tile at %v", d.name, badge.text, at, s.box(tile(d, "")))
				}
			}
			s.sim.SetBadge(d.deviceToken(), 0)
			s.wait(fmt.Sprintf(`document.querySelector('%s').hidden`, tile(d, ".badge")))
			if got := red(s.picture(), corner); got != 0 {
				t.Errorf("%s: %d red pixels on the icon at badge 0", d.name, got)
			}
		}
	})

	t.Run("what is read aloud says device, mailbox and count", func(t *testing.T) {
		s := show(t, ctx, desk, phone)
		s.sim.SetBadge(phone.deviceToken(), 12)
		s.wait(fmt.Sprintf(`document.querySelector('%s').innerText === "12"`, tile(phone, ".badge")))
		if got, want := s.names("button"), "iPhone 1, first@example.org, 12 unread"; !slices.Contains(got, want) {
			t.Errorf("buttons are %q, want %q among them", got, want)
		}
		if got, want := s.names("searchbox"), "Search by mailbox or device"; !slices.Contains(got, want) {
			t.Errorf("search boxes are %q, want %q", got, want)
		}
		if got := eval[string](s, `document.querySelector("#summary").innerText`); !contains(got, "Devices", "1", "Pushes", "Client faults", "Last push") {
			t.Errorf("summary reads %q", got)
		}
	})

	t.Run("client faults are explained where they are counted", func(t *testing.T) {
		s := show(t, ctx, desk, phone)
		for range 2 { // net/http sends fields that APNs ignores
			pushBadge(t, s.sim, phone, 3)
		}
		all := 0
		for _, n := range s.sim.ClientFaults() {
			all += n
		}
		s.wait(fmt.Sprintf(`document.querySelector("#faults").innerText === "%d"`, all)) // of both pushes
		s.do(chromedp.Click("#faults"))
		facts := eval[string](s, `document.querySelector("#detailfacts").innerText`)
		for name, n := range s.sim.ClientFaults() {
			if meaning := apnstest.ClientFaultMeanings()[name]; n > 0 && (!strings.Contains(facts, name) || !strings.Contains(facts, meaning)) {
				t.Errorf("the dialog reads %q, want %s explained: %s", facts, name, meaning)
			}
		}
	})

	t.Run("search leaves only what matches on the screen", func(t *testing.T) {
		s := show(t, ctx, desk, phone, pad)
		if got, want := s.seen(), []string{"iPhone 1", "iPad 2"}; !slices.Equal(got, want) {
			t.Fatalf("on the screen are %q, want %q", got, want)
		}
		for query, want := range map[string][]string{"SECOND@": {"iPad 2"}, "iphone": {"iPhone 1"}, "nobody": {}} {
			eval[string](s, `document.querySelector("#search").value = ""`)
			s.do(chromedp.SendKeys("#search", query))
			s.wait(fmt.Sprintf(`document.querySelector("#found").innerText === "%d of 2 devices"`, len(want)))
			if got := s.seen(); !slices.Equal(got, want) {
				t.Errorf("after searching %q on the screen are %q, want %q", query, got, want)
			}
		}
	})

	t.Run("a device that unregisters or leaves shows it", func(t *testing.T) {
		s := show(t, ctx, desk, phone, pad)
		s.sim.Unregister(phone.deviceToken(), time.Now())
		s.wait(fmt.Sprintf(`document.querySelector('%s').innerText === "Unregistered"`, tile(phone, ".flag")))
		s.sim.RemoveDevice(pad.deviceToken())
		s.wait(`document.querySelectorAll(".tile").length === 1`)
	})

	t.Run("a click on a device scripts its answer and unregisters it", func(t *testing.T) {
		s := show(t, ctx, desk, phone)
		s.do(chromedp.Click(tile(phone, ".device")), chromedp.WaitVisible("#detail"))
		if got := s.names("dialog"); !slices.Contains(got, "iPhone 1") {
			t.Errorf("dialogs are %q, want iPhone 1", got)
		}
		s.do(chromedp.Click("#script"))
		s.wait(`document.querySelector("#detailnote").innerText.includes("answered 410 Unregistered")`)
		if got := s.sim.Scripted(); got != 1 {
			t.Errorf("%d answers are scripted, want 1", got)
		}
		s.do(chromedp.Click("#unregister"))
		s.wait(`document.querySelector("#detailfacts").innerText.includes("unregistered")`)
		if d, _ := s.sim.Device(phone.deviceToken()); d.UnregisteredAt.IsZero() {
			t.Error("the device is registered still")
		}
	})

	t.Run("light and dark differ on the screen", func(t *testing.T) {
		s := show(t, ctx, look{width: 640, height: 400}, phone)
		light := brightness(s.picture())
		s.look(look{width: 640, height: 400, dark: true})
		if dark := brightness(s.picture()); light < 200 || dark > 60 {
			t.Errorf("mean brightness is %d in light and %d in dark, want above 200 and below 60", light, dark)
		}
	})

	t.Run("narrow and wide screens need no sideways scrolling", func(t *testing.T) {
		s := show(t, ctx, desk, many(60)...)
		for _, width := range []int64{320, 360, 1099, 1100, 1920} {
			s.look(look{width: width, height: 800})
			if got := eval[int64](s, `Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)`); got > width {
				t.Errorf("at %d pixels the page is %d wide", width, got)
			}
			out := eval[[]string](s, `[...document.querySelectorAll("header *, .tile, .tile .device, .tile .name")].filter((e) => {
				const b = e.getBoundingClientRect();
				return b.width > 1 && (b.left < -1 || b.right > innerWidth + 1);
			}).map((e) => e.id || e.className || e.tagName)`)
			if len(out) > 0 {
				t.Errorf("at %d pixels %q reach over the edge", width, out[:min(len(out), 5)])
			}
		}
	})
}

func testMoves(t *testing.T, ctx context.Context) {
	phone := seed{name: "iPhone 1", mailbox: "first@example.org", model: "iPhone", n: 1}

	for _, still := range []bool{false, true} {
		t.Run(fmt.Sprintf("reduced motion %v", still), func(t *testing.T) {
			s := show(t, ctx, look{width: 800, height: 600, still: still}, phone)
			eval[bool](s, `(window.moved = 0, addEventListener("animationstart", () => window.moved++), true)`)
			pushBadge(t, s.sim, phone, 3)
			s.wait(fmt.Sprintf(`document.querySelector('%s').innerText === "3"`, tile(phone, ".badge")))
			s.wait(`document.querySelector("#pushes").innerText === "1" && document.querySelector("#last").innerText !== "none yet"`)
			if still {
				if got := eval[int](s, `window.moved + document.getAnimations().length`); got != 0 {
					t.Errorf("%d animations ran for a reader who asked for none", got)
				}
				return
			}
			s.wait(`window.moved > 0`)
		})
	}
}

func testReconnects(t *testing.T, parent context.Context) {
	ctx, cancel := chromedp.NewContext(parent)
	t.Cleanup(cancel)
	phone := seed{name: "iPhone 1", mailbox: "first@example.org", model: "iPhone", n: 1}
	sim := newSimulator(t, phone)
	serve := func(address string) *http.Server {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Addr: listener.Addr().String(), Handler: console.Handler(sim, nil)}
		go func() { _ = server.Serve(listener) }() // ends with Close
		t.Cleanup(func() { server.Close() })
		return server
	}
	first := serve("127.0.0.1:0")
	s := &screen{t: t, ctx: ctx, sim: sim}
	s.look(desk)
	s.open("http://" + first.Addr)
	if box := s.box("#lost"); !box.Empty() {
		t.Fatalf("the notice of a lost connection shows at %v", box)
	}
	first.Close()
	s.wait(`!document.querySelector("#lost").hidden`)
	if got := eval[string](s, `document.querySelector("#lost").innerText`); !strings.Contains(got, "Connection lost") {
		t.Errorf("the notice of a lost connection reads %q", got)
	}
	if box := s.box("#lost"); box.Empty() || !box.In(image.Rect(0, 0, int(desk.width), int(desk.height))) {
		t.Errorf("the notice of a lost connection is at %v, want it on the screen", box)
	}
	sim.SetBadge(phone.deviceToken(), 9) // nobody tells the page
	serve(first.Addr)
	s.wait(fmt.Sprintf(`document.querySelector('%s').innerText === "9"`, tile(phone, ".badge")))
	s.wait(`document.querySelector("#lost").hidden`)
}

// A wall of 5,000 devices is drawn only where it is looked at, and takes
// input while every badge of it changes.
func testManyDevices(t *testing.T, ctx context.Context) {
	devices := many(5000)
	s := show(t, ctx, desk, devices...)
	if got := eval[int](s, `document.querySelectorAll(".tile").length`); got != 5000 {
		t.Fatalf("the wall has %d devices, want 5000", got)
	}
	drawn := eval[int](s, `[...document.querySelectorAll(".tile .icon")].filter((e) => e.checkVisibility({ contentVisibilityAuto: true })).length`)
	if drawn == 0 || drawn > 500 {
		t.Errorf("%d of 5000 devices are drawn, want those near the screen only", drawn)
	}
	eval[bool](s, `(window.longest = 0, (function next(last) { requestAnimationFrame((now) => { longest = Math.max(longest, now - last); next(now); }); })(performance.now()), true)`)
	for i, d := range devices {
		s.sim.SetBadge(d.deviceToken(), uint32(i+1))
	}
	s.do(chromedp.SendKeys("#search", devices[4321].mailbox))
	s.wait(`document.querySelector("#found").innerText === "1 of 5000 devices".replace("5000", "5,000")`)
	s.wait(fmt.Sprintf(`document.querySelector('%s').innerText === "4,322"`, tile(devices[4321], ".badge")))
	t.Logf("longest frame while 5000 badges changed: %.0f ms", eval[float64](s, `longest`))
	if got, want := s.seen(), []string{devices[4321].name}; !slices.Equal(got, want) {
		t.Errorf("on the screen are %q, want %q", got, want)
	}
}

func brightness(img image.Image) int {
	b := img.Bounds()
	var sum, n uint32
	for y := b.Min.Y; y < b.Max.Y; y += 4 {
		for x := b.Min.X; x < b.Max.X; x += 4 {
			r, g, bl, _ := img.At(x, y).RGBA()
			sum += (r>>8 + g>>8 + bl>>8) / 3
			n++
		}
	}
	return int(sum / n)
}

// TestPageNamesTheProduct, and links to the status page of the relay where there is
// one.
func TestPageNamesTheProduct(t *testing.T) {
	sim, err := apnstest.New(apnstest.Config{Topics: []string{"com.example.mail"}})
	if err != nil {
		t.Fatal(err)
	}
	get := func(status func() string) string {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = "localhost"
		console.Handler(sim, status).ServeHTTP(w, r)
		return w.Body.String()
	}
	if s := get(nil); !strings.Contains(s, "<h1>badgerelay</h1>") || strings.Contains(s, `id="relay"`) {
		t.Errorf("without a relay the page is\n%s", s)
	}
	if s := get(func() string { return "http://127.0.0.1:9464/status" }); !strings.Contains(s, `href="http://127.0.0.1:9464/status"`) {
		t.Errorf("with a relay the page is\n%s", s)
	}
}
