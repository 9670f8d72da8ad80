package imaptest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"badgerelay/relay/freeport"
)

// What logs in.
const (
	Password       = "open-sesame"
	Master         = "badgeagent"
	MasterPassword = "master-key"
)

// timeout bounds every wait for something Dovecot is about to do.
const timeout = 10 * time.Second

// Config says how Dovecot is to behave.
type Config struct {
	// Include is a file of configuration that is read first, such as the one
	// in deploy/dovecot. Empty: none.
	Include string
	// NoNotify leaves out the index that NOTIFY (RFC 5465) needs.
	NoNotify bool
	// NoIdle hides IDLE and NOTIFY, so that a client has to ask.
	NoIdle bool
	// More is configuration that is read last.
	More string
}

// Server is a Dovecot. Its methods may not be called concurrently.
type Server struct {
	// Dir holds everything: configuration, sockets, mail, log.
	Dir string
	// IMAP is the address of imapd, LMTP the socket of lmtpd.
	IMAP, LMTP string

	root  string // of another system whose Dovecot it is; empty: this machine's
	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd has ended
}

// ErrMissing says which Debian package is not installed.
type ErrMissing struct{ Program, Package string }

func (e *ErrMissing) Error() string {
	return fmt.Sprintf("%s is missing; it is in Debian's package %s", e.Program, e.Package)
}

// Root is the directory of another system, whose Dovecot 2.4 is run in it: what
// DOVECOT_ROOT names. Empty: this machine's, 2.3 or 2.4.
func Root() string { return os.Getenv("DOVECOT_ROOT") }

// Is24 reports whether the Dovecot is 2.4, whose settings have other names.
func Is24() bool { return Root() != "" || here24() }

// here24 asks this machine's Dovecot for its version.
var here24 = sync.OnceValue(func() bool {
	version, err := exec.Command("/usr/sbin/dovecot", "--version").Output()
	return err == nil && strings.HasPrefix(string(version), "2.4.")
})

// Missing returns an *ErrMissing if there is no Dovecot.
func Missing() error {
	for _, need := range []ErrMissing{
		{"/usr/sbin/dovecot", "dovecot-core"}, {"/usr/lib/dovecot/imap", "dovecot-imapd"}, {"/usr/lib/dovecot/lmtp", "dovecot-lmtpd"},
	} {
		if _, err := os.Stat(filepath.Join(Root(), need.Program)); err != nil {
			return &need
		}
	}
	return nil
}

// New writes a configuration below dir and starts Dovecot on it. dir has to be
// short enough for a unix socket's path. The caller stops it and removes dir.
//
// Without a Dovecot the error is an *ErrMissing.
func New(dir string, c Config) (*Server, error) {
	if err := Missing(); err != nil {
		return nil, err
	}
	address, err := freeport.Address() // Dovecot has to be told a port
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: dir, root: Root(), IMAP: address, LMTP: filepath.Join(dir, "run", "lmtp")}
	if err := s.write(c); err != nil {
		return nil, fmt.Errorf("write dovecot's configuration: %w", err)
	}
	if err := s.Start(); err != nil {
		return nil, err
	}
	return s, nil
}

// Start starts Dovecot again after Stop, and waits until it answers.
func (s *Server) Start() error {
	said, err := os.OpenFile(filepath.Join(s.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer said.Close() // the process has its own by then
	s.cmd = s.command("/usr/sbin/dovecot", "-c", s.inside(s.conf()), "-F")
	s.cmd.Stdout, s.cmd.Stderr = said, said // no pipes: Wait would wait for every child
	s.cmd.SysProcAttr = ownGroup()
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start dovecot: %w", err)
	}
	ended := make(chan struct{})
	s.ended = ended
	go func() { defer close(ended); _ = s.cmd.Wait() }() // ends with the process; Stop waits for it
	err = s.await("answers on IMAP and LMTP", func() bool { return greets("tcp", s.IMAP, "* OK") && greets("unix", s.LMTP, "220 ") })
	if err == nil {
		return nil
	}
	s.Stop()
	return fmt.Errorf("%w; it says:\n%s", err, s.Log())
}

// greets says whether a server greets as it should.
func greets(network, address, greeting string) bool {
	c, err := net.DialTimeout(network, address, timeout)
	if err != nil {
		return false
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return false
	}
	line := make([]byte, len(greeting))
	n, err := c.Read(line)
	return err == nil && string(line[:n]) == greeting
}

// await polls a condition of the process, which tells nobody when it changes.
func (s *Server) await(what string, true func() bool) error {
	deadline, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		if true() {
			tick.Stop()
			return nil
		}
		select {
		case <-tick.C:
		case <-s.ended:
			return errors.New("dovecot ended before it " + what)
		case <-deadline.Done():
			return fmt.Errorf("dovecot never %s within %v", what, timeout)
		}
	}
}

// Stop ends Dovecot and waits until it and its processes are gone.
func (s *Server) Stop() {
	select {
	case <-s.ended:
		return
	default:
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by now
	select {
	case <-s.ended:
	case <-time.After(timeout):
		_ = s.cmd.Process.Kill() // as above
		<-s.ended
	}
}

// Restart is Stop and Start, on the same port and the same mail.
func (s *Server) Restart() error {
	s.Stop()
	return s.Start()
}

// Log is what Dovecot has logged.
func (s *Server) Log() string {
	text, err := os.ReadFile(filepath.Join(s.Dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Admin runs doveadm on this Dovecot.
func (s *Server) Admin(args ...string) error {
	out, err := s.command("/usr/bin/doveadm", append([]string{"-c", s.inside(s.conf())}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("doveadm %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// command returns a command of the server's system.
func (s *Server) command(name string, args ...string) *exec.Cmd {
	if s.root == "" {
		return exec.Command(name, args...)
	}
	return exec.Command("chroot", append([]string{s.root, name}, args...)...)
}

// inside is what a file of this machine is called in the server's system.
func (s *Server) inside(path string) string {
	if s.root == "" {
		return path
	}
	return strings.TrimPrefix(path, s.root)
}

func (s *Server) conf() string { return filepath.Join(s.Dir, "dovecot.conf") }
