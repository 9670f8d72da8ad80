package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"badgerelay/relay/agent"
	"badgerelay/relay/agent/keyring"
	"badgerelay/relay/agent/source"
)

// settlementDelay is how long a relay may hold back that a count was delivered. Ours: an
// agent with a few counts a second hears of them in one message of five, and of what it
// has to act on as early as ever.
const settlementDelay = 5 * time.Second

// ProbeMailbox is left alone: no mail server has it.
const ProbeMailbox = agent.ProbeMailbox

// Config says what a daemon runs on. Relay and Keys are required.
type Config struct {
	// Relay says how the relay is reached: addresses, TLS, name and product. Its
	// Token, Logger, SettlementDelay, OnOutcome and OnTakeover are the daemon's to set.
	Relay agent.Config
	// Keys says with which certificates to sign, and for whom: the keyring's
	// Store, Issuer and Organization.
	Keys keyring.Config
	// Sources find out counts. None: counts come from nowhere, and the daemon
	// serves app back ends only.
	Sources []source.Source
	// CaseSensitive says that the mail servers' names that differ in case are
	// different mailboxes. False: what a source says of vera@ is also of Vera@.
	CaseSensitive bool
	// CountsPerSecond bounds how fast counts are asked for that nobody waits
	// for. 0: 50.
	CountsPerSecond float64
	// Concurrency is how many counts are asked for at once, besides those that have
	// taken more than two seconds. 0: 4.
	Concurrency int
	// Left is called when a device has left mailbox, or, where mailbox is empty,
	// when any may have left any: the watch has begun anew. It must not wait. Nil:
	// nobody is told.
	Left func(mailbox string)
	// Logger gets what people should know. Nil: nothing is logged.
	Logger *slog.Logger
	// Registerer gets the metrics. Nil: none.
	Registerer prometheus.Registerer
}

// Daemon is the mailbox side at work. Its fields never change after New.
type Daemon struct {
	config    Config
	log       *slog.Logger
	metrics   *metrics
	keys      *keyring.Keyring
	agent     *agent.Agent
	client    *agent.Client
	mailboxes *mailboxes

	drain     sync.Once
	draining  chan struct{} // closed by Drain
	collected chan struct{} // closed by Run: no source finds out anything any more
}

// New returns a daemon that Run starts. The caller closes it.
func New(c Config) (*Daemon, error) {
	d := &Daemon{config: c, log: c.Logger, draining: make(chan struct{}), collected: make(chan struct{})}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		d.config.Registerer = prometheus.NewRegistry() // nobody reads it
	}
	names := []string{sourceAsked}
	for _, s := range c.Sources {
		names = append(names, s.Name())
	}
	d.metrics = newMetrics(d.config.Registerer, names)
	d.mailboxes = newMailboxes(or(c.CountsPerSecond, 50), d.component("mailboxes"), d.metrics)
	for _, s := range c.Sources {
		if w, ok := s.(source.Watcher); ok {
			d.mailboxes.watchers = append(d.mailboxes.watchers, w)
		}
		if asked, ok := s.(source.Counter); ok {
			d.mailboxes.counters = append(d.mailboxes.counters, &counter{Counter: asked, name: s.Name()})
		}
	}
	d.mailboxes.workers, d.mailboxes.blind = or(c.Concurrency, 4), len(d.mailboxes.counters) == 0
	d.mailboxes.exact = c.CaseSensitive
	d.config.Registerer.MustRegister(
		gauge("mailboxes_uncounted", "Mailboxes that could not be counted when they were asked last; the log names each once.", func() float64 { n, _ := d.mailboxes.behind(); return float64(n) }),
		gauge("mailboxes_stale", "Mailboxes whose count is older than another agent's; the log names each once.", func() float64 { _, n := d.mailboxes.behind(); return float64(n) }),
		gauge("mailboxes", "Mailboxes that have a device.", func() float64 { n, _ := d.mailboxes.numbers(); return float64(n) }),
		gauge("mailboxes_waiting", "Mailboxes whose count is to be asked now, without those left alone after a failure.", func() float64 { _, n := d.mailboxes.numbers(); return float64(n) }),
	)
	if err := d.newKeyring(); err != nil {
		return nil, err
	}
	if err := d.reachRelay(); err != nil {
		return nil, err
	}
	return d, nil
}

// reachRelay makes the agent and the client that speak to the relay.
func (d *Daemon) reachRelay() error {
	c := d.config.Relay
	tokens := &watchedTokens{source: d.keys}
	d.config.Registerer.MustRegister(tokens.collectors()...)
	c.Token, c.Logger = tokens, d.log
	client, err := agent.NewClient(c)
	if err != nil {
		return err
	}
	c.SettlementDelay = settlementDelay
	c.OnOutcome, c.OnTakeover = d.settled, d.mailboxes.recount
	a, err := agent.New(c)
	if err != nil {
		return err
	}
	d.client, d.agent = client, a
	return nil
}

// Client calls the relay as the daemon does. It is closed with the daemon.
func (d *Daemon) Client() *agent.Client { return d.client }

// Keys is the keyring that the daemon signs with.
func (d *Daemon) Keys() *keyring.Keyring { return d.keys }

// Close lets go of the connection to the relay, after Run has ended.
func (d *Daemon) Close() error { return d.client.Close() }

