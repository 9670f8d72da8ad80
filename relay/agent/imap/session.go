package imap

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
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
	timeout time.Duration

	client  *imapclient.Client
	tap     *tap
	caps    imap.CapSet
	late    atomic.Bool   // an answer did not come in time
	changed chan struct{} // one slot: the selected folder has changed
	status  uint64        // STATUS responses of the tap that are accounted for
	release func() bool   // undoes the tie to the context
}

// open connects and logs in for mailbox. The session ends with ctx.
func (s *Source) open(ctx context.Context, mailbox string) (*session, error) {
	user, ok := strings.CutSuffix(mailbox, s.config.Suffix)
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
		mailbox: mailbox, folders: s.folders, timeout: s.config.timeout(),
		tap: newTap(conn), changed: make(chan struct{}, 1),
	}
	n.client = imapclient.New(n.tap, &imapclient.Options{UnilateralDataHandler: n.handler()})
	n.release = context.AfterFunc(ctx, func() { _ = conn.Close() }) // what it interrupts tells
	if err := n.within(func() error { return n.logIn(login) }); err != nil {
		n.close()
		if errors.Is(err, errRefused) {
			return nil, fmt.Errorf("log in: %w", err)
		}
		return nil, fmt.Errorf("%w: %w", errLogin, err)
	}
	return n, nil
}

func (n *session) handler() *imapclient.UnilateralDataHandler {
	return &imapclient.UnilateralDataHandler{
		Expunge: func(uint32) { notify(n.changed) },
		Mailbox: func(*imapclient.UnilateralDataMailbox) { notify(n.changed) },
		Fetch: func(m *imapclient.FetchMessageData) {
			_, _ = m.Collect() // has to be read; only that something changed matters
			notify(n.changed)
		},
	}
}

// within bounds what f waits for the server.
func (n *session) within(f func() error) error {
	timer := time.AfterFunc(n.timeout, func() {
		n.late.Store(true)
		_ = n.tap.Close() // ends what f waits for
	})
	defer timer.Stop()
	err := f()
	if err != nil && n.late.Load() {
		return fmt.Errorf("%w: %w", errTimeout, err)
	}
	return err
}

func (n *session) logIn(login Login) error {
	if err := n.client.WaitGreeting(); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
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

// refusal marks an error as the server's word about this mailbox, unless the
// server says that it is itself in trouble (RFC 9051, section 7.1).
func refusal(err error) error {
	said, ok := errors.AsType[*imap.Error](err)
	if !ok {
		return err
	}
	switch said.Code {
	case imap.ResponseCodeUnavailable, imap.ResponseCodeInUse, imap.ResponseCodeLimit,
		imap.ResponseCodeServerBug, imap.ResponseCodeContactAdmin:
		return err
	}
	return fmt.Errorf("%w: %w", errRefused, err)
}

// count asks for the unread messages of folders, which must not be selected.
func (n *session) count() (source.Count, error) {
	t := tally{asked: time.Now()}
	err := n.within(func() error { return n.statuses(&t, n.folders) })
	return t.count(n.mailbox), err
}

// statuses adds what STATUS says of folders.
func (n *session) statuses(t *tally, folders []string) error {
	options := &imap.StatusOptions{NumUnseen: true, UIDValidity: true, HighestModSeq: n.caps.Has(imap.CapCondStore)}
	asked := make([]*imapclient.StatusCommand, len(folders))
	for i, folder := range folders {
		asked[i] = n.client.Status(folder, options)
	}
	for i, command := range asked {
		data, err := command.Wait()
		if err == nil && data.NumUnseen == nil {
			// What was pushed for the same folder took the answer's place.
			data, err = n.client.Status(folders[i], options).Wait()
		}
		if err == nil && data.NumUnseen == nil {
			return fmt.Errorf("STATUS %s: the answer has no UNSEEN", folders[i])
		}
		if err = refusal(err); errors.Is(err, errRefused) && folders[i] != inbox {
			t.missing() // not every mailbox has every folder, and Dovecot 2.3 has no code to say it with
			continue
		}
		if err != nil {
			return fmt.Errorf("STATUS %s: %w", folders[i], err)
		}
		n.status++
		t.add(*data.NumUnseen, data.UIDValidity, data.HighestModSeq)
	}
	return nil
}

// close ends the connection and waits until nothing of it is left.
func (n *session) close() {
	n.release()
	_ = n.client.Close() // nothing is left to say on it
}

// tally adds up folders.
type tally struct {
	unread         uint64
	epoch, version uint64
	unordered      bool // a folder has no version
	asked          time.Time
}

func (t *tally) add(unread, validity uint32, modSeq uint64) {
	t.unread += uint64(unread)
	t.epoch += uint64(validity)
	t.version += modSeq
	if modSeq == 0 {
		t.unordered = true
	}
}

// missing adds a folder that is not there. Its UIDVALIDITY is unknown, and what
// remains would be lower than what was: no version then.
func (t *tally) missing() { t.unordered = true }

// count returns the sum. Sums of versions rise as their parts do: a folder's
// HIGHESTMODSEQ only rises while its UIDVALIDITY stays, and that rises when the
// folder is made anew (RFC 7162, section 3.1.1; RFC 9051, section 2.3.1.1).
func (t *tally) count(mailbox string) source.Count {
	c := source.Count{Mailbox: mailbox, Unread: uint32(min(t.unread, math.MaxInt32)), Asked: t.asked}
	if !t.unordered {
		c.Epoch, c.Version = t.epoch, t.version
	}
	return c
}
