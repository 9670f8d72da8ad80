package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"badgerelay/auth/authmetadata"
	"badgerelay/cmd/internal/child"
	"badgerelay/relay/agent/ews/ewstest"
	"badgerelay/relay/agent/imap/imaptest"
	"badgerelay/relay/freeport"
)

// What everything is called.
const (
	Organization = "fabrikam.com"
	App          = "mail"
	topic        = "com.fabrikam.mail"
	suffix       = "@" + Organization
	token        = "0123456789abcdef0123456789abcdef" // Dovecot's, for the agent's listener
)

// Config says what to set up.
type Config struct {
	// Bin is the directory of the programs badgerelay, badgeagent and apnssim.
	Bin string
	// Deploy is the directory deploy/dovecot of this repository.
	Deploy string
	// Dir takes everything; it has to be short enough for a unix socket's path.
	Dir string
	// Users have a mailbox and a phone each.
	Users []string
	// Exchange is a simulated Exchange, in Dovecot's place; its mailboxes are the
	// users'. Nil: there is none.
	Exchange *ewstest.Config
	// Lua has Dovecot notify the agent.
	Lua bool
	// Shared has users open each other's mailboxes, as Dovecot's ACLs let them.
	Shared bool
	// Watch is the agent's imap.watch; off where Lua tells all.
	Watch string
	// Window is the relay's coalescing window. 0: the relay's default.
	Window time.Duration
}

// Testbed is everything between a mail and a badge, running. Its methods may not be called concurrently,
// save those of Phones.
type Testbed struct {
	Config
	Dovecot *imaptest.Server // nil: there is an Exchange
	EWS     *ewstest.Server  // nil: there is a Dovecot
	Phones  *Phones
	Relay   *child.Process
	Agent   *child.Process

	group    child.Group
	log      *os.File
	ports    ports
	apple    *child.Process
	commands commands
}

// ports are the addresses that processes find each other at, also after a
// restart.
type ports struct{ apple, page, relay, metadata, relayOps, agent, agentOps, document string }

func (p *ports) all() []*string {
	return []*string{&p.apple, &p.page, &p.relay, &p.metadata, &p.relayOps, &p.agent, &p.agentOps, &p.document}
}

// New sets everything up and returns when all of it is ready. The caller closes
// it, and removes Dir.
func New(ctx context.Context, c Config) (*Testbed, error) {
	w := &Testbed{Config: c}
	if err := w.start(ctx); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (w *Testbed) start(ctx context.Context) (err error) {
	if err := w.findPorts(); err != nil {
		return err
	}
	if w.log, err = os.OpenFile(w.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return err
	}
	w.commands = commands{bin: w.Bin, log: w.log, env: []string{"BADGERELAY_ADMIN=" + w.path("admin.sock")}}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"write configuration", w.write},
		{"start the simulated Apple", w.startApple},
		{"start the relay", w.StartRelay},
		{"enrol the organization", w.enrol},
		{"subscribe the phones", w.subscribe},
		{"start the mail server", w.startMailServer},
		{"start the agent", w.StartAgent},
	} {
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// findPorts picks a port for each, which stays its own over restarts.
func (w *Testbed) findPorts() (err error) {
	for _, address := range w.ports.all() {
		if *address, err = freeport.Address(); err != nil {
			return err
		}
	}
	return nil
}

// Close ends everything, the agent first.
func (w *Testbed) Close() error {
	w.group.Close()
	if w.Dovecot != nil {
		w.Dovecot.Stop()
	}
	if w.EWS != nil {
		w.EWS.Stop()
	}
	if w.log == nil {
		return nil
	}
	return w.log.Close()
}

// Log is what relay, agent and simulator have logged, and what the commands
// have printed.
func (w *Testbed) Log() string {
	text, err := os.ReadFile(w.path("log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (w *Testbed) path(name string) string { return filepath.Join(w.Dir, name) }

// Do runs a command of badgerelay or badgeagent, as operator or administrator,
// and returns what it printed.
func (w *Testbed) Do(ctx context.Context, program string, args ...string) (string, error) {
	if program == "badgeagent" {
		args = append([]string{"--dir", w.path("agent")}, args...)
	}
	return w.commands.say(ctx, program, args...)
}

// Document is the address of the organization's metadata document, which the
// agent serves.
func (w *Testbed) Document() string { return "https://" + w.ports.document + authmetadata.Path }

// Socket is the agent's local listener.
func (w *Testbed) Socket() string { return w.path("local.sock") }

// Mailbox is the relay's name of a user's mailbox.
func Mailbox(user string) string { return user + suffix }

func (w *Testbed) startMailServer(ctx context.Context) error {
	if w.Exchange != nil {
		return w.startExchange()
	}
	return w.startDovecot(ctx)
}

func (w *Testbed) sharing() string {
	if !w.Shared {
		return ""
	}
	return imaptest.Sharing()
}

// startDovecot runs Dovecot on the files that are shipped, with paths and
// addresses of this directory.
func (w *Testbed) startDovecot(context.Context) error {
	c := imaptest.Config{NoNotify: w.Watch == "idle"}
	if w.Lua {
		script, err := filepath.Abs(filepath.Join(w.Deploy, "badgeagent.lua"))
		if err != nil {
			return err
		}
		name := "11-badgeagent.conf"
		if imaptest.Is24() {
			name = "11-badgeagent-2.4.conf"
		}
		text, err := os.ReadFile(filepath.Join(w.Deploy, name))
		if err != nil {
			return err
		}
		c.Include = w.path(name)
		own := strings.NewReplacer("/etc/dovecot/badgeagent.lua", script, "/etc/dovecot/badgeagent-token.conf", w.path("badgeagent-token.conf"),
			"/etc/dovecot/badgeagent-token", w.path("dovecot-token"), "127.0.0.1:9466", w.ports.agent)
		if err := os.WriteFile(c.Include, []byte(own.Replace(string(text))+w.sharing()), 0o600); err != nil {
			return err
		}
	}
	dir := w.path("dovecot")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(w.Dir, 0o755); err != nil { // mail belongs to somebody else
		return err
	}
	s, err := imaptest.New(dir, c)
	if err != nil {
		return err
	}
	w.Dovecot = s
	return w.writeDovecotAgent()
}
