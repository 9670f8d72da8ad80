package relay

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"badgerelay/apns"
	"badgerelay/relay/dispatch"
	"badgerelay/relay/lookup"

	"github.com/prometheus/client_golang/prometheus"
)

// shards is how many shards share the mailboxes; a power of two, well above
// the number of cores, so that two agents rarely meet in one.
const shards = 256

// Config says how a Relay works. Subscriptions is required; the zero value of
// everything else works.
type Config struct {
	// Subscriptions is where subscriptions are read and ended. Required.
	Subscriptions Subscriptions

	// Apps names the configured apps. Subscriptions of others are passed over.
	Apps []string

	// Window is how long the counts of one mailbox are gathered into one push after
	// a count has gone to its device's queue, and of a shared device after a push has
	// gone out. 0: one second. Negative: not at all.
	Window time.Duration

	// ShownFor is how long a device is trusted to show the count that APNs
	// accepted last. A count is not pushed again within. 0: 24 hours. Negative:
	// every count is pushed.
	ShownFor time.Duration

	// ServerErrorWait is how long a count waits after APNs answered 5xx to it;
	// a newer count does not. 0: 15 minutes, which is what Apple asks for
	// ("Handling notification responses from APNs", read 2026-11). A longer
	// time that APNs names itself is kept.
	ServerErrorWait time.Duration

	// RisePriority and FallPriority are the priorities of a badge that grows, or
	// whose last count is not known, and of one that falls. 0: immediate and
	// power-saving.
	RisePriority, FallPriority apns.Priority

	// MaxInFlight is how long after the end of a stream a count that was pending on
	// it may still reach a device, when the stream was another process's. For so long
	// after a stream of this relay began, what APNs accepted is no proof of what the
	// device shows: the agent may come from another relay. Nor does a Publish go on
	// without its caller. 0: there is no other process, before this one either.
	MaxInFlight time.Duration

	// Alone says that no other relay serves the same mailboxes while this process
	// lives. Then MaxInFlight is about the process before it alone, from the start on.
	Alone bool

	// Instance names this process among the relays that serve the same mailboxes;
	// a process that starts anew has another. Empty: a random one.
	Instance string

	// MaxMailboxes bounds the mailboxes in memory, to within a few hundred. At
	// the bound idle ones are forgotten; if none is, events of unknown mailboxes
	// are abandoned. 0: four million. Negative: no bound.
	MaxMailboxes int

	// Expected is how many mailboxes have subscriptions when the relay starts,
	// its own or not. Where they are more than four times MaxMailboxes, they are
	// not read ahead. 0: not known.
	Expected uint64

	// Random returns a number from 0 to n-1, for pauses that must not fall
	// together; n is positive. It is called from many goroutines. nil:
	// math/rand/v2.
	Random func(n int64) int64

	// Recount is told of mailboxes whose counts are wanted anew, from whoever
	// watches them: their devices were quarantined, and are not any more. It must
	// be quick. nil: nobody is told.
	Recount func([]MailboxKey)

	// Logger takes what an operator has to know. nil: nothing is logged.
	Logger *slog.Logger

	// Registerer takes the metrics. nil: none are registered.
	Registerer prometheus.Registerer
}

// Validate returns every problem of the configuration at once.
func (c *Config) Validate() error {
	var errs []error
	if c.Subscriptions == nil {
		errs = append(errs, errors.New("Subscriptions is missing"))
	}
	seen := map[string]bool{}
	for _, name := range c.Apps {
		if name == "" || seen[name] {
			errs = append(errs, fmt.Errorf("app %q is empty or named twice", name))
		}
		seen[name] = true
	}
	for _, p := range []apns.Priority{c.RisePriority, c.FallPriority} {
		if p != 0 && p != apns.PriorityImmediate && p != apns.PriorityPower {
			errs = append(errs, fmt.Errorf("priority %d is neither 5 nor 10", p))
		}
	}
	return errors.Join(errs...)
}

