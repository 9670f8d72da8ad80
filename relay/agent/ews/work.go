package ews

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"badgerelay/relay/agent/source"
)

// How long a mailbox is left alone after it failed: doubled up to the last, and
// jittered. Ours: a right that is granted later is found within half an hour, a
// connection that broke within a second.
const (
	refusedMin = 10 * time.Second
	refusedMax = 30 * time.Minute
	brokenMin  = time.Second
	brokenMax  = 5 * time.Minute
)

// job is what a worker does for a mailbox, as it was when it began.
type job struct {
	mailbox string
	step    step
	group   *group
	url     string
	anchor  string // whose server the request is for
	cookies *cookies
	folders []folderID
	trial   bool // the mailbox may become its group's anchor
}

// step is what comes next for a mailbox.
type step uint8

const (
	stepNone step = iota
	stepLocate
	stepSubscribe
	stepCount
)

// work does what is to be done until ctx is done, one request at a time on a
// connection of its own.
func (s *Source) work(ctx context.Context) {
	l := newConnection(&s.config)
	defer l.close()
	for ctx.Err() == nil {
		b, wait := s.take(time.Now())
		if b != nil {
			s.handle(ctx, l, b)
			continue
		}
		var timer <-chan time.Time
		if wait > 0 {
			timer = time.After(wait)
		}
		select {
		case <-s.wake:
		case <-timer:
		case <-ctx.Done():
		}
	}
}

// handle does the next step for a mailbox that take returned.
func (s *Source) handle(ctx context.Context, l *connection, b *box) {
	if s.gate.enter(ctx) != nil {
		return
	}
	j, trialOf := s.job(b)
	if trialOf != nil {
		var once sync.Once
		defer once.Do(func() { s.tried(trialOf, 1) })
		defer time.AfterFunc(slowAfter, func() { once.Do(func() { s.tried(trialOf, 2) }) }).Stop()
	}
	var err error
	switch j.step {
	case stepNone:
		s.gate.leave()
		s.finish(b, done, nil)
		return
	case stepLocate:
		s.locate(ctx, l, b)
		return
	case stepSubscribe:
		err = s.subscribe(ctx, l, b, j)
	case stepCount:
		err = s.recount(ctx, l, b, j)
	}
	s.finish(b, s.judge(ctx, b.mailbox, err), err)
}

// job says what comes next for b, and whose anchor is tried with it; nil: none's.
func (s *Source) job(b *box) (j job, trialOf *group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	trialOf, b.trialOf = b.trialOf, nil
	b.again, b.overtaken = false, false
	j = job{mailbox: b.mailbox, group: b.group, folders: b.folders}
	switch {
	case b.gone:
		return j, trialOf
	case b.group == nil:
		j.step = stepLocate
		return j, trialOf
	case b.subscription == "" && !b.unstreamed:
		j.step = stepSubscribe
	case b.recount:
		j.step = stepCount
	}
	j.url, j.anchor, j.cookies = b.group.url, b.group.anchor, b.group.cookies
	if j.anchor == "" { // it may become the anchor itself
		j.anchor, j.cookies = b.mailbox, new(cookies)
		j.trial = j.step == stepSubscribe
	}
	return j, trialOf
}

// subscribe makes b's subscription, and counts it then: what changes from now on
// the stream tells.
func (s *Source) subscribe(ctx context.Context, l *connection, b *box, j job) error {
	folders, err := s.resolve(ctx, l, j)
	var subscription string
	if err == nil {
		j.folders = folders
		var messages []message
		messages, err = s.call(ctx, l, opSubscribe, j, subscribeBody(folders, s.owner(j.mailbox)))
		if err == nil && (len(messages) != 1 || messages[0].Subscription == "") {
			err = &Error{Status: http.StatusOK, Text: "the answer names no subscription"}
		}
		if err == nil {
			subscription = messages[0].Subscription
		}
	}
	if err == nil && !s.adopt(b, j, folders, subscription) { // nobody will stream it
		_, _ = s.call(ctx, l, opUnsubscribe, j, unsubscribeBody(subscription)) // otherwise it ends by itself
	}
	return err
}

// adopt takes b's new subscription into its group. It says whether it is of use.
func (s *Source) adopt(b *box, j job, folders []folderID, subscription string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := j.group
	switch {
	case b.gone || b.group != g:
		return false
	case j.trial && g.anchor != "":
		return false // another one was first: b subscribes again, on that one's server
	case j.trial:
		g.anchor, g.cookies = b.mailbox, j.cookies
	}
	b.subscription, b.folders, b.recount, b.generation = subscription, folders, true, 0
	g.subscribed(b, time.Now())
	return true
}

