package imap

import (
	"errors"
	"fmt"
	"slices"
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

// mode chooses how to watch, by what the server has and what is configured.
func (n *session) mode(configured string) mode {
	notify := n.caps.Has(imap.CapNotify) && (configured == "auto" || configured == "notify") && !slices.ContainsFunc(n.folders, special)
	idle := (n.caps.Has(imap.CapIdle) || n.caps.Has(imap.CapIMAP4rev2)) && (configured == "auto" || configured == "idle")
	switch {
	case notify:
		return modeNotify
	case idle:
		return modeIdle
	}
	return modePoll
}

// notifyCommand asks for all three events that change a count; a server may
// refuse a set with only some of them (RFC 5465, section 5).
func notifyCommand(folders []string) string {
	quoted := make([]string, len(folders))
	for i, f := range folders {
		quoted[i] = `"` + f + `"`
	}
	return "NOTIFY SET (mailboxes (" + strings.Join(quoted, " ") + ") (MessageNew MessageExpunge FlagChange))"
}

// special says whether a folder's name needs more than quotes. Dovecot 2.3
// pushes such names as they are, instead of in IMAP's UTF-7, and the client
// gives up the connection; IDLE and a look at intervals serve them.
func special(folder string) bool {
	return strings.ContainsFunc(folder, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' || r == '&' })
}

// startNotify has the server push changes from now on.
func (n *session) startNotify() error {
	n.tap.replace(notifyCommand(n.folders))
	err := n.within(func() error { return n.client.Noop().Wait() })
	if said, ok := errors.AsType[*imap.Error](err); ok {
		return fmt.Errorf("NOTIFY: %w: %w", errUnsupported, said)
	}
	if err != nil {
		return fmt.Errorf("NOTIFY: %w", err)
	}
	n.status = n.tap.seen.Load()
	return nil
}

// pushed says whether the server has pushed a change since the last count.
func (n *session) pushed() bool { return n.tap.seen.Load() > n.status }

// countPushed counts until nothing was pushed meanwhile.
func (n *session) countPushed() (c source.Count, err error) {
	n.status = n.tap.seen.Load()
	return n.count()
}

// countSelected opens the first folder to read only, counts its unread
// messages by SEARCH, and the other folders' by STATUS. What changes from then
// on is told in changed. The version is the folder's when it was opened: a
// change after that has a higher one, and is told.
func (n *session) countSelected() (source.Count, error) {
	t := tally{asked: time.Now()}
	err := n.within(func() error {
		select {
		case <-n.changed: // of before
		default:
		}
		opened, err := n.client.Select(n.folders[0], &imap.SelectOptions{ReadOnly: true, CondStore: n.caps.Has(imap.CapCondStore)}).Wait()
		if err != nil {
			return fmt.Errorf("EXAMINE %s: %w", n.folders[0], refusal(err))
		}
		unread, err := n.searchUnread()
		if err != nil {
			return fmt.Errorf("SEARCH %s: %w", n.folders[0], refusal(err))
		}
		t.add(unread, opened.UIDValidity, opened.HighestModSeq)
		return n.statuses(&t, n.folders[1:])
	})
	return t.count(n.mailbox), err
}

func (n *session) searchUnread() (uint32, error) {
	criteria := &imap.SearchCriteria{NotFlag: []imap.Flag{imap.FlagSeen}}
	if n.caps.Has(imap.CapESearch) || n.caps.Has(imap.CapIMAP4rev2) {
		found, err := n.client.Search(criteria, &imap.SearchOptions{ReturnCount: true}).Wait()
		if err != nil {
			return 0, err
		}
		return found.Count, nil
	}
	found, err := n.client.Search(criteria, nil).Wait()
	if err != nil {
		return 0, err
	}
	return uint32(len(found.AllSeqNums())), nil
}

// idle waits until the selected folder changes, or until what is returned by
// wait is readable; it says whether the folder changed.
func (n *session) idle(wait func(changed, closed <-chan struct{}) bool) (changed bool, err error) {
	var command interface {
		Close() error
		Wait() error
	}
	err = n.within(func() error {
		var err error
		command, err = n.client.Idle()
		return err
	})
	if err != nil {
		return false, fmt.Errorf("IDLE: %w", err)
	}
	changed = wait(n.changed, n.client.Closed())
	err = n.within(func() error { return errors.Join(command.Close(), command.Wait()) })
	if err != nil {
		return changed, fmt.Errorf("IDLE: %w", err)
	}
	return changed, nil
}

// liveInterval is how long a watching connection may say nothing before the count
// is asked again, as a sign of life: less than the 29 minutes after which a server may
// log out an idle client (RFC 2177), and than many firewalls' patience.
const liveInterval = 4 * time.Minute
