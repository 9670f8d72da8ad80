package console_test

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/token"
	"golang.org/x/net/http2"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
	"badgerelay/apns/apnstest/console"
)

const topic = "com.example.mail"

// signing is one key for all tests: the simulators accept it.
var signing = sync.OnceValues(func() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) })

// seed is a device that a test begins with.
type seed struct {
	name, mailbox, model string
	n                    int
}

// token is the device's token: of 32 bytes, the last of which make a
// wallpaper without red.
func (d seed) token() string { return fmt.Sprintf("%058x%06x", d.n, d.n*6+2) }

func (d seed) deviceToken() apns.DeviceToken {
	t, err := apns.ParseDeviceToken(d.token())
	if err != nil {
		panic(err)
	}
	return t
}

func many(n int) []seed {
	all := make([]seed, n)
	for i := range all {
		all[i] = seed{name: fmt.Sprintf("iPhone %d", i), mailbox: fmt.Sprintf("box%05d@example.org", i), model: []string{"iPhone", "iPad"}[i%2], n: i + 1}
	}
	return all
}

func newSimulator(t *testing.T, devices ...seed) *apnstest.Simulator {
	t.Helper()
	key, err := signing()
	if err != nil {
		t.Fatal(err)
	}
	sim, err := apnstest.New(apnstest.Config{
		TeamKeys: []apnstest.TeamKey{{TeamID: "TEAM000001", KeyID: "KEY0000001", Key: &key.PublicKey}},
		Topics:   []string{topic}, Seed: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sim.Close)
	for _, d := range devices {
		sim.RegisterDevice(d.deviceToken(), topic, apnstest.Production, apnstest.Meta{Name: d.name, Mailbox: d.mailbox, Model: d.model})
	}
	return sim
}

// pushBadge pushes as a provider does, with another library than ours, and
// returns the status and reason of the answer.
func pushBadge(t *testing.T, sim *apnstest.Simulator, d seed, badge int) (int, string) {
	t.Helper()
	key, err := signing()
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = sim.Serve(listener) // ends when the listener is closed
	}()
	defer func() {
		listener.Close()
		<-served
	}()
	transport := &http2.Transport{TLSClientConfig: &tls.Config{RootCAs: sim.RootCAs()}}
	defer transport.CloseIdleConnections()
	client := apns2.NewTokenClient(&token.Token{AuthKey: key, KeyID: "KEY0000001", TeamID: "TEAM000001"})
	client.Host = "https://" + listener.Addr().String()
	client.HTTPClient.Transport = transport
	answer, err := client.Push(&apns2.Notification{
		DeviceToken: d.token(), Topic: topic, PushType: apns2.PushTypeAlert,
		Payload: fmt.Appendf(nil, `{"aps":{"badge":%d}}`, badge),
	})
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Reason
}

func contains(s string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}

// caller calls the interface of one simulator.
type caller struct {
	t   *testing.T
	url string
	sim *apnstest.Simulator
}

func newCaller(t *testing.T, devices ...seed) *caller {
	sim := newSimulator(t, devices...)
	server := httptest.NewServer(console.Handler(sim, nil))
	t.Cleanup(server.Close)
	return &caller{t, server.URL, sim}
}

// call returns the status and the body of the answer.
func (c *caller) call(method, path, body string, headers ...string) (int, string) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return res.StatusCode, string(data)
}

// want calls, and fails unless status and the parts of the body are as wanted.
func (c *caller) want(method, path, body string, status int, parts ...string) {
	c.t.Helper()
	if got, text := c.call(method, path, body); got != status || !contains(text, parts...) {
		c.t.Errorf("%s %s %.80s: %d %.300s, want %d with %q", method, path, body, got, text, status, parts)
	}
}

func TestRegisterAndUnregister(t *testing.T) {
	c := newCaller(t)
	d := seed{n: 1}
	c.want("POST", "/api/devices", `{"token":"`+d.token()+`","name":"iPad","mailbox":"box@example.org","model":"iPad","topic":"`+topic+`"}`, 201,
		`"model":"iPad"`, `"environment":"production"`, `"registered":true`, `"badge":0`)
	c.want("POST", "/api/devices", `[{"mailbox":"a@example.org","topic":"x"},{"mailbox":"b@example.org","topic":"x","environment":"sandbox"}]`, 201,
		`"mailbox":"a@example.org"`, `"environment":"sandbox"`)
	if got := c.sim.DeviceCount(); got != 3 {
		t.Errorf("%d devices, want 3", got)
	}
	if status, _ := pushBadge(t, c.sim, d, 7); status != 200 {
		t.Errorf("push is answered %d, want 200", status)
	}
	c.want("GET", "/api/devices?mailbox=box@example.org", "", 200, `"badge":7`, `"pushes":1`)
	c.want("DELETE", "/api/devices/"+d.token()+"?at=2026-11-01T12:00:00Z", "", 204)
	c.want("GET", "/api/devices?token="+strings.ToUpper(d.token()), "", 200, `"registered":false`, `"unregisteredAt":"2026-11-01T12:00:00Z"`)
	if status, reason := pushBadge(t, c.sim, d, 8); status != 410 || reason != "Unregistered" {
		t.Errorf("push to an unregistered device is answered %d %s, want 410 Unregistered", status, reason)
	}
}

