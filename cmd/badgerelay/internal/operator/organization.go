package operator

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	pb "badgerelay/proto/badgerelay/v1"
)

func (t *Terminal) organization() *cobra.Command {
	c := &cobra.Command{
		Use: "organization", Aliases: []string{"org"}, Short: "enrol organizations and say what they may use",
		Example: `  badgerelay organization add fabrikam.com
  badgerelay organization add fabrikam.com --apps mail --max-subscriptions 5000
  badgerelay organization disable fabrikam.com      # its streams end within seconds
  badgerelay organization remove fabrikam.com       # once it is disabled: says what goes; --yes does it
  badgerelay organization restore fabrikam.com      # within 30 days`,
	}
	c.AddCommand(t.organizationAdd(), t.organizationList(), t.organizationShow(),
		t.organizationUpdate(), t.organizationEnable(true), t.organizationEnable(false), t.organizationRemove(), t.organizationRestore(), t.organizationPurge())
	return c
}

// organizationLimits are the flags of add and update.
type organizationLimits struct {
	apps                     []string
	mailboxes, subscriptions uint64
	streams                  uint32
	metadata                 string
}

func (l *organizationLimits) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringSliceVar(&l.apps, "apps", nil, "the apps it may use, comma-separated (default: all)")
	f.Uint64Var(&l.mailboxes, "max-mailboxes", 0, "most mailboxes with subscriptions (0: unlimited)")
	f.Uint64Var(&l.subscriptions, "max-subscriptions", 0, "most live subscriptions (0: unlimited)")
	f.Uint32Var(&l.streams, "max-streams", 0, "most open streams (0: the relay's limit)")
	f.StringVar(&l.metadata, "metadata-url", "", "https address of its auth metadata document, followed for new keys")
}

func (l *organizationLimits) message() *pb.OrganizationLimits {
	return &pb.OrganizationLimits{Apps: l.apps, MaxMailboxes: l.mailboxes, MaxSubscriptions: l.subscriptions, MaxStreams: l.streams}
}

func (t *Terminal) organizationAdd() *cobra.Command {
	var limits organizationLimits
	c := &cobra.Command{
		Use: "add <domain>", Short: "enrol an organization, enabled", Args: one("the organization's domain"),
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, args []string) error {
			t.say("Adding organization %s...", args[0])
			r, err := admin.AddOrganization(ctx, &pb.AddOrganizationRequest{Name: args[0], Limits: limits.message(), MetadataUrl: limits.metadata})
			if err != nil {
				return err
			}
			return t.print(r.GetOrganization(), func() {
				t.say("Complete. Next: badgerelay credential add --organization %s --certificate OAuthCert.cer", r.GetOrganization().GetName())
			})
		}),
	}
	limits.flags(c)
	return c
}

func (t *Terminal) organizationList() *cobra.Command {
	var removed bool
	c := &cobra.Command{
		Use: "list", Short: "list the organizations", Args: cobra.NoArgs,
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, _ []string) error {
			all := &pb.ListOrganizationsResponse{}
			for {
				r, err := admin.ListOrganizations(ctx, &pb.ListOrganizationsRequest{PageSize: 1000, PageToken: all.GetNextPageToken(), Removed: removed})
				if err != nil {
					return err
				}
				all.Organizations = append(all.Organizations, r.GetOrganizations()...)
				if all.NextPageToken = r.GetNextPageToken(); all.NextPageToken == "" {
					break
				}
			}
			return t.print(all, func() { t.listOrganizations(all.GetOrganizations(), removed) })
		}),
	}
	c.Flags().BoolVar(&removed, "removed", false, "list those that were removed within 30 days and can be restored")
	return c
}

func (t *Terminal) listOrganizations(organizations []*pb.Organization, removed bool) {
	header, last := "ORGANIZATION ENABLED MAILBOXES SUBSCRIPTIONS STREAMS CREATED", (*pb.Organization).GetCreatedAt
	if removed {
		header, last = "ORGANIZATION ENABLED MAILBOXES SUBSCRIPTIONS STREAMS REMOVED", (*pb.Organization).GetRemovedAt
	}
	var rows [][]string
	for _, o := range organizations {
		rows = append(rows, []string{o.GetName(), yes(o.GetEnabled()), fmt.Sprint(o.GetMailboxes()), fmt.Sprint(o.GetSubscriptions()), fmt.Sprint(o.GetStreams()), when(last(o))})
	}
	t.table(header, rows)
}

