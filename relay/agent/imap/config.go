package imap

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config of a Source. Address and Login are required.
type Config struct {
	// Address is the server's host:port.
	Address string
	// Security is "tls", "starttls" or "none". Empty: tls.
	Security string
	// TLS returns how to verify the server, anew for each connection. Nil: the
	// system's authorities and the host of Address.
	TLS func() *tls.Config
	// Dial connects instead of TCP and TLS to Address, for tests in memory. Nil:
	// nothing does.
	Dial func(context.Context) (net.Conn, error)
	// Login returns how to log in for a user.
	Login func(user string) (Login, error)
	// Suffix follows a user's name in the name of the mailbox. Mailboxes
	// without it are not this server's.
	Suffix string
	// CaseSensitive says that names which differ in case are different ones. False:
	// Suffix is found in any case.
	CaseSensitive bool
	// Folders are counted, and their unread messages added up. Empty: INBOX.
	Folders []string
	// Watch is "auto", "notify", "idle", "poll" or "off". Empty: auto.
	Watch string
	// MaxConnections bounds the connections. 0: 100. At least 2: one in four,
	// but not more than 16, is kept for counts that are asked for.
	MaxConnections int
	// PollInterval is the longest time between two looks at a mailbox. 0: 5m.
	PollInterval time.Duration
	// Timeout is how long the server may take for an answer. A mailbox whose
	// connection others wait for has less at first. 0: 30s.
	Timeout time.Duration

	// Logger gets what people should know. Nil: nothing is logged.
	Logger *slog.Logger
	// Registerer gets the metrics. Nil: none.
	Registerer prometheus.Registerer
}

// Login is how to log in for a user.
type Login struct {
	// User and Password are whose they are.
	User, Password string
	// Identity is whose mailboxes to open, if not User's: SASL PLAIN's
	// authorization identity (RFC 4616). Empty: User's.
	Identity string
}

// Validate returns everything that is wrong with c, as one error.
func (c *Config) Validate() error {
	var errs []error
	if c.Address == "" {
		errs = append(errs, errors.New("no address"))
	}
	if c.Login == nil {
		errs = append(errs, errors.New("no login"))
	}
	switch c.Security {
	case "", "tls", "starttls", "none":
	default:
		errs = append(errs, fmt.Errorf("security %q", c.Security))
	}
	switch c.Watch {
	case "", "auto", "notify", "idle", "poll", "off":
	default:
		errs = append(errs, fmt.Errorf("watch %q", c.Watch))
	}
	if c.MaxConnections < 0 || c.MaxConnections == 1 || c.PollInterval < 0 || c.Timeout < 0 {
		errs = append(errs, errors.New("a limit is too low"))
	}
	return errors.Join(errs...)
}

// inbox is the folder that every mailbox has.
const inbox = "INBOX"

// folders returns what to count, the inbox first: IDLE watches the first.
func (c *Config) folders() []string {
	if len(c.Folders) == 0 {
		return []string{inbox}
	}
	var first, others []string
	for _, f := range c.Folders {
		if strings.EqualFold(f, inbox) {
			first = []string{inbox} // as the server answers (RFC 9051, section 5.1)
			continue
		}
		others = append(others, f)
	}
	return append(first, others...)
}

// user returns the user whose mailbox it is; false: it is not this server's.
func (c *Config) user(mailbox string) (string, bool) {
	n := max(len(mailbox)-len(c.Suffix), 0)
	suffix := mailbox[n:]
	return mailbox[:n], suffix == c.Suffix || !c.CaseSensitive && strings.EqualFold(suffix, c.Suffix)
}

func (c *Config) watch() string           { return or(c.Watch, "auto") }
func (c *Config) connections() int        { return or(c.MaxConnections, 100) }
func (c *Config) interval() time.Duration { return or(c.PollInterval, 5*time.Minute) }
func (c *Config) timeout() time.Duration  { return or(c.Timeout, 30*time.Second) }

// askers is how many of the allowed connections are kept for counts that are
// asked for.
func (c *Config) askers(allowed int) int {
	if c.watch() == "off" {
		return allowed
	}
	return min(max(allowed/4, 1), 16)
}

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

// notify fills a one-slot channel.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
