package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"badgerelay/cmd/badgeagent/internal/config"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/configfile"
	"badgerelay/cmd/internal/explanation"
	"badgerelay/relay/agent"
	"badgerelay/relay/agent/daemon"
	"badgerelay/relay/agent/diagnosis"
)

func (a *app) explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain <mailbox>", Short: "say why a mailbox's badge is wrong",
		SuggestFor: []string{"mailbox"}, // badgerelay's word
		Long: `Says in one sentence why the badge of a mailbox is what it is, and shows its whole
way: what the mail server counts now, what the running agent has sent, what every
relay has of it, and each device with what it shows and what APNs said last.

The running agent is asked on local.socket of its configuration, the relay as any
command asks it. Where one of them does not answer, the page says what the other knows.
Fails if neither can be asked, because nothing is set up.`,
		Example: `  badgeagent explain ann@fabrikam.com
  badgeagent explain ann@fabrikam.com --output json | jq -r .verdict.code`,
		RunE: a.do(func(ctx context.Context, args []string) error { return a.explainMailbox(ctx, args[0]) }),
	}
	configFlag(cmd, &a.config)
	a.relayFlags(cmd)
	a.OutputFlag(cmd)
	cmd.ValidArgsFunction = a.mailboxes()
	return cmd
}

// explainMailbox asks the agent, then the relay, and says what they know: the relay is
// to have what the agent says that it has sent.
func (a *app) explainMailbox(ctx context.Context, mailbox string) error {
	if err := command.CheckMailboxName("mailbox", mailbox); err != nil {
		return err
	}
	f := diagnosis.Facts{Mailbox: mailbox}
	var agentErr error
	f.Agent, agentErr = a.askAgent(ctx, mailbox)
	_, unset := a.settings(a.relay)
	relayErr := unset
	if unset == nil {
		relayErr = a.call(ctx, func(ctx context.Context, c *agent.Client) (err error) {
			f.Report, err = c.Mailbox(ctx, mailbox)
			return err
		})
	}
	f.Now = time.Now()
	refused := agent.Explain(relayErr)
	switch problem, bad := errors.AsType[*configfile.Problem](agentErr); {
	case bad:
		return fmt.Errorf("%w; --config names the file that 'badgeagent serve' runs with", problem)
	case unset != nil && f.Agent == nil:
		return errors.Join(unset, fmt.Errorf("the agent can't be asked either: %w", agentErr))
	case refused.Code == codes.InvalidArgument:
		return relayErr // of the mailbox's name
	}
	f.RelayError, f.RelayReason, f.AgentError = text(relayErr), refused.Reason, text(agentErr)
	if err := explanation.Print(a.Terminal, &f); err != nil {
		return err
	}
	if errors.Is(relayErr, command.ErrUnreachable) {
		return errors.Join(command.ErrReported, command.ErrUnreachable)
	}
	return nil
}

// text is what an error says, in one line; empty: there is none.
func text(err error) string {
	if err == nil {
		return ""
	}
	return oneLine(err.Error())
}

// askAgent asks the running agent what it knows of a mailbox.
func (a *app) askAgent(ctx context.Context, mailbox string) (*daemon.MailboxReport, error) {
	data, path, err := configfile.Read(a.config, config.DefaultPath)
	if err != nil {
		return nil, err
	}
	c, err := configfile.Parse[config.Config](path, data)
	if err != nil {
		return nil, err
	}
	socket := c.Local.Socket
	switch {
	case path == "":
		return nil, fmt.Errorf("there is no %s; name its configuration with --config", config.DefaultPath)
	case socket == "":
		return nil, fmt.Errorf("local.socket is not set in %s, so that it can't be asked", path)
	}
	return diagnosis.Ask(ctx, socket, mailbox)
}
