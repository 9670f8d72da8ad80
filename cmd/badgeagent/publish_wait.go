package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"badgerelay/cmd/internal/command"
)

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