func (t *Terminal) organizationShow() *cobra.Command {
	return &cobra.Command{
		Use: "show <domain>", Short: "show one organization", Args: one("the organization's domain"),
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, args []string) error {
			r, err := admin.GetOrganization(ctx, &pb.GetOrganizationRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return t.print(r.GetOrganization(), func() { t.showOrganization(r.GetOrganization()) })
		}),
	}
}

func (t *Terminal) showOrganization(o *pb.Organization) {
	apps := "all"
	if l := o.GetLimits().GetApps(); len(l) > 0 {
		apps = strings.Join(l, ", ")
	}
	streams := "the relay's limit"
	if n := o.GetLimits().GetMaxStreams(); n > 0 {
		streams = fmt.Sprint(n)
	}
	t.list(
		[2]string{"Organization", o.GetName()},
		[2]string{"Enabled", yes(o.GetEnabled())},
		[2]string{"Created", when(o.GetCreatedAt())},
		[2]string{"Metadata address", o.GetMetadataUrl()},
		[2]string{"Apps", apps},
		[2]string{"Mailboxes", fmt.Sprintf("%d, limit %s", o.GetMailboxes(), unlimited(o.GetLimits().GetMaxMailboxes()))},
		[2]string{"Subscriptions", fmt.Sprintf("%d, limit %s", o.GetSubscriptions(), unlimited(o.GetLimits().GetMaxSubscriptions()))},
		[2]string{"Streams", fmt.Sprintf("%d, limit %s", o.GetStreams(), streams)},
	)
}

func (t *Terminal) organizationUpdate() *cobra.Command {
	var limits organizationLimits
	c := &cobra.Command{
		Use: "update <domain>", Short: "replace an organization's limits or metadata address", Args: one("the organization's domain"),
		Long: "Flags that are given take effect; the others leave things as they are.",
	}
	c.RunE = t.run(func(ctx context.Context, admin pb.AdminServiceClient, args []string) error {
		current, err := admin.GetOrganization(ctx, &pb.GetOrganizationRequest{Name: args[0]})
		if err != nil {
			return err
		}
		r, err := admin.UpdateOrganization(ctx, limits.update(c, current.GetOrganization()))
		if err != nil {
			return err
		}
		return t.print(r.GetOrganization(), func() { t.showOrganization(r.GetOrganization()) })
	})
	limits.flags(c)
	return c
}

// update lays the flags that were given over the organization as it is.
func (l *organizationLimits) update(c *cobra.Command, o *pb.Organization) *pb.UpdateOrganizationRequest {
	request := &pb.UpdateOrganizationRequest{Name: o.GetName()}
	changed := c.Flags().Changed
	if changed("metadata-url") {
		request.MetadataUrl = &l.metadata
	}
	if !changed("apps") && !changed("max-mailboxes") && !changed("max-subscriptions") && !changed("max-streams") {
		return request
	}
	merged := *l
	if !changed("apps") {
		merged.apps = o.GetLimits().GetApps()
	}
	if !changed("max-mailboxes") {
		merged.mailboxes = o.GetLimits().GetMaxMailboxes()
	}
	if !changed("max-subscriptions") {
		merged.subscriptions = o.GetLimits().GetMaxSubscriptions()
	}
	if !changed("max-streams") {
		merged.streams = o.GetLimits().GetMaxStreams()
	}
	request.Limits = merged.message()
	return request
}

func (t *Terminal) organizationEnable(enabled bool) *cobra.Command {
	word, short := "enable", "accept its tokens again"
	if !enabled {
		word, short = "disable", "refuse its tokens and end its streams; nothing is deleted"
	}
	return &cobra.Command{
		Use: word + " <domain>", Short: short, Args: one("the organization's domain"),
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, args []string) error {
			r, err := admin.UpdateOrganization(ctx, &pb.UpdateOrganizationRequest{Name: args[0], Enabled: &enabled})
			if err != nil {
				return err
			}
			return t.print(r.GetOrganization(), func() { t.say("Organization %s is %sd.", r.GetOrganization().GetName(), word) })
		}),
	}
}

