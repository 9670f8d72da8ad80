package operator

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"badgerelay/cmd/internal/command"
	pb "badgerelay/proto/badgerelay/v1"
)

// organizationFlag adds --organization, and its environment variable.
func (t *Terminal) organizationFlag(c *cobra.Command, name *string) *cobra.Command {
	c.Flags().StringVar(name, "organization", "", "the organization's `domain`")
	command.Environment(c.Flags(), "organization")
	command.FlagCompletion(c, "organization", t.organizations())
	return c
}

// organizationArgument lets a command's first argument stand for --organization.
func (t *Terminal) organizationArgument(c *cobra.Command, name *string) *cobra.Command {
	c.ValidArgsFunction = command.First(t.organizations())
	run := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return run(c, args)
		}
		if *name != "" && *name != args[0] && !command.FromEnvironment(c, "organization") {
			return command.Usage("name one organization: %s, or --organization %s", args[0], *name)
		}
		*name = args[0]
		return run(c, args[1:])
	}
	return t.organizationFlag(c, name)
}

// needOrganization is what a command about one organization begins with.
func needOrganization(name string) error {
	if name == "" {
		return command.Usage("name the organization with --organization, or in $BADGERELAY_ORGANIZATION")
	}
	return nil
}

// lister returns the names of one kind that there are, as far as a page goes.
type lister func(ctx context.Context, c *cobra.Command, admin pb.AdminServiceClient) (names []string, err error)

func listOrganizations(ctx context.Context, _ *cobra.Command, admin pb.AdminServiceClient) (names []string, err error) {
	r, err := admin.ListOrganizations(ctx, &pb.ListOrganizationsRequest{PageSize: 1000})
	for _, o := range r.GetOrganizations() {
		names = append(names, o.GetName())
	}
	return names, err
}

func listApps(ctx context.Context, _ *cobra.Command, admin pb.AdminServiceClient) (names []string, err error) {
	r, err := admin.ListApps(ctx, &pb.ListAppsRequest{})
	for _, a := range r.GetApps() {
		names = append(names, a.GetName())
	}
	return names, err
}

// listMailboxes lists those of the organization that was named before, with a device.
func listMailboxes(ctx context.Context, c *cobra.Command, admin pb.AdminServiceClient) (names []string, err error) {
	organization, err := c.Flags().GetString("organization")
	if err != nil || organization == "" {
		return nil, err
	}
	all, err := pages(ctx, admin, organization, &pb.ListSubscriptionsRequest{PageSize: 1000}, 1000)
	for _, s := range all.GetSubscriptions() {
		names = append(names, s.GetMailbox())
	}
	return slices.Compact(names), err
}

// listCredentials lists the thumbprints of the organization that was named before.
func listCredentials(ctx context.Context, c *cobra.Command, admin pb.AdminServiceClient) (names []string, err error) {
	organization, err := c.Flags().GetString("organization")
	if err != nil || organization == "" {
		return nil, err
	}
	r, err := admin.ListCredentials(ctx, &pb.ListCredentialsRequest{Organization: organization})
	for _, one := range r.GetCredentials() {
		names = append(names, one.GetThumbprint())
	}
	return names, err
}

func (t *Terminal) organizations() cobra.CompletionFunc { return t.completion(listOrganizations) }
func (t *Terminal) apps() cobra.CompletionFunc          { return t.completion(listApps) }
func (t *Terminal) mailboxes() cobra.CompletionFunc     { return t.completion(listMailboxes) }
func (t *Terminal) credentials() cobra.CompletionFunc   { return t.completion(listCredentials) }

// The reasons for which the relay refuses a name that somebody may have mistyped.
const (
	notFoundOrganization = "ORGANIZATION_NOT_FOUND"
	notFoundSubscription = "SUBSCRIPTION_NOT_FOUND"
	notFoundApp          = "APP_UNKNOWN"
)

// meant returns the name that may have been meant where the relay refuses one for this
// reason; empty: none is near, or they can't be listed.
func meant(ctx context.Context, c *cobra.Command, admin pb.AdminServiceClient, reason string) string {
	near := func(given []string, list lister, nearest func(string, []string) string) string {
		known, _ := list(ctx, c, admin) // what went wrong is said already
		for _, name := range given {
			if name != "" && !slices.Contains(known, name) {
				return nearest(name, known)
			}
		}
		return ""
	}
	flag := func(name string) string {
		if f := c.Flags().Lookup(name); f != nil {
			return f.Value.String()
		}
		return ""
	}
	switch reason {
	case notFoundOrganization:
		return near([]string{flag("organization"), c.Flags().Arg(0)}, listOrganizations, command.Nearest)
	case notFoundSubscription:
		return near([]string{flag("mailbox")}, listMailboxes, command.NearestMailbox)
	case notFoundApp:
		apps, _ := c.Flags().GetStringSlice("apps") // most commands have none
		return near(append(apps, flag("app")), listApps, command.Nearest)
	}
	return ""
}

func (t *Terminal) completion(list lister) cobra.CompletionFunc {
	return t.Completion(func(ctx context.Context, c *cobra.Command) (names []string, err error) {
		err = t.call(ctx, c, 0, func(ctx context.Context, admin pb.AdminServiceClient) (err error) {
			names, err = list(ctx, c, admin)
			return err
		})
		return names, err
	})
}
