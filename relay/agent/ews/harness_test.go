package ews_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/test/bufconn"

	"badgerelay/relay/agent/ews"
	"badgerelay/relay/agent/ews/ewstest"
	"badgerelay/relay/agent/source"
)

// rig is a source at a simulated Exchange, in a bubble: an hour takes no time.
type rig struct {
	t      *testing.T
	server *ewstest.Server
	config ews.Config
	source *ews.Source
	sink   *sink
	stop   func()
	log    bytes.Buffer // the source's; read it when nothing runs
}

// sink keeps the newest count of each mailbox.
type sink struct {
	mu     sync.Mutex
	counts map[string]uint32
	number int
}

// Counted implements source.Sink.
func (s *sink) Counted(c source.Count) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[c.Mailbox] = c.Unread
	s.number++
}

// Changed implements source.Sink.
func (s *sink) Changed(string) {}

// Recovered implements source.Sink.
func (s *sink) Recovered() {}

// Missed implements source.Sink.
func (s *sink) Missed() {}

func (s *sink) all() map[string]uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.counts)
}

const (
	account  = `FABRIKAM\badgeagent`
	password = "correct horse"
)

// people are mailboxes.
func people(n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("user%04d@fabrikam.com", i))
	}
	return all
}

// bubble runs a test of a source at a server, under fake time. Nobody is watched
// yet.
func bubble(t *testing.T, server ewstest.Config, config ews.Config, test func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, sink: &sink{counts: make(map[string]uint32)}}
		if server.User == "" {
			server.User, server.Password = account, password
		}
		var err error
		if r.server, err = ewstest.New(server); err != nil {
			t.Fatal(err)
		}
		network := &network{}
		network.listen(r.server)
		config.Dial = network.dial
		if config.URL == "" && config.Autodiscover == "" {
			config.URL = "http://127.0.0.1" + ewstest.Path
		}
		if config.Credentials == nil {
			config.Credentials = ews.BasicLogin(account, password)
		}
		config.Logger = slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		r.config = config
		r.restart()
		test(r)
		r.stop()
		r.server.Stop()
		for _, v := range r.server.Violations() {
			t.Errorf("the server holds against the source: %s", v)
		}
		for _, secret := range []string{password, base64.StdEncoding.EncodeToString([]byte(account + ":" + password))} {
			if strings.Contains(r.log.String(), secret) {
				t.Error("the log holds the password")
			}
		}
		if t.Failed() {
			t.Logf("the source's log:\n%s", r.log.String())
		}
	})
}

// network is where a server in memory listens, again after each start.
type network struct {
	mu       sync.Mutex
	listener *bufconn.Listener
}

func (n *network) listen(s *ewstest.Server) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listener = bufconn.Listen(64 << 10)
	s.Serve(n.listener)
}

func (n *network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listener
	n.mu.Unlock()
	return l.DialContext(ctx)
}

// restart makes a new source, as another process would, and watches what the old
// one was told to.
func (r *rig) restart() {
	source, err := ews.New(r.config)
	if err != nil {
		r.t.Fatal(err)
	}
	r.source = source
	r.watch(slices.Collect(maps.Keys(r.sink.all()))...)
	r.run()
}

// run starts the source.
func (r *rig) run() {
	ctx, cancel := context.WithCancel(r.t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := r.source.Run(ctx, r.sink); err != nil {
			r.t.Errorf("Run: %v", err)
		}
	})
	r.stop = func() { cancel(); running.Wait() }
}

func (r *rig) watch(mailboxes ...string) {
	for _, m := range mailboxes {
		r.source.Watch(m)
	}
}

// within lets d pass, and checks that every mailbox has the server's count then.
func (r *rig) within(d time.Duration, why string, mailboxes ...string) {
	r.t.Helper()
	time.Sleep(d)
	synctest.Wait()
	counts := r.sink.all()
	wrong := 0
	for _, m := range mailboxes {
		if got, known := counts[m]; !known || got != r.server.Unread(m) {
			if wrong++; wrong <= 3 {
				r.t.Errorf("%s: %s has %d (known: %v), the server says %d", why, m, got, known, r.server.Unread(m))
			}
		}
	}
	if wrong > 3 {
		r.t.Errorf("%s: and %d more of %d", why, wrong-3, len(mailboxes))
	}
}
