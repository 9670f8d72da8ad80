package imap

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"

	"badgerelay/relay/agent/source"
)

// Errors of a session.
var (
	// errRefused: the server does not let us in, or not into this mailbox.
	errRefused = fmt.Errorf("%w by the mail server", source.ErrMailbox)
	// ErrFolder: the server lets us in, and a folder is not there, or not shown to
	// whom we logged in as. It wraps source.ErrMailbox.
	ErrFolder = fmt.Errorf("%w: the login is accepted and the folder is not shown", source.ErrMailbox)
	// errLogin: the server could be reached, and the login came to no answer, or
	// to one that does not refuse it.
	errLogin = errors.New("log in")
	// errUnsupported: the server lacks what was asked of it.
	errUnsupported = errors.New("the server does not support it")
	errTimeout     = errors.New("no answer in time")
)

// session is a logged-in connection for one mailbox. It belongs to one
// goroutine.
type session struct {
	mailbox string
	folders []string
	timeout time.Duration // of an answer, while others wait for a connection
	most    time.Duration // of an answer
	awaited func() bool   // others wait

	client        *imapclient.Client
	wire          *wire
	caps          imap.CapSet
	notifyRefused bool        // the server announces NOTIFY, and refuses it
	open          string      // the folder that is open; empty: none
	late          atomic.Bool // an answer did not come in time
	status        uint64      // STATUS responses of the wire that are accounted for
	release       func() bool // undoes the tie to the context
	ended         func()      // tells that the connection is gone
}

// open connects and logs in for mailbox. The session ends with ctx.
func (s *Source) open(ctx context.Context, mailbox string) (*session, error) {
	user, ok := s.config.user(mailbox)
	if !ok {
		return nil, fmt.Errorf("%w: its name does not end in %q", source.ErrElsewhere, s.config.Suffix)
	}
	login, err := s.login()(user)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", source.ErrMailbox, err)
	}
	conn, err := s.config.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", s.config.Address, err)
	}
	n := &session{
		mailbox: mailbox, folders: s.folders, timeout: s.config.timeout(), most: s.config.timeout(),
		awaited: s.awaited, wire: newWire(conn, s.folders),
	}
	n.client = imapclient.New(n.wire, nil)
	n.release = context.AfterFunc(ctx, func() { _ = conn.Close() }) // what it interrupts tells
	err = n.within(n.greeted)
	if err == nil {
		n.timeout = s.gate.timeout(mailbox, n.most)
		err = n.within(func() error { return n.logIn(login) })
	}
	if err != nil {
		n.close()
		if errors.Is(err, errRefused) {
			return nil, fmt.Errorf("log in: %w", err)
		}
		return nil, fmt.Errorf("%w: %w", errLogin, err)
	}
	return n, nil
}

// lookAgain is how often one that has had its time looks whether others wait.
const lookAgain = time.Second

// within bounds what f waits for the server.
func (n *session) within(f func() error) error {
	done := make(chan struct{})
	longer := n.most - n.timeout                                         // here: timeout is the caller's
	timer := time.AfterFunc(n.timeout, func() { n.hurry(longer, done) }) // ends with done
	err := f()
	close(done)
	timer.Stop()
	if err != nil && n.late.Load() {
		return fmt.Errorf("%w: %w", errTimeout, err)
	}
	return err
}

// hurry ends what waits for the server, as soon as others wait for a connection and
// not later than after longer.
func (n *session) hurry(longer time.Duration, done <-chan struct{}) {
	end := time.After(longer)
	look := time.NewTicker(lookAgain)
	defer look.Stop()
	for over := false; !over && !n.awaited(); {
		select {
		case <-look.C:
		case <-end:
			over = true
		case <-done:
			return
		}
	}
	n.late.Store(true)
	_ = n.wire.Close() // ends what f waits for
}

// greeted waits for the server's greeting.
func (n *session) greeted() error {
	if err := n.client.WaitGreeting(); err != nil {
		return fmt.Errorf("%w: %w", errGreeting, err)
	}
	return nil
}

func (n *session) logIn(login Login) error {
	if n.client.State() == imap.ConnStateAuthenticated {
		return errors.New("the server logs in whoever comes")
	}
	caps := n.client.Caps()
	var err error
	switch {
	case caps.Has(imap.AuthCap(sasl.Plain)):
		err = n.client.Authenticate(sasl.NewPlainClient(login.Identity, login.User, login.Password))
	case login.Identity != "":
		return fmt.Errorf("%w: a master user without master_separator needs AUTH=PLAIN", errUnsupported)
	default:
		err = n.client.Login(login.User, login.Password).Wait()
	}
	if err != nil {
		return refusal(err)
	}
	n.caps = n.client.Caps()
	return nil
}

// refusal marks an error as the server's word about this mailbox: for good, or,
// where its code says so (RFC 9051, section 7.1), for now. Dovecot says
// UNAVAILABLE of a user whom it does not know too, as it is configured.
func refusal(err error) error {
	said, ok := errors.AsType[*imap.Error](err)
	switch {
	case !ok:
		return err
	case said.Type != imap.StatusResponseTypeNo:
		return fmt.Errorf("%w: %w", source.ErrUnavailable, err)
	}
	switch said.Code {
	case imap.ResponseCodeLimit:
		return fmt.Errorf("%w: %w: %w", source.ErrUnavailable, errLimit, err)
	case imap.ResponseCodeUnavailable, imap.ResponseCodeInUse, imap.ResponseCodeServerBug, imap.ResponseCodeContactAdmin:
		return fmt.Errorf("%w: %w", source.ErrUnavailable, err)
	}
	return fmt.Errorf("%w: %w", errRefused, err)
}

// close ends the connection and waits until nothing of it is left.
func (n *session) close() {
	n.release()
	_ = n.client.Close() // nothing is left to say on it
	if n.ended != nil {
		n.ended()
	}
}
