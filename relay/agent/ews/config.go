package ews

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The ways in which the agent may open other people's mailboxes.
const (
	// Impersonation acts as the mailbox's owner: the role
	// ApplicationImpersonation.
	Impersonation = "impersonation"
	// Delegate acts as itself: rights to the folders of the mailbox.
	Delegate = "delegate"
)

// Limits of the protocol. Source: Exchange Web Services reference,
// GetStreamingEvents; EWS throttling in Exchange (read 2026-11).
const (
	// MaxMailboxesPerStream is how many subscriptions one streaming request may
	// name.
	MaxMailboxesPerStream = 200
	// MaxRequests is how many requests an account may have under way: Exchange's
	// EwsMaxConcurrency.
	MaxRequests = 27
	// maxStreamMinutes is the longest ConnectionTimeout.
	maxStreamMinutes = 30
	// silence is after how long a stream that says nothing is dead: twice the 45
	// seconds after which a server that has nothing to say says so.
	silence = 90 * time.Second
)

// Config of a Source. URL or Autodiscover, and Credentials are required.
type Config struct {
	// URL is the address of Exchange Web Services, such as
	// https://mail.fabrikam.com/EWS/Exchange.asmx. Empty: Autodiscover tells.
	URL string
	// Autodiscover is a mail domain, or the address of its autodiscover service,
	// such as https://autodiscover.fabrikam.com/autodiscover/autodiscover.svc, or
	// ending in .xml where it speaks plain XML only: each mailbox is asked for
	// there. Empty: URL serves all of them.
	Autodiscover string
	// LookupSRV asks DNS where the domain's autodiscover is, if it is not where it
	// usually is. Nil: the system's resolver.
	LookupSRV func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
	// TLS returns how to verify the server; it is asked again for each stream, and
	// after SetCredentials. Nil: the system's authorities.
	TLS func() *tls.Config
	// Dial connects instead of TCP, for tests in memory. Nil: TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Credentials are the service account's.
	Credentials Credentials
	// Access is Impersonation or Delegate. Empty: Impersonation.
	Access string
	// Folders are counted, and their unread messages added up: names that every
	// mailbox knows (inbox, junkemail, drafts, ...), or the names of folders with
	// slashes between them, from the top of the mailbox or from one of those
	// (inbox/Orders). Empty: inbox.
	Folders []string
	// MailboxesPerStream is how many mailboxes share a connection. 0: 200, which
	// is the most.
	MailboxesPerStream int
	// MaxRequests bounds the short requests under way. 0: 8; at most 27. As many
	// again, but not more than 27 in all, may be under way that take longer than
	// two seconds: mailboxes that hang hold up no others.
	MaxRequests int
	// PollInterval is how often a mailbox is counted that the server does not
	// stream for now. 0: 1m.
	PollInterval time.Duration
	// Timeout is how long the server may take for an answer. 0: 30s.
	Timeout time.Duration

	// Logger gets what people should know. Nil: nothing is logged.
	Logger *slog.Logger
	// Registerer gets the metrics. Nil: none.
	Registerer prometheus.Registerer

	credentials func() (Credentials, int) // those of now; New sets it
}

// Validate returns everything that is wrong with c, as one error.
func (c *Config) Validate() error {
	var errs []error
	switch {
	case c.URL == "" && c.Autodiscover == "":
		errs = append(errs, errors.New("no url, and no autodiscover"))
	case c.URL != "" && c.Autodiscover != "":
		errs = append(errs, errors.New("url and autodiscover exclude each other"))
	case c.URL != "":
		errs = append(errs, CheckURL(c.URL))
	}
	if c.Credentials == nil {
		errs = append(errs, errors.New("no credentials"))
	}
	if !slices.Contains([]string{"", Impersonation, Delegate}, c.Access) {
		errs = append(errs, fmt.Errorf("access %q", c.Access))
	}
	for _, f := range c.Folders {
		errs = append(errs, CheckFolder(f))
	}
	if c.MailboxesPerStream < 0 || c.MailboxesPerStream > MaxMailboxesPerStream {
		errs = append(errs, fmt.Errorf("%d mailboxes a stream: 1 to %d", c.MailboxesPerStream, MaxMailboxesPerStream))
	}
	if c.MaxRequests < 0 || c.MaxRequests > MaxRequests {
		errs = append(errs, fmt.Errorf("%d requests: 1 to %d", c.MaxRequests, MaxRequests))
	}
	if c.PollInterval < 0 || c.Timeout < 0 {
		errs = append(errs, errors.New("a time is negative"))
	}
	return errors.Join(errs...)
}

// CheckURL says what is wrong with the address of a service: passwords must not
// cross a network readable.
func CheckURL(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "":
		return fmt.Errorf("%q is not a URL such as https://mail.fabrikam.com/EWS/Exchange.asmx", address)
	case u.User != nil:
		return errors.New("the URL holds credentials, which belong elsewhere")
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && loopback(u.Hostname()):
		return nil
	case u.Scheme == "http":
		return errors.New("http is for loopback only: passwords and mail would cross the network readable")
	}
	return fmt.Errorf("%q is not an https URL", address)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// wellKnown are the names of folders that every mailbox knows and that may hold
// unread mail. Source: Exchange Web Services reference, DistinguishedFolderId
// (read 2026-11).
var wellKnown = []string{"inbox", "junkemail", "drafts", "sentitems", "outbox", "deleteditems", "msgfolderroot", "archivemsgfolderroot"}

// CheckFolder says what is wrong with the name of a folder.
func CheckFolder(name string) error {
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || strings.ContainsFunc(part, func(r rune) bool { return r < ' ' || r == 0xfffd }) {
			return fmt.Errorf("%q is not a folder's name", name)
		}
	}
	return nil
}

// paths returns the folders as the way to each: one that every mailbox knows,
// and names below it.
func (c *Config) paths() [][]string {
	folders := c.Folders
	if len(folders) == 0 {
		folders = []string{"inbox"}
	}
	var all [][]string
	for _, f := range folders {
		path := strings.Split(f, "/")
		if first := strings.ToLower(path[0]); slices.Contains(wellKnown, first) {
			path[0] = first
		} else {
			path = append([]string{"msgfolderroot"}, path...)
		}
		all = append(all, path)
	}
	return all
}

func (c *Config) access() string          { return or(c.Access, Impersonation) }
func (c *Config) perStream() int          { return or(c.MailboxesPerStream, MaxMailboxesPerStream) }
func (c *Config) requests() int           { return or(c.MaxRequests, 8) }
func (c *Config) interval() time.Duration { return or(c.PollInterval, time.Minute) }
func (c *Config) timeout() time.Duration  { return or(c.Timeout, 30*time.Second) }

func (c *Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
