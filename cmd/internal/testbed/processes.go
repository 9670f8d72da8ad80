package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"badgerelay/cmd/internal/child"
	"badgerelay/cmd/internal/rig/apple"
)

// readyTimeout bounds every wait for a process to be ready.
const readyTimeout = 30 * time.Second

// commands runs programs to their end.
type commands struct {
	bin string
	log io.Writer
	env []string
}

func (c commands) run(ctx context.Context, program string, args ...string) error {
	_, err := c.say(ctx, program, args...)
	return err
}

// say is run that returns what was printed, also where it failed.
func (c commands) say(ctx context.Context, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, program), args...)
	var said bytes.Buffer
	cmd.Env = append(os.Environ(), c.env...)
	both := io.MultiWriter(c.log, &said)
	cmd.Stdout, cmd.Stderr = both, both // one writer, so that one goroutine writes
	if err := cmd.Run(); err != nil {
		return said.String(), fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, said.String())
	}
	return said.String(), nil
}

// daemon starts a program and waits until the page says that it is ready.
func (w *Testbed) daemon(ctx context.Context, page, program string, args ...string) (*child.Process, error) {
	p, err := w.group.Start(child.Command{Name: program, Path: filepath.Join(w.Bin, program), Args: args, Log: w.log})
	if err != nil {
		return nil, err
	}
	deadline, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return p, p.AwaitOK(deadline, page, 10*time.Millisecond)
}

// signingKey is the name of apnssim's provider key.
const signingKey = "AuthKey_SIMKEY0001.p8"

func (w *Testbed) startApple(ctx context.Context) (err error) {
	w.Phones = &Phones{apple.Console("http://" + w.ports.page + "/")}
	w.apple, err = w.daemon(ctx, w.Phones.Page()+"api/stats", "apnssim", "--generate-key", w.path("sim"), "--listen", w.ports.apple,
		"--management", w.ports.page, "--topic", topic, "--faults", "off", "--log-level", "error")
	if err != nil {
		return err
	}
	return w.Phones.add(ctx, w.Users)
}

// StartRelay starts the relay and waits until it would accept work; after a
// kill, again.
func (w *Testbed) StartRelay(ctx context.Context) (err error) {
	w.Relay, err = w.daemon(ctx, "http://"+w.ports.relayOps+"/readyz", "badgerelay", "serve", "--config", w.path("relay.yaml"))
	return err
}

// StartAgent starts the agent and waits until it knows its mailboxes; after a
// kill, again.
func (w *Testbed) StartAgent(ctx context.Context) (err error) {
	w.Agent, err = w.daemon(ctx, "http://"+w.ports.agentOps+"/readyz", "badgeagent", "serve", "--dir", w.path("agent"), "--config", w.path("agent.yaml"))
	return err
}

// enrol does what operator and administrator do, each with the other's result.
func (w *Testbed) enrol(ctx context.Context) error {
	agent := func(args ...string) []string { return append([]string{"--dir", w.path("agent")}, args...) }
	for _, step := range []struct {
		program string
		args    []string
	}{
		{"badgerelay", []string{"organization", "add", Organization}},
		{"badgeagent", agent("cert", "ensure", "--organization", Organization)},
		{"badgerelay", []string{"credential", "add", "--organization", Organization, "--certificate", w.path("agent/OAuthCert.cer")}},
		{"badgeagent", agent("auth-server", "set", "--metadata-url", "https://"+w.ports.metadata+"/metadata/json/1?realm="+Organization, "--ca", w.path("relay.crt"))},
		{"badgeagent", agent("proxy", "enable", "--organization", Organization)},
	} {
		if err := w.commands.run(ctx, step.program, step.args...); err != nil {
			return err
		}
	}
	return nil
}

// subscribe puts each user's phone on the user's mailbox.
func (w *Testbed) subscribe(ctx context.Context) error {
	var b strings.Builder
	for _, user := range w.Users {
		fmt.Fprintf(&b, "{\"mailbox\":%q,\"app\":%q,\"deviceToken\":%q}\n", Mailbox(user), App, deviceToken(user))
	}
	if err := os.WriteFile(w.path("devices.jsonl"), []byte(b.String()), 0o600); err != nil {
		return err
	}
	return w.commands.run(ctx, "badgerelay", "subscription", "import", "--organization", Organization, w.path("devices.jsonl"))
}
