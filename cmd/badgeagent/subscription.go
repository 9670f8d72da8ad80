package main

import (
	"context"
	"math"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"badgerelay/cmd/internal/command"
	"badgerelay/relay/agent"
	"badgerelay/relay/agent/backend"
)

func (a *app) subscriptionCommand() *cobra.Command {
	return a.group("subscription", "say which devices show which mailbox's count",
		a.subscriptionAddCommand(), a.subscriptionListCommand(), a.subscriptionRemoveCommand())
}

// registrationFlags adds the flags that name a device on a mailbox, and those of a call.
func (a *app) registrationFlags(r *command.Registration, cmd *cobra.Command) *cobra.Command {
	r.Flags(cmd, a.mailboxes(), a.apps())
	a.relayFlags(cmd)
	return a.DryRunFlag(cmd)
}

func (a *app) subscriptionAddCommand() *cobra.Command {
	var r command.Registration
	var keepOthers bool
	cmd := a.registrationFlags(&r, &cobra.Command{
		Use: "add", Short: "put a device on a mailbox, or renew that",
		Long: `Puts a device on a mailbox, so that the mailbox's unread count is shown on the
app's icon. Repeating it renews the registration, and changes nothing else. A
device that is new on the mailbox leaves the organization's other mailboxes,
unless --keep-others is given: then it shows the sum of their counts. 'device
set' declares all mailboxes of a device at once.`,
		Example: `  badgeagent subscription add --mailbox ann@fabrikam.com --app mail --device-token 00fc13ad...`,
		RunE: a.do(func(ctx context.Context, _ []string) error {
			if err := a.checkMailboxes(r.Mailbox); err != nil {
				return err
			}
			return a.call(ctx, func(ctx context.Context, c *agent.Client) error {
				request := a.registration(r)
				request.KeepOthers = keepOthers
				done, err := c.Subscribe(ctx, request)
				if err != nil {
					return err
				}
				return a.printSubscribed(&done)
			})
		}),
	})
	cmd.Flags().BoolVar(&keepOthers, "keep-others", false, "leave the device on the organization's other mailboxes, 100 in all at most")
	return cmd
}

// checkMailboxes refuses what can't be a mailbox, and warns of what seldom is one.
func (a *app) checkMailboxes(mailboxes ...string) error {
	organization := ""
	if p, err := a.proxy(); err == nil {
		organization = p.Organization
	}
	for _, m := range mailboxes {
		if err := command.CheckMailbox("--mailbox", m); err != nil {
			return err
		}
		if doubt := command.MailboxDoubt(m, organization); doubt != "" {
			a.Warn("%s", doubt)
		}
	}
	return nil
}

// registration is what the flags ask the relay for, or, with --dry-run, only about.
func (a *app) registration(r command.Registration) agent.Registration {
	return agent.Registration{Mailbox: r.Mailbox, App: r.App, Device: agent.DeviceToken(r.DeviceToken), ValidateOnly: a.DryRun}
}

// printSubscribed prints what the relay did, or would do.
func (a *app) printSubscribed(s *agent.Subscribed) error {
	answer := struct {
		Created       bool                 `json:"created"`
		LeftMailboxes []string             `json:"leftMailboxes"` // never null
		Subscription  backend.Subscription `json:"subscription"`
	}{s.Created, append([]string{}, s.LeftMailboxes...), backend.SubscriptionOf(&s.Subscription)}
	return a.PrintSubscribed(answer, command.Subscribed{
		Mailbox: s.Subscription.Mailbox, Created: s.Created, Left: s.LeftMailboxes, Others: s.Subscription.OtherMailboxes,
		Ends: s.Subscription.ExpiresAt,
	})
}

func (a *app) subscriptionRemoveCommand() *cobra.Command {
	var r command.Registration
	return a.registrationFlags(&r, &cobra.Command{
		Use: "remove", Short: "take a device off a mailbox",
		Long:    command.RemoveLong,
		Example: `  badgeagent subscription remove --mailbox ann@fabrikam.com --app mail --device-token 00fc13ad...`,
		RunE: a.do(func(ctx context.Context, _ []string) error {
			if err := command.CheckMailboxName("--mailbox", r.Mailbox); err != nil {
				return err
			}
			return a.call(ctx, func(ctx context.Context, c *agent.Client) error {
				removed, err := c.Unsubscribe(ctx, a.registration(r))
				if err != nil {
					return err
				}
				if !removed {
					a.sayWhichIsMeant(ctx, c, r.Mailbox)
				}
				return a.PrintUnsubscribed(command.Unsubscribed{Mailbox: r.Mailbox, Removed: removed})
			})
		}),
	})
}

