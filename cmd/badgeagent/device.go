package main

import (
	"context"
	"strings"

	"badgerelay/cmd/internal/command"
	"badgerelay/relay/agent"
	"badgerelay/relay/agent/backend"

	"github.com/spf13/cobra"
)

func (a *app) deviceCommand() *cobra.Command {
	return a.group("device", "say which mailboxes a device shows", a.deviceSetCommand())
}

// maxMailboxes is the contract's bound of SetDevice's mailboxes.
const maxMailboxes = 100

func (a *app) deviceSetCommand() *cobra.Command {
	var d agent.DeviceMailboxes
	var token string
	var none bool
	cmd := &cobra.Command{
		Use: "set", Short: "declare all mailboxes of a device",
		Long: `Declares all mailboxes of the organization that a device shows: it comes to those
where it is missing, leaves those that are not named, and is renewed on the rest.
It shows the sum of their counts. Repeating it changes nothing.`,
		Example: `  badgeagent device set --mailbox ann@fabrikam.com --mailbox sales@fabrikam.com --app mail --device-token 00fc13ad...
  badgeagent device set --none --app mail --device-token 00fc13ad...`,
		RunE: a.do(func(ctx context.Context, _ []string) error {
			d.Device = agent.DeviceToken(token)
			if err := a.checkMailboxes(d.Mailboxes...); err != nil {
				return err
			}
			if len(d.Mailboxes) > maxMailboxes {
				return command.Usage("--mailbox is given %d times, and a device shows %d mailboxes of an organization at most", len(d.Mailboxes), maxMailboxes)
			}
			if a.dryRun {
				return a.wouldCall(ctx, token, func(context.Context, *agent.Client) error {
					if none {
						return a.Would("take the device off every mailbox")
					}
					return a.Would("put the device on %s and no others, if %s", strings.Join(d.Mailboxes, ", "), allowed(d.App))
				})
			}
			return a.call(ctx, func(ctx context.Context, c *agent.Client) error {
				done, err := c.SetDevice(ctx, d)
				if err != nil {
					return err
				}
				a.sayDeviceSet(&done)
				return a.result(backend.DeviceSetOf(&done))
			})
		}),
	}
	f := cmd.Flags()
	f.StringArrayVar(&d.Mailboxes, "mailbox", nil, "a `mailbox` that the device shows; may be repeated")
	f.BoolVar(&none, "none", false, "take the device off every mailbox of the organization")
	f.StringVar(&d.App, "app", "", "the `name` of the app in the relay's configuration (required)")
	f.StringVar(&token, "device-token", "", "the device `token` in hexadecimal (required)")
	command.Require(cmd, "app", "device-token")
	command.RequireOne(cmd, "mailbox", "none") // so that none is what was meant
	command.FlagCompletion(cmd, "mailbox", a.mailboxes())
	command.FlagCompletion(cmd, "app", a.apps())
	a.relayFlags(cmd)
	a.dryRunFlag(cmd)
	return cmd
}

func (a *app) sayDeviceSet(s *agent.DeviceSet) {
	for _, part := range []struct {
		what      string
		mailboxes []string
	}{{"The device came to %s.", s.Added}, {"It left %s.", s.Removed}, {"It stays on %s.", s.Kept}} {
		if len(part.mailboxes) > 0 {
			a.Say(part.what, strings.Join(part.mailboxes, ", "))
		}
	}
	if len(s.Added)+len(s.Removed)+len(s.Kept) == 0 {
		a.Say("The device was on no mailbox.")
	}
	if !s.ExpiresAt.IsZero() {
		a.Say("The subscriptions end without renewal on %s.", command.Time(s.ExpiresAt))
	}
}
