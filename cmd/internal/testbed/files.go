package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"badgerelay/auth/authtest"
	"badgerelay/relay/agent/imap/imaptest"
)

// write makes the relay's certificate and configuration and the secrets.
func (w *Testbed) write(context.Context) error {
	server := authtest.NewServer("relay", time.Now().AddDate(0, 1, 0), "127.0.0.1")
	if err := server.Write(w.path("relay.crt"), w.path("relay.key")); err != nil {
		return err
	}
	for name, content := range map[string]string{
		"relay.yaml": w.relayConfig(), "dovecot-token": token + "\n",
		"badgeagent-token.conf": "plugin {\n  badgeagent_token = " + token + "\n}\n", "master-password": imaptest.MasterPassword + "\n",
	} {
		if err := os.WriteFile(w.path(name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (w *Testbed) relayConfig() string {
	window := ""
	if w.Window > 0 {
		window = fmt.Sprintf("relay: {coalescing_window: %v}\n", w.Window)
	}
	return fmt.Sprintf(`
listen:
  address: %s
  tls: {certificate_file: %s, key_file: %s}
metadata: {address: %q}
admin: {socket: %s}
ops: {address: %q}
registry: {path: %s}
auth: {authorities: [%q], follow_ca_file: %s}
log: {format: text, level: warn}
drain_budget: 5s
%sapps:
  - name: %s
    topic: %s
    address: %q
    ca_file: %s
    token: {key_file: %s, key_id: SIMKEY0001, team_id: SIMTEAM001}
`, w.ports.relay, w.path("relay.crt"), w.path("relay.key"), w.ports.metadata, w.path("admin.sock"), w.ports.relayOps,
		w.path("registry.db"), w.ports.relay, w.path("relay.crt"), window, App, topic, w.ports.apple, w.path("sim/apnssim-ca.pem"), w.path("sim/"+signingKey))
}

// sharedFolders is dovecot.shared where mailboxes are shared, or not.
var sharedFolders = map[bool]string{true: `"shared/{user}/"`}

// writeAgent writes the agent's configuration: source is where it counts, and local
// what else is said of its local listener.
func (w *Testbed) writeAgent(source, local string) error {
	return os.WriteFile(w.path("agent.yaml"), fmt.Appendf([]byte(source), `
ops: {address: %q}
metadata: {address: %q, tls: {certificate_file: %s, key_file: %s}}
log: {format: text, level: info, mailboxes: clear}
local:
  socket: %s
%s`, w.ports.agentOps, w.ports.document, w.path("relay.crt"), w.path("relay.key"), w.Socket(), local), 0o600)
}

// writeDovecotAgent writes it for Dovecot, whose port is known by now.
func (w *Testbed) writeDovecotAgent() error {
	local := ""
	if w.Lua {
		local = fmt.Sprintf("  address: %q\ndovecot: {enabled: true, token_file: %s, shared: [%s]}\n", w.ports.agent, w.path("dovecot-token"), sharedFolders[w.Shared])
	}
	return w.writeAgent(fmt.Sprintf(`
mailboxes: {suffix: %q}
imap:
  address: %q
  security: none
  master_user: %s
  master_password_file: %s
  master_separator: "*"
  watch: %s
`, suffix, w.Dovecot.IMAP, imaptest.Master, w.path("master-password"), w.Watch), local)
}
