package operator

import (
	"context"
	"math"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/status"

	"badgerelay/cmd/internal/command"
	pb "badgerelay/proto/badgerelay/v1"
)

func (t *Terminal) subscription() *cobra.Command {
	c := &cobra.Command{
		Use: "subscription", Aliases: []string{"sub"}, Short: "say which devices show which mailbox's count",
		Example: `  badgerelay subscription add --organization fabrikam.com --mailbox sales@fabrikam.com --app mail --device-token 00fc13ad...
  badgerelay subscription list --organization fabrikam.com --mailbox sales@fabrikam.com
  badgerelay subscription list --organization fabrikam.com --removed     # what Apple ended, and why
  badgerelay subscription restore --app mail --since 6h --dry-run        # what would come back
  badgerelay subscription import --organization fabrikam.com devices.csv`,
	}
	c.AddCommand(t.subscriptionAdd(), t.subscriptionList(), t.subscriptionRemove(), t.subscriptionRestore(), t.subscriptionImport())
	return c
}

// registration is the flags that name a device on a mailbox of an organization.
type registration struct {
	command.Registration
	organization string
}

func (r *registration) flags(t *Terminal, c *cobra.Command) *cobra.Command {
	r.Flags(c, t.mailboxes(), t.apps())
	return t.organizationArgument(t.DryRunFlag(c), &r.organization)
}

func (t *Terminal) subscriptionAdd() *cobra.Command {
	var r registration
	var keepOthers bool
	c := r.flags(t, &cobra.Command{
		Use: "add [organization]", Short: "put a device on a mailbox, or renew that",
		Long: `Puts a device on a mailbox, or renews that. A device that is new on the mailbox
leaves the organization's other mailboxes, unless --keep-others is given: then it
shows the sum of their counts.`,
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, _ []string) error {
			if err := command.CheckMailbox("--mailbox", r.Mailbox); err != nil {
				return err
			}
			if doubt := command.MailboxDoubt(r.Mailbox, r.organization); doubt != "" {
				t.Warn("%s", doubt)
			}
			answer, err := admin.Subscribe(ctx, &pb.AdminServiceSubscribeRequest{
				Organization: r.organization,
				Subscribe:    &pb.SubscribeRequest{Mailbox: r.Mailbox, App: r.App, DeviceToken: r.DeviceToken, KeepOthers: keepOthers, ValidateOnly: t.DryRun},
			})
			if err != nil {
				return err
			}
			s := answer.GetSubscribe()
			return t.PrintSubscribed(s, command.Subscribed{
				Mailbox: r.Mailbox, Created: s.GetCreated(), Left: s.GetLeftMailboxes(), Others: s.GetSubscription().GetOtherMailboxes(),
			})
		}),
	})
	c.Flags().BoolVar(&keepOthers, "keep-others", false, "leave the device on the organization's other mailboxes, 100 in all at most")
	return c
}

func (t *Terminal) subscriptionRemove() *cobra.Command {
	var r registration
	return r.flags(t, &cobra.Command{
		Use: "remove [organization]", Short: "take a device off a mailbox",
		Long: command.RemoveLong,
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, _ []string) error {
			if err := command.CheckMailboxName("--mailbox", r.Mailbox); err != nil {
				return err
			}
			_, err := admin.Unsubscribe(ctx, &pb.AdminServiceUnsubscribeRequest{
				Organization: r.organization,
				Unsubscribe:  &pb.UnsubscribeRequest{Mailbox: r.Mailbox, App: r.App, DeviceToken: r.DeviceToken, ValidateOnly: t.DryRun},
			})
			gone := reasonOf(status.Convert(err)) == "SUBSCRIPTION_NOT_FOUND"
			if err != nil && !gone {
				return err
			}
			if gone {
				t.sayWhichIsMeant(ctx, admin, r.organization, r.Mailbox)
			}
			return t.PrintUnsubscribed(command.Unsubscribed{Mailbox: r.Mailbox, Removed: !gone})
		}),
	})
}

