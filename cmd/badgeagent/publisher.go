package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"badgerelay/cmd/internal/command"
	"badgerelay/relay/agent"
	"badgerelay/relay/agent/enrolment"
)

// publisher runs an agent for one command.
type publisher struct {
	app      *app
	settings settings
	agent    *agent.Agent
	ctx      context.Context // ends when the relay refuses for good
	cancel   context.CancelCauseFunc
	ended    chan struct{}

	mu      sync.Mutex // guards what follows, and the output
	bad     int
	failed  error           // the last failure
	waiting map[string]bool // mailboxes whose count has not settled
	nobody  []string        // mailboxes that no device is subscribed to
}

func (p *publisher) start(ctx context.Context, cfg agent.Config) (err error) {
	cfg.AgentID = enrolment.NewAgentID(hostName()) // the daemon must not stand by for a command, nor one command for another
	cfg.OnOutcome, cfg.OnFailure = p.settled, p.failure
	if p.agent, err = agent.New(cfg); err != nil {
		return err
	}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	p.ended = make(chan struct{})
	go func() { // ends with p.ctx; stop waits
		defer close(p.ended)
		_ = p.agent.Run(p.ctx) // only a second Run fails
	}()
	return nil
}

func (p *publisher) stop() {
	p.cancel(nil)
	<-p.ended
}

// read sets what standard input says; a bad line is told and left out.
func (p *publisher) read() error {
	var bad error
	empty, err := p.app.readCounts(p.ctx, func(n int, c count, wrong error) error {
		if wrong == nil {
			wrong = p.set(c)
		}
		if wrong != nil {
			p.mu.Lock()
			fmt.Fprintf(p.app.Err, "badgeagent: line %d: %s\n", n, command.Escape(wrong.Error()))
			p.mu.Unlock()
			bad = command.ErrReported
		}
		return nil
	})
	if empty && err == nil {
		p.app.Warn("standard input was empty: nothing was published")
	}
	return cmp.Or(err, bad)
}

// set waits while as many mailboxes are unsettled as an agent holds.
func (p *publisher) set(c count) error {
	p.mu.Lock()
	p.waiting[c.mailbox] = true
	p.mu.Unlock()
	for {
		err := p.agent.Set(c.mailbox, c.unread, 0, 0)
		if !errors.Is(err, agent.ErrFull) {
			return err
		}
		if err := p.agent.WaitSettled(p.ctx); err != nil {
			return p.why(err)
		}
	}
}

// settled prints an outcome. The agent calls it from one goroutine a stream.
func (p *publisher) settled(r agent.Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, r.Mailbox)
	if r.Outcome == agent.OutcomeNoSubscription {
		p.nobody = append(p.nobody, r.Mailbox)
	}
	if r.Outcome == agent.OutcomeRejected || r.Outcome == agent.OutcomeUndeliverable || r.Outcome == agent.OutcomeUnknown {
		p.bad++
	}
	removed, kept, dropped := refusedLines(r.Removed), refusedLines(r.Quarantined), refusedLines(r.Dropped)
	if p.app.JSON() {
		_ = p.app.Line(resultLine{r.Mailbox, r.Unread, r.Outcome.String(), r.Field, r.Detail, removed, kept, dropped}) // the summary reports a broken output
		return
	}
	line := fmt.Sprintf("%s=%d %s", r.Mailbox, r.Unread, r.Outcome)
	if r.Field != "" {
		line += " (" + r.Field + ")"
	}
	if r.Detail != "" {
		line += ": " + r.Detail
	}
	p.app.Say("%s", line)
	for _, part := range []struct {
		what string
		all  []refusedLine
	}{{"subscription ended", removed}, {"subscription kept, its device is tried again later", kept}, {"push dropped, subscription kept", dropped}} {
		for _, s := range part.all {
			p.app.Say("  %s: app %s, %s, %s", part.what, s.App, string(s.Device), s.Reason)
		}
	}
}

// failure gives up on what waiting does not mend.
func (p *publisher) failure(f agent.Failure) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = fmt.Errorf("%s: %w", f.Address, p.settings.explainAt(f.Address, f.Err))
	switch {
	case f.Kind == agent.FailureRefused, f.Kind == agent.FailureProtocol, f.Kind == agent.FailureToken && f.Again > 0:
		p.cancel(p.failed)
	case f.Repeats == 0:
		p.app.Warn("%v; trying again for up to %s (--timeout)", p.failed, p.app.timeout)
	}
}

func (p *publisher) summary() error {
	l := p.agent.Ledger()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.app.JSON() {
		err := p.app.Line(struct {
			Submitted uint64 `json:"submitted"`
			Replaced  uint64 `json:"replaced"`
			Settled   uint64 `json:"settled"`
		}{l.Submitted, l.Replaced, l.Settled()})
		if err != nil {
			return err
		}
	}
	if p.bad > 0 {
		return fmt.Errorf("%d of %s reached no device", p.bad, command.Counted(l.Settled(), "count", "counts"))
	}
	return nil
}

