package operator

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

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

// registration is the flags that name a device on a mailbox.
type registration struct{ organization, mailbox, app, device string }

func (r *registration) flags(c *cobra.Command) *cobra.Command {
	f := c.Flags()
	f.StringVar(&r.mailbox, "mailbox", "", "the mailbox's name (required)")
	f.StringVar(&r.app, "app", "", "the app's name in the relay's configuration (required)")
	f.StringVar(&r.device, "device-token", "", "the device token in hexadecimal (required)")
	for _, name := range []string{"mailbox", "app", "device-token"} {
		_ = c.MarkFlagRequired(name) // the flag exists
	}
	return organizationFlag(c, &r.organization)
}

func (t *Terminal) subscriptionAdd() *cobra.Command {
	var r registration
	return r.flags(&cobra.Command{
		Use: "add", Short: "put a device on a mailbox, or renew that", Args: cobra.NoArgs,
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, _ []string) error {
			answer, err := admin.Subscribe(ctx, &pb.AdminServiceSubscribeRequest{
				Organization: r.organization,
				Subscribe:    &pb.SubscribeRequest{Mailbox: r.mailbox, App: r.app, DeviceToken: r.device},
			})
			if err != nil {
				return err
			}
			s := answer.GetSubscribe()
			return t.print(s, func() {
				switch {
				case s.GetLeftMailbox() != "":
					t.say("The device left %s and shows %s now.", s.GetLeftMailbox(), r.mailbox)
				case s.GetCreated():
					t.say("The device shows %s now.", r.mailbox)
				default:
					t.say("The device showed %s already; its registration is renewed.", r.mailbox)
				}
			})
		}),
	})
}

func (t *Terminal) subscriptionRemove() *cobra.Command {
	var r registration
	return r.flags(&cobra.Command{
		Use: "remove", Short: "take a device off a mailbox", Args: cobra.NoArgs,
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, _ []string) error {
			answer, err := admin.Unsubscribe(ctx, &pb.AdminServiceUnsubscribeRequest{
				Organization: r.organization,
				Unsubscribe:  &pb.UnsubscribeRequest{Mailbox: r.mailbox, App: r.app, DeviceToken: r.device},
			})
			if err != nil {
				return err
			}
			return t.print(answer, func() { t.say("The device does not show %s any more.", r.mailbox) })
		}),
	})
}

func (t *Terminal) subscriptionList() *cobra.Command {
	var organization, mailbox string
	var removed bool
	var limit int
	c := &cobra.Command{
		Use: "list", Short: "list subscriptions by mailbox, app and device", Args: cobra.NoArgs,
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, _ []string) error {
			all, err := pages(ctx, admin, organization, &pb.ListSubscriptionsRequest{Mailbox: mailbox, Removed: removed, PageSize: 1000}, limit)
			if err != nil {
				return err
			}
			return t.print(all, func() { t.showSubscriptions(all, removed, limit) })
		}),
	}
	c.Flags().StringVar(&mailbox, "mailbox", "", "only this mailbox's")
	c.Flags().BoolVar(&removed, "removed", false, "those that Apple or their lifetime ended within 30 days, instead of the live ones")
	c.Flags().IntVar(&limit, "limit", 1000, "at most this many; 0: all")
	return organizationFlag(c, &organization)
}

// pages reads pages until there are limit subscriptions, 0 for all.
func pages(ctx context.Context, admin pb.AdminServiceClient, organization string, list *pb.ListSubscriptionsRequest, limit int) (*pb.ListSubscriptionsResponse, error) {
	all := &pb.ListSubscriptionsResponse{}
	for {
		r, err := admin.ListSubscriptions(ctx, &pb.AdminServiceListSubscriptionsRequest{Organization: organization, List: list})
		if err != nil {
			return nil, err
		}
		all.Subscriptions = append(all.Subscriptions, r.GetList().GetSubscriptions()...)
		all.NextPageToken = r.GetList().GetNextPageToken()
		if limit > 0 && len(all.GetSubscriptions()) >= limit {
			all.Subscriptions = all.GetSubscriptions()[:limit]
			return all, nil
		}
		if all.GetNextPageToken() == "" {
			return all, nil
		}
		list.PageToken = all.GetNextPageToken()
	}
}

func (t *Terminal) showSubscriptions(all *pb.ListSubscriptionsResponse, removed bool, limit int) {
	var rows [][]string
	heading := "MAILBOX APP DEVICE_TOKEN CREATED REGISTERED"
	if removed {
		heading = "MAILBOX APP DEVICE_TOKEN CREATED REMOVED REASON"
	}
	for _, s := range all.GetSubscriptions() {
		row := []string{s.GetMailbox(), s.GetApp(), s.GetDeviceToken(), when(s.GetCreatedAt())}
		if removed {
			row = append(row, when(s.GetRemovedAt()), s.GetRemovalReason())
		} else {
			row = append(row, when(s.GetRegisteredAt()))
		}
		rows = append(rows, row)
	}
	t.table(heading, rows)
	if limit > 0 && len(rows) == limit && all.GetNextPageToken() != "" {
		fmt.Fprintf(t.Err, "There are more; --limit 0 lists all.\n")
	}
}
