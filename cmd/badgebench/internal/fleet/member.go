package fleet

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"

	"badgerelay/auth"
	"badgerelay/cmd/internal/rig/names"
	"badgerelay/relay/agent"
)

// member is one agent of the fleet with its mailboxes.
type member struct {
	role    *Role
	agent   *agent.Agent
	first   int // number of its first mailbox
	mailbox []string
	index   map[string]int // in mailbox

	versions []uint32 // events of each mailbox; the sender's

	mu       sync.Mutex  // guards intended
	intended []time.Time // of the newest event of each mailbox
}

// newMember makes the agent with this number.
func newMember(r *Role, number int, config *tls.Config, issuer *auth.Issuer) (*member, error) {
	c := &r.config
	m := &member{
		role: r, first: number * c.PerAgent, index: make(map[string]int, c.PerAgent),
		versions: make([]uint32, c.PerAgent), intended: make([]time.Time, c.PerAgent),
	}
	before := c.organizationOf(number).First
	for i := range c.PerAgent {
		m.mailbox = append(m.mailbox, names.Mailbox(m.first+i-before))
		m.index[m.mailbox[i]] = i
	}
	token, expires, err := issuer.Token(r.ctx, "")
	if err != nil {
		return nil, err
	}
	flushDelay := time.Duration(0) // the agent's own, or until there are Batch
	if c.Batch == 1 {
		flushDelay = -1
	}
	m.agent, err = agent.New(agent.Config{
		Addresses: []string{c.Address}, TLS: config,
		Token: agent.TokenFunc(func(context.Context, string) (string, time.Time, error) { return token, expires, nil }),
		Name:  "badgebench", AgentID: fmt.Sprint("agent-", number), BatchEvents: c.Batch, FlushDelay: flushDelay,
		SettlementDelay: 5 * time.Second, // as badgeagent does
		OnOutcome:       m.settled, OnFailure: m.failed,
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(from(number, c.PerAddress))},
	})
	if err != nil {
		return nil, fmt.Errorf("make agent %d: %w", number, err)
	}
	return m, nil
}

// from dials from one of loopback's addresses, which so many agents share.
func from(number, perAddress int) func(context.Context, string) (net.Conn, error) {
	host := 1 + number/perAddress
	local := &net.TCPAddr{IP: net.IPv4(127, 1, byte(host>>8), byte(host))}
	dialer := &net.Dialer{LocalAddr: local}
	return func(ctx context.Context, address string) (net.Conn, error) {
		return dialer.DialContext(ctx, "tcp", address)
	}
}

// start runs the agent until ctx is done.
func (m *member) start(ctx context.Context, running *sync.WaitGroup) {
	running.Go(func() { _ = m.agent.Run(ctx) }) // it runs once
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
	m.role.mu.Lock()
	_ = m.role.latency.RecordValue(max(1, time.Since(at).Microseconds())) // beyond ten minutes the measurement is lost anyway
	m.role.mu.Unlock()
}

// failed counts a stream that ended or could not be opened.
func (m *member) failed(f agent.Failure) {
	m.role.failures.Add(1)
	switch f.Kind {
	case agent.FailureRefused, agent.FailureBusy, agent.FailureToken, agent.FailureProtocol:
		m.role.refusals.Add(1)
	}
}
