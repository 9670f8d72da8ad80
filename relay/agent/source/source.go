// Package source says what a source of unread counts owes the daemon, and what
// it may ask of it. IMAP, Dovecot's push and Exchange are sources; each speaks
// to one kind of mail server and knows neither the relay nor the others.
//
//	daemon --Watch, Unwatch--> Source      which mailboxes have a device
//	daemon --Count-----------> Source      what is the count now?
//	daemon <--Counted, Changed-- Source    through the Sink that Run was given
//	daemon --Status----------> Source      what does it not see in time?
//
// A source implements Source, and of Watcher and Counter what it can:
//
//   - imap watches and counts;
//   - dovecot is told everything by the mail server, so it does neither;
//   - Exchange watches with subscriptions and counts with GetFolder.
//
// Several sources run side by side. A mailbox may belong to one, to several
// (Dovecot tells that it changed, IMAP counts it), or to none. A source is told
// to watch every mailbox that has a device, and passes over those that are not
// its server's; asked to count one of those it says ErrElsewhere.
//
// What a source finds out it hands on at once and forgets. It need not put
// counts in order, coalesce, remember which were sent, or recount after a
// quiet time: the daemon does. It does have to hand in a count, or say Changed,
// for each mailbox whose events it may have missed: after each connection or
// subscription that begins anew.
//
// The package holds no state and starts nothing.
package source

import (
	"context"
	"errors"
	"time"
)

// Count is a mailbox's unread count: the messages that are neither \Seen nor
// \Deleted, as a person sees them in the mail program.
type Count struct {
	Mailbox string // the relay's name for it: 1 to 256 bytes of UTF-8
	Unread  uint32 // at most 2147483647
	// Epoch and Version order the counts of one mailbox, compared as a pair,
	// such as UIDVALIDITY and HIGHESTMODSEQ. Both 0: the server has none, and
	// counts are ordered by arrival.
	Epoch, Version uint64
	// WithDeleted says that the server counted messages marked \Deleted too, and
	// could not be asked to leave them out. Where the mailbox had such messages
	// when it was counted last, the daemon asks for a count instead.
	WithDeleted bool
	// Deleted is how many unread messages were left out because they are marked
	// \Deleted; with Asked only.
	Deleted uint32
	// Missing are configured folders that the mailbox does not have, or does not
	// show; with Asked only.
	Missing []string
	// Asked is when the source began to ask the server for the count. The zero
	// time: the server told it unasked.
	//
	// An answer to a question that began after everything else that is known of
	// the mailbox is the truth, whatever its version is. Any other count that is
	// not newer by its version is not sent: the daemon asks for one instead.
	Asked time.Time
}

// Sink takes what a source finds out. Its methods are safe for concurrent use,
// take a few memory operations, and never wait. Mailboxes without a
// subscription are dropped there: a source need not know.
type Sink interface {
	// Counted hands in a count.
	Counted(Count)
	// Changed says that the mailbox's count may have changed. It is asked for
	// soon; many calls before that are one.
	Changed(mailbox string)
	// Missed says that changes may have been missed, and not whose. Every mailbox
	// is counted anew, at the daemon's pace.
	Missed()
	// Recovered says that what Status called Trouble is over. Mailboxes that
	// could not be counted are asked for again, at the daemon's pace.
	Recovered()
}

// Source is one way to find out counts. Its methods are safe for concurrent
// use.
type Source interface {
	// Name is a short constant word in lower case, such as "imap": the source's
	// name in logs, readiness and metrics' labels.
	Name() string
	// Run works until ctx is done and returns nil when every goroutine it
	// started has ended. It is called once. It mends its own connections, with a
	// backoff; an error ends the daemon. Watch and Unwatch may be called before
	// it.
	Run(ctx context.Context, sink Sink) error
	// Status says what people have to know now. It does not wait.
	Status() Status
}

// Status is what a source does not see in time, or at all. Readiness shows it.
// The zero value: everything is seen within seconds.
type Status struct {
	// Trouble is what is wrong with the mail server as a whole, as a predicate
	// without a subject: "can't be reached", "refuses every login". While it is
	// not empty the daemon is not ready. Empty: nothing.
	Trouble string
	// Notes are what is late or missing for some mailboxes, a clause each:
	// "40 of 60 mailboxes wait for a connection, up to 5m0s". They name no
	// mailbox. The daemon is ready with them.
	Notes []string
}

// Watcher is a source that has to be told which mailboxes to watch. Its methods
// are safe for concurrent use and never wait; telling twice is once.
type Watcher interface {
	Watch(mailbox string)
	Unwatch(mailbox string)
}

// Counter asks for the present unread count of a mailbox. It is safe for
// concurrent use; the daemon asks a few at a time. The count has Asked set.
//
// Errors wrap ErrElsewhere, ErrMailbox or ErrUnavailable where they say nothing
// about other mailboxes. Any other error means that the server could not be
// asked: where that happens to several mailboxes in a row, the source is not asked
// for a while. On any error the next source is asked, unless this one counted the
// mailbox last and can't be asked now; so Count does not wait for a server that is in
// trouble.
type Counter interface {
	Count(ctx context.Context, mailbox string) (Count, error)
	// Peek counts a mailbox for people who want to know, and who may name any. The
	// source is as it was before: whatever it meets, no server and no mailbox is left
	// alone. Of a mailbox that is watched the answer may be handed on as any other is,
	// and where a server allows one connection alone others wait for it. It does not
	// ask where Count would not.
	Peek(ctx context.Context, mailbox string) (Count, error)
}

var (
	// ErrElsewhere: the mailbox is not this source's; another may have it.
	ErrElsewhere = errors.New("mailbox is not on this server")
	// ErrMailbox: the server answers, and refuses this mailbox: it is not there,
	// or the agent may not read it. It is tried less and less, each half hour in
	// the end.
	ErrMailbox = errors.New("mailbox refused")
	// ErrUnavailable: the server answers, and can't count this mailbox now, or so
	// it says: a damaged index, a lookup that failed. It is tried less and less,
	// each five minutes in the end.
	ErrUnavailable = errors.New("mailbox unavailable")
)
