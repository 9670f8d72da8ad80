package simulation

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"badgerelay/apns"
	"badgerelay/auth"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/agent"
	"badgerelay/relay/registry"
	"badgerelay/relay/registry/memory"
)

// world is one run: everything of it lives in one testing/synctest bubble.
type world struct {
	plan    *Plan
	log     *slog.Logger
	trace   *trace
	began   time.Time
	events  *events
	network *network

	signIns  sync.Map    // by device token: until when its last registration may have come
	gone     sync.Map    // by subscriber: APNs has called the device gone since it signed in there
	calmed   atomic.Bool // there are no faults any more
	judged   atomic.Bool // nor what followed from them
	database *memory.Database
	admin    *memory.Handle
	apns     *apnsService

	organizations []*organization
	mailboxes     []*mailbox
	devices       []*device
	relays        []*relayHost
	agents        []*agentHost
	processes     []*relayProcess
	background    sync.WaitGroup

	mu       sync.Mutex // guards what follows
	problems []string
	faults   map[string]int
	outcomes map[pb.Outcome]int
	pushing  map[apns.DeviceToken]map[*relayProcess]int // pushes in flight
	answers  map[apns.DeviceToken]*answered
	sent     int
	wrong    int
	foreign  int
	struck   time.Time // when a fault of APNs was met last
}

// maxProblems is how many problems of a run are kept.
const maxProblems = 20

func (w *world) problem(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.trace.add("PROBLEM %s", text)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.problems) < maxProblems {
		w.problems = append(w.problems, w.clock(time.Now())+" "+text)
	}
}

func (w *world) countEvents(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent += n
}

func (w *world) countOutcome(o pb.Outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.outcomes[o]++
}

func (w *world) countFault(k Kind) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults[string(k)]++
}

func (w *world) noteStrike(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.struck = at
}

func (w *world) lastStrike() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.struck
}

// checkAgent checks the books of an agent.
func (w *world) checkAgent(a *agent.Agent) {
	if l := a.Ledger(); l.Submitted != l.Settled()+l.Replaced+l.Unsettled {
		w.problem("an agent's ledger does not balance: %+v", l)
	}
}

// source is the chance of a process, whatever others draw.
func (w *world) source(name string) func(n int64) int64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, name) // a hash does not fail
	rng := rand.New(rand.NewPCG(w.plan.Seed, h.Sum64()))
	var mu sync.Mutex // guards rng
	return func(n int64) int64 {
		mu.Lock()
		defer mu.Unlock()
		return rng.Int64N(n)
	}
}

