package ingest

import (
	"context"
	"sync"

	"google.golang.org/grpc"

	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay"
	"badgerelay/relay/internal/service"
	"badgerelay/relay/registry"
)

const (
	// watchMessage is the most changes of a message;
	// badgerelay.v1.WatchMailboxesResponse.
	watchMessage = 1_000

	// maxWatchBacklog is how many mailboxes may wait for a watcher that reads
	// slowly. One that is further behind is sent away; it starts over with
	// every mailbox. Chosen so that a watcher holds 50 MB at the very most.
	maxWatchBacklog = 100_000
)

// watcher gathers what changes until it is sent.
type watcher struct {
	org relay.OrganizationID

	mu      sync.Mutex // guards what follows
	changes map[string]change
	behind  bool

	ready chan struct{} // one slot: there are changes, or behind
}

// change is what has happened to a mailbox.
type change struct {
	kind pb.MailboxChangeKind // the last state; 0: as before
	left bool                 // before that a device has left
}

// note takes one change. It does not block.
func (w *watcher) note(mailbox string, kind pb.MailboxChangeKind) {
	w.mu.Lock()
	if c, known := w.changes[mailbox]; !known && len(w.changes) >= maxWatchBacklog {
		w.behind = true
	} else {
		if kind == pb.MailboxChangeKind_MAILBOX_CHANGE_KIND_DEVICE_LEFT {
			c.left = true
		} else {
			c.left = c.left || c.kind == pb.MailboxChangeKind_MAILBOX_CHANGE_KIND_UNSUBSCRIBED
			c.kind = kind
		}
		w.changes[mailbox] = c
	}
	w.mu.Unlock()
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

// take returns what has changed since the last call.
func (w *watcher) take() (changes map[string]change, behind bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	changes, w.changes = w.changes, map[string]change{}
	return changes, w.behind
}

// watchers knows who watches which organization's mailboxes.
type watchers struct {
	mu   sync.Mutex // guards orgs
	orgs map[relay.OrganizationID]map[*watcher]struct{}
}

func (t *watchers) add(org relay.OrganizationID) *watcher {
	w := &watcher{org: org, changes: map[string]change{}, ready: make(chan struct{}, 1)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.orgs[org] == nil {
		t.orgs[org] = map[*watcher]struct{}{}
	}
	t.orgs[org][w] = struct{}{}
	return w
}

func (t *watchers) remove(w *watcher) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.orgs[w.org], w)
	if len(t.orgs[w.org]) == 0 {
		delete(t.orgs, w.org)
	}
}

// changed passes a change of the registry on.
func (t *watchers) changed(c *registry.Change) {
	kind := pb.MailboxChangeKind_MAILBOX_CHANGE_KIND_SUBSCRIBED
	switch {
	case c.Kind == registry.ChangeSubscribed && c.Live:
	case c.Kind == registry.ChangeUnsubscribed && !c.Live, c.Kind == registry.ChangeSubscribed:
		kind = pb.MailboxChangeKind_MAILBOX_CHANGE_KIND_UNSUBSCRIBED
	case c.Kind == registry.ChangeUnsubscribed:
		kind = pb.MailboxChangeKind_MAILBOX_CHANGE_KIND_DEVICE_LEFT
	default:
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for w := range t.orgs[c.Organization] {
		w.note(c.Mailbox, kind)
	}
}

// Recount tells those who watch mailboxes that their present counts are wanted:
// the relay has reason to push them again. It does not block.
func (s *Server) Recount(keys []relay.MailboxKey) {
	t := s.watchers
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, key := range keys {
		for w := range t.orgs[key.Organization] {
			w.note(key.Mailbox, pb.MailboxChangeKind_MAILBOX_CHANGE_KIND_SUBSCRIBED)
		}
	}
}

// WatchMailboxes implements badgerelayv1.SubscriptionServiceServer.
func (s *subscriptionService) WatchMailboxes(_ *pb.WatchMailboxesRequest, g grpc.ServerStreamingServer[pb.WatchMailboxesResponse]) error {
	p, err := caller(g.Context())
	if err != nil {
		return err
	}
	session, err := s.openSession(g.Context(), sessionWatch, p)
	if err != nil {
		return err
	}
	defer s.sessions.remove(session)
	w := s.watchers.add(session.org) // before the snapshot, so that nothing falls between
	defer s.watchers.remove(w)

	return s.runSession(g.Context(), sessionEnds{session, p.GoodUntil, s.draining}, func(ctx context.Context) error {
		return s.watch(ctx, w, g)
	})
}

// watch sends every mailbox, then what changes, until ctx is done or sending
// fails.
func (s *subscriptionService) watch(ctx context.Context, w *watcher, g grpc.ServerStreamingServer[pb.WatchMailboxesResponse]) error {
	if err := s.sendMailboxes(ctx, w.org, g); err != nil {
		return err
	}
	for {
		select {
		case <-w.ready:
		case <-ctx.Done():
			return ctx.Err()
		}
		changes, behind := w.take()
		if behind {
			return service.LimitReached("watch_backlog", maxWatchBacklog)
		}
		if err := sendChanges(changes, g); err != nil {
			return err
		}
	}
}

// sendMailboxes sends the organization's mailboxes, page by page; the last
// page says that it is.
func (s *subscriptionService) sendMailboxes(ctx context.Context, org relay.OrganizationID, g grpc.ServerStreamingServer[pb.WatchMailboxesResponse]) error {
	for after := ""; ; {
		mailboxes, err := s.registry.Mailboxes(ctx, org, after, watchMessage)
		if err != nil {
			return err
		}
		m := &pb.WatchMailboxesResponse{Complete: len(mailboxes) < watchMessage}
		for _, mailbox := range mailboxes {
			m.Changes = append(m.Changes, &pb.MailboxChange{
				Mailbox: mailbox, Kind: pb.MailboxChangeKind_MAILBOX_CHANGE_KIND_SUBSCRIBED,
			})
			after = mailbox
		}
		if err := g.Send(m); err != nil || m.Complete {
			return err
		}
	}
}

func sendChanges(changes map[string]change, g grpc.ServerStreamingServer[pb.WatchMailboxesResponse]) error {
	m := &pb.WatchMailboxesResponse{}
	for mailbox, c := range changes {
		if c.left {
			m.Changes = append(m.Changes, &pb.MailboxChange{Mailbox: mailbox, Kind: pb.MailboxChangeKind_MAILBOX_CHANGE_KIND_DEVICE_LEFT})
		}
		if c.kind != pb.MailboxChangeKind_MAILBOX_CHANGE_KIND_UNSPECIFIED {
			m.Changes = append(m.Changes, &pb.MailboxChange{Mailbox: mailbox, Kind: c.kind})
		}
		if len(m.Changes) < watchMessage-1 {
			continue
		}
		if err := g.Send(m); err != nil {
			return err
		}
		m = &pb.WatchMailboxesResponse{}
	}
	if len(m.Changes) == 0 {
		return nil
	}
	return g.Send(m)
}
