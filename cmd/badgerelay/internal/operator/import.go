package operator

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

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
			if err := needOrganization(organization); err != nil {
				return err
			}
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
			rows := rowReader(text, file, format)
			answer, err := importAll(ctx, admin, &pb.AdminServiceImportSubscriptionsRequest{
				Organization: organization, Import: &pb.ImportSubscriptionsRequest{KeepOthers: keepOthers, ValidateOnly: t.dryRun},
			}, rows.next)
			if err != nil {
				return err
			}
			return t.showImport(answer.GetImport(), organization, rows)
		}),
	}
	c.Flags().BoolVar(&keepOthers, "keep-others", false, "leave devices on the mailboxes that they are on now")
	command.Choice(c, c.Flags(), &format, "format", "", "auto goes by the first character: auto, csv or jsonl", "auto", "csv", "jsonl")
	return t.organizationFlag(t.dryRunFlag(c), &organization)
}

// importAll sends everything that next yields until io.EOF, in copies of a message.
func importAll(ctx context.Context, admin pb.AdminServiceClient, m *pb.AdminServiceImportSubscriptionsRequest, next func() (*pb.Subscription, error)) (*pb.AdminServiceImportSubscriptionsResponse, error) {
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
		chunk = append(chunk, s)
		if len(chunk) < importChunk {
			continue
		}
		if flush() != nil {
			return stream.CloseAndRecv() // its error is the one that says why
		}
	}
	if flush() != nil {
		return stream.CloseAndRecv()
	}
	return stream.CloseAndRecv()
}

func (t *Terminal) showImport(r *pb.ImportSubscriptionsResponse, organization string, rows *rows) error {
	rejections := func() {
		for _, rejection := range r.GetRejections() {
			field := rejection.GetField()
			if field != "" {
				field += ": "
			}
			t.Say("  %s: %s%s", rows.where(rejection.GetPosition()), field, rejection.GetDetail())
		}
	}
	var err error
	if t.dryRun {
		err = t.WouldAnswer(r, "import into %s: %d created, %d renewed, %d refused", organization, r.GetCreated(), r.GetRenewed(), r.GetRejected())
		rejections()
	} else {
		err = t.Print(r, func() {
			t.Say("%d created, %d renewed, %d refused.", r.GetCreated(), r.GetRenewed(), r.GetRejected())
			rejections()
		})
	}
	if err == nil && r.GetRejected() > 0 {
		return fmt.Errorf("%d of %d subscriptions were refused", r.GetRejected(), r.GetCreated()+r.GetRenewed()+r.GetRejected())
	}
	return err
}

// rows are a file's subscriptions.
type rows struct {
	next  func() (*pb.Subscription, error) // io.EOF after the last
	lines []int                            // of those so far; nil: they are not one on a line
}

// where says where a subscription is, counted from 1.
func (r *rows) where(position uint64) string {
	if i := position - 1; i < uint64(len(r.lines)) {
		return fmt.Sprintf("line %d", r.lines[i])
	}
	return fmt.Sprintf("entry %d", position)
}

// rowReader returns the file's subscriptions.
func rowReader(b *bufio.Reader, name, format string) *rows {
	if format == "auto" {
		format = "csv"
		if start, _ := b.Peek(1); len(start) == 1 && (start[0] == '{' || start[0] == '[') {
			format = "jsonl"
		}
	}
	if format == "jsonl" {
		return &rows{next: jsonRows(b, name)}
	}
	r := &rows{}
	r.next = r.csv(b, name)
	return r
}

