package operator

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/explanation"
	pb "badgerelay/proto/badgerelay/v1"
	"badgerelay/relay/agent/diagnosis"
)

func (t *Terminal) mailbox() *cobra.Command {
	c := &cobra.Command{
		Use: "mailbox", Short: "say why a mailbox's badge is wrong",
		Example: `  badgerelay mailbox show fabrikam.com sales@fabrikam.com`,
	}
	c.AddCommand(t.mailboxShow())
	return c
}

func (t *Terminal) mailboxShow() *cobra.Command {
	var organization string
	c := &cobra.Command{
		Use: "show [organization] <mailbox>", Short: "say where a mailbox's count hangs, and show its whole way",
		SuggestFor: []string{"explain"}, // badgeagent's word
		Long: `Says in one sentence why the badge of a mailbox is what it is, and shows what every
relay has of it: the agents' streams, the newest count and what it waits for, each
device with what it shows and what APNs said last, and devices that were removed. A
relay that can't be asked is named. What the mail server counts now is not known to
relays: 'badgeagent explain' asks it, on the organization's side.`,
		Example: `  badgerelay mailbox show fabrikam.com sales@fabrikam.com
  badgerelay mailbox show fabrikam.com sales@fabrikam.com --output json | jq -r .verdict.code`,
		RunE: t.run(func(ctx context.Context, admin pb.AdminServiceClient, args []string) error {
			mailbox := args[len(args)-1]
			r, err := admin.GetMailbox(ctx, &pb.AdminServiceGetMailboxRequest{
				Organization: organization, Get: &pb.GetMailboxRequest{Mailbox: mailbox},
			})
			if err != nil {
				return err
			}
			return explanation.Print(t.Terminal, &diagnosis.Facts{Mailbox: mailbox, Now: time.Now(), Report: r.GetReport(), Operator: true})
		}),
	}
	c.PreRunE = func(c *cobra.Command, args []string) error {
		if len(args) == 2 {
			if err := takeOrganization(c, &organization, args[0]); err != nil {
				return err
			}
		}
		switch {
		case organization == "" && !strings.Contains(args[0], "@"):
			return command.Usage("give an organization and a mailbox, and got %q alone; the organization may also be --organization", args[0])
		case organization == "":
			return command.Usage("name the organization before the mailbox, with --organization, or in $BADGERELAY_ORGANIZATION")
		case strings.Contains(organization, "@"):
			return command.Usage("%s is a mailbox; the organization, a domain, comes first", organization)
		}
		return command.CheckMailboxName("mailbox", args[len(args)-1])
	}
	c.ValidArgsFunction = func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 && organization == "" {
			return t.organizations()(c, args, word)
		}
		if len(args) == 1 {
			organization = args[0]
		}
		return t.mailboxes()(c, args, word)
	}
	return t.organizationFlag(c, &organization)
}
