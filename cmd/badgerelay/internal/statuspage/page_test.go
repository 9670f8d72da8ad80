package statuspage

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// sample is a relay of which everything can be said.
func sample(now time.Time) *Status {
	return &Status{
		Version: "1.2.3", Go: "go1.26", Started: now.Add(-50 * time.Hour),
		Load:     &Load{Streams: 41, Mailboxes: 1234567, Devices: 2345678, DevicesQueued: 12, DevicesWaiting: 3},
		Events:   &Events{Accepted: 98765, Pending: 17, Outcomes: []Count{{"delivered", 90000}, {"superseded", 8748}, {"undeliverable", 0}}},
		Registry: &Registry{Organizations: 2, Credentials: 3, Mailboxes: 1300000, Subscriptions: 2500000},
		Apps: []App{
			{Name: "mail", State: "up", Connections: 4, StreamsGranted: 4000, PushesInFlight: 312, TokenAge: 1320, Topic: "com.example.mail", Environment: "production"},
			{Name: "mail-sandbox", State: "refused", Breaker: true, CertificateEnd: now.Add(5*24*time.Hour + time.Hour),
				Topic: "com.example.mail", Environment: "sandbox", LastError: "apns answered 403 BadCertificateEnvironment"},
		},
		Certificates: []Certificate{{"listen", now.AddDate(0, 3, 0)}},
		Details: &Details{Instance: "relay-3-QWERTYUI", More: true, Relays: []Relay{
			{Name: "relay-1:8443", State: "silent", Heard: 4200, Version: "1.2.2", Started: now.Add(-90 * time.Hour), Streams: 38, Mailboxes: 1234567, Accepted: 5_000_000, Pending: 3},
			{Name: "relay-2:8443", State: "not_ready", Reason: "draining", Heard: 3, Version: "1.2.3", Started: now.Add(-time.Hour), Streams: 2, Mailboxes: 1234567, Accepted: 12_000, Pending: 1},
			{Name: "relay-3:8443", State: "ready", Here: true, Version: "1.2.3", Started: now.Add(-50 * time.Hour), Streams: 41, Mailboxes: 1234567, Accepted: 98765, Pending: 17},
			{Name: "relay-4:8443", State: "stopped", Heard: 7200, Version: "1.2.2"},
		}, Organizations: []Organization{
			{Name: "fabrikam.com", Enabled: true, Mailboxes: 900000, Subscriptions: 1500000, Streams: 40, Credentials: []Credential{
				{"E715D622E6304594C9CB68E31AB1BF4448BDB005", now.AddDate(0, 0, 3), now.Add(-40 * time.Second)},
				{"0B15D622E6304594C9CB68E31AB1BF4448BDB0AA", now.AddDate(4, 0, 0), time.Time{}},
			}},
			{Name: "contoso.example", Mailboxes: 400000, Subscriptions: 1000000},
		}},
	}
}

// newPage returns a page of the sample.
func newPage(t testing.TB, notReady string) (*Page, http.Handler) {
	t.Helper()
	p := &Page{Keys: &Keys{}}
	p.Collect = func(context.Context, bool) (*Status, string) { return sample(time.Now()), notReady }
	mux := http.NewServeMux()
	p.Register(mux)
	return p, mux
}

