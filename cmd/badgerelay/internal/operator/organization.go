package operator

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"badgerelay/cmd/internal/command"
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

	allApps, noMetadata bool // of update: what was set is taken away
}

func (l *organizationLimits) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringSliceVar(&l.apps, "apps", nil, "the apps it may use, comma-separated (default: all)")
	command.Count(f, &l.mailboxes, "max-mailboxes", 0, math.MaxInt64, 0, "most mailboxes with subscriptions; 0 is unlimited")
	command.Count(f, &l.subscriptions, "max-subscriptions", 0, math.MaxInt64, 0, "most live subscriptions; 0 is unlimited")
	command.Count(f, &l.streams, "max-streams", 0, math.MaxInt32, 0, "most open streams; 0 is the relay's limit")
	f.StringVar(&l.metadata, "metadata-url", "", "https address of its auth metadata document, followed for new keys")
}

func (l *organizationLimits) message() *pb.OrganizationLimits {
	return &pb.OrganizationLimits{Apps: l.apps, MaxMailboxes: l.mailboxes, MaxSubscriptions: l.subscriptions, MaxStreams: l.streams}
}

func (t *Terminal) organizationAdd() *cobra.Command {
	var limits organizationLimits
	c := &cobra.Command{
		Use: "add <domain>", Short: "enrol an organization, enabled",
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, args []string) error {
			r, err := admin.AddOrganization(ctx, &pb.AddOrganizationRequest{
				Name: args[0], Limits: limits.message(), MetadataUrl: limits.metadata, ValidateOnly: t.DryRun,
			})
			name := r.GetOrganization().GetName()
			if err == nil && t.DryRun {
				t.doubtDomain(name)
			}
			return t.Answer(r.GetOrganization(), err, "enrol "+name, func() {
				t.Say("Organization %s is enrolled.", name)
				t.Say("Next: its administrator makes its certificate with 'badgeagent cert ensure --organization %s' and sends you the exported file;", name)
				t.Say("then: badgerelay credential add --organization %s --certificate FILE", name)
				t.doubtDomain(name)
			})
		}),
	}
	limits.flags(c)
	command.FlagCompletion(c, "apps", t.apps())
	return t.DryRunFlag(c)
}

func (t *Terminal) doubtDomain(name string) {
	if doubt := command.DomainDoubt(name); doubt != "" {
		t.Warn("%s", doubt)
	}
}

func (t *Terminal) organizationList() *cobra.Command {
	var removed bool
	c := &cobra.Command{
		Use: "list", Short: "list the organizations",
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, _ []string) error {
			all, err := allOrganizations(ctx, admin, removed)
			return t.Answer(all, err, "", func() { t.listOrganizations(all.GetOrganizations(), removed) })
		}),
	}
	c.Flags().BoolVar(&removed, "removed", false, "list those that were removed within 30 days and can be restored")
	return c
}

// allOrganizations reads all pages of those there are, or of those that were removed.
func allOrganizations(ctx context.Context, admin pb.AdminServiceClient, removed bool) (*pb.ListOrganizationsResponse, error) {
	all := &pb.ListOrganizationsResponse{}
	for {
		r, err := admin.ListOrganizations(ctx, &pb.ListOrganizationsRequest{PageSize: 1000, PageToken: all.GetNextPageToken(), Removed: removed})
		if err != nil {
			return nil, err
		}
		all.Organizations = append(all.Organizations, r.GetOrganizations()...)
		if all.NextPageToken = r.GetNextPageToken(); all.NextPageToken == "" {
			return all, nil
		}
	}
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
	t.Table(header, rows)
}

