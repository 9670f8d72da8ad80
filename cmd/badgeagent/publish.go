package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"badgerelay/cmd/internal/command"
	"badgerelay/relay/agent"

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
	a.DryRunFlag(cmd)
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
	} else if len(args) == 0 && a.Typed() {
		return command.Usage("badgeagent publish needs mailbox=count; 'badgeagent publish -' reads them from the terminal")
	}
	settings, err := a.settings(a.relay)
	if err != nil {
		return err
	}
	if a.DryRun {
		return a.wouldPublish(ctx, counts)
	}
	p := &publisher{app: a, settings: settings, waiting: map[string]bool{}}
	if err := p.start(ctx, settings.agentConfig()); err != nil {
		return err
	}
	defer p.stop()
	if len(args) == 0 {
		err = p.read()
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

// wouldPublish says what --dry-run left unsent, once a relay takes the organization's
// tokens; standard input is read for it.
func (a *app) wouldPublish(ctx context.Context, counts []count) error {
	if len(counts) == 0 {
		empty, err := a.readCounts(ctx, func(n int, c count, wrong error) error {
			if wrong != nil {
				return fmt.Errorf("line %d: %w", n, wrong)
			}
			counts = append(counts, c)
			return nil
		})
		if err != nil {
			return err
		}
		if empty {
			a.Warn("standard input was empty: nothing would be published")
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
		return a.Would("publish %s: %s", command.Counted(len(counts), "count", "counts"), strings.Join(all, ", "))
	})
}

// readCounts has take called with each count of standard input and the number of its line,
// or with what is wrong with the line, until ctx is done or take fails. empty says that
// there was nothing to read.
func (a *app) readCounts(ctx context.Context, take func(n int, c count, wrong error) error) (empty bool, err error) {
	lines, done := make(chan string), make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Ends with the input or ctx. A read that blocks then keeps it until the process
	// ends, which is what comes next.
	go func() { done <- scan(ctx, a.In, lines) }()
	for n := 1; ; n++ {
		select {
		case line := <-lines:
			c, skip, wrong := parseLine(line)
			if skip {
				continue
			}
			if err := take(n, c, wrong); err != nil {
				return false, err
			}
		case err := <-done:
			if ctx.Err() != nil {
				return false, nil
			}
			return n == 1, err
		case <-ctx.Done():
			return false, nil
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

// parseLine reads a line of standard input; skip says that it holds no count.
func parseLine(line string) (c count, skip bool, err error) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return c, true, nil
	}
	c, err = parseCount(line)
	return c, false, err
}
