// Package config is the agent daemon's configuration: one YAML file.
//
// The comments on Config's fields are its reference. Every problem of a file is
// reported at once, with its line. The package reads the files that the
// configuration names only to judge them; it starts nothing and watches
// nothing.
package config

import "badgerelay/cmd/internal/configfile"

// What the agent's file has in common with others.
type (
	Log      = configfile.Log
	Duration = configfile.Duration
	Problem  = configfile.Problem
)

// Config is the whole file. It is read at start only, save Log.Level; of files
// marked "reload" the content is read again on SIGHUP.
//
// How the relay is reached, and as whom, is not in it: badgeagent keeps that in
// its directory (cert ensure, auth-server set, proxy enable).
type Config struct {
	// AgentID is which agent this is to the relay: 1 to 128 visible ASCII
	// characters. Empty: one that badgeagent makes at its first start and keeps in
	// its directory.
	//
	// Two agents with one id do the same work: the one that was started last is
	// active, and the other stands by and takes over when it is gone. Give agents
	// for different mailboxes, or with different sources, different ids.
	AgentID string `yaml:"agent_id"`
	// Relay adds to what the directory says of the relay.
	Relay Relay `yaml:"relay"`
	// Mailboxes says how the mail server's users become the relay's mailboxes.
	Mailboxes Mailboxes `yaml:"mailboxes"`
	// IMAP watches and counts mailboxes over IMAP.
	IMAP IMAP `yaml:"imap"`
	// EWS watches and counts the mailboxes of an Exchange Server (on-premises).
	EWS EWS `yaml:"ews"`
	// Dovecot takes Dovecot's notifications, on the local listener.
	Dovecot Dovecot `yaml:"dovecot"`
	// Local is the listener for programs on this machine.
	Local Local `yaml:"local"`
	// Metadata serves the organization's auth metadata document.
	Metadata Metadata `yaml:"metadata"`
	// Resync bounds how fast counts are asked for after a start, or when the
	// relay has changed.
	Resync Resync `yaml:"resync"`
	// Ops serves metrics, health and profiles.
	Ops Ops `yaml:"ops"`
	// Log says what is logged and how.
	Log Log `yaml:"log"`
	// DrainBudget bounds the whole of an orderly stop. 0: 10s.
	DrainBudget Duration `yaml:"drain_budget"`
}

// Relay adds to what the directory says of the relay.
type Relay struct {
	// Addresses are the relays, host:port, tried in this order. Empty: those
	// that the metadata document named.
	Addresses []string `yaml:"addresses"`
	// CAFile holds the authorities that sign the relay's certificate, PEM.
	// Empty: what auth-server set was given, or the system's.
	CAFile string `yaml:"ca_file"`
	// Product is the mail server that the agent speaks for, such as Exchange.
	// Empty: not said.
	Product string `yaml:"product"`
	// ProductVersion is its version, such as 15.0.775.38. Empty: not said, which
	// relays refuse of a product that has an oldest version there, as Exchange has.
	ProductVersion string `yaml:"product_version"`
}

// Mailboxes says how the mail server's users become the relay's mailboxes: a
// mailbox is the user's name with Suffix behind it.
type Mailboxes struct {
	// Suffix is added to a user's name, such as "@fabrikam.com" where users log
	// in without their domain. Mailboxes that end otherwise are then not the server's.
	// Empty: user and mailbox are called alike.
	Suffix string `yaml:"suffix"`
	// CaseSensitive says that the mail server tells Vera from vera, and so do Suffix and
	// imap.credentials_file. False: what it says of one is also of the other, as nearly
	// all mail servers do.
	CaseSensitive bool `yaml:"case_sensitive"`
}

