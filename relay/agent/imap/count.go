package imap

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"badgerelay/relay/agent/source"
)

// count asks for the unread messages of the session's folders. STATUS alone is
// enough where there are none; else the folder is opened, to read only, because
// STATUS counts messages that are marked \Deleted too. The last one that was
// opened stays so; see closeFolder.
func (n *session) count() (source.Count, error) {
	t := total{asked: time.Now()}
	err := n.within(func() error { return n.countFolders(&t, n.folders) })
	return t.count(n.mailbox, err)
}

// countSelected counts like count, and leaves the first folder open. What
// changes in it from then on is told in wire.changed. The version is the
// folder's when it was opened: a change after that has a higher one.
func (n *session) countSelected() (source.Count, error) {
	t := total{asked: time.Now()}
	err := n.within(func() error {
		if err := n.countFolders(&t, n.folders[1:]); err != nil {
			return err
		}
		return n.countOpened(&t, n.folders[0])
	})
	return t.count(n.mailbox, err)
}

// countFolders adds up folders that need not be watched.
func (n *session) countFolders(t *total, folders []string) error {
	answers, err := n.statuses(folders)
	if err != nil {
		return err
	}
	for i, data := range answers {
		switch {
		case data == nil && len(n.folders) > 1:
			t.missing(folders[i]) // not every mailbox has every folder
		case data == nil:
			return fmt.Errorf("STATUS %s: %w", folders[i], ErrFolder)
		case data.NumUnseen != nil && *data.NumUnseen == 0:
			t.add(0, 0, data.UIDValidity, data.HighestModSeq)
		default:
			if err := n.countOpened(t, folders[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// statuses returns what STATUS says of each folder; nil: it is not there. One
// without NumUnseen was not told by a server that has strange answers.
func (n *session) statuses(folders []string) ([]*imap.StatusData, error) {
	options := &imap.StatusOptions{NumUnseen: true, UIDValidity: true, HighestModSeq: n.caps.Has(imap.CapCondStore)}
	asked := make([]*imapclient.StatusCommand, len(folders))
	for i, folder := range folders {
		asked[i] = n.client.Status(folder, options)
	}
	answers := make([]*imap.StatusData, len(folders))
	for i, command := range asked {
		data, err := command.Wait()
		if err = refusal(err); errors.Is(err, errRefused) {
			if folders[i] == inbox {
				return nil, fmt.Errorf("STATUS %s: %w: %w", folders[i], ErrFolder, err)
			}
			continue // Dovecot 2.3 has no code to say that it is not there
		}
		if err != nil {
			return nil, fmt.Errorf("STATUS %s: %w", folders[i], err)
		}
		n.status++
		answers[i] = data
	}
	return answers, nil
}

// countOpened opens a folder to read only and counts its unread messages.
func (n *session) countOpened(t *total, folder string) error {
	opened, err := n.client.Select(folder, &imap.SelectOptions{ReadOnly: true, CondStore: n.caps.Has(imap.CapCondStore)}).Wait()
	if err = refusal(err); errors.Is(err, errRefused) {
		if len(n.folders) > 1 && folder != inbox {
			t.missing(folder)
			return nil
		}
		err = fmt.Errorf("%w: %w", ErrFolder, err)
	}
	if err != nil {
		return fmt.Errorf("EXAMINE %s: %w", folder, err)
	}
	n.open = folder
	select {
	case <-n.wire.changed: // what the server tells at an opening
	default:
	}
	unread, err := n.search(&imap.SearchCriteria{NotFlag: []imap.Flag{imap.FlagSeen, imap.FlagDeleted}})
	if err != nil {
		return fmt.Errorf("SEARCH %s: %w", folder, refusal(err))
	}
	deleted, err := n.search(&imap.SearchCriteria{NotFlag: []imap.Flag{imap.FlagSeen}, Flag: []imap.Flag{imap.FlagDeleted}})
	if err != nil {
		return fmt.Errorf("SEARCH %s: %w", folder, refusal(err))
	}
	t.add(unread, deleted, opened.UIDValidity, opened.HighestModSeq)
	return nil
}

// search counts messages of the open folder. wire makes a count of every answer.
func (n *session) search(criteria *imap.SearchCriteria) (uint32, error) {
	var options *imap.SearchOptions
	if n.caps.Has(imap.CapESearch) || n.caps.Has(imap.CapIMAP4rev2) {
		options = &imap.SearchOptions{ReturnCount: true}
	}
	found, err := n.client.Search(criteria, options).Wait()
	if err != nil {
		return 0, err
	}
	return found.Count, nil
}

// closeFolder closes the open folder, if there is one. CLOSE removes nothing
// from a folder that was opened to read only (RFC 9051, section 6.4.1).
func (n *session) closeFolder() error {
	if n.open == "" {
		return nil
	}
	n.open = ""
	command := n.client.UnselectAndExpunge
	if n.caps.Has(imap.CapUnselect) || n.caps.Has(imap.CapIMAP4rev2) {
		command = n.client.Unselect
	}
	if err := n.within(func() error { return command().Wait() }); err != nil {
		return fmt.Errorf("close %s: %w", inbox, err)
	}
	return nil
}

// total adds up folders.
type total struct {
	unread, deleted uint64
	epoch, version  uint64
	unordered       bool // a folder has no version
	counted         int  // folders
	absent          []string
	asked           time.Time
}

func (t *total) add(unread, deleted, validity uint32, modSeq uint64) {
	t.unread += uint64(unread)
	t.deleted += uint64(deleted)
	t.epoch += uint64(validity)
	t.version += modSeq
	t.counted++
	if modSeq == 0 {
		t.unordered = true
	}
}

// missing adds a folder that is not there. Its UIDVALIDITY is unknown, and what
// remains would be lower than what was: no version then.
func (t *total) missing(folder string) {
	t.unordered = true
	t.absent = append(t.absent, folder)
}

// count returns the sum. Sums of versions rise as their parts do: a folder's
// HIGHESTMODSEQ only rises while its UIDVALIDITY stays, and that rises when the
// folder is made anew (RFC 7162, section 3.1.1; RFC 9051, section 2.3.1.1).
// Where none of the folders is there, nothing was counted.
func (t *total) count(mailbox string, err error) (source.Count, error) {
	if err == nil && t.counted == 0 {
		err = ErrFolder
	}
	c := source.Count{
		Mailbox: mailbox, Unread: uint32(min(t.unread, math.MaxInt32)), Deleted: uint32(min(t.deleted, math.MaxInt32)),
		Asked: t.asked, Missing: t.absent,
	}
	if !t.unordered {
		c.Epoch, c.Version = t.epoch, t.version
	}
	return c, err
}
