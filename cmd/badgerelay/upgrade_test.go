package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"badgerelay/apns/apnstest"
	"badgerelay/cmd/badgerelay/internal/daemon"
	"badgerelay/cmd/internal/command"
	"badgerelay/relay/agent"
	"badgerelay/relay/freeport"
)

// swapMailboxes change one after the other while a relay is replaced: each
// once a second.
const swapMailboxes = 200

// swap is agents under load, with a clock on every badge, whose relays are
// processes that come and go.
type swap struct {
	*enrolled
	addresses []string // of the relays
	configs   []string // the same
	agents    []*agent.Agent

	mu       sync.Mutex // guards what follows
	due      [swapMailboxes][]dueCount
	newest   [swapMailboxes]uint32
	shown    [swapMailboxes]uint32
	fell     int             // how often a device went back to an older count
	behind   []time.Duration // how long each count took to show, itself or a newer one
	failures []agent.Failure
}

// dueCount is a count that its device does not show yet.
type dueCount struct {
	count uint32
	since time.Time
}

// newSwap enrols an organization at relay processes, and starts its agents.
// settings are the relays'; without a registry it is a file, for a relay alone.
func newSwap(t *testing.T, relays, agents int, settings string) (s *swap, running []*exec.Cmd) {
	t.Helper()
	f := newFiles(t)
	sim, app := apple(t, f)
	certificate, key := f.pair(t, "relay")
	addresses := freeAddresses(t, relays)
	s = &swap{addresses: addresses, enrolled: &enrolled{sim: sim, caFile: certificate, served: &served{Serving: daemon.Serving{Admin: f.path("admin.sock")}, log: &logbook{}}}}
	for i := range relays {
		own := f
		if i > 0 {
			own = newFiles(t)
		}
		s.configs = append(s.configs, own.base(t, fmt.Sprintf(`
listen: {address: "%s", tls: {certificate_file: %s, key_file: %s}}
auth: {authorities: [localhost]}
%s
%s`, addresses[i], certificate, key, settings, app)))
	}
	for i := range relays {
		running = append(running, s.begin(t, i))
	}
	s.enrol(t, f)
	t.Cleanup(s.sim.Watch(s.shows))
	for i := range agents {
		at := i % relays
		s.runAgent(t, append(slices.Clone(addresses[at:]), addresses[:at]...))
	}
	return s, running
}

// subscribeAll puts a device on each mailbox.
func (s *swap) subscribeAll(t *testing.T) {
	t.Helper()
	var list strings.Builder
	for i := range swapMailboxes {
		d := numberedDevice(t, i)
		s.sim.RegisterDevice(d, "com.example.mail", apnstest.Production, apnstest.Meta{Mailbox: mailboxName(i)})
		fmt.Fprintf(&list, "%s,mail,%s\n", mailboxName(i), d.Hex())
	}
	code, out := executeWith(t, list.String(), "subscription", "import", "--organization", enrolledOrganization, "--admin", s.Admin)
	if code != command.Done {
		t.Fatalf("import = %d: %s", code, out)
	}
}

// freeAddresses returns addresses that programs can take, one after the other.
func freeAddresses(t *testing.T, n int) (addresses []string) {
	t.Helper()
	for range n {
		free, err := freeport.Address()
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, free)
	}
	return addresses
}

func mailboxName(i int) string { return fmt.Sprintf("mailbox-%d", i) }

// begin starts a process of the i-th relay and waits until it serves.
func (s *swap) begin(t *testing.T, i int, environment ...string) *exec.Cmd {
	t.Helper()
	c, lines := programWith(t, environment, "serve", "--config", s.configs[i])
	waitLine(t, lines, "msg=serving")
	log := s.log
	go func() { // ends with the program
		for line := range lines {
			_, _ = fmt.Fprintln(log, line) // a string takes all
		}
	}()
	return c
}

// runAgent starts one more agent.
func (s *swap) runAgent(t *testing.T, addresses []string) {
	t.Helper()
	name := fmt.Sprint("mx", len(s.agents)+1)
	a, err := agent.New(agent.Config{
		Addresses: addresses, TLS: &tls.Config{RootCAs: roots(t, s.caFile), ServerName: "localhost", MinVersion: tls.VersionTLS12},
		Token: s.issuer, AgentID: name, Name: name, Product: "test", ProductVersion: "1", OnFailure: func(f agent.Failure) {
			s.mu.Lock()
			s.failures = append(s.failures, f)
			s.mu.Unlock()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.agents = append(s.agents, a)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = a.Run(ctx) }) // ends with ctx
	t.Cleanup(func() { cancel(); wg.Wait() })
}

// shows takes the time of every count that a device shows, or has skipped.
func (s *swap) shows(d apnstest.Device) {
	raw := d.Token.AppendRaw(nil)
	i := int(raw[30])<<8 | int(raw[31])
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.Badge < s.shown[i] {
		s.fell++
	}
	s.shown[i] = d.Badge
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
			s.due[i], s.newest[i] = append(s.due[i], dueCount{n, time.Now()}), n
			s.mu.Unlock()
			if err := s.agents[i%len(s.agents)].Set(mailboxName(i), n, 1, uint64(n)); err != nil {
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
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	for _, a := range s.agents {
		if err := a.WaitSettled(ctx); err != nil {
			t.Fatalf("counts are not settled: %v; ledger %+v", err, a.Ledger())
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, due := range s.due {
		if len(due) > 0 {
			t.Errorf("device %d does not show %d, which is settled", i, due[len(due)-1].count)
		}
		if d, _ := s.sim.Device(numberedDevice(t, i)); d.Badge != s.newest[i] {
			t.Errorf("device %d shows %d, want %d", i, d.Badge, s.newest[i])
		}
	}
	if s.fell > 0 {
		t.Errorf("devices went back to an older count %d times", s.fell)
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
	s, running := newSwap(t, 1, 1, "relay: {coalescing_window: 50ms}")
	s.subscribeAll(t)
	old := running[0]
	stop := s.load(t)
	s.untilShown(t, 2*swapMailboxes)

	began := time.Now()
	send(t, old, syscall.SIGTERM)
	if err := old.Wait(); err != nil {
		t.Errorf("the old relay ended with %v, want 0", err)
	}
	gone := time.Since(began)
	relay := s.begin(t, 0)
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
	s.begin(t, 0)
	stop()
	s.settle(t)
}

// untilShown waits until so many counts have shown.
func (s *swap) untilShown(t *testing.T, n int) {
	t.Helper()
	timeout := time.After(testTimeout)
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
			t.Fatalf("%d of %d counts have shown; first ledger %+v", shown, n, s.agents[0].Ledger())
		}
	}
}

// report logs how long badges stayed behind, and returns the 99.9th percentile.
// The bound is wide: how fast a process starts is the machine's affair.
func (s *swap) report(t *testing.T, what string) (p999 time.Duration) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.behind)
	at := func(share float64) time.Duration {
		return s.behind[min(int(share*float64(len(s.behind))), len(s.behind)-1)].Round(time.Millisecond)
	}
	t.Logf("%s; %d badges behind for p50 %v, p99 %v, p99.9 %v, at most %v", what, len(s.behind), at(.5), at(.99), at(.999), at(1))
	if at(.999) > testTimeout/2 {
		t.Errorf("badges were behind for %v at the 99.9th percentile", at(.999))
	}
	return at(.999)
}
