package config

import (
	"strings"
	"time"

	"badgerelay/cmd/internal/configfile"
	"badgerelay/relay/agent/ews"
)

// EWS is an Exchange Server (on-premises), reached through its Exchange Web
// Services. Needs URL or Autodiscover, and the service account's login. A mailbox
// is called at the relay as its SMTP address.
type EWS struct {
	// URL is the address of Exchange Web Services, such as
	// https://mail.fabrikam.com/EWS/Exchange.asmx. Empty: Autodiscover tells.
	URL string `yaml:"url"`
	// Autodiscover is the mail domain, such as fabrikam.com, or the address of its
	// autodiscover service, SOAP's or one that ends in .xml; each mailbox is looked
	// up there. This or URL. Empty,
	// both: Exchange is not used.
	Autodiscover string `yaml:"autodiscover"`
	// CAFile holds the authorities that sign the server's certificate, PEM.
	// Empty: the system's. Reload.
	CAFile string `yaml:"ca_file"`
	// Access is "impersonation" (the role ApplicationImpersonation) or "delegate"
	// (rights to each folder). Empty: impersonation.
	Access string `yaml:"access"`
	// Authentication is "ntlm" or "basic" (with PasswordFile), "negotiate" (with
	// KeytabFile), or "windows" (the account that the service runs as; on Windows
	// only). Empty: negotiate where there is a KeytabFile, else ntlm.
	Authentication string `yaml:"authentication"`
	// User is the service account: FABRIKAM\badgeagent or
	// badgeagent@fabrikam.com; with a keytab its principal,
	// badgeagent@FABRIKAM.COM.
	User string `yaml:"user"`
	// PasswordFile holds the account's password on its first line; others must
	// not be able to read it. Reload.
	PasswordFile string `yaml:"password_file"`
	// KeytabFile holds the account's Kerberos keys; others must not be able to
	// read it. Reload.
	KeytabFile string `yaml:"keytab_file"`
	// KerberosConfig is the path of Kerberos's configuration. Empty:
	// /etc/krb5.conf.
	KerberosConfig string `yaml:"kerberos_config"`
	// ServicePrincipal is Exchange's name at Kerberos. Empty: HTTP/ and the
	// server's host name.
	ServicePrincipal string `yaml:"service_principal"`
	// Folders are counted, and their unread messages added up: inbox, junkemail,
	// drafts, or names with slashes between them, from the top of the mailbox or
	// from one of those (inbox/Orders). Empty: inbox.
	Folders []string `yaml:"folders"`
	// MailboxesPerStream is how many mailboxes share a streaming connection. 0:
	// 200, the most that Exchange takes.
	MailboxesPerStream int `yaml:"mailboxes_per_stream"`
	// MaxRequests bounds the short requests under way. 0: 8; at most 27, which is
	// what Exchange allows an account. As many again, but not more than 27 in all,
	// may be under way that take longer than two seconds.
	MaxRequests int `yaml:"max_requests"`
	// PollInterval is how often a mailbox is counted that Exchange does not stream
	// for now. 0: 1m.
	PollInterval Duration `yaml:"poll_interval"`
	// Timeout is how long the server may take for an answer. 0: 30s.
	Timeout Duration `yaml:"timeout"`
}

// The words for EWS.Authentication.
const (
	AuthNTLM      = "ntlm"
	AuthBasic     = "basic"
	AuthNegotiate = "negotiate"
	AuthWindows   = "windows"
)

// Enabled says whether there is an Exchange.
func (e EWS) Enabled() bool { return e.URL != "" || e.Autodiscover != "" }

// mentioned says whether the section is there, and meant to be used.
func (e EWS) mentioned() bool {
	return e.Enabled() || e.User != "" || e.PasswordFile != "" || e.KeytabFile != "" || e.Authentication != "" || e.Access != ""
}

// Address is where Exchange is, for people.
func (e EWS) Address() string {
	if e.URL != "" {
		return e.URL
	}
	return "autodiscover of " + e.Autodiscover
}

// Scheme returns how the agent authenticates.
func (e EWS) Scheme() string {
	switch {
	case e.Authentication != "":
		return e.Authentication
	case e.KeytabFile != "":
		return AuthNegotiate
	}
	return AuthNTLM
}

