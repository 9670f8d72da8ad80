package imaptest

import (
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Courier delivers mail over one LMTP connection.
type Courier struct {
	conn *textproto.Conn
	raw  net.Conn
}

// Courier connects to lmtpd. The caller closes it.
func (s *Server) Courier() (*Courier, error) {
	raw, err := net.DialTimeout("unix", s.LMTP, timeout)
	if err != nil {
		return nil, fmt.Errorf("reach lmtpd: %w", err)
	}
	c := &Courier{textproto.NewConn(raw), raw}
	if _, _, err := c.conn.ReadResponse(220); err != nil {
		return nil, errors.Join(fmt.Errorf("lmtpd's greeting: %w", err), c.Close())
	}
	if err := c.say(250, "LHLO localhost"); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Close ends the connection.
func (c *Courier) Close() error { return c.conn.Close() }

// say sends one line and wants one code.
func (c *Courier) say(want int, line string) error {
	if err := c.raw.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if err := c.conn.PrintfLine("%s", line); err != nil {
		return fmt.Errorf("lmtp: %w", err)
	}
	if _, _, err := c.conn.ReadResponse(want); err != nil {
		verb, _, _ := strings.Cut(line, " ")
		return fmt.Errorf("lmtp %.4s: %w", verb, err)
	}
	return nil
}

// Deliver delivers a mail to user and returns when it is in the mailbox.
func (c *Courier) Deliver(user, subject string) error {
	address := user
	if strings.ContainsAny(user, " \"\\") {
		address = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(user) + `"`
	}
	for _, step := range []struct {
		code int
		line string
	}{
		{250, "MAIL FROM:<>"}, {250, "RCPT TO:<" + address + ">"}, {354, "DATA"},
		{250, "From: sender@example.org\r\nSubject: " + subject + "\r\n\r\n" + Text + "\r\n."},
	} {
		if err := c.say(step.code, step.line); err != nil {
			return fmt.Errorf("deliver to %q: %w", user, err)
		}
	}
	return nil
}

// DeliverAll delivers one mail to several users.
func (c *Courier) DeliverAll(users []string, subject string) error {
	if err := c.say(250, "MAIL FROM:<>"); err != nil {
		return err
	}
	for _, user := range users {
		if err := c.say(250, "RCPT TO:<"+user+">"); err != nil {
			return err
		}
	}
	if err := c.say(354, "DATA"); err != nil {
		return err
	}
	if err := c.say(250, "From: sender@example.org\r\nSubject: "+subject+"\r\n\r\n"+Text+"\r\n."); err != nil {
		return err
	}
	for range users[1:] {
		if err := c.raw.SetDeadline(time.Now().Add(timeout)); err != nil {
			return err
		}
		if _, _, err := c.conn.ReadResponse(250); err != nil {
			return fmt.Errorf("deliver to all: %w", err)
		}
	}
	return nil
}

// Text is what every delivered mail says: nothing of it may be found in what
// an agent keeps.
const Text = "The quick brown fox reads your mail."

// Deliver delivers one mail over a connection of its own.
func (s *Server) Deliver(user, subject string) error {
	c, err := s.Courier()
	if err != nil {
		return err
	}
	return errors.Join(c.Deliver(user, subject), c.Close())
}

// PutBehind puts a mail into a user's Maildir as another program does, without a
// word to Dovecot. The user has to have a mailbox.
func (s *Server) PutBehind(user, subject string) error {
	maildir := filepath.Join(s.Dir, "mail", user, "Maildir")
	name := fmt.Sprintf("%d.other.%s", time.Now().UnixNano(), subject)
	path := filepath.Join(maildir, "tmp", name)
	if err := os.WriteFile(path, []byte("Subject: "+subject+"\r\n\r\n"+Text+"\r\n"), 0o600); err != nil {
		return err
	}
	if os.Getuid() == 0 { // else all of it is the caller's
		if err := os.Chown(path, nobody, nogroup); err != nil {
			return err
		}
	}
	return os.Rename(path, filepath.Join(maildir, "new", name))
}