func (t *Terminal) organizationShow() *cobra.Command {
	var name string
	return t.organizationArgument(&cobra.Command{
		Use: "show [organization]", Short: "show one organization",
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, _ []string) error {
			r, err := admin.GetOrganization(ctx, &pb.GetOrganizationRequest{Name: name})
			return t.Answer(r.GetOrganization(), err, "", func() { t.showOrganization(r.GetOrganization()) })
		}),
	}, &name)
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
	t.List(
		command.Field{"Organization", o.GetName()},
		command.Field{"Enabled", yes(o.GetEnabled())},
		command.Field{"Created", when(o.GetCreatedAt())},
		command.Field{"Metadata address", o.GetMetadataUrl()},
		command.Field{"Apps", apps},
		command.Field{"Mailboxes", fmt.Sprintf("%d, limit %s", o.GetMailboxes(), unlimited(o.GetLimits().GetMaxMailboxes()))},
		command.Field{"Subscriptions", fmt.Sprintf("%d, limit %s", o.GetSubscriptions(), unlimited(o.GetLimits().GetMaxSubscriptions()))},
		command.Field{"Streams", fmt.Sprintf("%d, limit %s", o.GetStreams(), streams)},
	)
}

func (t *Terminal) organizationUpdate() *cobra.Command {
	var limits organizationLimits
	var name string
	c := &cobra.Command{
		Use: "update [organization]", Short: "replace an organization's limits or metadata address",
		Long: "Flags that are given take effect; the others leave things as they are.",
	}
	c.RunE = t.run(func(ctx context.Context, admin pb.AdminServiceClient, _ []string) error {
		if !limits.given(c) && !limits.noMetadata && !c.Flags().Changed("metadata-url") {
			return command.Usage("organization update needs what is to change: %s",
				command.Words([]string{"--apps", "--all-apps", "--max-mailboxes", "--max-subscriptions", "--max-streams", "--metadata-url", "--no-metadata-url"}))
		}
		current, err := admin.GetOrganization(ctx, &pb.GetOrganizationRequest{Name: name})
		if err != nil {
			return err
		}
		request := limits.update(c, current.GetOrganization())
		request.ValidateOnly = t.DryRun
		r, err := admin.UpdateOrganization(ctx, request)
		o := r.GetOrganization()
		return t.Answer(o, err, "update "+o.GetName(), func() { t.showOrganization(o) })
	})
	limits.flags(c)
	c.Flags().Lookup("apps").Usage = "the apps it may use, comma-separated"
	c.Flags().BoolVar(&limits.allApps, "all-apps", false, "it may use every app")
	c.Flags().BoolVar(&limits.noMetadata, "no-metadata-url", false, "it has no auth metadata document")
	command.AtMostOne(c, "apps", "all-apps")
	command.AtMostOne(c, "metadata-url", "no-metadata-url")
	command.FlagCompletion(c, "apps", t.apps())
	return t.organizationArgument(t.DryRunFlag(c), &name)
}

// given reports whether one of the limits is on the command line.
func (l *organizationLimits) given(c *cobra.Command) bool {
	return l.allApps || slices.ContainsFunc([]string{"apps", "max-mailboxes", "max-subscriptions", "max-streams"}, c.Flags().Changed)
}

// update lays the flags that were given over the organization as it is.
func (l *organizationLimits) update(c *cobra.Command, o *pb.Organization) *pb.UpdateOrganizationRequest {
	request := &pb.UpdateOrganizationRequest{Name: o.GetName()}
	changed := c.Flags().Changed
	if changed("metadata-url") || l.noMetadata {
		request.MetadataUrl = &l.metadata
	}
	if !l.given(c) {
		return request
	}
	merged := *l
	if !changed("apps") && !l.allApps {
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
	var name string
	c := &cobra.Command{
		Use: word + " [organization]", Short: short,
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, _ []string) error {
			r, err := admin.UpdateOrganization(ctx, &pb.UpdateOrganizationRequest{Name: name, Enabled: &enabled, ValidateOnly: t.DryRun})
			o := r.GetOrganization()
			would := fmt.Sprintf("%s %s, with %s", word, o.GetName(), command.Counted(int(o.GetStreams()), "open stream", "open streams"))
			return t.Answer(o, err, would, func() { t.Say("Organization %s is %sd.", o.GetName(), word) })
		}),
	}
	return t.organizationArgument(t.DryRunFlag(c), &name)
}

