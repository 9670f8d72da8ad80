package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"badgerelay/apns/apnstest"
	"badgerelay/cmd/badgerelay/internal/daemon"
	"badgerelay/relay/agent"
)

// swapMailboxes change one after the other while a relay is replaced: each
// once a second.
const swapMailboxes = 200

// swap is an agent under load, with a clock on every badge, whose relay is a
// process that comes and goes.
type swap struct {
	*enrolled
	config string
	agent  *agent.Agent

	mu       sync.Mutex // guards what follows
	due      [swapMailboxes][]dueCount
	behind   []time.Duration // how long each count took to show, itself or a newer one
	failures []agent.Failure
}

// dueCount is a count that its device does not show yet.
type dueCount struct {
	count uint32
	since time.Time
}

// newSwap enrols an organization at a relay process, and starts its agent.
func newSwap(t *testing.T) (s *swap, relay *exec.Cmd) {
	t.Helper()
	f := newFiles(t)
	sim, app := apple(t, f)
	certificate, key := f.pair(t, "relay", 1)
	free, err := net.Listen("tcp", ownLoopback()+":0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close() // the relays take the port one after the other
	s = &swap{enrolled: &enrolled{sim: sim, caFile: certificate, served: &served{Serving: daemon.Serving{Admin: f.path("admin.sock")}}}}
	s.config = f.base(t, fmt.Sprintf(`
listen: {address: "%s", tls: {certificate_file: %s, key_file: %s}}
auth: {authorities: [localhost]}
relay: {coalescing_window: 50ms}
%s`, address, certificate, key, app))
	relay = s.begin(t)
	s.enrol(t, f)
	for i := range swapMailboxes {
		s.subscribe(t, mailboxName(i), i)
	}
	s.runAgent(t, address)
	return s, relay
}

// ownLoopback is an address of this process alone, so that a port stays free
// between two programs that take it: no connection begins at this address. Only
// Linux has more loopback addresses than the one.
func ownLoopback() string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1"
	}
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 128+pid>>16&0x7f, pid>>8&0xff, pid&0xff)
}

func mailboxName(i int) string { return fmt.Sprintf("mailbox-%d", i) }

// begin starts a relay process and waits until it serves.
func (s *swap) begin(t *testing.T) *exec.Cmd {
	t.Helper()
	c, lines := program(t, "serve", "--config", s.config)
	waitLine(t, lines, "msg=serving")
	go func() { // ends with the program
		for range lines {
			continue
		}
	}()
	return c
}

func (s *swap) runAgent(t *testing.T, address string) {
	t.Helper()
	pem, err := os.ReadFile(s.caFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	s.agent, err = agent.New(agent.Config{
		Addresses: []string{address}, TLS: &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12},
		Token: s.issuer, Name: "mx1", Product: "test", ProductVersion: "1", OnFailure: func(f agent.Failure) {
			s.mu.Lock()
			s.failures = append(s.failures, f)
			s.mu.Unlock()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.sim.Watch(s.shows))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.agent.Run(ctx) }) // ends with ctx
	t.Cleanup(func() { cancel(); wg.Wait() })
}

// shows takes the time of every count that a device shows, or has skipped.
func (s *swap) shows(d apnstest.Device) {
	raw := d.Token.AppendRaw(nil)
	i := int(raw[30])<<8 | int(raw[31])
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.due[i]) > 0 && s.due[i][0].count <= d.Badge {
		s.behind = append(s.behind, time.Since(s.due[i][0].since))
		s.due[i] = s.due[i][1:]
	}
}

