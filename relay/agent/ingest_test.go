package agent_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"badgerelay/apns"
	"badgerelay/auth"
	"badgerelay/auth/authtest"
	"badgerelay/relay"
	"badgerelay/relay/agent"
	"badgerelay/relay/ingest"
	"badgerelay/relay/registry"
)

const (
	organization = "fabrikam.com"
	authority    = "relay.test"
	principal    = "0d5d5cb3-4f5c-4ab6-9d1c-1b6f5a2d6e11"
	app          = "com.fabrikam.mail"
)

// site is what several relays share: the registry and the phones.
type site struct {
	t        *testing.T
	registry *registry.SQLite
	org      registry.Organization
	key      *authtest.Key
	tls      *tls.Config // of the servers
	roots    *x509.CertPool

	mu     sync.Mutex // guards what follows
	badges map[apns.DeviceToken]uint32
	pushes int
}

// node is one relay of a site: heart, door and a pool that accepts everything.
type node struct {
	address string
	relay   *relay.Relay
	server  *ingest.Server
	drain   func() // as a relay leaves
	kill    func() // as a relay dies
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, badges: map[apns.DeviceToken]uint32{}, key: authtest.NewKey(organization, time.Now())}
	server := authtest.NewServer("relay", time.Now().Add(24*time.Hour), "127.0.0.1")
	s.roots = server.Pool()
	s.tls = &tls.Config{NextProtos: []string{"h2"}, Certificates: []tls.Certificate{server.TLS()}}
	var err error
	s.registry, err = registry.OpenSQLite(t.Context(), registry.SQLiteConfig{Path: filepath.Join(t.TempDir(), "registry.db")})
	check(t, err)
	t.Cleanup(func() { check(t, s.registry.Close()) })
	s.org, err = s.registry.AddOrganization(t.Context(), registry.NewOrganization{Name: organization})
	check(t, err)
	_, err = s.registry.AddCredential(t.Context(), s.org.ID, registry.NewCredential{Certificate: s.key.Certificate.Raw})
	check(t, err)
	return s
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// node starts a relay.
func (s *site) node() *node {
	s.t.Helper()
	r, err := relay.New(relay.Config{Subscriptions: s.registry, Apps: []string{app}, Window: -1})
	check(s.t, err)
	validator, err := auth.NewValidator(auth.Config{Keys: s.registry, Principal: principal, Authorities: []string{authority}})
	check(s.t, err)
	server, err := ingest.New(ingest.Config{Relay: r, Registry: s.registry, Validator: validator, Apps: []string{app}, TLS: s.tls,
		Version: "test", Instance: rand.Text()})
	check(s.t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(s.t, err)
	unlisten := s.registry.OnChange(func(changes []registry.Change) {
		ingest.Tell(r, validator, changes)
	})
	ctx, cancel := context.WithCancel(context.Background())
	woken := make(chan struct{}, 1)
	r.SetWake(app, func() {
		select {
		case woken <- struct{}{}:
		default:
		}
	})
	var running sync.WaitGroup // ends with cancel
	running.Go(func() { _ = r.Run(ctx) })
	running.Go(func() { s.push(ctx, r.Source(app), woken) })
	serving, leave := context.WithCancel(context.Background())
	running.Go(func() {
		if err := server.Run(serving, listener); err != nil {
			s.t.Errorf("serve: %v", err)
		}
	})
	stop := sync.OnceFunc(func() { leave(); unlisten(); cancel(); running.Wait() })
	s.t.Cleanup(stop)
	return &node{
		address: listener.Addr().String(), relay: r, server: server, drain: leave,
		kill: sync.OnceFunc(func() {
			gone, now := context.WithCancel(context.Background())
			now()
			server.Drain(gone) // without any budget
			stop()
		}),
	}
}

// push is APNs at its best: it accepts everything and shows it.
func (s *site) push(ctx context.Context, source apns.Source, woken <-chan struct{}) {
	requests, results := make([]apns.Request, 64), make([]apns.Result, 0, 64)
	for {
		n, _ := source.Take(requests)
		if n == 0 {
			select {
			case <-woken:
				continue
			case <-ctx.Done():
				return
			}
		}
		results = results[:0]
		s.mu.Lock()
		for _, r := range requests[:n] {
			s.badges[r.Device] = r.Badge
			s.pushes++
			results = append(results, apns.Result{Tag: r.Tag, WrittenAt: time.Now()})
		}
		s.mu.Unlock()
		source.Done(results)
	}
}

func (s *site) badge(d apns.DeviceToken) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.badges[d]
}

