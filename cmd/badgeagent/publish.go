package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"badgerelay/cmd/internal/command"
	"badgerelay/relay/agent"
	"badgerelay/relay/agent/enrolment"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"
)

func (a *app) publishCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "publish [mailbox=count ...]",
		Short: "send unread counts and wait until they have settled",
		Long: `Sends unread counts and prints how each one settled. Without arguments, or with -
alone, the counts come from standard input, one mailbox=count a line; empty lines
and those that begin with # are left out. A count of 0 removes the badge. Of several
counts for one mailbox only the last matters: those it overtakes print nothing.

Fails if a count did not settle in time, or ended as rejected or undeliverable.`,
		Example: `  badgeagent publish ann@fabrikam.com=7 bob@fabrikam.com=0
  report-unread | badgeagent publish --output json`,
		RunE: a.do(a.publish),
	}
	a.relayFlags(cmd)
	a.dryRunFlag(cmd)
	return a.OutputFlag(cmd)
}

// count is one mailbox=count.
type count struct {
	mailbox string
	unread  uint32
}

// parseCount reads mailbox=count; a mailbox may hold further equals signs.
func parseCount(s string) (count, error) {
	at := strings.LastIndexByte(s, '=')
	if at < 0 {
		return count{}, fmt.Errorf("%q is not mailbox=count", s)
	}
	n, err := strconv.ParseUint(s[at+1:], 10, 32)
	if err != nil || n > agent.MaxUnread {
		return count{}, fmt.Errorf("%q: the count is not a number from 0 to %d", s, agent.MaxUnread)
	}
	c := count{mailbox: s[:at], unread: uint32(n)}
	return c, command.CheckMailbox("mailbox", c.mailbox)
}

func (a *app) publish(ctx context.Context, args []string) error {
	counts := make([]count, 0, len(args))
	for _, arg := range args {
		if arg == "-" && len(args) == 1 {
			break
		}
		c, err := parseCount(arg)
		if err != nil {
			return command.Usage("%w", err)
		}
		counts = append(counts, c)
	}
	if len(args) == 1 && args[0] == "-" {
		args = nil
	} else if len(args) == 0 && a.onTerminal() {
		return command.Usage("badgeagent publish needs mailbox=count; 'badgeagent publish -' reads them from the terminal")
	}
	settings, err := a.settings(a.relay)
	if err != nil {
		return err
	}
	if a.dryRun {
		return a.wouldPublish(ctx, counts)
	}
	p := &publisher{app: a, settings: settings, waiting: map[string]bool{}}
	if err := p.start(ctx, settings.agentConfig()); err != nil {
		return err
	}
	defer p.stop()
	if len(args) == 0 {
		err = p.read(a.In)
	}
	for _, c := range counts {
		err = errors.Join(err, p.set(c))
	}
	if waited := p.wait(a.timeout); waited != nil {
		return errors.Join(err, waited)
	}
	p.stop() // what has settled is told of then
	p.sayWhoIsMeant(ctx)
	return errors.Join(err, p.summary())
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

// sayWhoIsMeant says of mailboxes that no device is on which one may have been
// meant. That the list can't be read is no failure of what was asked for.
func (a *app) sayWhoIsMeant(ctx context.Context, c *agent.Client, nobody ...string) {
	known := mailboxesWithDevice(ctx, c)
	for _, mailbox := range nobody {
		if near := command.NearestMailbox(mailbox, known); near != "" {
			a.Warn("no device is subscribed to %s; did you mean %s?", mailbox, near)
			continue
		}
		a.Warn("no device is subscribed to %s; 'badgeagent subscription list' shows the mailboxes that have one", mailbox)
	}
}

// sayWhichIsMeant tells a person which mailbox may have been meant, if none has a device
// under this name. Scripts, which ask for JSON, take off what is not there every day, and
// the list to look through is long.
func (a *app) sayWhichIsMeant(ctx context.Context, c *agent.Client, mailbox string) {
	if a.JSON() {
		return
	}
	own, _, err := list(ctx, c, agent.Filter{Mailbox: mailbox, PageSize: 1}, 1)
	if err != nil || len(own) > 0 {
		return
	}
	if near := command.NearestMailbox(mailbox, mailboxesWithDevice(ctx, c)); near != "" {
		a.Warn("no device is subscribed to %s; did you mean %s?", mailbox, near)
	}
}

// mailboxesWithDevice lists them, as far as they can be read.
func mailboxesWithDevice(ctx context.Context, c *agent.Client) (known []string) {
	all, _, _ := list(ctx, c, agent.Filter{PageSize: 1000}, 10_000)
	for i := range all {
		known = append(known, all[i].Mailbox)
	}
	return known
}

// onTerminal reports whether a person would have to type what is read.
func (a *app) onTerminal() bool {
	f, ok := a.In.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// wouldPublish says what --dry-run left unsent, once a relay takes the organization's
// tokens; standard input is read for it.
func (a *app) wouldPublish(ctx context.Context, counts []count) error {
	if len(counts) == 0 {
		text, empty, err := command.Text(a.In, "standard input")
		if err != nil {
			return err
		}
		if empty {
			a.Warn("standard input was empty: nothing would be published")
		}
		scanner := bufio.NewScanner(text)
		for n := 1; scanner.Scan(); n++ {
			c, skip, err := parseLine(scanner.Text())
			if err != nil {
				return fmt.Errorf("line %d: %w", n, err)
			}
			if !skip {
				counts = append(counts, c)
			}
		}
		if err := unreadable(scanner.Err()); err != nil {
			return err
		}
	}
	var all []string
	for _, c := range counts {
		all = append(all, fmt.Sprintf("%s=%d", c.mailbox, c.unread))
	}
	return a.call(ctx, func(ctx context.Context, c *agent.Client) error {
		if _, err := c.ServerInfo(ctx); err != nil {
			return err
		}
		if len(all) == 0 {
			return a.Would("publish nothing")
		}
		return a.Would("publish %d counts: %s", len(counts), strings.Join(all, ", "))
	})
}

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
func (p *publisher) read(in io.Reader) error {
	lines, done := make(chan string), make(chan error, 1)
	// Ends with the input or p.ctx. A read that blocks then keeps it until the
	// process ends, which is what comes next.
	go func() { done <- scan(p.ctx, in, lines) }()
	var bad error
	for n := 1; ; n++ {
		select {
		case line := <-lines:
			if err := p.readLine(line); err != nil {
				p.mu.Lock()
				fmt.Fprintf(p.app.Err, "badgeagent: line %d: %s\n", n, command.Escape(err.Error()))
				p.mu.Unlock()
				bad = command.ErrReported
			}
		case err := <-done:
			if err != nil {
				return err
			}
			if n == 1 && p.ctx.Err() == nil {
				p.app.Warn("standard input was empty: nothing was published")
			}
			return bad
		case <-p.ctx.Done():
			return bad
		}
	}
}

func scan(ctx context.Context, in io.Reader, lines chan<- string) error {
	text, _, err := command.Text(in, "standard input")
	if err != nil {
		return err
	}
	scanner := bufio.NewScanner(text)
	for scanner.Scan() {
		select {
		case lines <- scanner.Text():
		case <-ctx.Done():
			return nil
		}
	}
	return unreadable(scanner.Err())
}

// unreadable says why standard input could not be read to its end; nil: it was.
func unreadable(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bufio.ErrTooLong):
		err = fmt.Errorf("a line has more than %d bytes", bufio.MaxScanTokenSize)
	}
	return fmt.Errorf("read standard input: %w", err)
}