func (a *app) subscriptionListCommand() *cobra.Command {
	var removed bool
	var limit int
	var mailbox string
	cmd := &cobra.Command{
		Use: "list", Short: "list the organization's subscriptions by mailbox, app and device",
		Example: `  badgeagent subscription list --mailbox ann@fabrikam.com
  badgeagent subscription list --removed               # what Apple ended, and why`,
		RunE: a.do(func(ctx context.Context, _ []string) error {
			if mailbox != "" {
				if err := command.CheckMailboxName("--mailbox", mailbox); err != nil {
					return err
				}
			}
			filter := agent.Filter{Mailbox: mailbox, Removed: removed, PageSize: 1000}
			return a.call(ctx, func(ctx context.Context, c *agent.Client) error {
				all, more, err := list(ctx, c, filter, limit)
				if err != nil {
					return err
				}
				if len(all) == 0 && mailbox != "" && !removed {
					a.sayWhoIsMeant(ctx, c, mailbox)
				}
				return a.showSubscriptions(all, removed, more)
			})
		}),
	}
	cmd.Flags().StringVar(&mailbox, "mailbox", "", "only this `mailbox`'s")
	cmd.Flags().BoolVar(&removed, "removed", false, "those that Apple or their lifetime ended within 30 days, instead of the live ones")
	command.Count(cmd.Flags(), &limit, "limit", 0, math.MaxInt32, 1000, "at most this many; 0 is all")
	command.FlagCompletion(cmd, "mailbox", a.mailboxes())
	a.relayFlags(cmd)
	return cmd
}

// list reads at most limit subscriptions, 0 for all; more says that there are
// others.
func list(ctx context.Context, c *agent.Client, filter agent.Filter, limit int) (all []agent.Subscription, more bool, err error) {
	for s, err := range c.List(ctx, filter) {
		if err != nil {
			return nil, false, err
		}
		if limit > 0 && len(all) == limit {
			return all, true, nil
		}
		all = append(all, s)
	}
	return all, false, nil
}

func (a *app) showSubscriptions(all []agent.Subscription, removed, more bool) error {
	lines := []backend.Subscription{} // never null
	var rows []command.Subscription
	for i := range all {
		s := &all[i]
		lines = append(lines, backend.SubscriptionOf(s))
		rows = append(rows, command.Subscription{
			Mailbox: s.Mailbox, App: s.App, DeviceToken: string(s.Device), Created: command.Time(s.CreatedAt),
			Registered: command.Time(s.RegisteredAt), Others: s.OtherMailboxes, Removed: command.Time(s.RemovedAt), Reason: s.RemovalReason,
		})
	}
	if more {
		a.Warn("there are more; --limit 0 lists all")
	}
	return a.Print(struct {
		Subscriptions []backend.Subscription `json:"subscriptions"`
		Truncated     bool                   `json:"truncated"` // there are more
	}{lines, more}, func() { a.Subscriptions(rows, removed) })
}

// mailboxes completes mailboxes that have a subscription.
func (a *app) mailboxes() cobra.CompletionFunc {
	return a.subscribed(func(s *agent.Subscription) string { return s.Mailbox })
}

// apps completes the apps that have a subscription: the relay tells an agent of
// no other.
func (a *app) apps() cobra.CompletionFunc {
	return a.subscribed(func(s *agent.Subscription) string { return s.App })
}

func (a *app) subscribed(name func(*agent.Subscription) string) cobra.CompletionFunc {
	return a.Completion(func(ctx context.Context, _ *cobra.Command) (names []string, err error) {
		err = a.call(ctx, func(ctx context.Context, c *agent.Client) error {
			all, _, err := list(ctx, c, agent.Filter{PageSize: 1000}, 1000)
			for i := range all {
				names = append(names, name(&all[i]))
			}
			return err
		})
		slices.Sort(names)
		return slices.Compact(names), err
	})
}

// sayWhoIsMeant says of mailboxes whose count no device was subscribed to which one may
// have been meant. One that has a device is the right one: the device shows another
// organization's counts, or has just come. That the list can't be read is no failure of
// what was asked for.
func (a *app) sayWhoIsMeant(ctx context.Context, c *agent.Client, nobody ...string) {
	known := mailboxesWithDevice(ctx, c)
	for _, mailbox := range nobody {
		if slices.Contains(known, mailbox) {
			a.Warn("no device shows the count of %s, which has one; 'badgeagent explain %[1]s' says why", mailbox)
			continue
		}
		if !a.WarnNoDevice(mailbox, known) {
			a.Warn("no device is subscribed to %s; 'badgeagent subscription list' shows the mailboxes that have one", mailbox)
		}
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
	a.WarnNoDevice(mailbox, mailboxesWithDevice(ctx, c))
}

// mailboxesWithDevice lists them, as far as they can be read.
func mailboxesWithDevice(ctx context.Context, c *agent.Client) (known []string) {
	all, _, _ := list(ctx, c, agent.Filter{PageSize: 1000}, 10_000)
	for i := range all {
		known = append(known, all[i].Mailbox)
	}
	return known
}

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
