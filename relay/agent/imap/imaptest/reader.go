package imaptest

import (
	"errors"
	"fmt"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// Reader is a person's mail program with a folder open.
type Reader struct{ client *imapclient.Client }

// Reader opens the user's inbox. The caller closes it.
func (s *Server) Reader(user string) (*Reader, error) { return s.Opened(user, "INBOX") }

// Opened logs in as user and opens a folder. The caller closes it.
func (s *Server) Opened(user, folder string) (*Reader, error) {
	client, err := imapclient.DialInsecure(s.IMAP, nil)
	if err != nil {
		return nil, fmt.Errorf("reach imapd: %w", err)
	}
	r := &Reader{client}
	if err := client.Login(user, Password).Wait(); err != nil {
		return nil, errors.Join(fmt.Errorf("log in as %q: %w", user, err), r.Close())
	}
	if _, err := client.Select(folder, nil).Wait(); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s of %q: %w", folder, user, err), r.Close())
	}
	return r, nil
}

// LogIn logs in, and out again. It says how long the server took to let the user
// in.
func (s *Server) LogIn(user, password string) (took time.Duration, err error) {
	client, err := imapclient.DialInsecure(s.IMAP, nil)
	if err != nil {
		return 0, fmt.Errorf("reach imapd: %w", err)
	}
	began := time.Now()
	err = client.Login(user, password).Wait()
	took = time.Since(began)
	return took, errors.Join(err, client.Close())
}

// Close ends the connection.
func (r *Reader) Close() error { return r.client.Close() }

// Messages are the folder's messages, oldest first: all, or those that are
// unread.
func (r *Reader) Messages(unread bool) ([]imap.UID, error) {
	var criteria imap.SearchCriteria
	if unread {
		criteria.NotFlag = []imap.Flag{imap.FlagSeen}
	}
	if err := r.client.Noop().Wait(); err != nil { // hear of what came since
		return nil, err
	}
	found, err := r.client.UIDSearch(&criteria, nil).Wait()
	if err != nil {
		return nil, fmt.Errorf("search: %w", err)
	}
	return found.AllUIDs(), nil
}

// MarkRead and MarkUnread set and clear the flag \Seen.
func (r *Reader) MarkRead(m ...imap.UID) error { return r.store(imap.StoreFlagsAdd, imap.FlagSeen, m) }

// MarkUnread clears the flag \Seen.
func (r *Reader) MarkUnread(m ...imap.UID) error {
	return r.store(imap.StoreFlagsDel, imap.FlagSeen, m)
}

// MarkDeleted sets the flag \Deleted, and expunges nothing.
func (r *Reader) MarkDeleted(m ...imap.UID) error {
	return r.store(imap.StoreFlagsAdd, imap.FlagDeleted, m)
}

// Expunge deletes messages for good.
func (r *Reader) Expunge(m ...imap.UID) error {
	if err := r.store(imap.StoreFlagsAdd, imap.FlagDeleted, m); err != nil {
		return err
	}
	return r.client.Expunge().Close()
}

func (r *Reader) store(op imap.StoreFlagsOp, flag imap.Flag, m []imap.UID) error {
	flags := &imap.StoreFlags{Op: op, Silent: true, Flags: []imap.Flag{flag}}
	if err := r.client.Store(imap.UIDSetNum(m...), flags, nil).Close(); err != nil {
		return fmt.Errorf("store %s: %w", flag, err)
	}
	return nil
}

// Move moves messages to another folder, which is made if there is none.
func (r *Reader) Move(folder string, m ...imap.UID) error {
	_ = r.client.Create(folder, nil).Wait() // there already: all the better
	if _, err := r.client.Move(imap.UIDSetNum(m...), folder).Wait(); err != nil {
		return fmt.Errorf("move to %s: %w", folder, err)
	}
	return nil
}

// Append puts an unread message into the inbox, as a program does that moves
// mail between accounts.
func (r *Reader) Append() error {
	text := "Subject: appended\r\n\r\n" + Text + "\r\n"
	c := r.client.Append("INBOX", int64(len(text)), nil)
	_, err := c.Write([]byte(text))
	if err := errors.Join(err, c.Close()); err != nil {
		return fmt.Errorf("append: %w", err)
	}
	if _, err := c.Wait(); err != nil {
		return fmt.Errorf("append: %w", err)
	}
	return nil
}
