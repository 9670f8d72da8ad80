package main

import (
	"context"
	"crypto/sha1"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"badgerelay/cmd/internal/command"
	"badgerelay/relay/agent"
	"badgerelay/relay/registry/postgrestest"
)

// startReplicas starts two relays on one PostgreSQL and one Apple, and enrols an
// organization at the first.
func startReplicas(t *testing.T) (a, b *enrolled, database *postgrestest.Server) {
	t.Helper()
	database = postgrestest.Start(t)
	name := database.Database()
	url := database.URL(name)
	f := newFiles(t)
	sim, app := apple(t, f)
	certificate, key := f.pair(t, "relay")
	start := func() *enrolled {
		r := &enrolled{sim: sim, caFile: certificate, database: name}
		r.served = serve(t, newFiles(t).base(t, fmt.Sprintf(`
listen:
  address: 127.0.0.1:0
  tls: {certificate_file: %s, key_file: %s}
auth: {authorities: [localhost]}
relay: {coalescing_window: 10ms}
registry: {url: "%s"}
%s`, certificate, key, url, app)))
		_, port, err := net.SplitHostPort(r.Agents)
		if err != nil {
			t.Fatal(err)
		}
		r.address = net.JoinHostPort("localhost", port)
		return r
	}
	a, b = start(), start()
	a.enrol(t, f)
	b.issuer = a.issuer
	return a, b, database
}

// agentAt is an agent with a stream to one relay.
type agentAt struct {
	*agent.Agent
	failures chan agent.Failure // the last one
	leave    func()
}