// config is an agent's, for these relays.
func (s *site) config(nodes ...*node) agent.Config {
	s.t.Helper()
	issuer, err := auth.NewIssuer(auth.IssuerConfig{Key: s.key.Private, Certificate: s.key.Certificate, Realm: organization,
		TargetPrincipal: principal, Authority: authority})
	check(s.t, err)
	cfg := agent.Config{AgentID: "mail1", Name: "mail1", Product: "Exchange", ProductVersion: "15.0.775.38", Token: issuer,
		TLS: &tls.Config{RootCAs: s.roots}, BackoffMin: 10 * time.Millisecond, BackoffMax: 100 * time.Millisecond, RefusedDelay: 50 * time.Millisecond}
	for _, n := range nodes {
		cfg.Addresses = append(cfg.Addresses, n.address)
	}
	return cfg
}

func (s *site) run(cfg agent.Config) *agent.Agent {
	s.t.Helper()
	a, err := agent.New(cfg)
	check(s.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = a.Run(ctx) }() // ends with the test
	s.t.Cleanup(func() { cancel(); <-ended })
	return a
}

func settle(t *testing.T, a *agent.Agent) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if err := a.WaitSettled(ctx); err != nil {
		t.Fatalf("WaitSettled: %v; status %+v, ledger %+v", err, a.Status(), a.Ledger())
	}
	l := a.Ledger()
	if l.Submitted != l.Settled()+l.Replaced+l.Unsettled {
		t.Fatalf("ledger does not balance: %+v", l)
	}
}

func phone(t *testing.T, n int) apns.DeviceToken {
	t.Helper()
	d, err := apns.ParseDeviceToken(fmt.Sprintf("%064x", n))
	check(t, err)
	return d
}

func TestRealRelayFromSubscriptionToBadge(t *testing.T) {
	s := newSite(t)
	n := s.node()
	c, err := agent.NewClient(s.config(n))
	check(t, err)
	defer func() { check(t, c.Close()) }()

	one := agent.DeviceToken(fmt.Sprintf("%064X", 1))
	set, err := c.SetDevice(t.Context(), agent.DeviceMailboxes{App: app, Device: one, Mailboxes: []string{"ann"}, ValidateOnly: true})
	if err != nil || fmt.Sprint(set.Added) != "[ann]" {
		t.Fatalf("SetDevice that changes nothing = %+v, %v, want ann added", set, err)
	}
	dry, err := c.Subscribe(t.Context(), agent.Registration{Mailbox: "ann", App: app, Device: one, ValidateOnly: true})
	if err != nil || !dry.Created {
		t.Fatalf("Subscribe that changes nothing = %+v, %v, want it created", dry, err)
	}
	done, err := c.Subscribe(t.Context(), agent.Registration{Mailbox: "ann", App: app, Device: one})
	if err != nil || !done.Created || string(done.Subscription.Device) != fmt.Sprintf("%064x", 1) {
		t.Fatalf("Subscribe = %+v, %v, want it created, in lower case", done, err)
	}
	info, err := c.ServerInfo(t.Context())
	if err != nil || info.Relay != "test" || info.TokenExpiresAt.Before(time.Now().Add(7*time.Hour)) {
		t.Fatalf("ServerInfo = %+v, %v, want relay test and a token good for 8 hours", info, err)
	}
	results, err := c.Publish(t.Context(), []agent.Event{{Mailbox: "ann", Unread: 3}, {Mailbox: "nobody", Unread: 1}})
	if err != nil || results[0].Outcome != agent.OutcomeDelivered || results[1].Outcome != agent.OutcomeNoSubscription {
		t.Fatalf("Publish = %+v, %v, want delivered and no_subscription", results, err)
	}
	var mu sync.Mutex
	var told []string
	cfg := s.config(n)
	cfg.OnOutcome = func(r agent.Result) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, fmt.Sprintf("%s=%d %s", r.Mailbox, r.Unread, r.Outcome))
	}
	a := s.run(cfg)
	for mailbox, unread := range map[string]uint32{"ann": 7, "nobody": 2} {
		check(t, a.Set(mailbox, unread, 0, 0))
	}
	settle(t, a)
	check(t, a.Set("ann", 7, 0, 0))
	settle(t, a)
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(told)
	if got, want := fmt.Sprint(told), "[ann=7 delivered ann=7 unchanged nobody=2 no_subscription]"; got != want {
		t.Fatalf("outcomes %v, want %v", got, want)
	}
	if got := s.badge(phone(t, 1)); got != 7 {
		t.Fatalf("the phone shows %d, want 7", got)
	}
	for i, want := range []bool{true, true, false} {
		registration := agent.Registration{Mailbox: "ann", App: app, Device: agent.DeviceToken(fmt.Sprintf("%064x", 1)), ValidateOnly: i == 0}
		if removed, err := c.Unsubscribe(t.Context(), registration); removed != want || err != nil {
			t.Fatalf("Unsubscribe %d: %v, %v, want %v", i, removed, err, want)
		}
	}
}

