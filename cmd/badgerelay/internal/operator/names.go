package operator

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/configfile"
	pb "badgerelay/proto/badgerelay/v1"
)

func (t *Terminal) organizationFlag(c *cobra.Command, name *string) *cobra.Command {
	c.Flags().StringVar(name, "organization", "", "the organization's `domain`")
	command.Environment(c.Flags(), "organization")
	command.FlagCompletion(c, "organization", t.organizations())
	return c
}

// organizationNeeded has a command refuse to run without --organization.
func (t *Terminal) organizationNeeded(c *cobra.Command, name *string) *cobra.Command {
	c.PreRunE = func(*cobra.Command, []string) error {
		if *name == "" {
			return command.Usage("name the organization with --organization, or in $BADGERELAY_ORGANIZATION")
		}
		return nil
	}
	return t.organizationFlag(c, name)
}

// organizationArgument lets a command's argument stand for --organization, which it needs.
func (t *Terminal) organizationArgument(c *cobra.Command, name *string) *cobra.Command {
	t.organizationNeeded(c, name)
	c.ValidArgsFunction = command.First(t.organizations())
	needed := c.PreRunE
	c.PreRunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return takeOrganization(c, name, args[0])
		}
		return needed(c, args)
	}
	return c
}

// takeOrganization has an argument stand for --organization.
func takeOrganization(c *cobra.Command, name *string, argument string) error {
	if *name != "" && *name != argument && !command.FromEnvironment(c, "organization") {
		return command.Usage("name one organization: %s, or --organization %s", argument, *name)
	}
	*name = argument
	return nil
}

// lister returns the names of one kind that there are, as far as a page goes; of an
// organization those that it has.
type lister func(ctx context.Context, admin pb.AdminServiceClient, organization string) ([]string, error)

func listOrganizations(ctx context.Context, admin pb.AdminServiceClient, _ string) ([]string, error) {
	return organizations(ctx, admin, false)
}

// organizations returns the names of those there are, or of those that were removed.
func organizations(ctx context.Context, admin pb.AdminServiceClient, removed bool) ([]string, error) {
	r, err := admin.ListOrganizations(ctx, &pb.ListOrganizationsRequest{PageSize: 1000, Removed: removed})
	return each(r.GetOrganizations(), (*pb.Organization).GetName), err
}

func listApps(ctx context.Context, admin pb.AdminServiceClient, _ string) ([]string, error) {
	r, err := admin.ListApps(ctx, &pb.ListAppsRequest{})
	return each(r.GetApps(), (*pb.App).GetName), err
}

// listMailboxes lists those that have a device.
func listMailboxes(ctx context.Context, admin pb.AdminServiceClient, organization string) ([]string, error) {
	all, err := pages(ctx, admin, organization, &pb.ListSubscriptionsRequest{PageSize: 1000}, 1000)
	return slices.Compact(each(all.GetSubscriptions(), (*pb.Subscription).GetMailbox)), err
}

// listCredentials lists their thumbprints.
func listCredentials(ctx context.Context, admin pb.AdminServiceClient, organization string) ([]string, error) {
	r, err := admin.ListCredentials(ctx, &pb.ListCredentialsRequest{Organization: organization})
	return each(r.GetCredentials(), (*pb.Credential).GetThumbprint), err
}

func each[T any](all []T, get func(T) string) (names []string) {
	for _, one := range all {
		names = append(names, get(one))
	}
	return names
}

func (t *Terminal) organizations() cobra.CompletionFunc { return t.completion(listOrganizations) }
func (t *Terminal) apps() cobra.CompletionFunc          { return t.completion(listApps) }
func (t *Terminal) mailboxes() cobra.CompletionFunc     { return t.completion(listMailboxes) }
func (t *Terminal) credentials() cobra.CompletionFunc   { return t.completion(listCredentials) }

// adviceTime is how long a name is looked for that may have been meant.
const adviceTime = 2 * time.Second

// advise says what to do where the relay refuses a call for this reason: which name may
// have been meant, or which command shows those that there are. Empty: nothing special.
func advise(ctx context.Context, c *cobra.Command, admin pb.AdminServiceClient, reason string) string {
	ctx, cancel := context.WithTimeout(ctx, adviceTime)
	defer cancel()
	given := func(name string) string {
		if f := c.Flags().Lookup(name); f != nil {
			return f.Value.String()
		}
		return ""
	}
	near, list := "", ""
	switch reason {
	case "ORGANIZATION_NOT_FOUND":
		removed := c.Parent().Name() == "organization" && (c.Name() == "restore" || c.Name() == "purge")
		if list = "organization list"; removed {
			list += " --removed"
		}
		if one := removedNamed(ctx, admin, given("organization"), c.Flags().Arg(0)); one != "" && !removed {
			return fmt.Sprintf("; it was removed, and 'badgerelay organization restore %s' brings it back", one)
		}
		known, _ := organizations(ctx, admin, removed) // what went wrong is said already, here and below
		near = meant(known, given("organization"), c.Flags().Arg(0))
	case "APP_UNKNOWN":
		list = "app list"
		known, _ := listApps(ctx, admin, "")
		apps, _ := c.Flags().GetStringSlice("apps") // most commands have none
		near = meant(known, append(apps, given("app"))...)
	case "ORGANIZATION_ENABLED":
		return fmt.Sprintf(": 'badgerelay organization disable %s'", c.Flags().Arg(0))
	case "CREDENTIAL_NOT_FOUND":
		list = "credential list"
	case "APP_NOT_ALLOWED":
		return "; 'badgerelay organization update --apps' says which it may use"
	default:
		return ""
	}
	if near != "" {
		return fmt.Sprintf("; did you mean %s?", command.Visible(near))
	}
	return fmt.Sprintf("; 'badgerelay %s' lists those there are", list)
}

// removedNamed returns the first of the names that is a removed organization's; empty:
// none is.
func removedNamed(ctx context.Context, admin pb.AdminServiceClient, names ...string) string {
	removed, _ := allOrganizations(ctx, admin, true) // what went wrong is said already
	for _, o := range removed.GetOrganizations() {
		if slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, o.GetName()) }) {
			return o.GetName()
		}
	}
	return ""
}

// meant returns the known name that is near to the first given one that is not known;
// empty: none is.
func meant(known []string, given ...string) string {
	for _, name := range given {
		if name != "" && !slices.Contains(known, name) {
			return configfile.Nearest(name, known)
		}
	}
	return ""
}

// completion completes with the names of a list. What goes wrong is told to nobody.
func (t *Terminal) completion(list lister) cobra.CompletionFunc {
	return t.Completion(func(ctx context.Context, c *cobra.Command) ([]string, error) {
		conn, _, err := t.dial(c)
		if err != nil {
			return nil, err
		}
		defer conn.Close() // the answer is there already
		ctx, cancel := bounded(ctx, t.timeout)
		defer cancel()
		organization, _ := c.Flags().GetString("organization") // some have none
		return list(ctx, pb.NewAdminServiceClient(conn), organization)
	})
}