func (t *Terminal) organizationRemove() *cobra.Command {
	var sure bool
	c := &cobra.Command{
		Use: "remove <domain>", Short: "remove a disabled one with its credentials and subscriptions", Args: one("the organization's domain"),
		Long: `Removes an organization with its credentials and subscriptions. For 30 days
'organization restore' brings all of it back; then it is gone for good, and its
people's devices show counts again only when each is subscribed anew. 'organization
purge' has it gone at once. An enabled organization is refused: disable it first.

Without --yes nothing is removed, and it says what would be.`,
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, args []string) error {
			if !sure {
				return wouldRemove(ctx, admin, args[0])
			}
			r, err := admin.RemoveOrganization(ctx, &pb.RemoveOrganizationRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return t.print(r, func() {
				t.say("Organization %s is removed; 'organization restore' brings it back within 30 days.", args[0])
			})
		}),
	}
	c.Flags().BoolVar(&sure, "yes", false, "really remove it")
	return c
}

func (t *Terminal) organizationRestore() *cobra.Command {
	return &cobra.Command{
		Use: "restore <domain>", Short: "bring a removed one back, disabled, with all that it had", Args: one("the organization's domain"),
		Long: `Brings back an organization that was removed within the last 30 days, with its
credentials, subscriptions and limits, disabled as it was when it was removed:
'organization enable' accepts its tokens again. 'organization list --removed' lists
those that can be restored.`,
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, args []string) error {
			r, err := admin.RestoreOrganization(ctx, &pb.RestoreOrganizationRequest{Name: args[0]})
			if err != nil {
				return err
			}
			o := r.GetOrganization()
			return t.print(o, func() {
				t.say("Organization %s is restored with its mailboxes (%d) and subscriptions (%d). Next: badgerelay organization enable %s",
					o.GetName(), o.GetMailboxes(), o.GetSubscriptions(), o.GetName())
			})
		}),
	}
}

func (t *Terminal) organizationPurge() *cobra.Command {
	var sure bool
	c := &cobra.Command{
		Use: "purge <domain>", Short: "forget a removed one now and for good", Args: one("the organization's domain"),
		Long: `Forgets a removed organization now, with its credentials and subscriptions, where
it would be kept for 30 days: because its data has to go, or another one is to
have its name or its key. This can't be undone. It wants --yes.`,
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, args []string) error {
			if !sure {
				return usage("this forgets %s for good, and can't be undone; say --yes", args[0])
			}
			r, err := admin.PurgeOrganization(ctx, &pb.PurgeOrganizationRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return t.print(r, func() { t.say("Nothing of organization %s is kept.", args[0]) })
		}),
	}
	c.Flags().BoolVar(&sure, "yes", false, "really forget it")
	return c
}

// wouldRemove refuses to remove an organization before the operator has read
// what goes with it.
func wouldRemove(ctx context.Context, admin pb.AdminServiceClient, name string) error {
	r, err := admin.GetOrganization(ctx, &pb.GetOrganizationRequest{Name: name})
	if err != nil {
		return err
	}
	o := r.GetOrganization()
	credentials, err := admin.ListCredentials(ctx, &pb.ListCredentialsRequest{Organization: o.GetName()})
	if err != nil {
		return err
	}
	next := "say --yes"
	if o.GetEnabled() {
		next = "it is enabled, so disable it first with 'organization disable'"
	}
	return usage("this removes %s, with its mailboxes (%d), subscriptions (%d) and credentials (%d), which 'organization restore' can bring back for 30 days; %s",
		o.GetName(), o.GetMailboxes(), o.GetSubscriptions(), len(credentials.GetCredentials()), next)
}

// one refuses other numbers of arguments than one, naming what is wanted.
func one(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage("%s wants %s, and got %d arguments", c.CommandPath(), what, len(args))
		}
		return nil
	}
}
