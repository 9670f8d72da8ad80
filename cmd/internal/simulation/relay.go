package simulation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"badgerelay/apns"
	"badgerelay/auth"
	"badgerelay/relay"
	"badgerelay/relay/ingest"
	"badgerelay/relay/registry"
	"badgerelay/relay/registry/memory"
)

const (
	appName   = "mail"
	topic     = "com.example.mail"
	authority = "relay.example.com"
	principal = "0d5d5cb3-4f5c-4ab6-9d1c-1b6f5a2d6e11"

	apnsHost     = "apns"
	databaseHost = "database"

	// serverErrorWait is the relay's and the simulated APNs' alike: a quarter of
	// an hour would leave most of a run to waiting.
	serverErrorWait = 20 * time.Second

	// tokenSkew is by how much clocks may differ: little, so that brief tokens
	// run out.
	tokenSkew = 5 * time.Second

	// Of an orderly stop, as cmd/badgerelay divides its 25 s.
	drainBudget = 25 * time.Second
	poolDrain   = drainBudget / 3
)

// relayHost is a machine on which a relay runs, one process after the other.
type relayHost struct {
	world    *world
	name     string
	starts   int
	process  atomic.Pointer[relayProcess] // nil: none runs
	draining bool                         // a process stops in good order, and another follows
	trouble  registryTrouble
}

// registryTrouble is how the host reaches the registry.
type registryTrouble struct {
	mu     sync.Mutex // guards what follows
	chance *rand.Rand
	slow   time.Duration // added to each call, at most
	// slowBy is added to the answers of the calls named slowCall.
	slowCall string
	slowBy   time.Duration
	failed   float64       // the share of calls that fail
	gone     bool          // calls wait until their context ends, or the call's timeout
	deaf     float64       // the share of notifications that are lost
	late     time.Duration // by which notifications come later, at most
}

// callTimeout is how long a call of the registry may take, as with PostgreSQL.
const callTimeout = 5 * time.Second

// relayProcess is one life of a relay: its parts, wired as cmd/badgerelay does.
type relayProcess struct {
	host      *relayHost
	name      string
	relay     *relay.Relay
	server    *ingest.Server
	pool      *apns.Pool
	handle    *memory.Handle
	validator *auth.Validator
	unlisten  func()
	dead      atomic.Bool
	ended     chan struct{} // closed when every goroutine has ended

	serving, running       context.Context
	leave, stop, endFollow context.CancelFunc
	follow                 context.Context
	parts                  sync.WaitGroup
	followers              sync.WaitGroup
}

// start starts a process on the host.
func (h *relayHost) start() {
	h.starts++
	p := &relayProcess{host: h, name: fmt.Sprintf("%s-%d", h.name, h.starts), ended: make(chan struct{})}
	p.serving, p.leave = context.WithCancel(context.Background())
	p.running, p.stop = context.WithCancel(context.Background())
	p.follow, p.endFollow = context.WithCancel(context.Background())
	w := h.world
	log := w.log.With("relay", p.name)
	p.handle = w.database.Open(memory.Config{Reach: p.reach, Return: p.answered, Carry: p.carry, Logger: log})
	random := w.source(p.name)
	var peers ingest.Peers
	if !w.plan.Alone {
		peers = p.handle
	}
	p.relay = must(relay.New(relay.Config{
		Subscriptions: p.handle, Apps: []string{appName}, Window: w.plan.Window, ServerErrorWait: serverErrorWait,
		MaxInFlight: ingest.MaxInFlight, Alone: w.plan.Alone, Instance: p.name, Logger: log, Random: random,
		Recount: func(keys []relay.MailboxKey) { p.server.Recount(keys) }, // there is no answer of APNs before there is a server
	}))
	p.relay.SetSumAcrossOrganizations(appName, !w.plan.OneOrganization)
	p.pool = must(apns.NewPool(apns.Config{
		App: appName, Topic: topic, Addr: apnsHost + ":443", Token: must(apns.NewTokenSource(apns.TokenConfig{
			Key: keys().apns, KeyID: apnsKeyID, TeamID: apnsTeam,
		})), RootCAs: keys().authority.Pool(), MaxConns: 3, Source: newSourceTap(p), Logger: log, DrainTimeout: poolDrain,
		Random: random,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			if p.dead.Load() {
				return nil, net.ErrClosed
			}
			return w.network.dial(ctx, h.name, apnsHost)
		},
	}))
	p.relay.SetWake(appName, p.pool.Wake)
	p.validator = must(auth.NewValidator(auth.Config{Keys: p.handle, Principal: principal, Authorities: []string{authority}, Skew: tokenSkew}))
	p.unlisten = p.handle.OnChange(func(c []registry.Change) { ingest.Tell(p.relay, p.validator, c) })
	p.handle.OnSumsChanged(p.relay.SumsChanged)
	p.server = must(ingest.New(ingest.Config{
		Relay: p.relay, Registry: p.handle, Peers: peers, Validator: p.validator, Apps: []string{appName},
		Version: "simulated", Instance: p.name, CoalescingWindow: max(w.plan.Window, 0), DrainGrace: 5 * time.Second,
		DrainTimeout: drainBudget / 2, DisableReflection: true, Logger: log,
	}))
	listener := w.network.listen(h.name)
	p.parts.Go(func() { _ = p.relay.Run(p.running) }) // all end with running, serving or follow
	p.parts.Go(func() { _ = p.pool.Run(p.running) })
	p.followers.Go(func() {
		if err := p.handle.Run(p.follow); err != nil && !p.dead.Load() {
			w.problem("%s: registry: %v", p.name, err)
		}
	})
	p.parts.Go(func() {
		if err := p.server.Run(p.serving, listener); err != nil && !p.dead.Load() {
			w.problem("%s: serve: %v", p.name, err)
		}
	})
	p.server.SetReady(true)
	h.process.Store(p)
	w.processes = append(w.processes, p)
	w.trace.add("start %s", p.name)
}

