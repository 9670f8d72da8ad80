package lookup

import (
	"context"

	"badgerelay/relay/fair"
)

// maxBatch is how many mailboxes one read of the registry asks for at most.
const maxBatch = 512

// Loader gathers mailboxes, of type M, whose subscriptions have to be read, and reads
// them. Organizations are served in turn. NewLoader makes one.
type Loader[M comparable] struct {
	organization func(M) int64
	read         func(ctx context.Context, batch []M) error
	waiting      *fair.Inbox[int64, M]

	// Owned by Run.
	failing *Outage
	batch   []M
	size    int // of the next batch at most
	alone   int // failures of single mailboxes in a row
}

// NewLoader makes a Loader. read reads the subscriptions of a batch, which is the
// Loader's again when it returns; failing tells of its failures.
func NewLoader[M comparable](organization func(M) int64, read func(ctx context.Context, batch []M) error, failing *Outage) *Loader[M] {
	return &Loader[M]{
		organization: organization, read: read, waiting: fair.NewInbox[int64, M](), failing: failing,
		batch: make([]M, 0, maxBatch), size: maxBatch,
	}
}

// Add asks for mailboxes. It keeps none of the slice. It is safe for concurrent use.
func (l *Loader[M]) Add(mailboxes []M) {
	for len(mailboxes) > 0 { // those of one organization together, as a batch has them
		org, n := l.organization(mailboxes[0]), 1
		for n < len(mailboxes) && l.organization(mailboxes[n]) == org {
			n++
		}
		l.waiting.Add(org, mailboxes[:n]...)
		mailboxes = mailboxes[n:]
	}
}

// Run reads subscriptions until ctx is done.
func (l *Loader[M]) Run(ctx context.Context) {
	for {
		some, err := l.Turn(ctx)
		switch {
		case err != nil:
			return
		case some:
			continue
		}
		select {
		case <-l.waiting.Added():
		case <-ctx.Done():
			return
		}
	}
}

// Turn is one turn of Run: it reads a batch, if mailboxes wait. An error is ctx's.
func (l *Loader[M]) Turn(ctx context.Context) (some bool, err error) {
	l.batch = l.waiting.Next(l.batch[:0], l.size)
	if len(l.batch) == 0 {
		return false, nil
	}
	defer clear(l.batch)
	err = l.read(ctx, l.batch)
	if err == nil {
		l.failing.End()
		l.alone, l.size = 0, min(2*l.size, maxBatch)
		return true, nil
	}
	if ctx.Err() != nil {
		return true, ctx.Err()
	}
	l.failing.Note(err)
	l.Add(l.batch)
	l.size = max(1, len(l.batch)/2)
	if len(l.batch) == 1 {
		l.alone++
	}
	if l.alone > 1 {
		return true, l.failing.Pause(ctx)
	}
	return true, nil
}
