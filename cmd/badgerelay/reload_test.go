package main

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

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
	r.log.wait(t, "the configuration of before stays in force")
	want(t, command.Failed, "APP_UNKNOWN", add...)

	f.write(t, "badgerelay.yaml", string(before)+tablet)
	r.hup()
	r.log.wait(t, "app added")
	r.log.wait(t, "reloaded certificates, new apps")
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
	r.log.wait(t, "reloaded certificates, new apps")
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
	s.hup()
	time.Sleep(100 * time.Millisecond) // until it reads; a real file, not a bubble
	if code := s.stop(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	w, err := os.OpenFile(file, os.O_WRONLY|syscall.O_NONBLOCK, 0) // so that the reader ends
	if err == nil {
		_ = w.Close()
	}
}