// IMAP is the mail server's IMAP service. Needs Address; the credentials are
// either a master user's or each user's own.
type IMAP struct {
	// Address is host:port. Empty: IMAP is not used, neither to watch nor to
	// count.
	Address string `yaml:"address"`
	// Security is "tls", "starttls" or "none"; none on loopback only. Empty:
	// tls, or starttls on port 143.
	Security string `yaml:"security"`
	// CAFile holds the authorities that sign the server's certificate, PEM.
	// Empty: the system's. Reload.
	CAFile string `yaml:"ca_file"`
	// ServerName is the name in the server's certificate. Empty: the host of
	// Address.
	ServerName string `yaml:"server_name"`
	// MasterUser reads all mailboxes. Where {user} is in it, it is a template of
	// the login name, for servers such as Exchange whose delegates log in as
	// DOMAIN/delegate/{user}.
	MasterUser string `yaml:"master_user"`
	// MasterPasswordFile holds the master user's password on its first line;
	// others must not be able to read it. Reload.
	MasterPasswordFile string `yaml:"master_password_file"`
	// MasterSeparator is what stands between user and master user in the login
	// name, such as "*" for Dovecot's auth_master_user_separator. Empty: the
	// user is named as SASL PLAIN's authorization identity.
	MasterSeparator string `yaml:"master_separator"`
	// CredentialsFile holds each user's own login: lines of a user (the
	// mailbox without mailboxes.suffix), a tab, the login name, a tab, and the
	// password; at most 32 MiB. This or MasterUser. Others must not be able to
	// read it. Reload.
	CredentialsFile string `yaml:"credentials_file"`
	// Folders are counted, and their unread messages added up. Empty: INBOX.
	Folders []string `yaml:"folders"`
	// Watch is "auto" (IDLE for one folder, NOTIFY for several, where the server
	// has it, else the other, else poll), "notify", "idle", "poll", or "off": then
	// IMAP only counts what another source says has changed. Where the server lacks
	// what is named, the next best is taken, and told. Empty: auto.
	Watch string `yaml:"watch"`
	// MaxConnections bounds the connections to the server. 0: 100. Where there
	// are more mailboxes, they take turns.
	MaxConnections int `yaml:"max_connections"`
	// PollInterval is how long a mailbox waits at most between two looks, also
	// where connections are scarce or the server can only be polled. 0: 5m.
	PollInterval Duration `yaml:"poll_interval"`
	// Timeout is how long the server may take for an answer. A mailbox that others
	// wait for has less at first, 4s, and twice as long each time that it was late.
	// 0: 30s.
	Timeout Duration `yaml:"timeout"`
}

// Dovecot takes Dovecot's notifications, on the local listener.
type Dovecot struct {
	// Enabled switches it on. Needs a local listener.
	Enabled bool `yaml:"enabled"`
	// TokenFile holds, on its first line, the secret that Dovecot shows on TCP;
	// others must not be able to read it. Reload.
	TokenFile string `yaml:"token_file"`
	// Shared are the prefixes of Dovecot's shared namespaces, with {user} where the
	// owner's name is, such as "shared/{user}/". What is changed in a folder there
	// has its owner counted. Empty: none.
	Shared []string `yaml:"shared"`
}

// Local is the listener for the mail server and app back ends, on this machine
// or on a network that is as private. It may have a socket, an address, or both.
type Local struct {
	// Socket is the path of a unix socket. Who may open it may use it. Empty:
	// none.
	Socket string `yaml:"socket"`
	// SocketMode is its mode, octal. Empty: 0660.
	SocketMode string `yaml:"socket_mode"`
	// SocketGroup is the group that may open it: one of its own, because who is in
	// the agent's can read its secrets, too. The agent has to be in it. Empty: the
	// agent's group.
	SocketGroup string `yaml:"socket_group"`
	// Address is host:port: on loopback, or anywhere with TLS or Networks. Callers
	// must show a token there. Empty: none.
	Address string `yaml:"address"`
	// TLS is the certificate for callers on Address. Empty: they come without TLS.
	// Reload.
	TLS configfile.TLS `yaml:"tls"`
	// Networks are those whose callers are served on Address, such as
	// 172.22.1.0/24, a network of containers that nobody else is on. Empty: all.
	Networks []string `yaml:"networks"`
	// TokenFile holds, on its first line, the secret that app back ends show on
	// TCP; others must not be able to read it. Empty: the API for back ends is
	// served on the socket only. Reload.
	TokenFile string `yaml:"token_file"`
}

// Metadata serves the organization's auth metadata document over https, from
// which a relay learns of the next certificate. Without it, let a web server
// serve what badgeagent metadata exports.
type Metadata struct {
	// Address is host:port. Empty: not served.
	Address string `yaml:"address"`
	// TLS is the listener's certificate, which the relay must trust. Reload.
	TLS configfile.TLS `yaml:"tls"`
}

// Resync bounds how fast counts are asked for.
type Resync struct {
	// CountsPerSecond is the pace. 0: 50.
	CountsPerSecond float64 `yaml:"counts_per_second"`
	// Concurrency is how many counts are asked for at once, besides those that have
	// taken more than two seconds. 0: 4.
	Concurrency int `yaml:"concurrency"`
}

// Ops is the listener for metrics, health and profiles. It has no
// authentication: keep it inside.
type Ops struct {
	// Address is host:port. Empty: 127.0.0.1:9465. "off": not served.
	// Profiles (/debug/pprof/) are served only where it is a loopback address.
	Address string `yaml:"address"`
	// Hosts are further names by which it is asked, such as that of a service in
	// a cluster. Loopback names and the address that a request arrives at are
	// known; others are refused, because a page of another site could use them.
	Hosts []string `yaml:"hosts"`
}
