package simulation

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"badgerelay/auth"
	"badgerelay/relay/agent"
)

// agentHost is where the agent of some mailboxes runs, one process after the
// other.
type agentHost struct {
	world        *world
	number       int
	organization *organization
	publishes    bool          // by unary calls
	clock        time.Duration // by which its clock is wrong; belongs to who drives
	moves        int
	starts       int
	process      atomic.Pointer[agentProcess] // the newest; nil: none runs
	standby      []*agentProcess              // older ones that run as well; belongs to who drives
}

// name of the machine it is on now.
func (h *agentHost) name() string { return fmt.Sprintf("agent%d.%d", h.number, h.moves) }

// machine is where the newest process runs.
func (h *agentHost) machine() string {
	if p := h.process.Load(); p != nil {
		return p.machine
	}
	return h.name()
}

// agentProcess is one life of an agent: the library, and what cmd/badgeagent
// does with it. It asks the mail server for the count of a mailbox that has a
// device when the mailbox changes, when a device comes, and when the relay tells
// it all anew.
type agentProcess struct {
	host    *agentHost
	name    string
	machine string
	agent   *agent.Agent
	publish *publisher // nil: the agent has a stream
	client  *agent.Client
	cancel  context.CancelFunc
	parts   sync.WaitGroup
	dead    atomic.Bool
	chance  *rand.Rand // belongs to who holds mu

	mu      sync.Mutex // guards what follows
	known   map[string]bool
	told    map[string]bool // since the watch began anew
	current bool
}

func (h *agentHost) start() {
	w := h.world
	h.starts++
	p := &agentProcess{host: h, name: fmt.Sprintf("agent%d-%d", h.number, h.starts), machine: h.name(), known: map[string]bool{}, told: map[string]bool{}}
	p.chance = rand.New(rand.NewPCG(w.plan.Seed, uint64(h.number)<<32|uint64(h.starts)))
	config := agent.Config{
		Plaintext: true, Token: agent.TokenFunc(h.organization.token), Name: p.name, AgentID: fmt.Sprintf("agent%d", h.number), Product: "simulation", ProductVersion: "1",
		Random: w.source(p.name), Logger: w.log.With("agent", p.name),
		Instance: time.Now().Add(h.clock).UTC().Format("20060102T150405.000000000Z") + "-" + p.name,
		OnFailure: func(f agent.Failure) {
			w.trace.add("%s: %s %v", p.name, f.Address, f.Kind)
			if f.Kind == agent.FailureProtocol {
				w.problem("%s: %s: %v", p.name, f.Address, f.Err)
			}
		},
	}
	if h.number%2 == 0 {
		config.SettlementDelay = 5 * time.Second // as badgeagent does
	}
	for i := range w.relays {
		config.Addresses = append(config.Addresses, "passthrough:///"+w.relays[(i+h.number)%len(w.relays)].name)
	}
	dial := grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		if p.dead.Load() {
			return nil, net.ErrClosed
		}
		return w.network.dial(ctx, p.machine, address)
	})
	config.DialOptions = []grpc.DialOption{dial, grpc.WithStreamInterceptor(newTap(w, h).intercept)}
	p.agent = must(agent.New(config))
	config.DialOptions = []grpc.DialOption{dial}
	p.client = must(agent.NewClient(config))
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	if h.publishes {
		p.publish = newPublisher(p)
		p.parts.Go(func() { p.publish.run(ctx) }) // all end with ctx
	} else {
		p.parts.Go(func() { _ = p.agent.Run(ctx) })
	}
	p.parts.Go(func() {
		_ = p.client.Watch(ctx, agent.Watcher{Resync: p.resync, Subscribed: p.subscribed, Unsubscribed: p.unsubscribed, Complete: p.complete,
			Failed: func(f agent.Failure) { p.setCurrent(false); w.trace.add("%s: watch: %v", p.name, f.Kind) }})
	})
	h.process.Store(p)
	w.trace.add("start %s on %s", p.name, p.machine)
}

