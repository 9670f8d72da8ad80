package ews

import "errors"

// Count is a mailbox's unread count as it was just now.
type Count struct {
	Mailbox        string
	Unread         uint32
	Epoch, Version uint64
}

// Sink takes what the source finds out.
type Sink interface {
	Counted(Count)
}

// ErrMailbox: the server answers, and refuses this mailbox.
var ErrMailbox = errors.New("mailbox refused")