// must returns what can't fail here: the configurations are ours.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// kill ends the process in an instant: its sockets are closed by the system, or
// its machine stops with it.
func (h *relayHost) kill(machine bool) {
	p := h.process.Load()
	if p == nil {
		return
	}
	h.process.Store(nil)
	p.dead.Store(true)
	if machine {
		h.world.network.vanish(h.name)
	} else {
		h.world.network.exit(h.name)
	}
	gone, now := context.WithCancel(context.Background())
	now()
	h.world.background.Go(func() { // clears away what a real process takes with it
		defer close(p.ended)
		p.endFollow()
		p.stop()
		p.server.Drain(gone)
		p.unlisten()
		p.followers.Wait()
		p.parts.Wait()
		_ = p.handle.Close()
	})
}

// drain stops the process in good order, as SIGTERM does. done is called, from
// a goroutine of its own, when it has ended.
func (h *relayHost) drain(done func()) {
	p := h.process.Load()
	if p == nil {
		return
	}
	h.process.Store(nil)
	h.draining = true
	h.world.background.Go(func() {
		defer close(p.ended)
		budget, cancel := context.WithTimeout(context.Background(), drainBudget)
		defer cancel()
		p.server.SetReady(false)
		p.server.Drain(budget)
		p.leave()
		p.endFollow()
		p.followers.Wait()
		settle, cancelSettle := context.WithTimeout(budget, drainBudget-poolDrain)
		defer cancelSettle()
		if err := p.relay.Drain(settle); err != nil && !p.dead.Load() {
			h.world.log.Info("drained with counts pending", "relay", p.name, "error", err)
		}
		p.unlisten()
		p.stop()
		p.parts.Wait()
		_ = p.handle.Close()
		p.dead.Store(true)
		done()
	})
}

var errDead = errors.New("process is dead")

// delay draws how long a call takes to the database, or its answer back; mu must be
// held.
func (t *registryTrouble) delay() time.Duration {
	wait := latency/4 + time.Duration(t.chance.Int64N(int64(latency)))
	if t.slow > 0 {
		wait += time.Duration(t.chance.Int64N(int64(t.slow)))
	}
	return wait
}

// answered brings the answer of the database back: what it says may be old by then.
func (p *relayProcess) answered(call string) {
	if p.dead.Load() {
		return
	}
	t := &p.host.trouble
	t.mu.Lock()
	wait := t.delay()
	if call == t.slowCall {
		wait += t.slowBy
	}
	t.mu.Unlock()
	time.Sleep(wait)
}

// answerLate has the answers of the calls of a name come later, by so much.
func (t *registryTrouble) answerLate(call string, by time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.slowCall, t.slowBy = call, by
}

// reach brings a call to the database.
func (p *relayProcess) reach(ctx context.Context, call string) error {
	if p.dead.Load() {
		return fmt.Errorf("%s: %w: %w", call, registry.ErrUnavailable, errDead)
	}
	t := &p.host.trouble
	t.mu.Lock()
	wait := t.delay()
	fails, gone := t.chance.Float64() < t.failed, t.gone
	t.mu.Unlock()
	if gone {
		wait = callTimeout
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	if gone || fails || p.dead.Load() {
		return fmt.Errorf("%s: %w: simulated", call, registry.ErrUnavailable)
	}
	return nil
}

// carry brings a notification to another relay.
func (p *relayProcess) carry(to *memory.Handle, deliver func()) {
	w := p.host.world
	if p.dead.Load() {
		return
	}
	at := w.relayOf(to)
	if at == nil {
		return
	}
	from := &p.host.trouble
	from.mu.Lock()
	gone := from.gone
	from.mu.Unlock()
	t := &at.host.trouble
	t.mu.Lock()
	wait := latency/2 + time.Duration(t.chance.Int64N(int64(latency)))
	if t.late > 0 {
		wait += time.Duration(t.chance.Int64N(int64(t.late)))
	}
	lost := gone || t.gone || t.chance.Float64() < t.deaf
	t.mu.Unlock()
	if !lost {
		w.events.after(wait, func() {
			if !at.dead.Load() {
				deliver()
			}
		})
	}
}

// checkLedger says what is wrong with a relay's books.
func (p *relayProcess) checkLedger() error {
	l := p.relay.Ledger()
	sum := l.Pending
	for _, n := range l.Outcomes {
		sum += n
	}
	if sum != l.Accepted || l.Pending > 1<<40 {
		return fmt.Errorf("%s: ledger does not balance: %+v", p.name, l)
	}
	return nil
}
