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

// organizations completes names of organizations.
func (t *Terminal) organizations() cobra.CompletionFunc {
	return t.completion(func(ctx context.Context, _ *cobra.Command, admin pb.AdminServiceClient) (names []string, err error) {
		r, err := admin.ListOrganizations(ctx, &pb.ListOrganizationsRequest{PageSize: 1000})
		for _, o := range r.GetOrganizations() {
			names = append(names, o.GetName())
		}
		return names, err
	})
}

// apps completes names of apps.
func (t *Terminal) apps() cobra.CompletionFunc {
	return t.completion(func(ctx context.Context, _ *cobra.Command, admin pb.AdminServiceClient) (names []string, err error) {
		r, err := admin.ListApps(ctx, &pb.ListAppsRequest{})
		for _, a := range r.GetApps() {
			names = append(names, a.GetName())
		}
		return names, err
	})
}

// mailboxes completes mailboxes of the organization that was named before.
func (t *Terminal) mailboxes() cobra.CompletionFunc {
	return t.completion(func(ctx context.Context, c *cobra.Command, admin pb.AdminServiceClient) (names []string, err error) {
		organization, err := c.Flags().GetString("organization")
		if err != nil || organization == "" {
			return nil, err
		}
		all, err := pages(ctx, admin, organization, &pb.ListSubscriptionsRequest{PageSize: 1000}, 1000)
		for _, s := range all.GetSubscriptions() {
			names = append(names, s.GetMailbox())
		}
		return slices.Compact(names), err
	})
}

// credentials completes thumbprints of the organization that was named before.
func (t *Terminal) credentials() cobra.CompletionFunc {
	return t.completion(func(ctx context.Context, c *cobra.Command, admin pb.AdminServiceClient) (names []string, err error) {
		organization, err := c.Flags().GetString("organization")
		if err != nil || organization == "" {
			return nil, err
		}
		r, err := admin.ListCredentials(ctx, &pb.ListCredentialsRequest{Organization: organization})
		for _, one := range r.GetCredentials() {
			names = append(names, one.GetThumbprint())
		}
		return names, err
	})
}

func (t *Terminal) completion(list func(context.Context, *cobra.Command, pb.AdminServiceClient) ([]string, error)) cobra.CompletionFunc {
	return t.Completion(func(ctx context.Context, c *cobra.Command) (names []string, err error) {
		err = t.call(ctx, c, 0, func(ctx context.Context, admin pb.AdminServiceClient) (err error) {
			names, err = list(ctx, c, admin)
			return err
		})
		return names, err
	})
}