func TestRefusals(t *testing.T) {
	c := newCaller(t)
	token := seed{n: 1}.token()
	for _, tc := range []struct {
		method, path, body string
		status             int
		field, rule        string
	}{
		{"POST", "/api/devices", `{"topic":"x","token":"zz"}`, 400, "token", "device_token"},
		{"POST", "/api/devices", `{"mailbox":"a"}`, 400, "topic", "required"},
		{"POST", "/api/devices", `{"topic":"x","model":"Android"}`, 400, "model", "enum"},
		{"POST", "/api/devices", `{"topic":"x","environment":"test"}`, 400, "environment", "enum"},
		{"POST", "/api/devices", `{"topic":"x","name":"` + strings.Repeat("n", 101) + `"}`, 400, "name", "max_bytes"},
		{"POST", "/api/devices", `{"topic":"x","mailbox":"a\u0000b"}`, 400, "mailbox", "printable"},
		{"POST", "/api/devices", `[{"topic":"x"},{"topic":""}]`, 400, "[1].topic", "required"},
		{"POST", "/api/devices", `{"topic":"x","colour":"red"}`, 400, "colour", "unknown_field"},
		{"POST", "/api/devices", `{"topic":5}`, 400, "topic", "type"},
		{"POST", "/api/devices", `{"topic":"x"} {}`, 400, "", "one_value"},
		{"POST", "/api/devices", `{`, 400, "", "json"},
		{"POST", "/api/devices", `{"name":"` + strings.Repeat("x", 3<<20) + `"}`, 413, "", "max_bytes"},
		{"POST", "/api/devices", `[` + strings.Repeat(`{"topic":"x"},`, 5000) + `{"topic":"x"}]`, 400, "", "max_devices"},
		{"DELETE", "/api/devices/" + token, "", 404, "token", "known"},
		{"DELETE", "/api/devices/xyz", "", 400, "token", "device_token"},
		{"DELETE", "/api/devices/" + token + "?at=yesterday", "", 400, "at", "rfc3339"},
		{"POST", "/api/script", `{"answers":[]}`, 400, "answers", "required"},
		{"POST", "/api/script", `{"answers":[{"status":99}]}`, 400, "answers[0].status", "range"},
		{"POST", "/api/script", `{"answers":[{"fault":"gremlins"}]}`, 400, "answers[0].fault", "enum"},
		{"POST", "/api/script", `{"token":"` + token + `","answers":[{"fault":"slow_tls"}]}`, 400, "answers[0].fault", "connect"},
		{"PUT", "/api/faults", `{"rates":{"gremlins":0.5}}`, 400, "rates.gremlins", "enum"},
		{"PUT", "/api/faults", `{"rates":{"late":2}}`, 400, "faults", "range"},
		{"PUT", "/api/faults", `{"late":"soon"}`, 400, "", "json"},
		{"GET", "/api/history?limit=0", "", 400, "limit", "range"},
		{"GET", "/api/nothing", "", 404, "", "path"},
	} {
		status, body := c.call(tc.method, tc.path, tc.body)
		var got struct {
			Error struct{ Field, Rule, Message string }
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Errorf("%s %s %.60s: the answer %.200q is not JSON", tc.method, tc.path, tc.body, body)
			continue
		}
		if status != tc.status || got.Error.Field != tc.field || got.Error.Rule != tc.rule || got.Error.Message == "" {
			t.Errorf("%s %s %.60s: %d %+v, want %d, field %q, rule %q", tc.method, tc.path, tc.body, status, got.Error, tc.status, tc.field, tc.rule)
		}
	}
	if got := c.sim.DeviceCount(); got != 0 {
		t.Errorf("refused requests registered %d devices", got)
	}
}