func (p *publisher) readLine(line string) error {
	c, skip, err := parseLine(line)
	if skip || err != nil {
		return err
	}
	return p.set(c)
}

// parseLine reads a line of standard input; skip says that it holds no count.
func parseLine(line string) (c count, skip bool, err error) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return c, true, nil
	}
	c, err = parseCount(line)
	return c, false, err
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
	if p.app.JSON() {
		_ = p.app.Line(resultLine(r)) // the summary reports a broken output
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
	for _, s := range r.Removed {
		p.app.Say("  subscription ended: app %s, %s, %s", s.App, string(s.Device), s.Reason)
	}
	for _, s := range r.Quarantined {
		p.app.Say("  subscription kept, its device is tried again later: app %s, %s, %s", s.App, string(s.Device), s.Reason)
	}
	for _, s := range r.Dropped {
		p.app.Say("  push dropped, subscription kept: app %s, %s, %s", s.App, string(s.Device), s.Reason)
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
		return fmt.Errorf("%d of %d counts reached no device", p.bad, l.Settled())
	}
	return nil
}

type refusedLine struct {
	App    string `json:"app"`
	Device string `json:"deviceToken"`
	Reason string `json:"reason"`
}

func resultLine(r agent.Result) any {
	line := struct {
		Mailbox string        `json:"mailbox"`
		Unread  uint32        `json:"unread"`
		Outcome string        `json:"outcome"`
		Field   string        `json:"field,omitempty"`
		Detail  string        `json:"detail,omitempty"`
		Removed []refusedLine `json:"removed,omitempty"`
		Kept    []refusedLine `json:"quarantined,omitempty"`
		Dropped []refusedLine `json:"dropped,omitempty"`
	}{Mailbox: r.Mailbox, Unread: r.Unread, Outcome: r.Outcome.String(), Field: r.Field, Detail: r.Detail}
	for _, s := range r.Removed {
		line.Removed = append(line.Removed, refusedLine{s.App, string(s.Device), s.Reason})
	}
	for _, s := range r.Quarantined {
		line.Kept = append(line.Kept, refusedLine{s.App, string(s.Device), s.Reason})
	}
	for _, s := range r.Dropped {
		line.Dropped = append(line.Dropped, refusedLine{s.App, string(s.Device), s.Reason})
	}
	return line
}
