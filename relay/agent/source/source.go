// Package source says what a source of unread counts owes the agent daemon, and
// what it may ask of it.
//
//	mail server -> Source -> Sink -> relay/agent ==gRPC==> relay
//	                  Counter <- Sink (a mailbox may have changed)
//
// A source watches mailboxes in its own way. What it finds out it hands on at
// once and forgets: a count, or only that a mailbox may have changed. In the
// second case the daemon asks a Counter.
//
// The package holds no state and starts nothing.
package source

import (
	"context"
	"errors"
)

// Count is a mailbox's unread count as it was just now.
type Count struct {
	Mailbox string // the relay's name for it: 1 to 256 bytes of UTF-8
	Unread  uint32 // at most 2147483647
	// Epoch and Version order the counts of one mailbox, compared as a pair,
	// such as UIDVALIDITY and HIGHESTMODSEQ. Both 0: order of arrival.
	Epoch, Version uint64
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
}

// Source watches mailboxes.
type Source interface {
	// Run watches until ctx is done and returns nil when every goroutine it
	// started has ended. It mends its own connections, with a backoff; an error
	// ends the daemon.
	Run(ctx context.Context, sink Sink) error
}

// Watcher is a source that has to be told which mailboxes to watch. Its methods
// are safe for concurrent use and never wait; telling twice is once.
type Watcher interface {
	Watch(mailbox string)
	Unwatch(mailbox string)
}

// Counter asks for the present unread count of a mailbox. It is safe for
// concurrent use. Errors wrap ErrMailbox where trying again at once is of no
// use, and mean otherwise that the server could not be asked.
type Counter interface {
	Count(ctx context.Context, mailbox string) (Count, error)
}

// ErrMailbox: the server answers, and refuses this mailbox: it is not there,
// or the agent may not read it.
var ErrMailbox = errors.New("mailbox refused")
