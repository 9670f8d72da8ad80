package config

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"badgerelay/cmd/internal/configfile"
	"badgerelay/relay/agent"
	"badgerelay/relay/agent/imap"
)

// Example is a file with every setting explained. Load accepts it once the
// files that it names exist, also with its commented-out settings in force.
//
//go:embed example.yaml
var Example string

// Load reads and validates the file, or DefaultPath where path is empty. The
// returned configuration is the valid one, with warnings beside it; err joins
// every *Problem.
func Load(path string) (c *Config, warnings []*Problem, err error) {
	if configfile.Named(path, DefaultPath) == "" { // the defaults watch nothing
		return nil, nil, &Problem{Text: "there is no " + DefaultPath + "; the command 'config example' prints one to begin with, and --config names another file"}
	}
	return configfile.Load(path, DefaultPath, (*Config).check)
}

// Unset tells that nothing is set in the file, as in the one that packages bring
// for somebody to edit.
func Unset(path string) bool {
	data, path, err := configfile.Read(path, DefaultPath)
	if err != nil {
		return false
	}
	lines, err := configfile.Decode(path, data, new(Config))
	return err == nil && len(lines) == 0
}

func (c *Config) check(k *configfile.Checker) {
	c.checkRelay(k)
	c.checkSuffix(k)
	c.checkIMAP(k)
	c.checkEWS(k)
	c.checkLocal(k)
	c.checkOperation(k)
}

func (c *Config) checkRelay(k *configfile.Checker) {
	if len(c.AgentID) > agent.MaxAgentIDBytes {
		k.Bad("agent_id", "has %d bytes, at most %d are allowed", len(c.AgentID), agent.MaxAgentIDBytes)
	}
	if strings.ContainsFunc(c.AgentID, func(r rune) bool { return r <= ' ' || r > '~' }) {
		k.Bad("agent_id", "%q has a character that is not visible ASCII", c.AgentID)
	}
	for i, address := range c.Relay.Addresses {
		k.Peer(fmt.Sprintf("relay.addresses[%d]", i), address)
	}
	k.Authorities("relay.ca_file", c.Relay.CAFile)
	for field, value := range map[string]string{"product": c.Relay.Product, "product_version": c.Relay.ProductVersion} {
		if len(value) > 64 {
			k.Bad("relay."+field, "has %d bytes, at most 64 are allowed", len(value))
		}
	}
}

// checkSuffix looks for what makes names that no app registers.
func (c *Config) checkSuffix(k *configfile.Checker) {
	suffix := c.Mailboxes.Suffix
	_, domain, ok := strings.Cut(suffix, "@")
	if suffix != "" && (!ok || domain == "" || strings.ContainsFunc(suffix, unicode.IsSpace)) {
		k.Bad("mailboxes.suffix", "%q makes no address of a user's name: ann's mailbox would be %q; write it as @fabrikam.com", suffix, "ann"+suffix)
	}
}

func (c *Config) checkIMAP(k *configfile.Checker) {
	i := c.IMAP
	if i.Address == "" {
		c.checkNoIMAP(k)
		return
	}
	k.Peer("imap.address", i.Address)
	k.OneOf("imap.security", i.Security, "tls", "starttls", "none")
	if i.Security == "none" && !configfile.Loopback(i.Address) {
		k.Bad("imap.security", "none is for loopback only: passwords would cross the network readable")
	}
	k.Authorities("imap.ca_file", i.CAFile)
	c.checkLogin(k)
	c.checkFolders(k)
	k.OneOf("imap.watch", i.Watch, "auto", "notify", "idle", "poll", "off")
	if i.Watch == "off" && !c.Dovecot.Enabled {
		k.Bad("imap.watch", "off needs dovecot.enabled: else nothing tells what has changed")
	}
	k.Number("imap.max_connections", i.MaxConnections, 2, 100000)
	k.Duration("imap.poll_interval", i.PollInterval, time.Second, 24*time.Hour)
	k.Duration("imap.timeout", i.Timeout, time.Second, 10*time.Minute)
}

func (c *Config) checkFolders(k *configfile.Checker) {
	checkFolders(k, "imap.folders", c.IMAP.Folders, func(folder string) (one string, err error) {
		if folder == "" || strings.ContainsAny(folder, "\x00\r\n") {
			return "", fmt.Errorf("%q is not a folder's name", folder)
		}
		if strings.EqualFold(folder, "INBOX") {
			return "INBOX", nil // RFC 9051, section 5.1
		}
		return folder, nil
	})
}

// checkFolders looks for folders that would be counted twice. check returns what all
// names of a folder have in common, or what is wrong with this one.
func checkFolders(k *configfile.Checker, field string, folders []string, check func(folder string) (one string, err error)) {
	seen := make(map[string]bool)
	for n, folder := range folders {
		at := fmt.Sprintf("%s[%d]", field, n)
		one, err := check(folder)
		switch {
		case err != nil:
			k.Bad(at, "%v", err)
		case seen[one]:
			k.Bad(at, "%q is there twice: its messages would be counted twice", folder)
		}
		seen[one] = true
	}
}

func (c *Config) checkLogin(k *configfile.Checker) {
	i := c.IMAP
	switch {
	case i.MasterUser != "" && i.CredentialsFile != "":
		k.Bad("imap", "master_user and credentials_file exclude each other")
	case i.MasterUser != "":
		checkPassword(k, "imap.master_password_file", i.MasterPasswordFile)
	case i.CredentialsFile != "":
		for _, wrong := range imap.CheckCredentials(k.LargeSecret("imap.credentials_file", i.CredentialsFile, imap.MaxCredentials), c.Mailboxes.CaseSensitive) {
			k.Bad("imap.credentials_file", "%s: %v", i.CredentialsFile, wrong)
		}
	default:
		k.Bad("imap", "needs a login: master_user with master_password_file, or credentials_file")
	}
	if i.MasterUser == "" && (i.MasterPasswordFile != "" || i.MasterSeparator != "") {
		k.Bad("imap", "master_password_file and master_separator belong to master_user, which is not set")
	}
}