// sayWhichIsMeant tells a person which mailbox may have been meant, if none has a device
// under this name. That the list can't be read is no failure of what was asked for.
func (t *Terminal) sayWhichIsMeant(ctx context.Context, admin pb.AdminServiceClient, organization, mailbox string) {
	if t.JSON() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, adviceTime)
	defer cancel()
	list := &pb.ListSubscriptionsRequest{Mailbox: mailbox, PageSize: 1}
	if own, err := pages(ctx, admin, organization, list, 1); err != nil || len(own.GetSubscriptions()) > 0 {
		return
	}
	if known, err := listMailboxes(ctx, admin, organization); err == nil {
		t.WarnNoDevice(mailbox, known)
	}
}

func (t *Terminal) subscriptionList() *cobra.Command {
	var organization, mailbox string
	var removed bool
	var limit int
	c := &cobra.Command{
		Use: "list [organization]", Short: "list subscriptions by mailbox, app and device",
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, _ []string) error {
			if mailbox != "" {
				if err := command.CheckMailboxName("--mailbox", mailbox); err != nil {
					return err
				}
			}
			all, err := pages(ctx, admin, organization, &pb.ListSubscriptionsRequest{Mailbox: mailbox, Removed: removed, PageSize: 1000}, limit)
			if all.GetNextPageToken() != "" {
				t.Warn("there are more; --limit 0 lists all")
			}
			return t.Answer(all, err, "", func() { t.showSubscriptions(all, mailbox, removed) })
		}),
	}
	c.Flags().StringVar(&mailbox, "mailbox", "", "only this mailbox's")
	c.Flags().BoolVar(&removed, "removed", false, "those that Apple or their lifetime ended within 30 days, instead of the live ones")
	command.Count(c.Flags(), &limit, "limit", 0, math.MaxInt32, 1000, "at most this many; 0 is all")
	command.FlagCompletion(c, "mailbox", t.mailboxes())
	return t.organizationArgument(c, &organization)
}

// pages reads pages until there are limit subscriptions, 0 for all. The answer has a token
// if there are more.
func pages(ctx context.Context, admin pb.AdminServiceClient, organization string, list *pb.ListSubscriptionsRequest, limit int) (*pb.ListSubscriptionsResponse, error) {
	all := &pb.ListSubscriptionsResponse{}
	for {
		if limit > 0 { // the relay cuts the last page, since it alone makes the token of the rest
			list.PageSize = min(list.GetPageSize(), uint32(limit-len(all.GetSubscriptions()))) // #nosec G115 -- from 1 to limit
		}
		r, err := admin.ListSubscriptions(ctx, &pb.AdminServiceListSubscriptionsRequest{Organization: organization, List: list})
		if err != nil {
			return nil, err
		}
		all.Subscriptions = append(all.Subscriptions, r.GetList().GetSubscriptions()...)
		all.NextPageToken = r.GetList().GetNextPageToken()
		if all.GetNextPageToken() == "" || limit > 0 && len(all.GetSubscriptions()) >= limit {
			return all, nil
		}
		list.PageToken = all.GetNextPageToken()
	}
}

func (t *Terminal) showSubscriptions(all *pb.ListSubscriptionsResponse, mailbox string, removed bool) {
	var rows []command.Subscription
	for _, s := range all.GetSubscriptions() {
		rows = append(rows, command.Subscription{
			Mailbox: s.GetMailbox(), App: s.GetApp(), DeviceToken: s.GetDeviceToken(), Created: when(s.GetCreatedAt()),
			Registered: when(s.GetRegisteredAt()), Others: s.GetOtherMailboxes(), Removed: when(s.GetRemovedAt()), Reason: s.GetRemovalReason(),
		})
	}
	t.Subscriptions(rows, removed)
	if len(rows) == 0 && mailbox != "" && !removed {
		t.Warn("no device is subscribed to %s; names of mailboxes are whole and compared letter by letter", mailbox)
	}
}
