package main

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"badgerelay/apns/apnstest"
	"badgerelay/cmd/internal/command"
)

// TestRefusedApp has APNs refuse an app as a whole, whatever the device: its key is
// revoked, or its topic is not the team's. Everybody is told, nothing is lost, and
// every badge is shown when it is put right, without a restart.
func TestRefusedApp(t *testing.T) {
	key := apnstest.TeamKey{TeamID: "TEAM123456", KeyID: "KEYID12345"}
	for _, test := range []struct {
		name, reason string
		topic        string // of the app
		begin, end   func(s *swap)
	}{
		{"key revoked", "InvalidProviderToken", "com.example.mail",
			func(s *swap) { s.sim.RemoveTeamKey(key.TeamID, key.KeyID) }, func(s *swap) { s.sim.AddTeamKey(key) }},
		{"topic of another team", "TopicDisallowed", "com.example.other",
			func(*swap) {}, func(s *swap) { s.sim.AddTopic("com.example.other") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, running := newSwap(t, 1, 1, "relay: {coalescing_window: 50ms}")
			key.Key = publicKey(t, filepath.Join(filepath.Dir(s.configs[0]), "provider.p8"))
			s.restartWithTopic(t, running, test.topic)
			test.begin(s)
			for i := range swapMailboxes {
				s.set(t, i, 7)
			}
			soon(t, "the app counts as refused", func() bool {
				_, out := execute(t, "app", "list", "--admin", s.Admin)
				return strings.Contains(out, "refused") && strings.Contains(out, test.reason)
			})
			s.log.wait(t, test.reason)
			want(t, command.Failed, test.reason, "probe", "--admin", s.Admin)
			want(t, command.Done, "Subscriptions       : 200", "status", "--admin", s.Admin)
			if n := s.sim.ClientFaults()[apnstest.ClientChurn]; n > 0 {
				t.Errorf("%d connections too many", n)
			}
			if pending := s.ledger(t).GetPending(); pending != swapMailboxes {
				t.Errorf("%d counts wait, want all %d", pending, swapMailboxes)
			}
			test.end(s)
			s.settle(t)
			want(t, command.Done, "native  up", "app", "list", "--admin", s.Admin)
		})
	}
}

// restartWithTopic has the relay push with a topic, to devices that are registered for
// it.
func (s *swap) restartWithTopic(t *testing.T, running []*exec.Cmd, topic string) {
	t.Helper()
	s.subscribeAll(t)
	if topic == "com.example.mail" {
		return
	}
	for i := range swapMailboxes {
		s.sim.RegisterDevice(numberedDevice(t, i), topic, apnstest.Production, apnstest.Meta{Mailbox: mailboxName(i)})
	}
	config, err := os.ReadFile(s.configs[0])
	if err != nil {
		t.Fatal(err)
	}
	config = []byte(strings.ReplaceAll(string(config), "topic: com.example.mail", "topic: "+topic))
	if err := os.WriteFile(s.configs[0], config, 0o600); err != nil {
		t.Fatal(err)
	}
	send(t, running[0], syscall.SIGTERM)
	if err := running[0].Wait(); err != nil {
		t.Fatal(err)
	}
	s.begin(t, 0)
}

// publicKey returns the public part of a .p8.
func publicKey(t *testing.T, file string) *ecdsa.PublicKey {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return &key.(*ecdsa.PrivateKey).PublicKey
}