func (t *Terminal) organizationRemove() *cobra.Command {
	var sure bool
	c := &cobra.Command{
		Use: "remove <domain>", Short: "remove a disabled one with its credentials and subscriptions",
		Long: `Removes an organization with its credentials and subscriptions. For 30 days
'organization restore' brings all of it back; then it is gone for good, and its
people's devices show counts again only when each is subscribed anew. 'organization
purge' has it gone at once. An enabled organization is refused: disable it first.

Without --yes nothing is removed, and it says what would be.`,
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, args []string) error {
			r, err := admin.RemoveOrganization(ctx, &pb.RemoveOrganizationRequest{Name: args[0], ValidateOnly: t.DryRun || !sure})
			if err == nil && (t.DryRun || !sure) {
				return t.wouldRemove(ctx, admin, args[0])
			}
			return t.Answer(r, err, "", func() {
				t.Say("Organization %s is removed; 'organization restore' brings it back within 30 days.", args[0])
			})
		}),
		ValidArgsFunction: command.First(t.organizations()),
	}
	c.Flags().BoolVar(&sure, "yes", false, "really remove it")
	return t.DryRunFlag(c)
}

func (t *Terminal) organizationRestore() *cobra.Command {
	return t.DryRunFlag(&cobra.Command{
		Use: "restore <domain>", Short: "bring a removed one back, disabled, with all that it had",
		Long: `Brings back an organization that was removed within the last 30 days, with its
credentials, subscriptions and limits, disabled as it was when it was removed:
'organization enable' accepts its tokens again. 'organization list --removed' lists
those that can be restored.`,
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, args []string) error {
			r, err := admin.RestoreOrganization(ctx, &pb.RestoreOrganizationRequest{Name: args[0], ValidateOnly: t.DryRun})
			o := r.GetOrganization()
			return t.Answer(o, err, fmt.Sprintf("bring %s back, disabled", o.GetName()), func() {
				t.Say("Organization %s is restored with its mailboxes (%d) and subscriptions (%d). Next: badgerelay organization enable %s",
					o.GetName(), o.GetMailboxes(), o.GetSubscriptions(), o.GetName())
			})
		}),
	})
}

func (t *Terminal) organizationPurge() *cobra.Command {
	var sure bool
	c := &cobra.Command{
		Use: "purge <domain>", Short: "forget a removed one now and for good",
		Long: `Forgets a removed organization now, with its credentials and subscriptions, where
it would be kept for 30 days: because its data has to go, or another one is to
have its name or its key. This can't be undone. It wants --yes.`,
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, args []string) error {
			r, err := admin.PurgeOrganization(ctx, &pb.PurgeOrganizationRequest{Name: args[0], ValidateOnly: t.DryRun || !sure})
			switch {
			case err == nil && t.DryRun:
				return t.Would("forget %s for good", args[0])
			case err == nil && !sure:
				return command.Invalidf("this would forget %s for good, and can't be undone; --yes does it", args[0])
			}
			return t.Answer(r, err, "", func() { t.Say("Nothing of organization %s is kept.", args[0]) })
		}),
	}
	c.Flags().BoolVar(&sure, "yes", false, "really forget it")
	return t.DryRunFlag(c)
}

// wouldRemove says what would go with an organization. Without --dry-run that is
// a refusal: the operator is to read it before.
func (t *Terminal) wouldRemove(ctx context.Context, admin pb.AdminServiceClient, name string) error {
	r, err := admin.GetOrganization(ctx, &pb.GetOrganizationRequest{Name: name})
	if err != nil {
		return err
	}
	o := r.GetOrganization()
	credentials, err := admin.ListCredentials(ctx, &pb.ListCredentialsRequest{Organization: o.GetName()})
	if err != nil {
		return err
	}
	what := fmt.Sprintf("remove %s, with its mailboxes (%d), subscriptions (%d) and credentials (%d), which 'organization restore' can bring back for 30 days",
		o.GetName(), o.GetMailboxes(), o.GetSubscriptions(), len(credentials.GetCredentials()))
	if t.DryRun {
		return t.Would("%s", what)
	}
	return command.Invalidf("this would %s; --yes does it", what)
}