func TestOtherSitesAreRefused(t *testing.T) {
	c := newCaller(t)
	for _, tc := range []struct {
		name, header, value string
		status              int
	}{
		{"another name for loopback", "Host", "rebound.example.net", 403},
		{"another origin", "Origin", "http://example.net", 403},
		{"localhost", "Host", "localhost:1234", 201},
		{"IPv6 loopback", "Host", "[::1]:80", 201},
	} {
		if got, body := c.call("POST", "/api/devices", `{"topic":"x"}`, tc.header, tc.value); got != tc.status {
			t.Errorf("%s: %d %s, want %d", tc.name, got, body, tc.status)
		}
	}
	if got, _ := c.call("POST", "/api/devices", `{"topic":"x"}`, "Content-Type", "text/plain"); got != 415 {
		t.Errorf("a form's content type is answered %d, want 415", got)
	}
}

// TestTokensAndBadges is what a benchmark does with thousands of devices.
func TestTokensAndBadges(t *testing.T) {
	c := newCaller(t)
	d := many(3)
	list := d[0].token() + "\n" + d[1].token() + "\n" + d[2].token() + "\n"
	text := func(method, path, body string, status int, want string) {
		t.Helper()
		if got, answer := c.call(method, path, body, "Content-Type", "text/plain"); got != status || !strings.Contains(answer, want) {
			t.Errorf("%s %s %.80q: %d %.300s, want %d with %q", method, path, body, got, answer, status, want)
		}
	}
	text("POST", "/api/tokens?topic="+topic, list, 201, `"registered":3`)
	text("POST", "/api/tokens?topic="+topic, list, 201, `"registered":3`)
	if got := c.sim.DeviceCount(); got != 3 {
		t.Errorf("%d devices after the list came twice, want 3", got)
	}
	if status, _ := pushBadge(t, c.sim, d[1], 7); status != 200 {
		t.Errorf("push is answered %d, want 200", status)
	}
	text("POST", "/api/badges", list, 200, "0\n7\n0\n")
	text("POST", "/api/badges", d[1].token(), 200, "7\n")
	text("POST", "/api/badges", d[1].token()+"\n"+many(4)[3].token(), 404, "line 2")
	text("POST", "/api/badges", list+"\n", 400, "line 4")
	text("POST", "/api/tokens?topic="+topic, list+"xyz\n", 400, "line 4")
	text("POST", "/api/tokens", list, 400, `"field":"topic"`)
	text("POST", "/api/tokens?topic="+topic, strings.Repeat(list, 20_000), 413, "max_bytes")
	if got, _ := c.call("POST", "/api/badges", list); got != 415 {
		t.Errorf("a list that is said to be JSON is answered %d, want 415", got)
	}
}

func TestStrike(t *testing.T) {
	c := newCaller(t)
	c.want("POST", "/api/strike", `{"fault":"reset"}`, 200, `"connections":0`)
	for _, wrong := range []string{"late", "refuse_connect", "none", ""} {
		c.want("POST", "/api/strike", `{"fault":"`+wrong+`"}`, 400, "of connections")
	}
}

func TestScriptHistoryAndStats(t *testing.T) {
	d := seed{name: "iPhone", mailbox: "box@example.org", n: 1}
	c := newCaller(t, d)
	c.want("POST", "/api/script", `{"token":"`+d.token()+`","answers":[{"status":410,"reason":"Unregistered","timestamp":"2026-11-01T12:00:00Z"}]}`, 200, `"scripted":1`)
	c.want("POST", "/api/script", `{"answers":[{"status":503,"reason":"ServiceUnavailable","delay":"1ms"}]}`, 200, `"scripted":2`)
	if status, reason := pushBadge(t, c.sim, d, 1); status != 410 || reason != "Unregistered" {
		t.Errorf("first push is answered %d %s, want what was scripted for the device", status, reason)
	}
	if status, reason := pushBadge(t, c.sim, d, 1); status != 503 || reason != "ServiceUnavailable" {
		t.Errorf("second push is answered %d %s, want what was scripted for any", status, reason)
	}
	if status, _ := pushBadge(t, c.sim, d, 5); status != 200 {
		t.Errorf("third push is answered %d, want 200", status)
	}
	c.want("GET", "/api/history", "", 200, `"total":3`, `"status":410`, `"status":503`, `"token":"`+d.token()+`"`, `"badge":5`)
	c.want("GET", "/api/history?limit=1", "", 200, `"total":3`, `"badge":5`, `"status":200`)
	c.want("GET", "/api/stats", "", 200, `"pushes":1`, `"requests":3`, `"clientFaults":{`, `"clientFaultMeanings":{`, `"lastPush":"`, `"connects":3`)
	pushBadge(t, c.sim, d, 1) // what was refused with the 503, too early
	c.want("GET", "/api/stats", "", 200, `"clientFaultDevices":{"early_5xx":"`+d.token()+`"}`)
	c.want("DELETE", "/api/history", "", 204)
	c.want("GET", "/api/history", "", 200, `"total":0`, `"requests":[]`)
	c.want("POST", "/api/script", `{"answers":[{"fault":"goaway"},{"fault":"slow_tls"}]}`, 200, `"scripted":2`)
	c.want("DELETE", "/api/script", "", 204)
	c.want("GET", "/api/stats", "", 200, `"scripted":0`)
}

