package main

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"badgerelay/cmd/internal/child"
)

// besideTurn is how long badges are measured without trouble, and then with it,
// in turn, so that what else the machine does is beside both.
const besideTurn = 500 * time.Millisecond

// TestAgentBesideTrouble measures how long badges are behind without trouble and
// beside it. The bounds are for machines that are busy with other things; the log
// says what it was.
func TestAgentBesideTrouble(t *testing.T) {
	for _, test := range []struct {
		name   string
		within float64                                                  // times the p99 without
		share  float64                                                  // of a core, of the relay's beyond that without; 0: any
		begin  func(t *testing.T, s *swap, log *pausedLog) (end func()) // of a turn
	}{
		{"a log that nobody reads", 2, 0, func(t *testing.T, _ *swap, log *pausedLog) func() {
			log.pause(t)
			return log.goOn
		}},
		{"four strangers", 3, 0.1, func(t *testing.T, s *swap, _ *pausedLog) func() {
			v := &victim{t: t, address: s.addresses[0], trust: s.trust(t), from: &net.TCPAddr{IP: net.IPv4(127, 0, 4, 1)}}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() { strangers[0].attack(ctx, v) }) // ends with ctx
			}
			return func() { cancel(); wg.Wait() }
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, running := newSwap(t, 1, 1, "relay: {coalescing_window: 0s}\nlog: {format: text, level: debug}")
			s.subscribeAll(t)
			log := s.beginPaused(t, running[0])
			relay := log.relay
			stop := s.load(t)
			s.untilShown(t, 2*swapMailboxes)
			var quiet, beside turns
			first := test.begin(t, s, log) // the first second may cost more
			time.Sleep(time.Second)
			first()
			for range 3 {
				quiet.measure(t, s, relay)
				end := test.begin(t, s, log)
				beside.measure(t, s, relay)
				end()
			}
			stop()
			s.settle(t)
			factor := float64(beside.p99()) / float64(quiet.p99())
			t.Logf("p50 %v and p99 %v without, %v and %v beside it: %.1f times; %.3f and %.3f of a core", quiet.at(.5), quiet.p99(),
				beside.at(.5), beside.p99(), factor, quiet.share(), beside.share())
			if factor > test.within && beside.p99() > 250*time.Millisecond {
				t.Errorf("badges are behind for %.1f times as long, want %v", factor, test.within)
			}
			if more := beside.share() - quiet.share(); test.share > 0 && more > test.share*detectorCost {
				t.Errorf("it costs the relay %.2f of a core, want %v", more, test.share)
			}
		})
	}
}

// turns is what was measured in some.
type turns struct {
	behind    []time.Duration
	used, was time.Duration
}

func (m *turns) measure(t *testing.T, s *swap, relay *exec.Cmd) {
	t.Helper()
	used := func() time.Duration {
		u, err := child.UsageOf(relay.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		return u.CPU
	}
	s.mu.Lock()
	s.behind = nil
	s.mu.Unlock()
	before, began := used(), time.Now()
	time.Sleep(besideTurn) // a real process, not a bubble
	m.used += used() - before
	m.was += time.Since(began)
	s.mu.Lock()
	defer s.mu.Unlock()
	m.behind = append(m.behind, s.behind...)
}

func (m *turns) share() float64 { return float64(m.used) / float64(m.was) }

func (m *turns) at(share float64) time.Duration {
	slices.Sort(m.behind)
	return m.behind[int(share*float64(len(m.behind)-1))].Round(10 * time.Microsecond)
}

func (m *turns) p99() time.Duration { return m.at(.99) }

// trust is that of the relays' certificate.
func (s *swap) trust(t *testing.T) *tls.Config {
	t.Helper()
	return &tls.Config{RootCAs: roots(t, s.caFile), ServerName: "localhost", NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12}
}

// pausedLog is a relay's log, in a pipe of 4 KiB, that is read or not.
type pausedLog struct {
	relay   *exec.Cmd
	pipe    *os.File
	reading sync.Mutex // held while it is not read
}

// pause stops reading, and has the relay say more than the pipe takes.
func (l *pausedLog) pause(t *testing.T) {
	t.Helper()
	l.reading.Lock()
	soon(t, "the pipe is full", func() bool {
		send(t, l.relay, syscall.SIGHUP) // says some lines; signals that come together are one
		waiting, err := unix.IoctlGetInt(int(l.pipe.Fd()), unix.TIOCINQ)
		if err != nil {
			t.Fatal(err)
		}
		return waiting > 3500
	})
}

func (l *pausedLog) goOn() { l.reading.Unlock() }

// beginPaused starts the relay anew, with such a log.
func (s *swap) beginPaused(t *testing.T, old *exec.Cmd) *pausedLog {
	t.Helper()
	send(t, old, syscall.SIGTERM)
	if err := old.Wait(); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), exe, "serve", "--config", s.configs[0])
	c.Env, c.Stderr = append(os.Environ(), asProgram+"=1"), w
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close() // the relay has its own
	l := &pausedLog{relay: c, pipe: r}
	s.log = &logbook{}
	ended := make(chan struct{})
	go func() { // ends with the relay
		defer close(ended)
		for chunk := make([]byte, 1024); ; {
			n, err := r.Read(chunk)
			if err != nil {
				return
			}
			l.reading.Lock()
			_, _ = s.log.Write(chunk[:n]) // a string takes all
			l.reading.Unlock()
		}
	}()
	t.Cleanup(func() { // it has settled all
		_, _ = c.Process.Kill(), c.Wait()
		_ = l.reading.TryLock() // held already by a pause that failed
		l.goOn()
		<-ended
		_ = r.Close()
	})
	s.log.wait(t, "msg=serving")
	return l
}
