package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"badgerelay/apns/apnstest"
	"badgerelay/apns/apnstest/console"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/configfile"
	"badgerelay/cmd/internal/process"
)

// serve runs the simulator until ctx is done. It listens before it writes
// anything: a second one on the same ports fails, and must leave the files of
// the first as they are.
func serve(ctx context.Context, o *options, t *command.Terminal) error {
	process.Outlive(t.Out, t.Err)
	o.warnOfTopics(t)
	protocol, err := listen("--listen", o.listen)
	if err != nil {
		return err
	}
	defer protocol.Close() // closed already where it was served
	management, err := listen("--management", o.management)
	if err != nil {
		return err
	}
	defer management.Close()
	keys, err := o.keys()
	switch {
	case err != nil && o.publicKey != "":
		return command.Invalidf("--public-key: %w", err)
	case err != nil:
		return fmt.Errorf("--generate-key: %w", err)
	}
	sim, err := o.simulator(keys, t.Err)
	if err != nil {
		return err
	}
	if err := writeAuthority(keys.ca, sim.Authority()); err != nil {
		return fmt.Errorf("--ca-file: %w", err)
	}
	a := announcementOf(o, keys, protocol.Addr(), management.Addr(), sim.Seed())
	// Without a reader there is nobody to tell.
	_ = t.Print(a, func() { _, _ = io.WriteString(t.Out, a.text()) })
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error { return sim.Run(ctx, protocol) })
	page := process.HTTP{Handler: console.Handler(sim, nil), Live: true, Logger: o.logger(t.Err)}
	tasks.Go(func() error { return page.Serve(ctx, management) })
	return tasks.Wait()
}

// warnOfTopics names devices that no push reaches: their topic is none that may be pushed
// to. That may be what is tried.
func (o *options) warnOfTopics(t *command.Terminal) {
	devices, _ := o.allDevices() // validate has said what is wrong
	for _, d := range devices {
		if !slices.Contains(o.topics, d.topic) {
			t.Warn("the device of %s has topic %s, which no --topic names: no push reaches it", d.meta.Mailbox, d.topic)
		}
	}
}

func listen(flag, address string) (net.Listener, error) {
	l, err := process.Listen(address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return l, nil
}

// simulator makes the simulator with its devices.
func (o *options) simulator(keys keyFiles, stderr io.Writer) (*apnstest.Simulator, error) {
	devices, err := o.allDevices()
	if err != nil {
		return nil, err
	}
	sim, err := apnstest.New(apnstest.Config{
		Environment: o.env(),
		TeamKeys:    []apnstest.TeamKey{{TeamID: o.team, KeyID: o.keyID, Key: keys.public}},
		Topics:      o.topics,
		StreamLimit: o.streamLimit,
		Fast:        o.fast,
		Strict:      o.strict,
		BySource:    o.bySource,
		RoundTrip:   o.rtt,
		Faults:      o.plan(),
		Seed:        o.seed,
		Authority:   keys.authority,

		ConnectsPerMinute: cmp.Or(o.connects, -1),
		ServerErrorWait:   o.errorWait,

		Logger: o.logger(stderr),
	})
	if err != nil {
		return nil, fmt.Errorf("make simulator: %w", err)
	}
	for _, d := range devices {
		sim.RegisterDevice(d.token, d.topic, o.env(), d.meta)
	}
	return sim, nil
}

func (o *options) logger(stderr io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: configfile.Log{Level: o.logLevel}.SlogLevel()}))
}

// announcement says where everything is, and what the relay has to be told.
type announcement struct {
	Page        string         `json:"page"`
	APNs        string         `json:"apns"` // host:port
	Environment string         `json:"environment"`
	Devices     int            `json:"devices"`
	Faults      string         `json:"faults"`
	Seed        uint64         `json:"seed,string"`
	CAFile      string         `json:"caFile"` // empty: fetch it from the page's address, /api/trust
	Apps        []announcedApp `json:"apps"`
}

// announcedApp is an entry for the relay's configuration.
type announcedApp struct {
	Name    string `json:"name"`
	Topic   string `json:"topic"`
	KeyFile string `json:"keyFile"` // empty: the .p8 whose public key was given
	KeyID   string `json:"keyId"`
	TeamID  string `json:"teamId"`
}

func announcementOf(o *options, keys keyFiles, protocol, management net.Addr, seed uint64) announcement {
	a := announcement{
		Page: "http://" + management.String() + "/", APNs: protocol.String(), Environment: o.environment,
		Devices: o.devices + len(o.device), Faults: o.faultsNow(), Seed: seed,
	}
	if keys.ca != "" {
		a.CAFile = absolute(keys.ca)
	}
	for i, topic := range o.topics {
		app := announcedApp{Name: appName(i), Topic: topic, KeyID: o.keyID, TeamID: o.team}
		if keys.signing != "" {
			app.KeyFile = absolute(keys.signing)
		}
		a.Apps = append(a.Apps, app)
	}
	return a
}

// appName is what the i-th topic is called in the relay's configuration.
func appName(i int) string {
	if i == 0 {
		return "mail"
	}
	return fmt.Sprintf("mail-%d", i+1)
}

// faultsNow is low or off: with --fast there are none.
func (o *options) faultsNow() string {
	if o.fast {
		return "off"
	}
	return o.faults
}

// text is the announcement for people.
func (a *announcement) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "page:    %s\n", a.Page)
	fmt.Fprintf(&b, "APNs:    %s, %s\n", a.APNs, a.Environment)
	fmt.Fprintf(&b, "devices: %d\n", a.Devices)
	fmt.Fprintf(&b, "faults:  %s, seed %d\n", a.Faults, a.Seed)
	fmt.Fprintf(&b, "\nfor the relay's configuration:\n\napps:\n")
	for _, app := range a.Apps {
		fmt.Fprintf(&b, "  - name: %s\n    topic: %q\n    environment: %s\n    address: %q\n", app.Name, app.Topic, a.Environment, a.APNs)
		if a.CAFile != "" {
			fmt.Fprintf(&b, "    ca_file: %q\n", a.CAFile)
		}
		fmt.Fprintf(&b, "    token:\n      key_file: %q\n      key_id: %q\n      team_id: %q\n",
			cmp.Or(app.KeyFile, "the .p8 of --public-key"), app.KeyID, app.TeamID)
	}
	if a.CAFile == "" {
		fmt.Fprintf(&b, "\nca_file is missing there: fetch it from %sapi/trust\n", a.Page)
	}
	return b.String()
}

// absolute is path from the root, where it can be told.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