// Run works until ctx is done. It returns nil when every goroutine it started
// has ended, or the error of a part that ended by itself. It is called once.
func (d *Daemon) Run(ctx context.Context) error {
	sending, sendCtx := errgroup.WithContext(ctx)
	start(sending, sendCtx, "relay", d.agent.Run)
	start(sending, sendCtx, "keyring", d.keys.Run)

	collectCtx, stop := context.WithCancel(sendCtx)
	defer stop()
	go func() { // ends with Drain or with sendCtx, which ends with this function
		select {
		case <-d.draining:
			stop()
		case <-sendCtx.Done():
		}
	}()
	collecting, collectCtx := errgroup.WithContext(collectCtx)
	if !d.mailboxes.blind {
		asker := &asker{
			mailboxes: d.mailboxes, sink: d.sink(sourceAsked), workers: d.mailboxes.workers,
			log: d.component("asker"), metrics: d.metrics,
		}
		start(collecting, collectCtx, "asker", asker.run)
	}
	for _, s := range d.config.Sources {
		start(collecting, collectCtx, s.Name(), func(ctx context.Context) error { return s.Run(ctx, d.sink(s.Name())) })
	}
	start(collecting, collectCtx, "watch", d.watchMailboxes)
	err := collecting.Wait()
	close(d.collected)
	if err != nil {
		sending.Go(func() error { return err }) // one without the other is no service
	}
	return sending.Wait()
}

// start runs a part until ctx is done. Ending before is an error.
func start(group *errgroup.Group, ctx context.Context, name string, run func(context.Context) error) {
	group.Go(func() error {
		err := run(ctx)
		switch {
		case ctx.Err() == nil:
			return fmt.Errorf("%s ended by itself: %w", name, or(err, errEnded))
		case err != nil && !errors.Is(err, context.Canceled):
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
}

var errEnded = errors.New("without an error")

// Unsettled is how many mailboxes' newest count the relay has not settled.
func (d *Daemon) Unsettled() uint64 { return d.agent.Ledger().Unsettled }

// Retry has the mailboxes that could not be counted asked for again: what they
// failed of may be mended, such as a password.
func (d *Daemon) Retry() { d.mailboxes.retry() }

// settled is told the outcome of an event.
func (d *Daemon) settled(r agent.Result) {
	if r.Outcome != agent.OutcomeStale {
		d.mailboxes.upToDate(r.Mailbox)
	} else if d.mailboxes.outdated(r.Mailbox, time.Now()) {
		d.log.Warn("another agent tells newer counts of the mailbox; counted again when the relay has forgotten them",
			"mailbox", r.Mailbox, "again", stalePause)
	}
}

// watchMailboxes keeps the set of mailboxes that have a device.
func (d *Daemon) watchMailboxes(ctx context.Context) error {
	log := d.component("watch")
	return d.client.Watch(ctx, agent.Watcher{
		Resync: d.mailboxes.resync, Subscribed: d.subscribed,
		Unsubscribed: func(mailbox string) {
			d.mailboxes.unsubscribed(mailbox)
			d.left(mailbox)
		},
		Left: d.left,
		Complete: func() {
			d.mailboxes.complete()
			d.left("")
		},
		Failed: func(f agent.Failure) {
			d.mailboxes.interrupted()
			d.metrics.watchEnds[f.Kind].Inc()
			log.Log(ctx, levelOnce(f.Repeats == 0), "watch ended", "kind", f.Kind.String(), "reason", f.Reason, "error", f.Err, "again", f.Again)
		},
	})
}

func (d *Daemon) subscribed(mailbox string) {
	if mailbox != ProbeMailbox {
		d.agent.Subscribed(mailbox)
		d.mailboxes.subscribed(mailbox)
	}
}

func (d *Daemon) left(mailbox string) {
	if d.config.Left != nil && mailbox != ProbeMailbox {
		d.config.Left(mailbox)
	}
}

// Alive returns when it has held the locks that a deadlock would keep.
func (d *Daemon) Alive() {
	d.mailboxes.numbers()
	d.agent.Ledger()
}

// Ready says why badges may be wrong; empty: they are right, save what detail
// tells, in lines that each begin with a line feed.
func (d *Daemon) Ready() (reason, detail string) {
	s := d.agent.Status()
	switch {
	case !s.Connected && s.LastFailure != nil:
		return fmt.Sprintf("no stream to a relay since %s: %s", s.Since.UTC().Format(time.RFC3339), s.LastFailure.Text()), ""
	case !s.Connected:
		return "starting", ""
	case !d.mailboxes.informed():
		return "the relay has not told which mailboxes have a device", ""
	}
	if s.Standby {
		detail += "\nstanding by: another process with this agent_id is active"
	}
	for _, source := range d.config.Sources {
		status := source.Status()
		if status.Trouble != "" {
			return fmt.Sprintf("mail server %s (%s)", status.Trouble, source.Name()), ""
		}
		for _, note := range status.Notes {
			detail += fmt.Sprintf("\n%s: %s", source.Name(), note)
		}
	}
	if uncounted, stale := d.mailboxes.behind(); uncounted+stale > 0 {
		detail += fmt.Sprintf("\nmailboxes that can't be counted: %d, that have newer counts from another agent: %d; the log names them", uncounted, stale)
	}
	known, waiting := d.mailboxes.numbers()
	return "", detail + fmt.Sprintf("\nrelay %s: %s\nmailboxes: %d, %d to be counted", s.Address, s.Relay, known, waiting)
}

func (d *Daemon) component(name string) *slog.Logger { return d.log.With("component", name) }

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