func (r *rows) csv(in io.Reader, name string) func() (*pb.Subscription, error) {
	reader := csv.NewReader(&lines{r: in})
	reader.FieldsPerRecord, reader.ReuseRecord, reader.TrimLeadingSpace = -1, true, true
	columns := map[string]int{"mailbox": 0, "app": 1, "device_token": 2}
	first := true
	return func() (*pb.Subscription, error) {
		row, err := reader.Read()
		if err == nil && first && isHeading(row) {
			columns = map[string]int{}
			for i, title := range row {
				columns[heading(title)] = i
			}
			row, err = reader.Read()
		}
		first = false
		if err != nil {
			return nil, broken(name, err)
		}
		line, _ := reader.FieldPos(0)
		if need := 1 + max(columns["mailbox"], columns["app"], columns["device_token"]); len(row) < need {
			return nil, broken(name, fmt.Errorf("line %d has %d columns, %d are needed", line, len(row), need))
		}
		r.lines = append(r.lines, line)
		s := &pb.Subscription{Mailbox: strings.Clone(row[columns["mailbox"]]), App: strings.Clone(row[columns["app"]]), DeviceToken: strings.Clone(row[columns["device_token"]])}
		return s, nil
	}
}

// longestLine is far more than a subscription has, ours.
const longestLine = 1 << 20

// lines reads text, and fails in a line that has no end: a disk's image, a device.
type lines struct {
	r    io.Reader
	size int // of the line so far
}

// Read implements io.Reader.
func (l *lines) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.size += n
	if end := bytes.LastIndexByte(p[:n], '\n'); end >= 0 {
		l.size = n - end - 1
	}
	if l.size > longestLine {
		return 0, fmt.Errorf("a line has more than %d bytes", longestLine)
	}
	return n, err
}

// isHeading says whether the row names the three columns.
func isHeading(row []string) bool {
	seen := map[string]bool{}
	for _, title := range row {
		seen[heading(title)] = true
	}
	return seen["mailbox"] && seen["app"] && seen["device_token"]
}

// heading returns a title as we write it; spreadsheets put a byte order mark
// before the first.
func heading(title string) string {
	return strings.ToLower(strings.TrimSpace(strings.TrimPrefix(title, "\ufeff")))
}

// jsonRow is a subscription, or a list of them as subscription list prints it.
type jsonRow struct {
	Mailbox       string    `json:"mailbox"`
	App           string    `json:"app"`
	DeviceToken   string    `json:"deviceToken"`
	RemovedAt     *string   `json:"removedAt"`
	Subscriptions []jsonRow `json:"subscriptions"`
	NextPageToken string    `json:"nextPageToken"` // badgerelay's list was cut
	Truncated     bool      `json:"truncated"`     // badgeagent's was
}

func jsonRows(r io.Reader, name string) func() (*pb.Subscription, error) {
	decoder := json.NewDecoder(r)
	var list []jsonRow // what is left of one
	count := 0
	return func() (*pb.Subscription, error) {
		for len(list) == 0 {
			var row jsonRow
			count++
			if err := decoder.Decode(&row); err != nil {
				if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
					err = fmt.Errorf("entry %d: %s can't be a JSON %s", count, cmp.Or(wrong.Field, "it"), wrong.Value)
				} else if !errors.Is(err, io.EOF) {
					err = fmt.Errorf("entry %d is not JSON: %w", count, err)
				}
				return nil, broken(name, err)
			}
			if list = row.Subscriptions; list == nil {
				list = []jsonRow{row}
			}
			if row.NextPageToken != "" || row.Truncated {
				return nil, broken(name, fmt.Errorf("entry %d is a list that was cut: list with --limit 0", count))
			}
		}
		row := list[0]
		list = list[1:]
		if row.RemovedAt != nil { // it may show another mailbox by now
			return nil, broken(name, fmt.Errorf("entry %d: a device of %s was removed, and an import of removed ones would move those that came back elsewhere", count, row.Mailbox))
		}
		return &pb.Subscription{Mailbox: row.Mailbox, App: row.App, DeviceToken: row.DeviceToken}, nil
	}
}

// broken says that a file can't be read on; io.EOF is its proper end.
func broken(name string, err error) error {
	if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	return fmt.Errorf("%s: %w", inputName(name), err)
}

// inputName is how a file is called that - may be.
func inputName(file string) string {
	if file == "-" {
		return "standard input"
	}
	return file
}