// newWorld builds what a plan says. It belongs in the bubble.
func newWorld(p *Plan, o Options) *world {
	w := &world{
		plan: p, log: slog.New(slog.DiscardHandler), trace: newTrace(o.Trace), began: time.Now(), events: newEvents(),
		pushing: map[apns.DeviceToken]map[*relayProcess]int{}, answers: map[apns.DeviceToken]*answered{},
		faults: map[string]int{}, outcomes: map[pb.Outcome]int{}, database: &memory.Database{},
	}
	if o.Trace != nil && o.Verbose {
		w.log = slog.New(slog.NewTextHandler(o.Trace, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	w.network = newNetwork(w.events, p.Seed)
	w.admin = w.database.Open(memory.Config{Carry: w.carryAdmin})
	w.apns = newAPNs(w)
	w.enrol()
	for i := range p.Relays {
		h := &relayHost{world: w, name: fmt.Sprintf("relay%d", i)}
		h.trouble.chance = rand.New(rand.NewPCG(p.Seed, uint64(i)+1000))
		w.relays = append(w.relays, h)
	}
	for i, a := range p.Agents {
		w.agents = append(w.agents, &agentHost{world: w, number: i, organization: w.organizations[a.organization], publishes: a.publishes})
	}
	for i, m := range p.Mailboxes {
		box := &mailbox{number: i, name: m.name, organization: w.organizations[m.organization], epoch: 1}
		for _, a := range m.agents {
			box.agents = append(box.agents, w.agents[a])
		}
		box.change(false)
		w.mailboxes = append(w.mailboxes, box)
	}
	for i, d := range p.Devices {
		dev := &device{number: i, token: deviceToken(i), organization: w.organizations[d.organization], owner: newOwnership(p)}
		w.devices = append(w.devices, dev)
		w.register(dev)
		dev.arrive(dev.organization)
		for _, n := range []int{d.mailbox, d.beside, d.also} {
			if n >= 0 {
				w.add(dev, w.mailboxes[n])
			}
		}
		dev.owner.owner, dev.owner.unclear = dev.owner.first(), false
	}
	return w
}

// enrol enrols the organizations.
func (w *world) enrol() {
	count := 0
	for _, a := range w.plan.Agents {
		count = max(count, a.organization+1)
	}
	for i := range count {
		o := &organization{number: i, name: organizationName(i)}
		added := must(w.admin.AddOrganization(context.Background(), registry.NewOrganization{Name: o.name}))
		o.id = int64(added.ID)
		for n, key := range keys().organizations[i] {
			o.issuers[n] = must(auth.NewIssuer(auth.IssuerConfig{
				Key: key.Private, Certificate: key.Certificate, Realm: o.name, TargetPrincipal: principal, Authority: authority,
				Lifetime: w.plan.TokenLife,
			}))
		}
		must(w.admin.AddCredential(context.Background(), added.ID, registry.NewCredential{Certificate: keys().organizations[i][0].Certificate.Raw}))
		w.organizations = append(w.organizations, o)
	}
}

// carryAdmin brings what an operator changed to the relays.
func (w *world) carryAdmin(to *memory.Handle, deliver func()) {
	at := w.relayOf(to)
	if at == nil {
		return
	}
	w.events.after(latency, func() {
		at.host.trouble.mu.Lock()
		lost := at.host.trouble.gone || at.host.trouble.deaf > 0
		at.host.trouble.mu.Unlock()
		if !lost && !at.dead.Load() {
			deliver()
		}
	})
}

// relayOf returns the process that a handle is of, or nil.
func (w *world) relayOf(h *memory.Handle) *relayProcess {
	for _, r := range w.relays {
		if p := r.process.Load(); p != nil && p.handle == h {
			return p
		}
	}
	return nil
}

func (w *world) mailboxNamed(o *organization, name string) *mailbox {
	for _, m := range w.mailboxes {
		if m.organization == o && m.name == name {
			return m
		}
	}
	return nil
}

// start starts every process.
func (w *world) start() {
	listener := w.network.listen(apnsHost)
	w.background.Go(func() { _ = w.apns.Serve(listener) }) // ends with the simulator
	for _, r := range w.relays {
		r.start()
	}
	for _, a := range w.agents {
		a.start()
	}
}

// calm ends every fault.
func (w *world) calm() {
	w.trace.add("calm")
	w.calmed.Store(true)
	w.apns.ClearScripts()
	w.cure()
	hosts := []string{apnsHost}
	for _, r := range w.relays {
		hosts = append(hosts, r.name)
		t := &r.trouble
		t.mu.Lock()
		t.slow, t.failed, t.gone, t.deaf, t.late = 0, 0, false, 0, 0
		t.mu.Unlock()
		if r.process.Load() == nil && !r.draining {
			w.network.appear(r.name)
			r.start()
		}
	}
	for _, a := range w.agents {
		if a.process.Load() == nil {
			a.start()
		}
		for _, p := range a.processes() {
			hosts = append(hosts, p.machine)
		}
	}
	for _, from := range hosts {
		for _, to := range hosts {
			w.network.slow(path{from, to}, 0)
			w.network.block(path{from, to}, false)
		}
	}
	w.reviveGone()
}

// subscriber is a device on a mailbox: each subscription is left out when APNs calls the
// device gone, until the device signs in there again.
type subscriber struct {
	device  apns.DeviceToken
	mailbox *mailbox
}

// isGone reports whether a mailbox's counts need not reach a device, because APNs has
// called it gone.
func (w *world) isGone(d apns.DeviceToken, m *mailbox) bool {
	_, called := w.gone.Load(subscriber{d, m})
	return called
}

// signsIn notes that a device registers with mailboxes.
func (w *world) signsIn(d apns.DeviceToken, by time.Time, mailboxes ...*mailbox) {
	for _, m := range mailboxes {
		w.gone.Delete(subscriber{d, m})
	}
	w.signIns.Store(d, by)
}

// calledGone notes that APNs has called a device gone. After the faults that was on
// its way.
func (w *world) calledGone(d apns.DeviceToken, at time.Time) {
	for _, m := range w.mailboxes {
		w.gone.Store(subscriber{d, m}, nil)
	}
	for _, dev := range w.devices {
		if dev.token == d {
			dev.obscureOwner()
		}
	}
	if w.calmed.Load() {
		w.noteStrike(at)
		w.events.after(time.Second, w.reviveGone)
	}
}

// reviveGone has those devices sign in again that APNs called gone by mistake: a
// relay tries such a device after 20 minutes, which is longer than a run. It keeps
// the subscription.
func (w *world) reviveGone() {
	for _, d := range w.devices {
		w.revive(d)
	}
}

func (w *world) revive(d *device) {
	m, _, _ := d.place()
	called := func(m *mailbox) bool { return w.isGone(d.token, m) }
	if !slices.ContainsFunc(d.parts(), called) {
		return
	}
	if !d.depart() {
		w.events.after(time.Second, func() { w.revive(d) }) // it is on its way, to one of them perhaps
		return
	}
	if m != nil && !d.everShared() && !w.plan.has(Leave) && !w.subscribed(d, m) {
		w.problem("device %d has lost its subscription to a 410 that was older", d.number)
	}
	w.background.Go(func() { w.signInAnew(d, &Step{Kind: Leave}) })
}

// subscribed reports whether the registry has the device on the mailbox.
func (w *world) subscribed(d *device, m *mailbox) bool {
	found := must(w.admin.Lookup(context.Background(), []relay.MailboxKey{{Organization: registryID(m.organization), Mailbox: m.name}}))
	return slices.ContainsFunc(found[0], func(s relay.Subscription) bool { return s.Device == d.token })
}

// pending says what has not settled.
func (w *world) pending() (all []string) {
	for _, r := range w.relays {
		if p := r.process.Load(); p != nil {
			if l := p.relay.Ledger(); l.Pending > 0 {
				all = append(all, fmt.Sprintf("%s still has %d events pending", p.name, l.Pending))
			}
		}
	}
	for _, a := range w.agents {
		for _, p := range a.processes() {
			if n := p.unsettled(); n > 0 {
				all = append(all, fmt.Sprintf("%s, on %s, holds %d counts that have not settled", p.name, p.agent.Status().Instance, n))
			}
		}
	}
	return all
}

// end ends every process in good order, and says what does not end. What an agent
// has counted anew a moment ago may still be on its way.
func (w *world) end() {
	for until := time.Now().Add(calmTime); len(w.pending()) > 0 && time.Now().Before(until); {
		w.events.drive(time.Now().Add(time.Second))
	}
	for _, p := range w.pending() {
		w.problem("%s", p)
	}
	for _, a := range w.agents {
		for _, p := range a.processes() {
			p.kill()
		}
	}
	w.events.drive(time.Now().Add(time.Second))
	for _, r := range w.relays {
		if p := r.process.Load(); p != nil {
			if l := p.relay.Ledger(); l.Pending > 0 {
				w.problem("%s has %d events pending, and no agent is left", p.name, l.Pending)
			}
		}
		r.drain(func() {})
	}
	w.events.drive(time.Now().Add(2 * drainBudget))
	for _, p := range w.processes {
		select {
		case <-p.ended:
		default:
			w.problem("%s has not ended", p.name)
		}
		if err := p.checkLedger(); err != nil {
			w.problem("%v", err)
		}
	}
	w.apns.Close()
	_ = w.admin.Close()
	done := make(chan struct{})
	go func() { // ends when all has
		w.background.Wait()
		close(done)
	}()
	w.events.drive(time.Now().Add(time.Minute))
	select {
	case <-done:
	default:
		w.problem("something is left running")
	}
}

// checkLedgers checks the books of every relay and every agent.
func (w *world) checkLedgers() {
	for _, a := range w.agents {
		for _, p := range a.processes() {
			w.checkAgent(p.agent)
		}
	}
	for _, r := range w.relays {
		if r.process.Load() == nil {
			continue
		}
		if err := r.process.Load().checkLedger(); err != nil {
			w.problem("%v", err)
		}
	}
}