func ask(h http.Handler, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// secrets are what only a key shows.
var secrets = []string{"fabrikam.com", "contoso.example", "E715D622", "403 BadCertificateEnvironment", "com.example.mail", "relay-3-QWERTYUI", "relay-1:8443"}

func TestOnlyAKeyShowsMoreThanHealth(t *testing.T) {
	p, h := newPage(t, "")
	secret, _ := p.Keys.Create()
	for _, path := range []string{"/status", "/status/json"} {
		for _, header := range [][]string{nil, {"Authorization", "Bearer wrong"}, {"Cookie", cookie + "=wrong"}, {"Authorization", "Bearer "}} {
			body := ask(h, path, header...).Body.String()
			for _, s := range secrets {
				if strings.Contains(body, s) {
					t.Errorf("GET %s with %v shows %s", path, header, s)
				}
			}
			if !strings.Contains(body, "1.2.3") || !strings.Contains(body, "mail-sandbox") {
				t.Errorf("GET %s shows no health: %s", path, body)
			}
		}
		for _, header := range [][]string{{"Authorization", "Bearer " + secret}, {"Cookie", cookie + "=" + secret}} {
			body := ask(h, path, header...).Body.String()
			for _, s := range secrets {
				if !strings.Contains(body, s) {
					t.Errorf("GET %s with a key lacks %s", path, s)
				}
			}
		}
	}
}

func TestKeyMovesFromTheAddressIntoACookie(t *testing.T) {
	p, h := newPage(t, "")
	if w := ask(h, "/status?key=wrong"); w.Code != http.StatusForbidden {
		t.Errorf("a wrong key: %d, want 403", w.Code)
	}
	secret, _ := p.Keys.Create()
	w := ask(h, "/status?key="+secret)
	c := w.Result().Cookies()
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/status" || len(c) != 1 || !c[0].HttpOnly || c[0].SameSite != http.SameSiteStrictMode {
		t.Fatalf("a key: %d to %q with cookies %v", w.Code, w.Header().Get("Location"), c)
	}
	if body := ask(h, "/status", "Cookie", c[0].Name+"="+c[0].Value).Body.String(); !strings.Contains(body, "fabrikam.com") {
		t.Error("the cookie does not open the page")
	}
}

func TestKeysEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k Keys
		first, _ := k.Create()
		time.Sleep(keyLifetime - time.Millisecond)
		if !k.opens(first) {
			t.Error("a key ended before its time")
		}
		time.Sleep(time.Millisecond)
		if k.opens(first) {
			t.Error("a key lived beyond its time")
		}
		second, _ := k.Create()
		for range mostKeys - 1 {
			k.Create()
		}
		if !k.opens(second) {
			t.Error("a key went before it had to")
		}
		k.Create()
		if k.opens(second) || k.opens("") {
			t.Errorf("there are more than %d keys", mostKeys)
		}
	})
}

func TestThePageCountsEvents(t *testing.T) {
	_, h := newPage(t, "")
	body := ask(h, "/status").Body.String()
	for _, want := range []string{"Events accepted</dt><dd>98\u202f765<", `superseded</th><td>8` + "\u202f" + `748<`} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %s: %s", want, body)
		}
	}
}

func TestJudgement(t *testing.T) {
	_, h := newPage(t, "")
	var s Status
	if err := json.Unmarshal(ask(h, "/status/json").Body.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	if want := "Apple refuses the key, certificate or topic of mail-sandbox.|The certificate of mail-sandbox ends in 5 days."; s.State != Troubled || strings.Join(s.Troubles, "|") != want {
		t.Errorf("%s: %q, want %q", s.State, s.Troubles, want)
	}
	_, h = newPage(t, "registry unavailable")
	if body := ask(h, "/status").Body.String(); !strings.Contains(body, "Not working") || !strings.Contains(body, "It takes no work: registry unavailable.") {
		t.Errorf("a relay that takes no work: %s", body)
	}
}

func TestPageWhileTheRelayStarts(t *testing.T) {
	p, h := newPage(t, "")
	p.Collect = func(context.Context, bool) (*Status, string) {
		return &Status{Version: "1.2.3", Started: time.Now()}, "starting"
	}
	if w := ask(h, "/status"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "It takes no work: starting.") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "no time", 65 * time.Microsecond: "65 µs", 1500 * time.Microsecond: "1.5 ms", 250 * time.Millisecond: "250 ms",
		time.Second: "1 s", 1500 * time.Millisecond: "1.5 s", 90 * time.Second: "1 minute", 119 * time.Minute: "119 minutes",
		3 * time.Hour: "3 hours", 49 * time.Hour: "2 days",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%d) = %q, want %q", d, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1\u202f000", 1234567: "1\u202f234\u202f567"} {
		if got := group(n); got != want {
			t.Errorf("group(%d) = %q, want %q", n, got, want)
		}
	}
}
