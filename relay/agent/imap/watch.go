package imap

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"badgerelay/relay/agent/source"
)

// mode is how a mailbox is watched. Its String is the metric label.
type mode uint8

const (
	modePoll mode = iota
	modeIdle
	modeNotify

	modes // how many there are
)

// String returns the mode's name, one of a fixed set.
func (m mode) String() string { return [modes]string{"poll", "idle", "notify"}[m] }

// mode chooses how to watch, by what the server has and what is configured; where
// it lacks that, by the next best. IDLE sees the most of one folder, also what
// reached it behind the server's back; NOTIFY sees several.
func (n *session) mode(configured string) mode {
	notify := n.caps.Has(imap.CapNotify) && !n.notifyRefused
	idle := n.caps.Has(imap.CapIdle) || n.caps.Has(imap.CapIMAP4rev2)
	switch {
	case configured == "poll" || !notify && !idle:
		return modePoll
	case !notify:
		return modeIdle
	case !idle || configured == "notify" || configured == "auto" && len(n.folders) > 1:
		return modeNotify
	}
	return modeIdle
}

// watchBy chooses how to watch, and has the server push changes where that is
// NOTIFY: a server may announce it, and refuse it.
func (n *session) watchBy(configured string) (mode, error) {
	if n.mode(configured) == modeNotify {
		err := n.startNotify()
		if n.notifyRefused = errors.Is(err, errUnsupported); !n.notifyRefused {
			return modeNotify, err
		}
	}
	return n.mode(configured), nil
}

// notifyCommand asks for all three events that change a count; a server may
// refuse a set with only some of them (RFC 5465, section 5).
func notifyCommand(folders []string) string {
	quoted := make([]string, len(folders))
	for i, f := range folders {
		quoted[i] = quote(encodeName(f))
	}
	return "NOTIFY SET (mailboxes (" + strings.Join(quoted, " ") + ") (MessageNew MessageExpunge FlagChange))"
}

// startNotify has the server push changes from now on.
func (n *session) startNotify() error {
	n.wire.replace(notifyCommand(n.folders))
	err := n.within(func() error { return n.client.Noop().Wait() })
	if said, ok := errors.AsType[*imap.Error](err); ok {
		return fmt.Errorf("NOTIFY: %w: %w", errUnsupported, said)
	}
	if err != nil {
		return fmt.Errorf("NOTIFY: %w", err)
	}
	n.status = n.wire.seen.Load()
	return nil
}

// pushed says whether the server has pushed a change since the last count.
func (n *session) pushed() bool { return n.wire.seen.Load() > n.status }

// countPushed counts, and closes what it opened for that: the changes of an open
// folder are not pushed (RFC 5465, section 3.1). One that came meanwhile shows
// itself in another STATUS.
func (n *session) countPushed() (c source.Count, err error) {
	for range settleAttempts {
		n.status = n.wire.seen.Load()
		if c, err = n.count(); err != nil || n.open == "" {
			return c, err
		}
		if err = n.closeFolder(); err != nil {
			return c, err
		}
		var after total
		err = n.within(func() error {
			answers, err := n.statuses(n.folders)
			for _, a := range answers {
				if a != nil && a.NumUnseen != nil {
					after.add(*a.NumUnseen, 0, a.UIDValidity, a.HighestModSeq)
				}
			}
			return err
		})
		all := uint64(c.Unread) + uint64(c.Deleted)
		same := (after.unread == all || after.unread == uint64(c.Unread)) && // some leave them out
			(c.Version == 0 || after.version == c.Version)
		if err != nil || same {
			return c, err
		}
	}
	return c, nil // it changes all the time, and the next push is near
}

// settleAttempts is how often a folder that changes while it is counted is
// counted anew at once.
const settleAttempts = 3

// idle has the server push the changes of the selected folder until wait returns;
// changed is readable when there is one.
func (n *session) idle(wait func(changed, closed <-chan struct{})) error {
	var command interface {
		Close() error
		Wait() error
	}
	err := n.within(func() error {
		var err error
		command, err = n.client.Idle()
		return err
	})
	if err != nil {
		return fmt.Errorf("IDLE: %w", err)
	}
	wait(n.wire.changed, n.client.Closed())
	err = n.within(func() error { return errors.Join(command.Close(), command.Wait()) })
	if err != nil {
		return fmt.Errorf("IDLE: %w", err)
	}
	return nil
}

// liveInterval is how long a watching connection may say nothing before the count
// is asked again, as a keepalive: less than the 29 minutes after which a server may
// log out an idle client (RFC 2177), and less than many firewalls keep an idle connection.
const liveInterval = 4 * time.Minute
