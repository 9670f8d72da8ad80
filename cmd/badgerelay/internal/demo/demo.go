// Package demo is the whole way in one process: a simulated Apple with a page
// of phones, the relay with its embedded registry, an organization that signs
// its own tokens, and an agent whose mailboxes change. Keys and certificates
// are made on the spot, in a directory that goes when the demo ends.
//
// With a time to check it changes counts as fast as it can, restarts the relay
// once, and says at the end whether every phone shows what its mailbox holds.
//
// Nothing of it is fit to face a network: it listens on loopback only.
package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"badgerelay/apns/apnstest"
	"badgerelay/apns/apnstest/console"
	"badgerelay/cmd/badgerelay/internal/config"
	"badgerelay/cmd/internal/process"
	"badgerelay/relay/agent"
)

// Options say what to show.
type Options struct {
	// Check, if positive, is how long to change counts before judging. 0: a
	// demonstration until ctx is done.
	Check time.Duration
	// Page and Ops are the addresses of the phones' page and of the metrics.
	// Empty: 127.0.0.1 with a port that is free.
	Page, Ops string
	// LogLevel is the relay's. Empty: error.
	LogLevel string
	// Program is how the program was called, for the commands shown to people.
	Program string
	// Version is the relay's.
	Version string
	// Out takes what is said to people and the result, Log the relay's log.
	Out, Log io.Writer
}

// ErrWrong is returned by a check that found a fault; the result says which.
var ErrWrong = errors.New("the check found faults")

const (
	organization = "fabrikam.com"
	appName      = "mail"
	topic        = "com.fabrikam.mail"
	teamID       = "DEMOTEAM01"
	keyID        = "DEMOKEY001"
	loopback     = "127.0.0.1:0" // a port that is free
)

// demo is what its parts share. Everything is made before the parts start.
type demo struct {
	options Options
	dir     string
	keys    *keys
	sim     *apnstest.Simulator
	config  *config.Config
	boxes   *mailboxes
	agent   *agent.Agent
	relays  relays
}

// Run shows the demonstration until ctx is done, or checks. It removes what it
// wrote before it returns.
func Run(ctx context.Context, o Options) error {
	dir, err := os.MkdirTemp("", "badgerelay-demo-")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	err = (&demo{options: o, dir: dir}).run(ctx)
	if gone := os.RemoveAll(dir); gone != nil {
		return errors.Join(err, fmt.Errorf("remove what the demo wrote: %w", gone))
	}
	return err
}

func (d *demo) run(ctx context.Context) error {
	if err := d.build(); err != nil {
		return err
	}
	apple, err := net.Listen("tcp", loopback)
	if err != nil {
		return fmt.Errorf("listen for the simulated Apple: %w", err)
	}
	page, err := process.Listen(cmp.Or(d.options.Page, loopback))
	if err != nil {
		_ = apple.Close() // nothing was accepted
		return fmt.Errorf("--page: %w", err)
	}
	d.config.Apps[0].Address = apple.Addr().String()

	// The parts end in the order that they are left: agent, relay, the rest.
	world, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	parts, world := errgroup.WithContext(world)
	parts.Go(func() error { return d.sim.Run(world, apple) })
	phones := process.HTTP{Handler: console.Handler(d.sim, d.statusPage), Live: true, Logger: slog.New(slog.DiscardHandler)}
	parts.Go(func() error { return phones.Serve(world, page) })

	err = d.relays.start(d)
	if err == nil {
		err = d.show(ctx, "http://"+toOpen(page.Addr().String())+"/")
	}
	err = errors.Join(err, d.relays.stop())
	end()
	return errors.Join(err, parts.Wait())
}

// show enrols the organization, runs its agent, and plays or checks.
func (d *demo) show(ctx context.Context, page string) error {
	if err := d.enrol(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // Ctrl-C before all was up
		}
		return fmt.Errorf("enrol the organization: %w", err)
	}
	if err := d.newAgent(); err != nil {
		return err
	}
	running, end := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { _ = d.agent.Run(running) }) // it returns when running ends, and never fails
	defer wg.Wait()
	defer end()
	if d.options.Check > 0 {
		return d.check(ctx)
	}
	d.announce(page)
	return d.play(ctx)
}

