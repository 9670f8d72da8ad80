package load

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"

	"badgerelay/auth"
	"badgerelay/cmd/internal/rig"
	"badgerelay/cmd/internal/rig/names"
	"badgerelay/relay/agent"
)

// member is one agent of a fleet with its mailboxes.
type member struct {
	fleet   *Fleet
	agent   *agent.Agent
	first   int // number of its first mailbox
	mailbox []string
	index   map[string]int // in mailbox

	versions []uint32 // events of each mailbox; the sender's

	mu       sync.Mutex  // guards intended
	intended []time.Time // of the newest event of each mailbox
}

// newMember makes the agent of so many mailboxes from first on.
func newMember(f *Fleet, o *rig.Organization, first int, tlsConfig *tls.Config, issuer *auth.Issuer) (*member, error) {
	c := &f.config
	m := &member{
		fleet: f, first: first, index: make(map[string]int, c.PerAgent),
		versions: make([]uint32, c.PerAgent), intended: make([]time.Time, c.PerAgent),
	}
	for i := range c.PerAgent {
		m.mailbox = append(m.mailbox, names.Mailbox(first+i-o.First))
		m.index[m.mailbox[i]] = i
	}
	flushDelay := time.Duration(0) // the agent's own, or until there are Batch
	if c.Batch == 1 {
		flushDelay = -1
	}
	number := first / c.PerAgent
	var err error
	m.agent, err = agent.New(agent.Config{
		Addresses: []string{c.Address}, TLS: tlsConfig, Token: issuer,
		Name: "badgebench", AgentID: fmt.Sprint("agent-", number), BatchEvents: c.Batch, FlushDelay: flushDelay,
		SettlementDelay: 5 * time.Second, // as badgeagent does
		OnOutcome:       m.settled, OnFailure: m.failed,
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(from(number))},
	})
	return m, err
}

// perAddress is how many agents come from one address, as from behind a router.
const perAddress = 100

// from dials from one of loopback's addresses.
func from(number int) func(context.Context, string) (net.Conn, error) {
	host := 1 + number/perAddress
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(host>>8), byte(host))}}
	return func(ctx context.Context, address string) (net.Conn, error) {
		return dialer.DialContext(ctx, "tcp", address)
	}
}

// send sends the next event of a mailbox, by its number here.
func (m *member) send(mailbox int, intended time.Time) {
	m.versions[mailbox]++
	m.mu.Lock()
	m.intended[mailbox] = intended
	m.mu.Unlock()
	unread := names.Unread(m.first+mailbox, m.versions[mailbox])
	if err := m.agent.Set(m.mailbox[mailbox], unread, 0, 0); err != nil {
		panic(err) // the names are valid, and few
	}
}

// settled notes how long the newest event of a mailbox took.
func (m *member) settled(r agent.Result) {
	i := m.index[r.Mailbox]
	m.mu.Lock()
	at := m.intended[i]
	m.mu.Unlock()
	m.fleet.mu.Lock()
	record(m.fleet.latency, time.Since(at))
	m.fleet.mu.Unlock()
}

// failed counts a stream that ended or could not be opened.
func (m *member) failed(f agent.Failure) {
	m.fleet.failures.Add(1)
	switch f.Kind {
	case agent.FailureRefused, agent.FailureBusy, agent.FailureToken, agent.FailureProtocol:
		m.fleet.refusals.Add(1)
	}
}