// stop ends the newest process in an instant; its system closes its connections.
func (h *agentHost) stop() {
	p := h.process.Load()
	if p == nil {
		return
	}
	h.process.Store(nil)
	p.kill()
	if n := len(h.standby); n > 0 {
		h.process.Store(h.standby[n-1])
		h.standby = h.standby[:n-1]
	}
}

// twin starts a process beside the one that runs, on a machine of its own.
func (h *agentHost) twin() {
	if p := h.process.Load(); p != nil {
		h.standby = append(h.standby, p)
	}
	h.moves++
	h.start()
}

// processes are all that run.
func (h *agentHost) processes() []*agentProcess {
	all := h.standby[:len(h.standby):len(h.standby)]
	if p := h.process.Load(); p != nil {
		all = append(all, p)
	}
	return all
}

func (p *agentProcess) kill() {
	w := p.host.world
	p.dead.Store(true)
	w.checkAgent(p.agent)
	w.network.exit(p.machine)
	w.background.Go(p.end)
}

// end clears away what the system takes from a real process.
func (p *agentProcess) end() {
	p.cancel()
	p.parts.Wait()
	_ = p.client.Close()
}

func (p *agentProcess) setCurrent(current bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current = current
}

func (p *agentProcess) resync() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current = false
	clear(p.told)
}

func (p *agentProcess) subscribed(mailbox string) {
	p.mu.Lock()
	p.known[mailbox], p.told[mailbox] = true, true
	p.mu.Unlock()
	p.host.world.trace.add("%s is told that %s has a device", p.name, mailbox)
	p.agent.Subscribed(mailbox)
	p.count(mailbox)
}

func (p *agentProcess) unsubscribed(mailbox string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.known, mailbox)
	delete(p.told, mailbox)
}

func (p *agentProcess) complete() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for mailbox := range p.known {
		if !p.told[mailbox] {
			delete(p.known, mailbox)
		}
	}
	p.current = true
}

// changed is the mail server's word that a mailbox changed.
func (p *agentProcess) changed(mailbox string) {
	p.mu.Lock()
	wanted := !p.current || p.known[mailbox]
	p.mu.Unlock()
	if wanted {
		p.count(mailbox)
	}
}

// countTime is how long the mail server takes for a count, at most.
const countTime = 20 * time.Millisecond

// count asks for the count of a mailbox, if it is the agent's to serve.
func (p *agentProcess) count(name string) {
	w := p.host.world
	m := w.mailboxNamed(p.host.organization, name)
	if m == nil || !m.servedBy(p.host) {
		return
	}
	p.mu.Lock()
	wait := time.Duration(p.chance.Int64N(int64(countTime)))
	p.mu.Unlock()
	w.events.after(wait, func() {
		if p.dead.Load() {
			return
		}
		v, epoch, number := m.told()
		w.trace.add("%s sets %s to version %d", p.name, name, v.number)
		event := agent.Event{Mailbox: name, Unread: v.unread, Epoch: epoch, Version: number, ObservedAt: time.Now().Add(p.host.clock)}
		if p.publish != nil {
			p.publish.set(event)
		} else if err := p.agent.SetEvent(event); err != nil {
			w.problem("%s: set %s to %d: %v", p.name, name, v.unread, err)
		}
	})
}

// unsettled returns how many counts have not settled.
func (p *agentProcess) unsettled() int {
	if p.publish != nil {
		return p.publish.unsettled()
	}
	return int(p.agent.Ledger().Unsettled)
}

// organization is a tenant with its keys.
type organization struct {
	number   int
	id       int64
	name     string
	disabled bool // belongs to who drives

	mu      sync.Mutex // guards what follows
	issuers [2]*auth.Issuer
	present int // which of the issuers signs
}

func (o *organization) token(ctx context.Context, unlike string) (string, time.Time, error) {
	o.mu.Lock()
	issuer := o.issuers[o.present]
	o.mu.Unlock()
	return issuer.Token(ctx, unlike)
}