// agent starts an agent at the relay; it ends with the test or with leave.
func (r *enrolled) agent(t *testing.T) *agentAt {
	t.Helper()
	at := &agentAt{failures: make(chan agent.Failure, 1)}
	var err error
	at.Agent, err = agent.New(agent.Config{
		Addresses: []string{r.address}, TLS: &tls.Config{RootCAs: roots(t, r.caFile), MinVersion: tls.VersionTLS12}, AgentID: "test", Name: "test",
		Token: r.issuer, BackoffMin: 20 * time.Millisecond, BackoffMax: 100 * time.Millisecond,
		OnFailure: func(f agent.Failure) {
			select {
			case at.failures <- f:
			default:
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = at.Run(ctx) }) // ends with ctx
	at.leave = func() { cancel(); wg.Wait() }
	t.Cleanup(at.leave)
	return at
}

// shows sets a count and waits until it is settled.
func (at *agentAt) shows(t *testing.T, mailbox string, unread uint32, version uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	if err := at.Set(mailbox, unread, 1, version); err != nil {
		t.Fatal(err)
	}
	if err := at.WaitSettled(ctx); err != nil {
		t.Fatalf("%s=%d is not settled: %v", mailbox, unread, err)
	}
}

// tell sets a count without a version, and does not wait for what becomes of it.
func (at *agentAt) tell(t *testing.T, mailbox string, unread uint32) {
	t.Helper()
	if err := at.Set(mailbox, unread, 0, 0); err != nil {
		t.Fatal(err)
	}
}

// soon tries until something holds at a real process, and says how long it took.
func soon(t *testing.T, what string, holds func() bool) {
	t.Helper()
	began := time.Now()
	for !holds() {
		if time.Since(began) > testTimeout {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(10 * time.Millisecond) // real processes, not a bubble
	}
	t.Logf("%s: after %s", what, time.Since(began).Round(time.Millisecond))
}

// TestReplicas has what is changed at one relay take effect at the other, and
// an agent move between them.
func TestReplicas(t *testing.T) {
	a, b, _ := startReplicas(t)
	a.subscribe(t, "ann", 1)
	first := a.agent(t)
	first.shows(t, "ann", 5, 1)
	a.wantBadge(t, 1, 5)
	first.leave()

	second := b.agent(t)
	second.shows(t, "ann", 7, 2)
	a.wantBadge(t, 1, 7)
	second.shows(t, "bob", 1, 1) // the second relay now knows that nobody is subscribed
	a.subscribe(t, "bob", 2)
	version := uint64(1)
	soon(t, "a subscription made at one relay takes effect at the other", func() bool {
		version++
		second.shows(t, "bob", 3, version)
		d, _ := b.sim.Device(numberedDevice(t, 2))
		return d.Badge == 3
	})
	second.leave()

	third := a.agent(t) // back at the first relay, which had 5 shown
	third.shows(t, "ann", 5, 3)
	a.wantBadge(t, 1, 5)
	third.leave()

	fourth := b.agent(t)
	fourth.shows(t, "ann", 6, 4)
	began := time.Now()
	want(t, command.Done, "is disabled", "organization", "disable", enrolledOrganization, "--admin", a.Admin)
	select {
	case f := <-fourth.failures:
		t.Logf("an organization disabled at one relay loses its stream at the other: after %s, %v", time.Since(began).Round(time.Millisecond), f)
	case <-time.After(testTimeout):
		t.Error("the stream at the other relay went on")
	}
	want(t, command.Done, "is enabled", "organization", "enable", enrolledOrganization, "--admin", b.Admin)
	a.wantBadge(t, 1, 6)
}

// TestCredentialsOfReplicas has certificates come and go at one relay, and tokens
// of theirs be tried at the other.
func TestCredentialsOfReplicas(t *testing.T) {
	a, b, _ := startReplicas(t)
	a.subscribe(t, "ann", 1)
	f := newFiles(t)
	next, file := newIssuer(t, f, "next.cer")
	der, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	thumbprint := fmt.Sprintf("%X", sha1.Sum(der))
	old := b.issuer
	b.issuer = next
	second := b.agent(t)
	select {
	case failure := <-second.failures: // the other relay now knows that nobody has this key
		if failure.Kind != agent.FailureToken {
			t.Errorf("a key that nobody has registered: %v, want a refused token", failure)
		}
	case <-time.After(testTimeout):
		t.Fatal("a key that nobody has registered is not refused")
	}
	began := time.Now()
	want(t, command.Done, "", "credential", "add", "--organization", enrolledOrganization, "--certificate", file, "--admin", a.Admin)
	second.shows(t, "ann", 5, 1)
	t.Logf("a credential added at one relay counts at the other: after %s, the agent's own pause included", time.Since(began).Round(time.Millisecond))
	a.wantBadge(t, 1, 5)

	b.issuer = old
	first := b.agent(t)
	first.shows(t, "ann", 6, 2)
	for len(second.failures) > 0 {
		<-second.failures
	}
	began = time.Now()
	want(t, command.Done, "", "credential", "remove", "--organization", enrolledOrganization, thumbprint, "--admin", a.Admin)
	select {
	case failure := <-second.failures:
		t.Logf("a credential removed at one relay loses its stream at the other: after %s, %v", time.Since(began).Round(time.Millisecond), failure)
	case <-time.After(testTimeout):
		t.Error("the stream of a removed credential goes on at the other relay")
	}
	first.shows(t, "ann", 7, 3) // another credential's stream is not touched
	a.wantBadge(t, 1, 7)
	if len(first.failures) > 0 {
		t.Errorf("the stream of another credential ended: %v", <-first.failures)
	}
}

// TestDatabaseAway stops the database under two relays: known mailboxes go on,
// registrations are refused, readiness says so, and all heals by itself.
func TestDatabaseAway(t *testing.T) {
	a, b, database := startReplicas(t)
	a.subscribe(t, "ann", 1)
	known := b.agent(t)
	known.shows(t, "ann", 1, 1)
	database.Stop()

	known.shows(t, "ann", 2, 2)
	b.wantBadge(t, 1, 2)
	subscription := []string{"subscription", "add", "--organization", enrolledOrganization, "--mailbox", "bob", "--app", "mail",
		"--device-token", strings.Repeat("ab", 32), "--admin", a.Admin}
	want(t, command.Failed, "REGISTRY_UNAVAILABLE", subscription...)
	if code, body := get(t, "http://"+b.Ops+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "degraded") {
		t.Errorf("readyz = %d, %q, want 503 and degraded", code, body)
	}

	database.Start()
	soon(t, "registrations go on when the database is back", func() bool {
		code, _ := execute(t, subscription...)
		return code == command.Done
	})
	soon(t, "the other relay is ready", func() bool {
		code, _ := get(t, "http://"+b.Ops+"/readyz")
		return code == http.StatusOK
	})
	known.shows(t, "ann", 3, 3)
	b.wantBadge(t, 1, 3)
}

// TestOutgrowsOneMachine takes a relay's file to PostgreSQL and goes on there.
func TestOutgrowsOneMachine(t *testing.T) {
	server := postgrestest.Start(t)
	to := server.URL(server.Database())
	f := newFiles(t)
	_, app := apple(t, f)
	file := f.base(t, app)
	s := serve(t, file)
	from := "sqlite:" + f.path("registry.db")
	want(t, command.Done, "", "organization", "add", "fabrikam.com", "--admin", s.Admin)
	want(t, command.Done, "", "credential", "add", "--organization", "fabrikam.com", "--certificate", f.rsaCertificate(t, "a.cer"), "--admin", s.Admin)
	device := strings.Repeat("ab", 32)
	want(t, command.Done, "", "subscription", "add", "--organization", "fabrikam.com", "--mailbox", "ann", "--app", "mail", "--device-token", device, "--admin", s.Admin)
	credentials := want(t, command.Done, "", "credential", "list", "--organization", "fabrikam.com", "--admin", s.Admin)

	want(t, command.Failed, "another relay uses this registry; stop it first", "registry", "copy", "--from", from, "--to", to)
	s.stop(t)
	want(t, command.Misused, "--from is sqlite:", "registry", "copy", "--from", f.path("registry.db"), "--to", to)
	want(t, command.Misused, "there is no file", "registry", "copy", "--from", "sqlite:"+f.path("none.db"), "--to", to)
	want(t, command.Misused, "--to: url can't be read: it begins with postgres://\n", "registry", "copy", "--from", from, "--to", "mysql://x")
	want(t, command.Done, "1 rows,          1 copied now", "registry", "copy", "--from", from, "--to", to)
	want(t, command.Done, "Both are the same.", "registry", "copy", "--from", from, "--to", to)

	s = serve(t, f.base(t, "registry: {url: \""+to+"\"}\n"+app))
	want(t, command.Done, device, "subscription", "list", "--organization", "fabrikam.com", "--admin", s.Admin)
	if got := want(t, command.Done, "", "credential", "list", "--organization", "fabrikam.com", "--admin", s.Admin); got != credentials {
		t.Errorf("credentials are %s, want those of before: %s", got, credentials)
	}
}
