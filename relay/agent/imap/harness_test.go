package imap

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"badgerelay/relay/agent/imap/imaptest"
	"badgerelay/relay/agent/source"
)

// sink keeps the newest count of each mailbox, and lets a test wait for one.
type sink struct {
	mu        sync.Mutex
	counts    map[string]source.Count
	total     int
	recovered int
	turned    chan struct{} // closed, and made anew, at each count
}

func newSink() *sink {
	return &sink{counts: make(map[string]source.Count), turned: make(chan struct{})}
}

// Counted implements source.Sink.
func (s *sink) Counted(c source.Count) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[c.Mailbox] = c
	s.total++
	close(s.turned)
	s.turned = make(chan struct{})
}

// Changed implements source.Sink.
func (s *sink) Changed(string) {}

// Missed implements source.Sink.
func (s *sink) Missed() {}

// Recovered implements source.Sink.
func (s *sink) Recovered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recovered++
}

// recoveries is how often the source said that a trouble is over.
func (s *sink) recoveries() int { s.mu.Lock(); defer s.mu.Unlock(); return s.recovered }

// mailboxes is how many have been counted, number how often.
func (s *sink) mailboxes() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.counts) }

func (s *sink) number() int { s.mu.Lock(); defer s.mu.Unlock(); return s.total }

// want waits until mailbox has the count.
func (s *sink) want(t *testing.T, mailbox string, unread uint32, why string) source.Count {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		s.mu.Lock()
		c, known := s.counts[mailbox]
		turned := s.turned
		s.mu.Unlock()
		if known && c.Unread == unread {
			return c
		}
		select {
		case <-turned:
		case <-late:
			t.Fatalf("%s has %d unread (known: %v), want %d: %s", mailbox, c.Unread, known, unread, why)
		}
	}
}

// ofDovecot is the configuration for a test's Dovecot, with its master user.
func ofDovecot(d *imaptest.Server) Config {
	return Config{
		Address: d.IMAP, Security: "none",
		Login: Master(imaptest.Master, imaptest.MasterPassword, ""),
	}
}

// run runs a source until the test ends.
func run(t *testing.T, c Config) (*Source, *sink) {
	t.Helper()
	c.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	counts := newSink()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx, counts); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return s, counts
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func users(n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("user%03d", i))
	}
	return all
}
