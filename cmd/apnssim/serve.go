package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"badgerelay/apns/apnstest"
	"badgerelay/apns/apnstest/console"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/configfile"
	"badgerelay/cmd/internal/process"
)

// goodbye is how long pages may take to end after the signal, ours: longer
// than any of them needs.
const goodbye = 3 * time.Second

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
	// Without a reader there is nobody to tell.
	_ = t.Print(announcementOf(o, keys, protocol.Addr(), management.Addr(), sim.Seed()), func() {
		announce(t.Out, o, keys, protocol.Addr(), management.Addr(), sim.Seed())
	})
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error { return sim.Run(ctx, protocol) })
	tasks.Go(func() error { return manage(ctx, management, console.Handler(sim, nil), t.Err) })
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

		Logger: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: configfile.Log{Level: o.logLevel}.SlogLevel()})),
	})
	if err != nil {
		return nil, fmt.Errorf("make simulator: %w", err)
	}
	for _, d := range devices {
		sim.RegisterDevice(d.token, d.topic, o.env(), d.meta)
	}
	return sim, nil
}

// manage serves the page until ctx is done and every page has been let go.
func manage(ctx context.Context, l net.Listener, handler http.Handler, stderr io.Writer) error {
	server := &http.Server{
		Handler:           handler,
		BaseContext:       func(net.Listener) context.Context { return ctx }, // ends the pages' streams
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(slog.NewTextHandler(stderr, nil), slog.LevelWarn),
	}
	ended := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
		defer cancel()
		ended <- server.Shutdown(ctx)
	})
	err := server.Serve(l)
	if stop() || !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the page: %w", err)
	}
	if err := <-ended; err != nil {
		return fmt.Errorf("end the page: %w", err)
	}
	return nil
}

// announcement is what announce says, for programs.
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

// announce says where everything is, and what the relay has to be told.
func announce(w io.Writer, o *options, keys keyFiles, protocol, management net.Addr, seed uint64) {
	var b strings.Builder
	fmt.Fprintf(&b, "page:    http://%s/\n", management)
	fmt.Fprintf(&b, "APNs:    %s, %s\n", protocol, o.environment)
	fmt.Fprintf(&b, "devices: %d\n", o.devices+len(o.device))
	fmt.Fprintf(&b, "faults:  %s, seed %d\n", o.faultsNow(), seed)
	fmt.Fprintf(&b, "\nfor the relay's configuration:\n\napps:\n")
	for i, topic := range o.topics {
		fmt.Fprintf(&b, "  - name: %s\n    topic: %q\n    environment: %s\n    address: %q\n", appName(i), topic, o.environment, protocol)
		if keys.ca != "" {
			fmt.Fprintf(&b, "    ca_file: %q\n", absolute(keys.ca))
		}
		signing := "the .p8 of --public-key"
		if keys.signing != "" {
			signing = absolute(keys.signing)
		}
		fmt.Fprintf(&b, "    token:\n      key_file: %q\n      key_id: %q\n      team_id: %q\n", signing, o.keyID, o.team)
	}
	if keys.ca == "" {
		fmt.Fprintf(&b, "\nca_file is missing there: fetch it from http://%s/api/trust\n", management)
	}
	_, _ = io.WriteString(w, b.String()) // without a reader there is nobody to tell
}

// absolute is path from the root, where it can be told.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