// recount asks for b's count.
func (s *Source) recount(ctx context.Context, l *connection, b *box, j job) error {
	asked := time.Now()
	counts, folders, err := s.ask(ctx, l, j)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil || b.gone:
		return err
	case b.overtaken: // by a newer one
		b.recount = true
		return nil
	}
	b.folders, b.unread, b.recount = folders, counts, b.again
	if len(b.waiters) > 0 && !b.recount { // who asked hands it on
		b.answer(answer{count: source.Count{Mailbox: b.mailbox, Unread: b.total(), Asked: asked}})
		return nil
	}
	s.counted(b)
	return nil
}

// ask asks for the counts of a mailbox's folders, by id.
func (s *Source) ask(ctx context.Context, l *connection, j job) (map[string]uint32, []folderID, error) {
	folders, err := s.resolve(ctx, l, j)
	if err != nil {
		return nil, nil, err
	}
	messages, err := s.call(ctx, l, opCount, j, countBody(folders, s.owner(j.mailbox)))
	if err != nil {
		return nil, nil, err
	}
	counts := make(map[string]uint32)
	for _, m := range messages {
		for _, f := range m.Folders.All {
			n, ok := unread(f.Unread)
			if !ok || f.Folder.ID == "" {
				return nil, nil, &Error{Status: http.StatusOK, Text: "the answer holds no unread count"}
			}
			counts[f.Folder.ID] = n
		}
	}
	if len(counts) != len(folders) {
		return nil, nil, &Error{Status: http.StatusOK, Text: fmt.Sprintf("the answer holds %d folders, not %d", len(counts), len(folders))}
	}
	return counts, folders, nil
}

// resolve returns the folders of a mailbox, looking for those that not every
// mailbox has.
func (s *Source) resolve(ctx context.Context, l *connection, j job) ([]folderID, error) {
	if j.folders != nil {
		return j.folders, nil
	}
	var all []folderID
	for n, path := range s.paths {
		at := folderID{wellKnown: path[0]}
		for _, name := range path[1:] {
			messages, err := s.call(ctx, l, opFind, j, findBody(at, name, s.owner(j.mailbox)))
			if err != nil {
				return nil, err
			}
			var found []folder
			for _, m := range messages {
				found = append(found, m.Root.Folders.All...)
			}
			if len(found) == 0 || found[0].Folder.ID == "" {
				return nil, fmt.Errorf("%w: it has no folder %q", source.ErrMailbox, s.config.Folders[n])
			}
			at = folderID{id: found[0].Folder.ID}
		}
		all = append(all, at)
	}
	return all, nil
}

// owner is whose folders a request names; empty: those of who is impersonated.
func (s *Source) owner(mailbox string) string {
	if s.config.access() == Delegate {
		return mailbox
	}
	return ""
}

// call sends one short request and returns the parts of the answer, none of
// which is a failure.
func (s *Source) call(ctx context.Context, l *connection, op operation, j job, body string) ([]message, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.config.timeout(), fmt.Errorf("no answer within %v", s.config.timeout()))
	defer cancel()
	impersonated := ""
	if s.config.access() == Impersonation {
		impersonated = j.mailbox
	}
	leave, err := s.slots.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	answer, err := l.post(ctx, j.url, s.header(j.anchor, j.cookies), soap(impersonated, body))
	if err != nil {
		s.metrics.requested(op, err)
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
			return nil, cause
		}
		return nil, err
	}
	defer answer.Body.Close()
	defer drain(answer.Body)
	j.cookies.take(answer)
	messages, err := read(answer)
	for _, m := range messages {
		if failure := m.failure(); failure != nil && err == nil {
			err = failure
		}
	}
	s.metrics.requested(op, err)
	return messages, err
}

// header is that of each request of a group: whose server it is for.
func (s *Source) header(anchor string, c *cookies) http.Header {
	h := http.Header{"X-Anchormailbox": {anchor}, "X-Preferserveraffinity": {"true"}}
	if cookie := c.header(); cookie != "" {
		h.Set("Cookie", cookie)
	}
	return h
}

// read reads a short answer whole.
func read(answer *http.Response) ([]message, error) {
	messages, err := readOne(answer.Body, answer.StatusCode)
	if answer.StatusCode == http.StatusOK {
		return messages, err
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		e = &Error{Status: answer.StatusCode}
	}
	if e.Code == "" {
		e.Text = http.StatusText(answer.StatusCode)
		if location := answer.Header.Get("Location"); location != "" {
			e.Text = short("it points to " + location)
		}
	}
	if e.BackOff == 0 {
		e.BackOff = retryAfter(answer.Header.Get("Retry-After"))
	}
	return nil, e
}

func retryAfter(value string) time.Duration {
	d, err := time.ParseDuration(value + "s")
	if err != nil || d < 0 {
		return 0
	}
	return min(d, maxBackOff)
}

// names returns the mailboxes of some boxes.
func names(all []*box) []string {
	found := make(map[string]struct{}, len(all))
	for _, b := range all {
		found[b.mailbox] = struct{}{}
	}
	return slices.Sorted(maps.Keys(found))
}
