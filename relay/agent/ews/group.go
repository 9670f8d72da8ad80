package ews

import (
	"context"
	"errors"
	"slices"
	"time"

	"badgerelay/relay/agent/internal/backoff"
)

// group is mailboxes of one server that share a streaming connection. Its fields
// belong to Source.mu.
type group struct {
	key, url   string
	discovered bool // autodiscover has given key
	members    map[*box]struct{}
	anchor     string    // the mailbox whose server it is; empty: none is proven yet
	cookies    *cookies  // of the anchor's server
	trials     int       // mailboxes that are tried as the anchor now
	counted    time.Time // when all of them were to be counted last
	turns      int       // anchors that were too many connections for the server
	parked     []*box    // those that wait for the anchor

	bySubscription map[string]*box
	open           map[string]struct{}     // subscriptions that the connection was opened with
	abandoned      []leftover              // of those, the ones that are to be ended with the connection
	streaming      bool                    // the server has said that it streams
	opened         time.Time               // when the connection was last asked for
	cancel         context.CancelCauseFunc // ends the connection; nil: there is none
	joining        *time.Timer             // opens it anew for those that came; nil: none came
	changed        chan struct{}           // one slot: there may be something to stream, or nothing any more
}

const (
	// trialsAtOnce is how many mailboxes are tried as a group's anchor at once.
	// One that hangs holds up the others for slowAfter.
	trialsAtOnce = 2
	// How long mailboxes that come to an open stream wait for others that come,
	// and how often it is opened anew for them at most. Ours: what happens
	// meanwhile the subscription keeps.
	joinDelay    = 300 * time.Millisecond
	joinInterval = time.Second
)

// place puts b into a group of the server. The caller holds mu.
func (s *Source) place(b *box, p place) {
	at := slices.IndexFunc(s.groups, func(g *group) bool {
		return g.key == p.key && g.url == p.url && len(g.members) < s.config.perStream()
	})
	if at < 0 {
		s.groups = append(s.groups, &group{
			key: p.key, url: p.url, discovered: p.grouped, cookies: new(cookies), members: make(map[*box]struct{}),
			bySubscription: make(map[string]*box), changed: make(chan struct{}, 1), counted: time.Now(),
		})
		at = len(s.groups) - 1
		s.starts = append(s.starts, s.groups[at])
		notify(s.started)
	}
	b.group = s.groups[at]
	b.group.members[b] = struct{}{}
}

// leave takes b out of its group, and has its subscription ended. The caller
// holds mu.
func (s *Source) leave(b *box) {
	g := b.group
	if g == nil {
		return
	}
	s.abandon(b)
	delete(g.members, b)
	g.parked = slices.DeleteFunc(g.parked, func(other *box) bool { return other == b })
	delete(g.bySubscription, b.subscription)
	b.group, b.subscription, b.folders = nil, "", nil
	if g.anchor == b.mailbox {
		g.anchor = ""
		for other := range g.members { // on the same server, as its affinity says
			if other.subscription != "" {
				g.anchor = other.mailbox
				break
			}
		}
	}
	s.unpark(g)
	if len(g.members) == 0 {
		s.groups = slices.DeleteFunc(s.groups, func(other *group) bool { return other == g })
		if g.cancel != nil {
			g.cancel(errEmpty)
		}
		notify(g.changed)
	}
}

// park has b wait where it is to be subscribed and enough others are tried as
// the anchor of its group; otherwise it is tried itself, if there is none. The
// caller holds mu.
func (s *Source) park(b *box) bool {
	g := b.group
	if g == nil || b.subscription != "" || b.unstreamed || g.anchor != "" {
		return false
	}
	if g.trials >= trialsAtOnce {
		g.parked = append(g.parked, b)
		return true
	}
	g.trials++
	b.trialOf = g
	return false
}

// tried ends a trial, or has it hold up the others no more, and lets n others be
// tried in its place. The caller does not hold mu.
func (s *Source) tried(g *group, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g.trials -= n
	s.unpark(g)
}

// unpark lets those who wait for an anchor try. The caller holds mu.
func (s *Source) unpark(g *group) {
	if len(g.parked) == 0 {
		return
	}
	waiting := g.parked
	if g.anchor == "" && len(g.members) > 0 {
		waiting = waiting[:min(len(waiting), max(0, trialsAtOnce-g.trials))]
	}
	g.parked = slices.Clone(g.parked[len(waiting):])
	for _, b := range waiting {
		if b.group == g {
			s.enqueue(b, b.class, time.Now())
		}
	}
	notify(s.wake)
}

// subscribed adds b's subscription to what is streamed. The caller holds mu.
func (g *group) subscribed(b *box, now time.Time) {
	g.bySubscription[b.subscription] = b
	notify(g.changed)
	if g.cancel == nil || g.joining != nil {
		return
	}
	cancel := g.cancel
	g.joining = time.AfterFunc(max(joinDelay, joinInterval-now.Sub(g.opened)), func() { cancel(errJoin) })
}

