package imap

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// tlsConfig returns how the server is verified.
func (c *Config) tlsConfig() *tls.Config {
	if c.TLS != nil {
		return c.TLS()
	}
	host, _, err := net.SplitHostPort(c.Address)
	if err != nil {
		host = c.Address
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
}

// dial connects, with TLS as configured.
func (c *Config) dial(ctx context.Context) (net.Conn, error) {
	if c.Dial != nil {
		return c.Dial(ctx)
	}
	dialer := net.Dialer{Timeout: c.timeout()}
	switch c.Security {
	case "none":
		return dialer.DialContext(ctx, "tcp", c.Address)
	case "starttls":
		return c.startTLS(ctx, dialer)
	}
	d := tls.Dialer{NetDialer: &dialer, Config: c.tlsConfig()}
	ctx, cancel := context.WithTimeout(ctx, c.timeout())
	defer cancel()
	return d.DialContext(ctx, "tcp", c.Address)
}

// startTLS speaks plain text up to the STARTTLS command, and then greets the
// client anew: the server does not, and what came before TLS is not to be
// believed (RFC 9051, section 6.2.1).
func (c *Config) startTLS(ctx context.Context, dialer net.Dialer) (net.Conn, error) {
	plain, err := dialer.DialContext(ctx, "tcp", c.Address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = plain.Close() }) // the error is told by what it interrupts
	defer stop()
	conn := tls.Client(plain, c.tlsConfig())
	err = errors.Join(plain.SetDeadline(time.Now().Add(c.timeout())), askForTLS(plain))
	if err == nil {
		err = conn.HandshakeContext(ctx)
	}
	if err == nil {
		err = plain.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = plain.Close() // the first error is told
		return nil, err
	}
	return &greeted{Conn: conn, greeting: strings.NewReader("* OK TLS started\r\n")}, nil
}

// askForTLS reads exactly the two lines that come before TLS: a server, or
// somebody in between, that sends more of it is refused.
func askForTLS(conn net.Conn) error {
	lines := bufio.NewReader(io.LimitReader(conn, 64<<10))
	greeting, err := lines.ReadString('\n')
	if err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	if !strings.HasPrefix(greeting, "* OK") {
		return fmt.Errorf("greeting: %q", strings.TrimSpace(greeting))
	}
	if _, err := io.WriteString(conn, "S STARTTLS\r\n"); err != nil {
		return fmt.Errorf("STARTTLS: %w", err)
	}
	answer, err := lines.ReadString('\n')
	switch {
	case err != nil:
		return fmt.Errorf("STARTTLS: %w", err)
	case !strings.HasPrefix(answer, "S OK"):
		return fmt.Errorf("STARTTLS: %q", strings.TrimSpace(answer))
	case lines.Buffered() > 0:
		return errors.New("STARTTLS: more than the answer came before TLS")
	}
	return nil
}

// greeted is a connection whose first bytes are a greeting.
type greeted struct {
	net.Conn
	greeting *strings.Reader
}

// Read implements net.Conn.
func (g *greeted) Read(p []byte) (int, error) {
	if g.greeting.Len() > 0 {
		return g.greeting.Read(p)
	}
	return g.Conn.Read(p)
}