// Relay holds the newest count of every mailbox. New makes one; Run must run
// for events to settle. All methods are safe for concurrent use.
type Relay struct {
	subscriptions Subscriptions
	logger        *slog.Logger
	random        func(n int64) int64
	start         time.Time // time on the relay's clock is counted from here
	window        int64
	shownFor      int64
	maxInFlight   int64 // 0: there is no other relay
	strayUntil    int64 // when nothing of a process before this one comes any more; 0: there was none, or other relays are taken for it
	instance      string
	errorWait     time.Duration
	rise, fall    apns.Priority
	maxPerShard   int
	expected      uint64

	seed    maphash.Seed
	shards  [shards]shard
	devices *devices
	apps    appTable
	windows windows
	waits   *dispatch.Timers[*device]

	timersChanged signal // runTimers has to look anew
	readMailboxes signal // an app asks for it

	lookups   *lookup.Loader[*mailbox]
	exchanger exchanger
	refusals  refusals
	recount   func([]MailboxKey)

	pulse            pulse
	openMu           sync.Mutex           // guards open; nothing is locked under it
	open             map[*Stream]struct{} // every stream that is not closed
	registryFailures atomic.Uint64
	lookedUp         atomic.Uint64 // mailboxes whose subscriptions were read
	pushLatency      sharedHistogram
	watches          watches
	exemplars        exemplars // of pushLatency

	running    atomic.Bool // Run has begun
	draining   atomic.Bool
	settledOne signal // an event settled while draining
}

// New makes a Relay that does nothing until Run. It returns what Validate does.
func New(c Config) (*Relay, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("configure relay: %w", err)
	}
	r := &Relay{
		subscriptions: c.Subscriptions,
		logger:        c.Logger,
		random:        c.Random,
		recount:       c.Recount,
		start:         time.Now().Add(-time.Second), // 0 on the relay's clock means never
		window:        int64(orDefault(c.Window, time.Second)),
		shownFor:      int64(orDefault(c.ShownFor, 24*time.Hour)),
		maxInFlight:   int64(c.MaxInFlight),
		instance:      orDefault(c.Instance, fmt.Sprintf("%016x", rand.Uint64())),
		errorWait:     orDefault(c.ServerErrorWait, 15*time.Minute),
		rise:          orDefault(c.RisePriority, apns.PriorityImmediate),
		fall:          orDefault(c.FallPriority, apns.PriorityPower),
		maxPerShard:   max(1, orDefault(c.MaxMailboxes, 4_000_000)/shards),
		expected:      c.Expected,
		seed:          maphash.MakeSeed(),
		devices:       newDevices(),
		settledOne:    newSignal(),
	}
	if c.MaxMailboxes < 0 {
		r.maxPerShard = int(^uint(0) >> 1)
	}
	if r.logger == nil {
		r.logger = slog.New(slog.DiscardHandler)
	}
	if r.random == nil {
		r.random = rand.Int64N
	}
	for i := range r.shards {
		r.shards[i].compact.at = map[storedHash]uint32{}
	}
	r.open = map[*Stream]struct{}{}
	if c.Alone {
		r.maxInFlight, r.strayUntil = 0, r.now()+int64(c.MaxInFlight)
	}
	r.pulse.begin(time.Duration(r.maxInFlight) / 6)
	r.timersChanged = newSignal()
	r.readMailboxes = newSignal()
	r.waits = dispatch.NewTimers[*device](r.timersChanged.fill)
	r.apps.begin()
	for _, name := range c.Apps {
		r.apps.add(r, name)
	}
	if r.recount == nil {
		r.recount = func([]MailboxKey) {}
	}
	r.lookups = lookup.NewLoader(func(m *mailbox) int64 { return int64(m.key.Organization) }, r.lookUp, r.outage("look up subscriptions"))
	r.exchanger.begin(r)
	r.refusals.added = newSignal()
	r.refusals.overBudget = map[string]uint64{}
	if c.Registerer != nil {
		if err := c.Registerer.Register(newCollector(r)); err != nil {
			return nil, fmt.Errorf("register relay metrics: %w", err)
		}
	}
	return r, nil
}

