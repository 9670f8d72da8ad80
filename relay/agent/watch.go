package agent

import (
	"context"
	"errors"
	"io"
	"time"

	badgerelayv1 "badgerelay/proto/badgerelay/v1"

	"google.golang.org/grpc"
)

// ProbeMailbox is the mailbox that a probe puts its device on, which is no
// user's.
const ProbeMailbox = "badgeagent-probe"

// Watcher is told which mailboxes are worth counting. Its functions are
// called from the goroutine of Watch, in order; nil ones are left out.
type Watcher struct {
	// Resync: what was told before may be out of date, because the watch
	// begins or because changes may have been missed. Every mailbox that has a
	// live subscription is told again, up to Complete.
	Resync func()
	// Subscribed: mailbox has a subscription, or another device came: tell
	// Agent.Subscribed, and Set its present count.
	Subscribed func(mailbox string)
	// Unsubscribed: no device is left.
	Unsubscribed func(mailbox string)
	// Left: a device has left mailbox, where others stay.
	Left func(mailbox string)
	// Complete: every mailbox has been told since Resync. Those that were not
	// have no subscription any more.
	Complete func()
	// Failed: the watch ended; it begins anew after f.Again.
	Failed func(f Failure)
}

// Watch tells w about the organization's mailboxes until ctx is done, and
// begins anew whenever the relay ends it: at the latest when its token
// expires. It returns nil.
func (c *Client) Watch(ctx context.Context, w Watcher) error {
	wait := newRetries(&c.cfg)
	for ctx.Err() == nil {
		conn, at, err := c.conn()
		var token bearer
		if err == nil {
			token, err = c.tokens.get(ctx)
		}
		if err == nil {
			err = c.watch(ctx, conn, &w, wait)
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the caller ended the watch
		}
		f := classify(c.cfg.Addresses[at], err)
		if f.Kind == FailureToken {
			c.tokens.reject(token.token)
		}
		wait.next(&f)
		if w.Failed != nil {
			w.Failed(f)
		}
		if f.Kind != FailureToken || f.Again > 0 {
			c.leave(at)
		}
		sleep(ctx, f.Again)
	}
	return nil
}

func (c *Client) watch(ctx context.Context, conn *grpc.ClientConn, w *Watcher, wait *retries) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := badgerelayv1.NewSubscriptionServiceClient(conn).WatchMailboxes(ctx, &badgerelayv1.WatchMailboxesRequest{})
	if err != nil {
		return err
	}
	began := time.Now()
	for first := true; ; first = false {
		message, err := stream.Recv()
		if time.Since(began) >= wait.max {
			wait.succeeded() // it held
		}
		if errors.Is(err, io.EOF) {
			return errEnded
		}
		if err != nil {
			return err
		}
		if first && w.Resync != nil {
			w.Resync()
		}
		w.tell(message)
	}
}

func (w *Watcher) tell(message *badgerelayv1.WatchMailboxesResponse) {
	for _, change := range message.GetChanges() {
		switch change.GetKind() {
		case badgerelayv1.MailboxChangeKind_MAILBOX_CHANGE_KIND_SUBSCRIBED:
			if w.Subscribed != nil {
				w.Subscribed(change.GetMailbox())
			}
		case badgerelayv1.MailboxChangeKind_MAILBOX_CHANGE_KIND_UNSUBSCRIBED:
			if w.Unsubscribed != nil {
				w.Unsubscribed(change.GetMailbox())
			}
		case badgerelayv1.MailboxChangeKind_MAILBOX_CHANGE_KIND_DEVICE_LEFT:
			if w.Left != nil {
				w.Left(change.GetMailbox())
			}
		}
	}
	if message.GetComplete() && w.Complete != nil {
		w.Complete()
	}
}