// Why a stream ends without anything being wrong.
var (
	errClosed = errors.New("the server has closed the stream in order")
	errJoin   = errors.New("mailboxes have come")
	errEmpty  = errors.New("no mailbox is left")
)

// runGroup keeps a stream open until the group has no mailbox any more, or ctx
// is done.
func (s *Source) runGroup(ctx context.Context, g *group) {
	early := 0 // streams in a row that ended soon
	for s.awaitSubscriptions(ctx, g) {
		if s.merge(g) {
			continue // it has no mailbox any more
		}
		if !s.acquire(ctx, g) {
			return
		}
		began := time.Now()
		err := s.stream(ctx, g)
		s.streams.release()
		if ctx.Err() != nil {
			return
		}
		wait := s.streamEnded(ctx, g, err, early)
		s.recountLate(g)
		switch {
		case errors.Is(err, errJoin) || errors.Is(err, errEmpty):
			continue
		case time.Since(began) >= steady:
			early = 0
		case early > 0:
			wait = max(wait, backoff.Jittered(backoff.Doubled(early, earlyMin, earlyMax)))
		}
		early++
		if wait > 0 && !pause(ctx, s, g, time.After(wait)) {
			return
		}
	}
}

// merge moves the mailboxes of g to another group of the server that has room for
// all of them, and says whether there is one: mailboxes leave, and connections
// are scarce.
func (s *Source) merge(g *group) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.IndexFunc(s.groups, func(other *group) bool {
		return other != g && other.sameServer(g) && other.anchor != "" &&
			len(other.members) >= len(g.members) && len(other.members)+len(g.members) <= s.config.perStream()
	})
	if at < 0 {
		return false
	}
	other, now := s.groups[at], time.Now()
	for b := range g.members {
		s.leave(b)
		b.group = other
		other.members[b] = struct{}{}
		s.enqueue(b, initial, now)
	}
	notify(s.wake)
	return true
}

// sameServer says whether two groups are known to be of one server: autodiscover
// says so, or the server by its affinity.
func (g *group) sameServer(other *group) bool {
	if g.url != other.url {
		return false
	}
	if g.discovered {
		return g.key == other.key
	}
	mine, theirs := g.cookies.value(affinity), other.cookies.value(affinity)
	return mine != "" && mine == theirs
}

// affinity is the cookie by which a server says that it is the same one. Source:
// Exchange Web Services, "How to: Maintain affinity between a group of
// subscriptions and the Mailbox server" (read 2026-11).
const affinity = "X-BackEndOverrideCookie"

// How long a group waits after streams that ended before they were steady: not
// at all after the first, then doubled up to the last, and jittered. Ours.
const (
	steady   = 5 * time.Second
	earlyMin = 100 * time.Millisecond
	earlyMax = 30 * time.Second
)

// awaitSubscriptions waits until there is something to stream. It returns false
// when there will be nothing any more.
func (s *Source) awaitSubscriptions(ctx context.Context, g *group) bool {
	for ctx.Err() == nil {
		s.mu.Lock()
		members, subscriptions := len(g.members), len(g.bySubscription)
		s.mu.Unlock()
		switch {
		case members == 0:
			return false
		case subscriptions > 0:
			return true
		}
		if !pause(ctx, s, g, g.changed) || !pause(ctx, s, g, time.After(joinDelay)) { // where one is, more come
			return false
		}
	}
	return false
}

// pause waits for end while a group is not streamed, and has its mailboxes
// counted now and then meanwhile. It returns false when ctx is done.
func pause[T any](ctx context.Context, s *Source, g *group, end <-chan T) bool {
	for {
		s.mu.Lock()
		next := time.Until(g.counted.Add(s.config.interval()))
		s.mu.Unlock()
		look := time.NewTimer(max(next, 0))
		select {
		case <-end:
			look.Stop()
			return true
		case <-look.C:
			s.recountAll(g)
		case <-ctx.Done():
			look.Stop()
			return false
		}
	}
}

// recountLate has the group's mailboxes counted if they were not for too long: a
// stream that says nothing at all counts nobody.
func (s *Source) recountLate(g *group) {
	s.mu.Lock()
	late := !time.Now().Before(g.counted.Add(s.config.interval()))
	s.mu.Unlock()
	if late {
		s.recountAll(g)
	}
}

// recountAll has every mailbox of the group counted. The caller does not hold mu.
func (s *Source) recountAll(g *group) {
	s.mu.Lock()
	now := time.Now()
	g.counted = now
	for b := range g.members {
		b.recount = true
		s.enqueue(b, initial, now)
	}
	s.mu.Unlock()
	notify(s.wake)
}

// tells says whether the open stream tells of b. The caller holds mu.
func (g *group) tells(b *box) bool {
	_, ok := g.open[b.subscription]
	return ok
}