// load counts mailbox after mailbox up, each once a second, until stopped or
// until the test ends.
func (s *swap) load(t *testing.T) (stop func()) {
	t.Helper()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // ends with done; stop waits
		tick := time.NewTicker(time.Second / swapMailboxes)
		defer tick.Stop()
		for n := uint32(swapMailboxes); ; n++ {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			i := int(n % swapMailboxes)
			s.mu.Lock()
			s.due[i] = append(s.due[i], dueCount{n, time.Now()})
			s.mu.Unlock()
			if err := s.agent.Set(mailboxName(i), n, 1, uint64(n)); err != nil {
				t.Errorf("set: %v", err)
			}
		}
	})
	stop = sync.OnceFunc(func() { close(done); wg.Wait() })
	t.Cleanup(stop)
	return stop
}

// settle waits until every device shows the newest count.
func (s *swap) settle(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.agent.WaitSettled(ctx); err != nil {
		t.Fatalf("counts are not settled: %v; ledger %+v", err, s.agent.Ledger())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, due := range s.due {
		if len(due) > 0 {
			t.Errorf("device %d does not show %d, which is settled", i, due[len(due)-1].count)
		}
	}
	for kind, times := range s.sim.ClientFaults() {
		if times > 0 {
			t.Errorf("the relays did wrong towards Apple: %s, %d times", kind, times)
		}
	}
}

// kinds returns why streams ended since the last call.
func (s *swap) kinds() (kinds []agent.FailureKind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.failures {
		kinds = append(kinds, f.Kind)
	}
	s.failures = nil
	return kinds
}

// TestUpgradeUnderLoad replaces the relay's process while counts change: in
// good order, then with a second signal that ends it at once.
func TestUpgradeUnderLoad(t *testing.T) {
	s, old := newSwap(t)
	stop := s.load(t)
	s.untilShown(t, 2*swapMailboxes)

	began := time.Now()
	send(t, old, syscall.SIGTERM)
	if err := old.Wait(); err != nil {
		t.Errorf("the old relay ended with %v, want 0", err)
	}
	gone := time.Since(began)
	relay := s.begin(t)
	back := time.Since(began)
	s.mu.Lock()
	shown := len(s.behind)
	s.mu.Unlock()
	s.untilShown(t, shown+3*swapMailboxes)
	kinds := s.kinds()
	if len(kinds) == 0 || kinds[0] != agent.FailureDraining {
		t.Errorf("the agent was told %v, want a drain notice first", kinds)
	}
	for _, k := range kinds {
		if k != agent.FailureDraining && k != agent.FailureUnavailable {
			t.Errorf("the agent was told %v, want nothing but the drain notice and nobody there", kinds)
		}
	}
	s.report(t, fmt.Sprintf("drain took %v, the next relay served after %v", gone.Round(time.Millisecond), back.Round(time.Millisecond)))

	send(t, relay, syscall.SIGTERM)
	_ = sendUntilEnd(t, relay, syscall.SIGTERM) // killed by the second signal, or faster than it
	s.begin(t)
	stop()
	s.settle(t)
}

// untilShown waits until so many counts have shown.
func (s *swap) untilShown(t *testing.T, n int) {
	t.Helper()
	timeout := time.After(patience)
	look := time.NewTicker(20 * time.Millisecond) // the simulator tells of badges by callback; a poll is enough here
	defer look.Stop()
	for {
		s.mu.Lock()
		shown := len(s.behind)
		s.mu.Unlock()
		if shown >= n {
			return
		}
		select {
		case <-look.C:
		case <-timeout:
			t.Fatalf("%d of %d counts have shown; ledger %+v", shown, n, s.agent.Ledger())
		}
	}
}

// report logs how long badges stayed behind. The bound is wide: how fast a
// process starts is the machine's affair.
func (s *swap) report(t *testing.T, what string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.behind)
	at := func(share float64) time.Duration {
		return s.behind[min(int(share*float64(len(s.behind))), len(s.behind)-1)].Round(time.Millisecond)
	}
	t.Logf("%s; %d badges behind for p50 %v, p99 %v, p99.9 %v, at most %v", what, len(s.behind), at(.5), at(.99), at(.999), at(1))
	if at(.999) > patience/2 {
		t.Errorf("badges were behind for %v at the 99.9th percentile", at(.999))
	}
}