func (c *Config) checkEWS(k *configfile.Checker) {
	e := c.EWS
	if !e.Enabled() {
		if e.mentioned() {
			k.Bad("ews.url", "is required, or ews.autodiscover: without either Exchange is not used, and the section says that it should be")
		}
		return
	}
	e.checkAddress(k)
	k.Authorities("ews.ca_file", e.CAFile)
	k.OneOf("ews.access", e.Access, ews.Impersonation, ews.Delegate)
	k.OneOf("ews.authentication", e.Authentication, AuthNTLM, AuthBasic, AuthNegotiate, AuthWindows)
	e.checkLogin(k)
	e.checkFolders(k)
	k.Number("ews.mailboxes_per_stream", e.MailboxesPerStream, 1, ews.MaxMailboxesPerStream)
	k.Number("ews.max_requests", e.MaxRequests, 1, ews.MaxRequests)
	k.Duration("ews.poll_interval", e.PollInterval, time.Second, 24*time.Hour)
	k.Duration("ews.timeout", e.Timeout, time.Second, 10*time.Minute)
}

func (e EWS) checkAddress(k *configfile.Checker) {
	switch {
	case e.URL != "" && e.Autodiscover != "":
		k.Bad("ews", "url and autodiscover exclude each other")
	case e.URL != "":
		if err := ews.CheckURL(e.URL); err != nil {
			k.Bad("ews.url", "%v", err)
		}
		k.URLPort("ews.url", e.URL)
	case strings.Contains(e.Autodiscover, "://"):
		if err := ews.CheckURL(e.Autodiscover); err != nil {
			k.Bad("ews.autodiscover", "%v", err)
		}
		k.URLPort("ews.autodiscover", e.Autodiscover)
	case strings.ContainsAny(e.Autodiscover, "/@: ") || !strings.Contains(e.Autodiscover, "."):
		k.Bad("ews.autodiscover", "%q is neither a mail domain such as fabrikam.com nor an https URL", e.Autodiscover)
	}
}

func (e EWS) checkLogin(k *configfile.Checker) {
	scheme := e.Scheme()
	password, keytab := scheme == AuthNTLM || scheme == AuthBasic, scheme == AuthNegotiate
	if e.PasswordFile != "" && !password {
		k.Bad("ews.password_file", "belongs to ews.authentication ntlm or basic, which is %s", scheme)
	}
	if e.KeytabFile != "" && !keytab {
		k.Bad("ews.keytab_file", "belongs to ews.authentication negotiate, which is %s", scheme)
	}
	switch {
	case password:
		if e.User == "" {
			k.Bad("ews.user", `is required with %s: FABRIKAM\badgeagent or badgeagent@fabrikam.com`, scheme)
		}
		checkPassword(k, "ews.password_file", e.PasswordFile)
	case keytab:
		if name, realm, _ := strings.Cut(e.User, "@"); name == "" || realm == "" || realm != strings.ToUpper(realm) {
			k.Bad("ews.user", "%q is not a principal with its realm in capitals, such as badgeagent@FABRIKAM.COM", e.User)
		}
		k.Secret("ews.keytab_file", e.KeytabFile)
	case scheme == AuthWindows && e.User != "":
		k.Bad("ews.user", "does not go with windows: the account is that which the service runs as")
	}
	if scheme == AuthWindows && !onWindows {
		k.Bad("ews.authentication", "windows is for Windows only; here negotiate with a keytab is the same")
	}
	if e.KerberosConfig != "" {
		k.Content("ews.kerberos_config", e.KerberosConfig)
	}
	if e.KerberosConfig != "" && !keytab {
		k.Bad("ews.kerberos_config", "belongs to ews.authentication negotiate, which is %s", scheme)
	}
	if e.ServicePrincipal != "" && password {
		k.Bad("ews.service_principal", "belongs to ews.authentication negotiate or windows, which is %s", scheme)
	}
}

func (e EWS) checkFolders(k *configfile.Checker) {
	checkFolders(k, "ews.folders", e.Folders, func(folder string) (one string, err error) {
		return strings.ToLower(folder), ews.CheckFolder(folder)
	})
}
