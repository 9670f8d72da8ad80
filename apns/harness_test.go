package apns_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"log/slog"
	"sync"
	"testing"
	"time"

	"badgerelay/apns"
	"badgerelay/apns/apnstest"
)

const (
	testTopic  = "com.example.mail"
	testTeam   = "TEAM000001"
	testKeyID  = "KEY0000001"
	testServer = "push.example:443"
)

// testKeys are made once, outside every bubble.
var testKeys = sync.OnceValue(func() (k struct {
	key    *ecdsa.PrivateKey
	server tls.Certificate
	roots  *x509.CertPool
}) {
	var err error
	if k.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		panic(err)
	}
	authority, err := apnstest.NewAuthority()
	if err != nil {
		panic(err)
	}
	if k.server, err = authority.ServerCertificate(time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), "push.example"); err != nil {
		panic(err)
	}
	k.roots = authority.Pool()
	return k
})

// device returns the n-th test device.
func device(n int) apns.DeviceToken {
	var raw [32]byte
	binary.BigEndian.PutUint64(raw[24:], uint64(n)+1)
	d, err := apns.DeviceTokenFromBytes(raw[:])
	if err != nil {
		panic(err)
	}
	return d
}

func newTokenSource(tb testing.TB) *apns.TokenSource {
	tb.Helper()
	s, err := apns.NewTokenSource(apns.TokenConfig{Key: testKeys().key, KeyID: testKeyID, TeamID: testTeam})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// source is an apns.Source that hands out what a test puts into it, and sees
// to it that everything comes back exactly once.
type source struct {
	tb   testing.TB
	wake func()

	mu      sync.Mutex
	queue   []apns.Request
	open    map[any]bool
	results []apns.Result
	resend  bool // put what is to be sent again back into the queue
	request map[any]apns.Request
}

func newSource(tb testing.TB) *source {
	return &source{tb: tb, open: make(map[any]bool), request: make(map[any]apns.Request), wake: func() {}}
}

// put queues n pushes with tags first, first+1, …; each to a device of its own.
func (s *source) put(first, n int) {
	s.mu.Lock()
	for i := first; i < first+n; i++ {
		r := apns.Request{Device: device(i), Badge: uint32(i), Priority: apns.PriorityImmediate, Tag: i}
		if i%2 == 1 {
			r.Priority = apns.PriorityPower
		}
		s.queue = append(s.queue, r)
		s.request[i] = r
	}
	s.mu.Unlock()
	s.wake()
}

func (s *source) Take(dst []apns.Request) (n, more int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = copy(dst, s.queue)
	for _, r := range s.queue[:n] {
		if s.open[r.Tag] {
			s.tb.Errorf("push %v was taken twice", r.Tag)
		}
		s.open[r.Tag] = true
	}
	s.queue = s.queue[n:]
	return n, len(s.queue)
}

func (s *source) Done(results []apns.Result) {
	s.mu.Lock()
	again := false
	for _, r := range results {
		if !s.open[r.Tag] {
			s.tb.Errorf("push %v came back without having been taken", r.Tag)
		}
		delete(s.open, r.Tag)
		s.results = append(s.results, r)
		if s.resend && r.Err.Verdict() == apns.VerdictResend {
			s.queue = append(s.queue, s.request[r.Tag])
			again = true
		}
	}
	s.mu.Unlock()
	if again {
		s.wake()
	}
}

// took returns how many are taken and not back, and how many were never taken.
func (s *source) took() (open, queued int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open), len(s.queue)
}

// reset returns the results so far and forgets them.
func (s *source) reset() []apns.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.results
	s.results = nil
	return r
}

// accepted counts the results without an error.
func (s *source) accepted() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.results {
		if r.Err == nil {
			n++
		}
	}
	return n
}

// reasons counts results by reason; "" is accepted.
func reasons(results []apns.Result) map[apns.Reason]int {
	m := make(map[apns.Reason]int)
	for _, r := range results {
		if r.Err == nil {
			m[""]++
		} else {
			m[r.Err.Reason]++
		}
	}
	return m
}

// fixture is a running pool.
type fixture struct {
	*source
	pool   *apns.Pool
	cancel context.CancelFunc
	ended  chan struct{}
}

// startPool runs a pool with test defaults until the test ends.
func startPool(tb testing.TB, c apns.Config) *fixture {
	tb.Helper()
	src := newSource(tb)
	c.App, c.Topic, c.Addr = "mail", testTopic, testServer
	if c.RootCAs == nil {
		c.RootCAs = testKeys().roots
	}
	if c.Source == nil {
		c.Source = src
	}
	if c.Token == nil && c.Certificate == nil {
		c.Token = newTokenSource(tb)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.ConnectsPerSecond == 0 {
		c.ConnectsPerSecond = 1000
	}
	p, err := apns.NewPool(c)
	if err != nil {
		tb.Fatal(err)
	}
	return runPool(tb, p, src)
}

// runPool runs a pool until the test ends.
func runPool(tb testing.TB, p *apns.Pool, src *source) *fixture {
	f := &fixture{source: src, pool: p, ended: make(chan struct{})}
	src.wake = p.Wake
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	go func() { // ends with ctx; stop waits
		defer close(f.ended)
		if err := p.Run(ctx); err != nil {
			tb.Errorf("Run returned %v", err)
		}
	}()
	tb.Cleanup(f.stop)
	return f
}

// stop ends the pool and checks that nothing was kept.
func (f *fixture) stop() {
	f.cancel()
	<-f.ended
	if open, _ := f.took(); open != 0 {
		f.tb.Errorf("%d pushes were taken and never came back", open)
	}
}