func TestFaultsAndTrust(t *testing.T) {
	c := newCaller(t)
	c.want("GET", "/api/faults", "", 200, `"known":["late"`, `"rates":{}`, `"seed":1`)
	c.want("PUT", "/api/faults", `{"latency":{"min":"50ms"},"rates":{"late":0.25},"hold":"1s"}`, 200, `"late":0.25`, `"min":"50ms"`, `"hold":"1s"`)
	if got := c.sim.Faults(); got.Latency.Min != 50*time.Millisecond || got.Rates[apnstest.FaultLate] != 0.25 || got.Hold != time.Second {
		t.Errorf("faults are %+v after they were set", got)
	}
	_, pem := c.call("GET", "/api/trust", "")
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(pem)) || !pool.Equal(c.sim.RootCAs()) {
		t.Errorf("the authority to trust is not the simulator's: %.100q", pem)
	}
}

func TestPageNeedsNothingFromOutside(t *testing.T) {
	c := newCaller(t)
	for _, path := range []string{"/", "/page.css", "/page.js", "/mail.svg", "/app.svg"} {
		res, err := http.Get(c.url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("GET %s: %d %v", path, res.StatusCode, err)
		}
		if got := res.Header.Get("Content-Security-Policy"); !contains(got, "default-src 'none'", "script-src 'self'") || strings.Contains(got, "unsafe") {
			t.Errorf("GET %s: content security policy is %q", path, got)
		}
		body = bytes.ReplaceAll(body, []byte("http://www.w3.org/2000/svg"), nil) // a name, not an address
		if bytes.Contains(body, []byte("http://")) || bytes.Contains(body, []byte("https://")) || bytes.Contains(body, []byte("url(//")) {
			t.Errorf("%s names an address outside", path)
		}
	}
}

// events reads the server-sent events of a caller, one after the other.
func (c *caller) events() func() (event, data string) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), "GET", c.url+"/api/events", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { res.Body.Close() })
	lines := bufio.NewReader(res.Body)
	return func() (event, data string) {
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				c.t.Fatalf("read events: %v", err)
			}
			if line = strings.TrimSuffix(line, "\n"); line == "" {
				return event, data
			}
			key, value, _ := strings.Cut(line, ": ")
			if key == "event" {
				event = value
			} else {
				data = value
			}
		}
	}
}

func TestEventsTellAllThenWhatChanges(t *testing.T) {
	devices := many(1100)
	c := newCaller(t, devices...)
	next := c.events()
	known := map[string]bool{}
	var order []string
	for {
		event, data := next()
		order = append(order, event)
		if event == "devices" {
			var batch []struct{ Token string }
			if err := json.Unmarshal([]byte(data), &batch); err != nil {
				t.Fatal(err)
			}
			for _, d := range batch {
				known[d.Token] = true
			}
		}
		if event == "synced" {
			break
		}
	}
	if order[0] != "hello" || len(known) != len(devices) {
		t.Errorf("events %q told %d devices, want hello first and %d devices", order, len(known), len(devices))
	}
	// A storm to one device: the page hears of the newest, not of each.
	for i := range 5000 {
		c.sim.SetBadge(devices[7].deviceToken(), uint32(i+1))
	}
	c.sim.RemoveDevice(devices[9].deviceToken())
	var gone bool
	changes := 0
	for newest := false; !newest || !gone; {
		event, data := next()
		switch event {
		case "devices":
			changes++
			newest = newest || strings.Contains(data, `"badge":5000,`)
		case "gone":
			gone = strings.Contains(data, devices[9].token())
		}
	}
	if changes > 100 {
		t.Errorf("5000 changes of a device made %d events, want few", changes)
	}
}

func TestTooManyPagesAreRefused(t *testing.T) {
	c := newCaller(t)
	for range 32 {
		next := c.events()
		if event, _ := next(); event != "hello" {
			t.Fatalf("first event is %q, want hello", event)
		}
	}
	c.want("GET", "/api/events", "", 503, `"rule":"max_streams"`)
}
