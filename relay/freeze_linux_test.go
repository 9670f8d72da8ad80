package relay

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
)

// childVariable, in the environment, makes TestStoppedRelay the relay that is
// stopped: APNs' address, its authority and the key, and MaxInFlight.
const childVariable = "RELAY_TEST_STOPPED"

// TestStoppedRelay stops a relay's process with SIGSTOP while a count waits, for
// longer than its pulse bears, and lets it go on. A relay alone sends the count.
func TestStoppedRelay(t *testing.T) {
	if role := os.Getenv(childVariable); role != "" {
		stoppedRelay(t, strings.Split(role, " "))
		return
	}
	for _, test := range []struct {
		maxInFlight time.Duration
		says        string
		badge       uint32
	}{
		{12 * time.Second, "abandoned", 1}, // its pulse tolerates two seconds, so that a busy machine does not trip it
		{0, "delivered", 2},
	} {
		t.Run(test.says, func(t *testing.T) {
			key, authority := faultKeys()
			sim, address := serveSimulator(t, key, authority)
			der, err := x509.MarshalECPrivateKey(key)
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestStoppedRelay$", "-test.timeout=60s")
			cmd.Env = append(os.Environ(), childVariable+"="+strings.Join([]string{
				address, base64.StdEncoding.EncodeToString(authority.PEM()), base64.StdEncoding.EncodeToString(der), test.maxInFlight.String(),
			}, " "))
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stderr = t.Output()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			said := bufio.NewScanner(out)
			wantLine(t, said, "held")
			if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			time.Sleep(4 * time.Second) // the count's window, and the pulse, end meanwhile
			if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			wantLine(t, said, test.says)
			if err := cmd.Wait(); err != nil {
				t.Fatal(err)
			}
			if d, known := sim.Device(phone(1)); !known || d.Badge != test.badge {
				t.Errorf("the device shows %d, want %d", d.Badge, test.badge)
			}
		})
	}
}

// wantLine passes over what else the child prints.
func wantLine(t *testing.T, said *bufio.Scanner, want string) {
	t.Helper()
	for said.Scan() {
		if line, ours := strings.CutPrefix(said.Text(), "relay: "); ours {
			if line != want {
				t.Fatalf("the relay says %q, want %q", line, want)
			}
			return
		}
	}
	t.Fatalf("the relay ended before it said %q", want)
}

// serveSimulator serves a simulator of APNs on loopback until the test's end.
func serveSimulator(t *testing.T, key *ecdsa.PrivateKey, authority *apnstest.Authority) (*apnstest.Simulator, string) {
	t.Helper()
	sim, err := apnstest.New(apnstest.Config{
		Authority: authority, Hosts: []string{"push.example"}, AcceptUnknownDevices: true,
		TeamKeys: []apnstest.TeamKey{{TeamID: "TEAM000001", KeyID: "KEY0000001", Key: &key.PublicKey}},
	})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- sim.Serve(listener) }() // ends with Close
	t.Cleanup(func() {
		sim.Close()
		_ = listener.Close() // Close may have done it
		if err := <-served; err != nil {
			t.Log(err) // of the listener, perhaps
		}
	})
	return sim, listener.Addr().String()
}

// stoppedRelay is the child: it has one count delivered, holds another one in its
// window, and says how that ended.
func stoppedRelay(t *testing.T, role []string) {
	maxInFlight, err := time.ParseDuration(role[3])
	if err != nil {
		t.Fatal(err)
	}
	registry := newMemoryRegistry()
	r := newRelay(t, registry, func(c *Config) { c.Window, c.MaxInFlight = 3*time.Second, maxInFlight })
	pool := childPool(t, r, role)
	r.SetWake(app, pool.Wake)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.Run(ctx) })
	wg.Go(func() { _ = pool.Run(ctx) })
	defer wg.Wait()
	defer cancel()

	registry.subscribe(org, "a", phone(1))
	s := r.OpenStream(org, "mx")
	defer s.Close()
	for i := range uint64(2) {
		if err := s.Submit(ctx, i+1, []Event{count("a", uint32(i+1))}); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if _, err := s.Next(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	fmt.Println("relay: held")
	settled, err := s.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	outcome := OutcomeDelivered
	if len(settled.Outcomes) > 0 {
		outcome = settled.Outcomes[0].Outcome
	}
	fmt.Printf("relay: %v\n", outcome)
}

func childPool(t *testing.T, r *Relay, role []string) *apns.Pool {
	t.Helper()
	decode := func(s string) []byte {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	key, err := x509.ParseECPrivateKey(decode(role[2]))
	if err != nil {
		t.Fatal(err)
	}
	token, err := apns.NewTokenSource(apns.TokenConfig{Key: key, KeyID: "KEY0000001", TeamID: "TEAM000001"})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(decode(role[1]))
	pool, err := apns.NewPool(apns.Config{
		App: app, Topic: app, Addr: "push.example:443", Token: token, RootCAs: roots, Source: r.Source(app),
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, role[0])
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return pool
}
