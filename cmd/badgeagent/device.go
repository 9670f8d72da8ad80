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
			d.Device, d.ValidateOnly = agent.DeviceToken(token), a.DryRun
			if err := a.checkMailboxes(d.Mailboxes...); err != nil {
				return err
			}
			return a.call(ctx, func(ctx context.Context, c *agent.Client) error {
				done, err := c.SetDevice(ctx, d)
				return a.Answer(backend.DeviceSetOf(&done), err, wouldSet(&done), func() { a.sayDeviceSet(&done) })
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
	return a.DryRunFlag(cmd)
}

// wouldSet says what a dry run means.
func wouldSet(s *agent.DeviceSet) string {
	var all []string
	for _, part := range []struct {
		what      string
		mailboxes []string
	}{{"put it on ", s.Added}, {"take it off ", s.Removed}, {"renew it on ", s.Kept}} {
		if len(part.mailboxes) > 0 {
			all = append(all, part.what+strings.Join(part.mailboxes, ", "))
		}
	}
	if len(all) == 0 {
		return "change nothing: the device is on no mailbox"
	}
	return strings.Replace(strings.Join(all, "; "), " it ", " the device ", 1)
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
