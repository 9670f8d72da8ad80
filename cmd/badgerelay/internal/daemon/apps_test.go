package daemon

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"

	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/relay"
)

// TestAppsAddedWhenThePoolsHaveEnded reloads in the moment between the end of
// the pools by themselves and the daemon's: it must not wait for them.
func TestAppsAddedWhenThePoolsHaveEnded(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "AuthKey.p8")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	token := config.AppToken{KeyFile: file, KeyID: "ABCDEFGHIJ", TeamID: "KLMNOPQRST"}
	next := &config.Config{Apps: []config.App{{Topic: "com.example.one", Token: token}, {Topic: "com.example.two", Token: token}}}
	synctest.Test(t, func(t *testing.T) { // where a wait without end is a failure at once
		d := &daemon{config: &config.Config{}, registry: failing{}, metrics: prometheus.NewRegistry(), logger: slog.New(slog.DiscardHandler)}
		if d.relay, err = relay.New(relay.Config{Subscriptions: d.registry, Registerer: d.metrics}); err != nil {
			t.Fatal(err)
		}
		if err := d.buildApps(d.config); err != nil {
			t.Fatal(err)
		}
		start, err := d.newApps(next)
		if err != nil {
			t.Fatal(err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := d.runPools(ended); err != nil {
			t.Fatal(err)
		}
		if err := start(t.Context()); !errors.Is(err, errPoolsEnded) {
			t.Errorf("start = %v, want %v", err, errPoolsEnded)
		}
		if names := d.apps.names(); !slices.Equal(names, []string{"com.example.one"}) {
			t.Errorf("apps begun: %q, want the first of the file alone", names)
		}
	})
}
