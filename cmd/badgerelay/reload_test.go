package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"badgerelay/apns/apnstest"
	"badgerelay/cmd/internal/command"
)

func TestReloadAddsAnApp(t *testing.T) {
	var f files
	r := startRelayWith(t, func(g files) string { f = g; return "" })
	r.subscribe(t, "ann", 1)
	r.publish(t, "ann", 3)
	device := numberedDevice(t, 2)
	r.sim.AddTopic("com.example.tablet")
	r.sim.RegisterDevice(device, "com.example.tablet", apnstest.Production, apnstest.Meta{})
	add := []string{"subscription", "add", "--organization", enrolledOrganization, "--mailbox", "bob", "--app", "tablet", "--device-token", device.Hex(), "--admin", r.Admin}
	want(t, command.Failed, "APP_UNKNOWN", add...)

	before, err := os.ReadFile(f.path("badgerelay.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	mail := string(before[strings.Index(string(before), "  - name: mail"):])
	tablet := strings.NewReplacer("name: mail", "name: tablet", "com.example.mail", "com.example.tablet").Replace(mail)
	f.write(t, "badgerelay.yaml", string(before)+strings.Replace(tablet, "provider.p8", "missing.p8", 1))
	r.hup()
	r.log.wait(t, "keeping the previous configuration")
	want(t, command.Failed, "APP_UNKNOWN", add...)

	f.write(t, "badgerelay.yaml", string(before)+tablet)
	r.hup()
	r.log.wait(t, "app added")
	r.log.wait(t, "reloaded certificates, authorities, new apps")
	want(t, command.Done, "tablet", "app", "list", "--admin", r.Admin)
	want(t, command.Done, "apns tablet", "probe", "--admin", r.Admin)
	want(t, command.Done, "", add...)
	r.publish(t, "bob", 5)
	r.wantBadge(t, 2, 5)
	r.publish(t, "ann", 4)
	r.wantBadge(t, 1, 4)

	f.write(t, "badgerelay.yaml", string(before)) // without it: that waits for a restart
	r.hup()
	r.log.wait(t, "sections=[apps]")
	r.publish(t, "bob", 6)
	r.wantBadge(t, 2, 6)
	if code := r.stop(t); code != command.Done {
		t.Errorf("exit code %d, want %d", code, command.Done)
	}
}

// An app that was taken out of the configuration keeps its subscriptions: when
// it comes back, they count again, also for mailboxes that are in memory.
func TestReloadBringsAnAppBack(t *testing.T) {
	var f files
	r := startRelayWith(t, func(g files) string { f = g; return "" })
	r.subscribe(t, "ann", 1)
	file := f.path("badgerelay.yaml")
	all, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r.stop(t)
	without, _, _ := strings.Cut(string(all), "apps:")
	f.write(t, "badgerelay.yaml", without)
	r.served = serve(t, file)
	want(t, command.Done, "Ready", "status", "--admin", r.Admin)
	_, port, _ := strings.Cut(r.Agents, ":")
	r.address = "localhost:" + port
	r.publishAs(t, "ann", 7, "OUTCOME_NO_SUBSCRIPTION")
	f.write(t, "badgerelay.yaml", string(all))
	r.hup()
	r.log.wait(t, "app added")
	r.log.wait(t, "reloaded certificates, authorities, new apps")
	r.publish(t, "ann", 8)
	r.wantBadge(t, 1, 8)
}

// TestHungReloadDoesNotHoldUpTheEnd has the configuration be where nothing comes
// from, as on a file system that is away.
func TestHungReloadDoesNotHoldUpTheEnd(t *testing.T) {
	f := newFiles(t)
	file := f.base(t, "")
	s := serve(t, file)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close() // so that the reader ends
	s.hup()
	if _, err := w.WriteString(strings.Repeat("#", 128<<10)); err != nil { // more than a pipe holds: it is being read then
		t.Fatal(err)
	}
	if text, _ := s.log.read(); strings.Contains(text, "reload refused") {
		t.Fatalf("the reload does not hang:\n%s", text)
	}
	if code := s.stop(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// TestReloadComparesWithWhatRuns: what waits for a restart is told each time, and
// no longer when the file says again what runs.
func TestReloadComparesWithWhatRuns(t *testing.T) {
	var f files
	r := startRelayWith(t, func(g files) string { f = g; return "" })
	before, err := os.ReadFile(f.path("badgerelay.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	reload := func(content string, lines ...string) {
		t.Helper()
		said, _ := r.log.read()
		f.write(t, "badgerelay.yaml", content)
		r.hup()
		for _, line := range append(lines, "reloaded certificates") {
			r.log.waitAfter(t, len(said), line)
		}
	}
	pending := strings.Replace(string(before), "drain_budget: 4s", "drain_budget: 5s", 1)
	for range 2 {
		reload(pending, "sections=[drain_budget]")
	}
	if text, _ := r.log.read(); strings.Count(text, "sections=[drain_budget]") != 2 {
		t.Errorf("the pending change was told of %d times, want 2", strings.Count(text, "sections=[drain_budget]"))
	}
	reload(string(before))
	reload(string(before)) // by now the first has said all
	if text, _ := r.log.read(); strings.Count(text, "wait for a restart") != 2 {
		t.Errorf("with what runs it still warns:\n%s", text)
	}
}

// TestReloadReadsAuthorities: APNs gets a certificate of another authority, and
// connections are made again once ca_file names that.
func TestReloadReadsAuthorities(t *testing.T) {
	f := newFiles(t)
	_, app := apple(t, f)
	right, err := os.ReadFile(f.path("apple.crt"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := apnstest.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "apple.crt", string(other.PEM()))
	s := serve(t, f.base(t, app))
	want(t, command.Failed, "ResultType : Failed", "probe", "--admin", s.Admin)
	f.write(t, "apple.crt", "no certificate")
	s.hup()
	s.log.wait(t, "reload refused; keeping the previous configuration")
	if text, _ := s.log.read(); strings.Contains(text, "reloaded") {
		t.Errorf("a refused reload says:\n%s", text)
	}
	f.write(t, "apple.crt", string(right))
	s.hup()
	s.log.wait(t, "reloaded certificates")
	want(t, command.Done, "ResultType : Succeeded", "probe", "--admin", s.Admin)
}

// TestForeignCertificate starts a relay whose certificate does not name it: its log, at
// the start and after a reload, and its probe say so, since only agents would notice.
func TestForeignCertificate(t *testing.T) {
	f := newFiles(t)
	certificate, key := f.pair(t, "server")
	s := serve(t, f.base(t, fmt.Sprintf(`
listen: {address: "127.0.0.1:0", tls: {certificate_file: %s, key_file: %s}}
auth: {authorities: ["relay.example.com:8443"]}
`, certificate, key)))
	const says = "the certificate is for localhost, 127.0.0.1 and not for relay.example.com"
	s.log.wait(t, says)
	want(t, command.Failed, says, "probe", "--admin", s.Admin)
	said, _ := s.log.read()
	s.hup() // a new certificate may be as wrong
	s.log.waitAfter(t, len(said), "reloaded certificates")
	if text, _ := s.log.read(); !strings.Contains(text[len(said):], says) {
		t.Errorf("the reload does not warn:\n%s", text[len(said):])
	}
}