// TestRealRelaysComeAndGo sets counts while relays drain and die, and wants
// each phone to show its mailbox's last count.
func TestRealRelaysComeAndGo(t *testing.T) {
	const mailboxes = 200
	s := newSite(t)
	var registrations []registry.Registration
	for i := range mailboxes {
		registrations = append(registrations, registry.Registration{Mailbox: fmt.Sprint("m", i), App: app, Device: phone(t, i+1)})
	}
	_, err := s.registry.ImportSubscriptions(t.Context(), s.org.ID, registrations)
	check(t, err)
	one, two, three := s.node(), s.node(), s.node()
	a := s.run(s.config(one, two, three))
	var version uint64
	flood := func(rounds int) {
		for range rounds {
			version++
			for i := range mailboxes {
				check(t, a.Set(fmt.Sprint("m", i), uint32(version)%1000, 1, version))
			}
			runtime.Gosched() // lets the stream run; nothing depends on it
		}
	}
	flood(30)
	one.drain()
	flood(30)
	two.kill()
	flood(30)
	settle(t, a)
	for i := range mailboxes {
		if got, want := s.badge(phone(t, i+1)), uint32(version)%1000; got != want {
			t.Errorf("phone %d shows %d, want %d", i, got, want)
		}
	}
	if got := a.Status(); !got.Connected || got.Address != three.address {
		t.Errorf("status %+v, want connected to %s", got, three.address)
	}
}

func TestRealRelayDisablesTheOrganization(t *testing.T) {
	s := newSite(t)
	n := s.node()
	cfg := s.config(n)
	failures := make(chan agent.Failure, 100)
	cfg.OnFailure = func(f agent.Failure) { failures <- f }
	a := s.run(cfg)
	check(t, a.Set("ann", 1, 0, 0))
	settle(t, a)
	enable := func(on bool) {
		_, err := s.registry.UpdateOrganization(t.Context(), organization, registry.OrganizationUpdate{Enabled: &on})
		check(t, err)
	}
	enable(false)
	select {
	case f := <-failures:
		if f.Kind != agent.FailureRefused || f.Reason != "ORGANIZATION_DISABLED" {
			t.Fatalf("failure %+v, want ORGANIZATION_DISABLED", f)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the stream went on for 10 s after the organization was disabled")
	}
	check(t, a.Set("ann", 2, 0, 0))
	if got := a.Ledger().Unsettled; got != 1 {
		t.Fatalf("%d unsettled, want 1", got)
	}
	enable(true)
	settle(t, a)
}

func TestRealRelayWatch(t *testing.T) {
	s := newSite(t)
	n := s.node()
	c, err := agent.NewClient(s.config(n))
	check(t, err)
	defer func() { check(t, c.Close()) }()
	subscribe := func(mailbox string, device int) {
		_, err := s.registry.Subscribe(t.Context(), s.org.ID, registry.Registration{Mailbox: mailbox, App: app, Device: phone(t, device)})
		check(t, err)
	}
	subscribe("ann", 1)
	told := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- c.Watch(ctx, agent.Watcher{
			Resync: func() { told <- "resync" }, Complete: func() { told <- "complete" },
			Subscribed: func(m string) { told <- "+" + m }, Unsubscribed: func(m string) { told <- "-" + m },
		})
	}()
	want := func(events ...string) {
		t.Helper()
		for _, w := range events {
			select {
			case got := <-told:
				if got != w {
					t.Fatalf("told %q, want %q", got, w)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("not told %q within 10 s", w)
			}
		}
	}
	want("resync", "+ann", "complete")
	subscribe("bob", 2)
	want("+bob")
	_, err = c.Unsubscribe(t.Context(), agent.Registration{Mailbox: "ann", App: app, Device: agent.DeviceToken(fmt.Sprintf("%064x", 1))})
	check(t, err)
	want("-ann")
	cancel()
	if err := <-ended; err != nil {
		t.Fatalf("Watch returned %v, want nil", err)
	}
}