// statusPage is the address of the relay's status page.
func (d *demo) statusPage() string { return "http://" + toOpen(d.relays.now().Ops) + "/status" }

// toOpen returns an address that a browser on this machine can open: [::] and 0.0.0.0 are
// where one listens on all addresses.
func toOpen(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip, parsed := netip.ParseAddr(host); err == nil && parsed == nil && ip.IsUnspecified() {
		return net.JoinHostPort("localhost", port)
	}
	return address
}

func (d *demo) announce(page string) {
	fmt.Fprintf(d.options.Out, `Phones   %s
Status   %s
Metrics  http://%s/metrics
Operate  %s status --admin %s

%d mailboxes of %s change at a human pace, and %d simulated iPhones and iPads show their counts; %d of them are on two mailboxes and show the sum.
Ctrl-C ends it and leaves nothing behind.
`, page, d.statusPage(), toOpen(d.relays.now().Ops), d.options.Program, d.config.Admin.Socket, len(d.boxes.names), organization, len(d.boxes.devices), d.boxes.shared())
}

// build makes keys, the simulated Apple with its devices, and the relay's
// configuration.
func (d *demo) build() (err error) {
	if d.keys, err = makeKeys(d.dir); err != nil {
		return fmt.Errorf("make keys: %w", err)
	}
	d.boxes = newMailboxes()
	d.sim, err = apnstest.New(apnstest.Config{
		TeamKeys:  []apnstest.TeamKey{{TeamID: teamID, KeyID: keyID, Key: d.keys.provider}},
		Topics:    []string{topic},
		Authority: d.keys.apple,
		Faults:    d.faults(),
		Logger:    slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return fmt.Errorf("make the simulated Apple: %w", err)
	}
	for _, device := range d.boxes.devices {
		d.sim.RegisterDevice(device.token, topic, apnstest.Production, device.meta)
	}
	d.config = d.relayConfig()
	if err := d.config.Validate(); err != nil {
		return fmt.Errorf("configure the relay: %w", err)
	}
	return nil
}

func (d *demo) relayConfig() *config.Config {
	c := &config.Config{
		Listen:   config.Listen{Address: loopback, TLS: d.keys.relayTLS},
		Admin:    config.Admin{Socket: filepath.Join(d.dir, "admin.sock")},
		Ops:      config.Ops{Address: cmp.Or(d.options.Ops, loopback)},
		Registry: config.Registry{Path: filepath.Join(d.dir, "registry.db")},
		Auth:     config.Auth{Authorities: []string{authority}},
		Apps: []config.App{{
			Name: appName, Topic: topic, CAFile: d.keys.appleFile,
			Token:   config.AppToken{KeyFile: d.keys.keyFile, KeyID: keyID, TeamID: teamID},
			Address: "127.0.0.1:1", // replaced by the simulator's
		}},
		Log:         config.Log{Level: cmp.Or(d.options.LogLevel, "error"), Format: "text", Mailboxes: "clear"},
		DrainBudget: config.Duration(5 * time.Second),
	}
	if d.options.Check > 0 {
		window := config.Duration(100 * time.Millisecond)
		c.Relay.CoalescingWindow = &window
		c.Apps[0].AnswerTimeout = config.Duration(time.Second)
	}
	return c
}

// faults are the simulator's. A check leaves out those after which a device has to
// wait longer than it lasts: a quarter of an hour after a 5xx, which Apple asks for,
// and twenty minutes after a 410 that is older than the registration.
func (d *demo) faults() apnstest.Faults {
	f := apnstest.LowRate()
	if d.options.Check == 0 {
		return f
	}
	f.Late, f.Hold = 500*time.Millisecond, 300*time.Millisecond
	f.Latency = apnstest.Latency{Min: 5 * time.Millisecond, Jitter: 10 * time.Millisecond, TailRate: 0.01, Tail: 200 * time.Millisecond}
	for _, fault := range []apnstest.Fault{apnstest.FaultServerError, apnstest.FaultUnavailable, apnstest.FaultShuttingDown, apnstest.FaultOldTimestamp} {
		delete(f.Rates, fault)
	}
	return f
}
