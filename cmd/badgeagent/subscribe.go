package main

import (
	"context"
	"fmt"
	"time"

	"badgerelay/relay/agent"

	"github.com/spf13/cobra"
)

// device names what subscribe and unsubscribe act on.
type device struct {
	app   string
	token string
}

func (d *device) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&d.app, "app", "", "the `name` by which the relay's configuration calls the app")
	cmd.Flags().StringVar(&d.token, "device-token", "", "the device `token` in hexadecimal")
	for _, name := range []string{"app", "device-token"} {
		_ = cmd.MarkFlagRequired(name) // fails only for a flag that is not there
	}
}

func (a *app) subscribeCommand() *cobra.Command {
	var d device
	cmd := &cobra.Command{
		Use: "subscribe mailbox", Short: "put a device on a mailbox", Args: cobra.ExactArgs(1),
		Long: `Puts a device on a mailbox, so that the mailbox's unread count is shown on the
app's icon. Repeating it renews the registration.`,
		Example: `  badgeagent subscribe ann@fabrikam.com --app mail --device-token 00fc13ad...`,
		RunE: a.do(func(ctx context.Context, args []string) error {
			if a.whatIf {
				return a.wouldCall("Subscribe", args[0])
			}
			return a.call(ctx, func(ctx context.Context, c *agent.Client) error {
				done, err := c.Subscribe(ctx, args[0], d.app, agent.DeviceToken(d.token))
				if err != nil {
					return err
				}
				a.saySubscribed(&done)
				return a.result(struct {
					Created      bool              `json:"created"`
					LeftMailbox  string            `json:"leftMailbox,omitempty"`
					Subscription *subscriptionLine `json:"subscription"`
				}{done.Created, done.LeftMailbox, subscription(&done.Subscription)})
			})
		}),
	}
	d.flags(cmd)
	a.relayFlags(cmd)
	a.whatIfFlag(cmd)
	return cmd
}

// wouldCall says which call --what-if left undone, once what it takes is there.
func (a *app) wouldCall(operation, target string) error {
	if _, err := a.settings(); err != nil {
		return err
	}
	a.wouldDo(operation, target)
	return a.result(struct {
		WhatIf string `json:"whatIf"`
		Target string `json:"target"`
	}{operation, target})
}

func (a *app) saySubscribed(s *agent.Subscribed) {
	if s.Created {
		a.say("Subscribed to %s.", s.Subscription.Mailbox)
	} else {
		a.say("Subscription to %s renewed.", s.Subscription.Mailbox)
	}
	if s.LeftMailbox != "" {
		a.say("The device left %s.", s.LeftMailbox)
	}
	if !s.Subscription.ExpiresAt.IsZero() {
		a.say("It ends without renewal on %s.", s.Subscription.ExpiresAt.Format(time.RFC3339))
	}
}

func (a *app) unsubscribeCommand() *cobra.Command {
	var d device
	cmd := &cobra.Command{
		Use: "unsubscribe mailbox", Short: "take a device off a mailbox", Args: cobra.ExactArgs(1),
		Long: `Takes a device off a mailbox. Where it is not on it there is nothing to do. The
icon keeps the last number: publish 0 first if it is to be cleared.`,
		Example: `  badgeagent unsubscribe ann@fabrikam.com --app mail --device-token 00fc13ad...`,
		RunE: a.do(func(ctx context.Context, args []string) error {
			if a.whatIf {
				return a.wouldCall("Unsubscribe", args[0])
			}
			return a.call(ctx, func(ctx context.Context, c *agent.Client) error {
				err := c.Unsubscribe(ctx, args[0], d.app, agent.DeviceToken(d.token))
				gone := agent.Explain(err).Reason == "SUBSCRIPTION_NOT_FOUND"
				switch {
				case gone:
					a.say("The device is not on %s.", args[0])
				case err != nil:
					return err
				default:
					a.say("Unsubscribed from %s.", args[0])
				}
				return a.result(struct {
					Mailbox string `json:"mailbox"`
					Removed bool   `json:"removed"`
				}{args[0], !gone})
			})
		}),
	}
	d.flags(cmd)
	a.relayFlags(cmd)
	a.whatIfFlag(cmd)
	return cmd
}

func (a *app) subscriptionsCommand() *cobra.Command {
	var removed bool
	cmd := &cobra.Command{
		Use: "subscriptions [mailbox]", Short: "list the organization's subscriptions", Args: cobra.MaximumNArgs(1),
		Long: `Lists the organization's subscriptions, or one mailbox's. JSON output is one
object a line.`,
		RunE: a.do(func(ctx context.Context, args []string) error {
			filter := agent.Filter{Removed: removed, PageSize: 1000}
			if len(args) == 1 {
				filter.Mailbox = args[0]
			}
			return a.call(ctx, func(ctx context.Context, c *agent.Client) error { return a.listSubscriptions(ctx, c, filter) })
		}),
	}
	cmd.Flags().BoolVar(&removed, "removed", false, "those that ended in the last 30 days, with the reason")
	a.relayFlags(cmd)
	return cmd
}

func (a *app) listSubscriptions(ctx context.Context, c *agent.Client, filter agent.Filter) error {
	n := 0
	for s, err := range c.List(ctx, filter) {
		if err != nil {
			return err
		}
		n++
		if a.output == "json" {
			if err := a.line(subscription(&s)); err != nil {
				return err
			}
			continue
		}
		ended := ""
		if !s.RemovedAt.IsZero() {
			ended = fmt.Sprintf(" ended %s %s", s.RemovedAt.Format(time.RFC3339), s.RemovalReason)
		}
		a.say("%s %s %s%s", s.Mailbox, s.App, string(s.Device), ended)
	}
	if n == 0 {
		a.say("No subscriptions.")
	}
	return nil
}

type subscriptionLine struct {
	Mailbox       string    `json:"mailbox"`
	App           string    `json:"app"`
	Device        string    `json:"deviceToken"`
	CreatedAt     time.Time `json:"createdAt,omitzero"`
	RegisteredAt  time.Time `json:"registeredAt,omitzero"`
	ExpiresAt     time.Time `json:"expiresAt,omitzero"`
	RemovedAt     time.Time `json:"removedAt,omitzero"`
	RemovalReason string    `json:"removalReason,omitempty"`
}

func subscription(s *agent.Subscription) *subscriptionLine {
	return &subscriptionLine{s.Mailbox, s.App, string(s.Device), s.CreatedAt, s.RegisteredAt, s.ExpiresAt, s.RemovedAt, s.RemovalReason}
}
