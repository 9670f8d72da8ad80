package operator

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"badgerelay/cmd/internal/command"
	pb "badgerelay/proto/badgerelay/v1"
)

// importChunk is how many subscriptions travel in one message: with the
// longest mailboxes half of gRPC's 4 MiB.
const importChunk = 5000

func (t *Terminal) subscriptionImport() *cobra.Command {
	var organization, format string
	var keepOthers bool
	c := &cobra.Command{
		Use: "import [file]", Short: "register many devices, from a file or standard input",
		Long: `Reads CSV with the columns mailbox, app and device_token, in this order or in
that of a heading line, or JSON: objects with mailbox, app and deviceToken, or
what subscription list --output json prints. Valid ones are taken even where
others are refused; then the exit code is 1. A device that comes to a mailbox
leaves those that it was on before, unless --keep-others is given; one that the
file puts on several mailboxes is on all of them.`,
		Example: `  badgerelay subscription import --organization fabrikam.com devices.csv
  jq -c '.devices[]' export.json | badgerelay subscription import --organization fabrikam.com --format jsonl
  badgerelay subscription list --organization fabrikam.com --limit 0 --output json > devices.json`,
		RunE: t.within(0, func(ctx context.Context, admin pb.AdminServiceClient, args []string) error {
			file := "-"
			if len(args) > 0 {
				file = args[0]
			} else if t.Typed() {
				return command.Usage("badgerelay subscription import needs a file; 'badgerelay subscription import -' reads from the terminal")
			}
			r, err := t.open(file)
			if err != nil {
				return err
			}
			defer r.Close() // it was only read
			text, empty, err := command.Text(r, inputName(file))
			if err != nil {
				return err
			}
			if empty {
				t.Warn("%s is empty: there is nothing to import", inputName(file))
			}
			doubts := doubtful{terminal: t, organization: organization}
			from := &origins{}
			from.apps, _ = listApps(ctx, admin, "") // without them none is near
			answer, err := importAll(ctx, admin, &pb.AdminServiceImportSubscriptionsRequest{
				Organization: organization, Import: &pb.ImportSubscriptionsRequest{KeepOthers: keepOthers, ValidateOnly: t.DryRun},
			}, from.note(doubts.warn(rowReader(text, file, format))))
			if err != nil {
				return err
			}
			return t.showImport(answer.GetImport(), organization, from)
		}),
	}
	c.Flags().BoolVar(&keepOthers, "keep-others", false, "leave devices on the mailboxes that they are on now")
	command.Choice(c, c.Flags(), &format, "format", "", "auto goes by the first character: auto, csv or jsonl", "auto", "csv", "jsonl")
	return t.organizationNeeded(t.DryRunFlag(c), &organization)
}

// importAll sends everything that next yields until io.EOF, in copies of a message.
func importAll(ctx context.Context, admin pb.AdminServiceClient, m *pb.AdminServiceImportSubscriptionsRequest, next rows) (*pb.AdminServiceImportSubscriptionsResponse, error) {
	ctx, cancel := context.WithCancel(ctx) // so that an unreadable file leaves no call open
	defer cancel()
	stream, err := admin.ImportSubscriptions(ctx)
	if err != nil {
		return nil, err
	}
	var chunk []*pb.Subscription
	sent := false
	flush := func() error {
		if len(chunk) == 0 && sent {
			return nil
		}
		m.Import.Subscriptions = chunk
		err := stream.Send(m)
		chunk, sent = nil, true
		return err
	}
	for {
		s, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && (!sent || m.GetImport().GetValidateOnly()) {
			return nil, fmt.Errorf("%w; nothing was imported", err)
		}
		if err != nil {
			return nil, fmt.Errorf("%w; what came before it may have been registered, and a repetition does no harm", err)
		}
		chunk = append(chunk, s.Subscription)
		if len(chunk) < importChunk {
			continue
		}
		if flush() != nil {
			return stream.CloseAndRecv() // its error is the one that says why
		}
	}
	_ = flush() // the answer says why it failed
	return stream.CloseAndRecv()
}

func (t *Terminal) showImport(r *pb.ImportSubscriptionsResponse, organization string, from *origins) error {
	rejections := func() {
		for _, rejection := range r.GetRejections() {
			at, field, detail := from.at(rejection.GetPosition()), rejection.GetField(), rejection.GetDetail()
			if field == "app" && at.app != "" {
				detail = fmt.Sprintf("%q %s", at.app, detail)
				if near := meant(from.apps, at.app); near != "" {
					detail += fmt.Sprintf("; did you mean %s?", near)
				}
			}
			if field != "" {
				field += ": "
			}
			t.Say("  %v: %s%s", at.place, field, detail)
		}
	}
	var err error
	if t.DryRun {
		err = t.WouldAnswer(r, "import into %s: %d created, %d renewed, %d refused", organization, r.GetCreated(), r.GetRenewed(), r.GetRejected())
		rejections()
	} else {
		err = t.Print(r, func() {
			t.Say("%d created, %d renewed, %d refused.", r.GetCreated(), r.GetRenewed(), r.GetRejected())
			rejections()
		})
	}
	if err == nil && r.GetRejected() > 0 {
		return fmt.Errorf("refused: %d of %s", r.GetRejected(), command.Counted(r.GetCreated()+r.GetRenewed()+r.GetRejected(), "subscription", "subscriptions"))
	}
	return err
}