type resultLine struct {
	Mailbox string        `json:"mailbox"`
	Unread  uint32        `json:"unread"`
	Outcome string        `json:"outcome"`
	Field   string        `json:"field,omitempty"`
	Detail  string        `json:"detail,omitempty"`
	Removed []refusedLine `json:"removed,omitempty"`
	Kept    []refusedLine `json:"quarantined,omitempty"`
	Dropped []refusedLine `json:"dropped,omitempty"`
}

type refusedLine struct {
	App    string            `json:"app"`
	Device agent.DeviceToken `json:"deviceToken"`
	Reason string            `json:"reason"`
}

func refusedLines[T agent.RemovedSubscription | agent.QuarantinedSubscription | agent.DroppedPush](all []T) (lines []refusedLine) {
	for _, s := range all {
		lines = append(lines, refusedLine(s))
	}
	return lines
}

// mostNamed bounds for how many mailboxes a name is looked for.
const mostNamed = 10

// sayWhoIsMeant speaks of those that no device was subscribed to.
func (p *publisher) sayWhoIsMeant(ctx context.Context) {
	p.mu.Lock()
	nobody := p.nobody[:min(len(p.nobody), mostNamed)]
	p.mu.Unlock()
	if len(nobody) == 0 {
		return
	}
	_ = p.app.call(ctx, func(ctx context.Context, c *agent.Client) error {
		p.app.sayWhoIsMeant(ctx, c, nobody...)
		return nil
	})
}

func (p *publisher) wait(timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(p.ctx, timeout)
	defer cancel()
	soon, done := context.WithTimeout(ctx, silence)
	err := p.agent.WaitSettled(soon)
	done()
	if err == nil {
		return nil
	}
	if ctx.Err() == nil {
		p.sayWhatIsAwaited(timeout)
	}
	if err := p.agent.WaitSettled(ctx); err != nil {
		return p.why(err)
	}
	return nil
}

// silence is how long a person is left without a word, ours.
const silence = 2 * time.Second

// sayWhatIsAwaited tells a person why nothing happens.
func (p *publisher) sayWhatIsAwaited(timeout time.Duration) {
	taken := p.taken()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.failed != nil || len(p.waiting) == 0:
	case taken:
		p.app.Warn("waiting up to %s for %s: %s", timeout, p.mailboxes(), awaited)
	default:
		p.app.Warn("waiting up to %s for a relay to answer at %s", timeout, strings.Join(p.settings.relays, ", "))
	}
}

// taking is how long after its welcome a relay has what was set before, ours.
const taking = 100 * time.Millisecond

// taken reports whether a relay has what waits: nothing says so but what has settled.
func (p *publisher) taken() bool {
	s := p.agent.Status()
	return s.Connected && time.Since(s.Since) >= taking
}

// awaited is what keeps a count that the relay has taken from settling.
const awaited = "the relay has it, and APNs has not answered, where the relay's operator sees why with 'badgerelay app list' and 'badgerelay probe'; " +
	"or a device of it waits up to a minute for the first count of another mailbox that it shows: publish that too"

// mailboxes names those that wait; p.mu is held.
func (p *publisher) mailboxes() string {
	names := slices.Sorted(maps.Keys(p.waiting))
	if len(names) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), len(names)-3)
	}
	return strings.Join(names, ", ")
}

// why says what kept counts from settling.
func (p *publisher) why(err error) error {
	unsettled := p.agent.Ledger().Unsettled
	late := errors.Is(err, context.DeadlineExceeded) && context.Cause(p.ctx) == nil
	taken, answered := p.taken(), p.agent.Status().Connected
	p.mu.Lock()
	defer p.mu.Unlock()
	if late && (taken || p.failed == nil) {
		return p.late(taken, answered)
	}
	if cause := context.Cause(p.ctx); cause != nil {
		err = cause
	} else if p.failed != nil {
		err = fmt.Errorf("not within --timeout; the last failure: %w", p.failed)
	}
	return fmt.Errorf("%d not settled (%s): %w", unsettled, p.mailboxes(), err)
}

// late says of what no failure is known why it has not settled; p.mu is held.
func (p *publisher) late(taken, answered bool) error {
	const format = "not settled within --timeout: %s: %s"
	switch {
	case taken:
		return fmt.Errorf(format, p.mailboxes(), awaited)
	case answered:
		return fmt.Errorf(format, p.mailboxes(), "the relay answers, and had no time to settle it; give it more")
	}
	return command.Unreached(fmt.Errorf(format, p.mailboxes(), p.settings.unreachableAdvice(strings.Join(p.settings.relays, ", "), "")))
}
