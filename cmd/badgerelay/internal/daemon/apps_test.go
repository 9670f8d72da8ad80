package daemon

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/cmd/internal/process"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
)

// TestAppsAddedWhenThePoolsHaveEnded reloads in the moment between the end of
// the pools by themselves and the daemon's: it must not wait for them.
func TestAppsAddedWhenThePoolsHaveEnded(t *testing.T) {
	token, _ := appToken(t)
	next := &config.Config{Apps: []config.App{{Topic: "com.example.one", Token: token}, {Topic: "com.example.two", Token: token}}}
	synctest.Test(t, func(t *testing.T) { // where a wait without end is a failure at once
		d := withApps(t, &config.Config{})
		start, err := d.rereadApps(next)
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

// appToken makes a key of Apple's in a file.
func appToken(t *testing.T) (config.AppToken, *ecdsa.PublicKey) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "provider.p8")
	key, err := apnstest.WriteSigningKey(file)
	if err != nil {
		t.Fatal(err)
	}
	return config.AppToken{KeyFile: file, KeyID: "ABCDEFGHIJ", TeamID: "KLMNOPQRST"}, key
}

// withApps is a daemon that has come as far as its apps.
func withApps(t *testing.T, c *config.Config) *daemon {
	t.Helper()
	d := &daemon{config: c, registry: failing{}, Daemon: process.Daemon{Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)}}
	var err error
	if d.relay, err = relay.New(relay.Config{Subscriptions: d.registry, Registerer: d.Metrics}); err != nil {
		t.Fatal(err)
	}
	if err := d.buildApps(c); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestStatusOfApps tells two apps apart.
func TestStatusOfApps(t *testing.T) {
	token, _ := appToken(t)
	d := withApps(t, &config.Config{Apps: []config.App{
		{Topic: "com.example.one", Token: token},
		{Topic: "com.example.two", Name: "two", Token: token, Environment: "sandbox", Engine: "apns2"},
	}})
	got := d.status(t.Context()).GetApps()
	want := []*pb.App{
		{Name: "com.example.one", Topic: "com.example.one", Environment: pb.Environment_ENVIRONMENT_PRODUCTION, Credential: "token", Engine: "native", State: "connecting"},
		{Name: "two", Topic: "com.example.two", Environment: pb.Environment_ENVIRONMENT_SANDBOX, Credential: "token", Engine: "apns2", State: "connecting"},
	}
	for i := range want {
		if len(got) != len(want) || !proto.Equal(got[i], want[i]) {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}

// TestPoolsStopSideBySide has four apps wait for answers that never come: the
// stop takes as long as one of them may, not four times that.
func TestPoolsStopSideBySide(t *testing.T) {
	const apps = 4
	token, key := appToken(t)
	authority, err := apnstest.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	device, err := apns.DeviceTokenFromBytes(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		c := &config.Config{DrainBudget: config.Duration(3 * time.Second)} // a third of it is the pools'
		d := withApps(t, c)
		sim, err := apnstest.New(apnstest.Config{
			Authority: authority, AcceptUnknownDevices: true,
			TeamKeys: []apnstest.TeamKey{{TeamID: token.TeamID, KeyID: token.KeyID, Key: key}},
			Topics:   []string{"0", "1", "2", "3"},
			Faults:   apnstest.Faults{Rates: map[apnstest.Fault]float64{apnstest.FaultStallStream: 1}},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer sim.Close()
		for i := range apps {
			one := &config.App{Topic: strconv.Itoa(i), Token: token}
			cfg, err := d.poolConfig(one)
			if err != nil {
				t.Fatal(err)
			}
			cfg.Dial, cfg.RootCAs = sim.Dial, authority.Pool()
			if _, err := d.startApp(one, cfg); err != nil {
				t.Fatal(err)
			}
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.runPools(ctx) }() // ends with ctx
		var wg sync.WaitGroup
		defer wg.Wait()
		for _, a := range d.apps.all() {
			wg.Go(func() { _, _ = a.pool.Push(t.Context(), apns.Request{Device: device}) }) // ends with the pool
		}
		time.Sleep(time.Second) // to connect
		if n := sim.Stats().Requests; n != apps {
			t.Fatalf("%d pushes have arrived, want %d", n, apps)
		}
		began := time.Now()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if took, one := time.Since(began), poolDrain(c); took < one || took >= 2*one {
			t.Errorf("the pools took %v to stop, want %v", took, one)
		}
	})
}