// checkPassword looks at a password's file as imap.PasswordFile reads it.
func checkPassword(k *configfile.Checker, field, path string) {
	if data := k.Secret(field, path); data != nil && (len(data) == 0 || data[0] == '\n' || bytes.HasPrefix(data, []byte("\r\n"))) {
		k.Bad(field, "the first line of %s is empty: it holds the password", path)
	}
}

func (c *Config) checkNoIMAP(k *configfile.Checker) {
	if !c.Dovecot.Enabled {
		if !c.EWS.mentioned() {
			k.Bad("imap.address", "is required, or ews.url, ews.autodiscover or dovecot.enabled: without any there is nothing to watch")
		}
		return
	}
	if len(c.IMAP.Folders) > 1 {
		k.Bad("imap.folders", "more than one folder needs imap.address: Dovecot tells one folder's count, and the others have to be asked for")
	}
	k.Warn("imap", "without it no count can be asked for: after a pause of the agent a badge stays wrong until the mailbox's next change")
}

func (c *Config) checkLocal(k *configfile.Checker) {
	l := c.Local
	k.Socket("local.socket", l.Socket)
	checkSocketDirectory(k, l.Socket)
	if _, err := strconv.ParseUint(l.SocketMode, 8, 9); l.SocketMode != "" && err != nil {
		k.Bad("local.socket_mode", "%q is not an octal mode such as 0660", l.SocketMode)
	}
	if _, err := user.LookupGroup(l.SocketGroup); l.SocketGroup != "" && err != nil {
		k.Bad("local.socket_group", "there is no group %q", l.SocketGroup)
	}
	if l.Address != "" {
		k.Listen("local.address", l.Address)
		if _, _, err := net.SplitHostPort(l.Address); err == nil && !configfile.Loopback(l.Address) && l.TLS.Empty() && len(l.Networks) == 0 {
			k.Bad("local.address", "%s is not a loopback address: it needs local.tls, or local.networks to say from which private networks callers come", l.Address)
		}
	}
	if !l.TLS.Empty() {
		k.KeyPair("local.tls", l.TLS)
	}
	for i, network := range l.Networks {
		if _, err := netip.ParsePrefix(network); err != nil {
			k.Bad(fmt.Sprintf("local.networks[%d]", i), "%q is not a network such as 172.22.1.0/24", network)
		}
	}
	switch {
	case l.TokenFile != "":
		k.Secret("local.token_file", l.TokenFile)
	case l.Address != "" && !c.Dovecot.Enabled:
		k.Bad("local.token_file", "is required with local.address: whoever reaches the port has to show a token; on local.socket the socket's mode decides")
	}
	for i, pattern := range c.Dovecot.Shared {
		if _, after, ok := strings.Cut(pattern, "{user}"); !ok || after == "" {
			k.Bad(fmt.Sprintf("dovecot.shared[%d]", i), "%q is not a prefix such as shared/{user}/", pattern)
		}
	}
	if !c.Dovecot.Enabled {
		return
	}
	if l.Address == "" && l.Socket == "" {
		k.Bad("dovecot.enabled", "needs local.address or local.socket, where Dovecot's notifications arrive")
	}
	if l.Address != "" || c.Dovecot.TokenFile != "" {
		k.Secret("dovecot.token_file", c.Dovecot.TokenFile)
	}
}

// checkSocketDirectory looks for the directory of the socket, which serve does not make:
// who may open the socket depends on it. systemd makes that of the unit at each start, so
// it is no mistake that it is missing before.
func checkSocketDirectory(k *configfile.Checker, socket string) {
	dir := filepath.Dir(socket)
	switch info, err := os.Stat(dir); {
	case socket == "":
	case err == nil && !info.IsDir(), errors.Is(err, syscall.ENOTDIR):
		k.Bad("local.socket", "%s is no directory, or is below something that is none", dir)
	case errors.Is(err, fs.ErrNotExist):
		k.Warn("local.socket", "the directory %s is not there, and serve needs it: the systemd unit makes /run/badgeagent; make another as root with 'install -d -m 0755 -o badgeagent %[1]s'", dir)
	}
}

func (c *Config) checkOperation(k *configfile.Checker) {
	if m := c.Metadata; m.Address != "" {
		k.Listen("metadata.address", m.Address)
		k.KeyPair("metadata.tls", m.TLS)
	} else if !m.TLS.Empty() {
		k.Bad("metadata.tls", "belongs to metadata.address, which is not set")
	}
	k.Rate("resync.counts_per_second", c.Resync.CountsPerSecond, 0.1, 10000)
	k.Number("resync.concurrency", c.Resync.Concurrency, 1, 1000)
	if address := c.OpsAddress(); address != "" {
		k.Listen("ops.address", address)
	}
	k.Log("log", c.Log)
	k.Duration("drain_budget", c.DrainBudget, time.Second, time.Hour)
}

// Other implements configfile.Mistakable.
func (*Config) Other() (program string, keys []string) {
	return "badgerelay", []string{"listen", "admin", "ops", "metadata", "registry", "auth", "relay", "apps", "products", "limits", "log", "tracing", "drain_budget"}
}