// orDefault returns v, or def where v is the zero value.
func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// Run does the relay's work until ctx is done and returns when every goroutine
// it started has ended. It never fails.
func (r *Relay) Run(ctx context.Context) error {
	r.running.Store(true)
	var wg sync.WaitGroup
	wg.Go(func() { r.runTimers(ctx) })
	wg.Go(func() { r.runPulse(ctx) })
	wg.Go(func() { r.lookups.Run(ctx) })
	wg.Go(func() { r.exchanger.run(ctx) })
	wg.Go(func() { r.exchanger.runReadShared(ctx) })
	wg.Go(func() { r.runReadMailboxes(ctx) })
	wg.Go(func() { r.warmUp(ctx) })
	wg.Go(func() { r.runCompaction(ctx) })
	wg.Go(func() { r.refusals.run(ctx, r) })
	wg.Go(func() { r.runHealth(ctx) })
	wg.Wait()
	return nil
}

// Source returns the app's source of pushes for its pool, nil if the app is not
// configured.
func (r *Relay) Source(app string) apns.Source {
	if a := r.apps.named(app); a != nil {
		return a.queue
	}
	return nil
}

// AddApp makes room for another app, whether Run runs or not, and returns its
// source of pushes. One that is there already is returned as it is.
//
// While Run runs it reads the app's mailboxes again, as soon as the registry can be read:
// what is remembered of them holds no subscriptions of an app that was not known.
func (r *Relay) AddApp(name string) apns.Source {
	a := r.apps.add(r, name)
	r.rereadShared(a)
	r.rereadMailboxes(a)
	return a.queue
}

// SetWake says what tells the app's pool that there is work. The app has been added. wake
// is called from many goroutines and must not block.
func (r *Relay) SetWake(app string, wake func()) {
	r.apps.named(app).queue.SetWake(wake)
}

// Drain takes no more events, ends every coalescing window, and waits until all
// that was accepted has settled or ctx is done. Then it returns an error that
// says how many events are still pending.
func (r *Relay) Drain(ctx context.Context) error {
	r.draining.Store(true)
	r.timersChanged.fill()
	r.endSharedWindows()
	for {
		pending := r.Ledger().Pending
		if pending == 0 {
			return nil
		}
		select {
		case <-r.settledOne:
		case <-ctx.Done():
			return fmt.Errorf("drain with %d events pending: %w", pending, ctx.Err())
		}
	}
}

// now returns the time on the relay's clock, which is monotonic: nanoseconds,
// never 0.
func (r *Relay) now() int64 { return int64(time.Since(r.start)) }

// instant returns now on the relay's clock and on the wall's.
func (r *Relay) instant() instant {
	now := time.Now()
	return instant{relay: int64(now.Sub(r.start)), wall: now.UnixNano()}
}

// shardOf returns the shard of a mailbox, and the mailbox's hash.
func (r *Relay) shardOf(org OrganizationID, name string) (*shard, uint64) {
	const odd = 0x9e3779b97f4a7c15 // spreads organizations that count up from 1
	hash := maphash.String(r.seed, name) ^ uint64(org)*odd
	return &r.shards[hash%shards], hash
}

// priority returns the priority of the push that is about to go. The caller
// holds the device's lock.
func (r *Relay) priority(d *device) apns.Priority {
	if d.shownAt != 0 && d.want < d.shown {
		return r.fall
	}
	return r.rise
}

// serverErrorWait returns how long a count waits after a 5xx.
func (r *Relay) serverErrorWait(err *apns.Error) time.Duration {
	return max(r.errorWait, err.RetryAfter)
}
