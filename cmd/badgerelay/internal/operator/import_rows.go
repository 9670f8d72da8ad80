package operator

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sort"
	"strings"

	"badgerelay/cmd/internal/command"
	pb "badgerelay/proto/badgerelay/v1"
)

// row is a subscription of what is imported.
type row struct {
	*pb.Subscription
	place place
}

// rows yields a file's subscriptions, and io.EOF after the last.
type rows func() (row, error)

// rowReader reads a file of this name in a format: auto, csv or jsonl.
func rowReader(b *bufio.Reader, name, format string) rows {
	if format == "auto" {
		format = "csv"
		if first := firstOf(b); first == '{' || first == '[' {
			format = "jsonl"
		}
	}
	if format == "jsonl" {
		return jsonRows(b, name)
	}
	return csvRows(b, name)
}

// firstOf returns the first byte that is no white space, without reading it, as far as the
// buffer goes; 0: there is none.
func firstOf(b *bufio.Reader) byte {
	for n := 1; ; n++ {
		start, err := b.Peek(n)
		if err != nil {
			return 0
		}
		if c := start[n-1]; c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			return c
		}
	}
}

func csvRows(r io.Reader, name string) rows {
	lines := csv.NewReader(&lines{r: r})
	lines.FieldsPerRecord, lines.ReuseRecord, lines.TrimLeadingSpace = -1, true, true
	columns := columns{at: map[string]int{"mailbox": 0, "app": 1, "devicetoken": 2}, width: 3}
	first := true
	return func() (row, error) {
		cells, err := lines.Read()
		if err == nil && first {
			var titled bool
			if titled, err = columns.read(cells); err == nil && titled {
				cells, err = lines.Read()
			}
		}
		first = false
		if err != nil {
			return row{}, broken(name, err)
		}
		line, _ := lines.FieldPos(0)
		if err := columns.fit(cells); err != nil {
			return row{}, broken(name, fmt.Errorf("line %d %w", line, err))
		}
		cell := func(title string) string { return strings.Clone(cells[columns.at[title]]) }
		return row{&pb.Subscription{Mailbox: cell("mailbox"), App: cell("app"), DeviceToken: cell("devicetoken")}, place{"line", line}}, nil
	}
}

// columns says what stands where in a line of CSV.
type columns struct {
	at    map[string]int // of the three that are read, by their titles
	width int            // how many there are at most
	named bool           // by a heading
}

// read takes a heading's columns, if the cells are one.
func (c *columns) read(cells []string) (heading bool, err error) {
	at := map[string]int{}
	for i, cell := range cells {
		at[title(cell)] = i
	}
	has := func(title string) bool { _, ok := at[title]; return ok }
	if !has("mailbox") || !has("app") {
		return false, nil
	}
	if !has("devicetoken") {
		return false, errors.New("the heading has no column device_token")
	}
	c.at, c.width, c.named = at, len(cells), true
	return true, nil
}

// title returns a column's title as it is compared: in lower case, and Device token,
// deviceToken and device_token are one. Spreadsheets put a byte order mark before the first.
func title(cell string) string {
	return strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(strings.TrimPrefix(cell, "\ufeff")))
}

// fit refuses a line that has too few columns, or more than somebody says what they are.
func (c *columns) fit(cells []string) error {
	last := max(c.at["mailbox"], c.at["app"], c.at["devicetoken"])
	switch extra := cells[min(c.width, len(cells)):]; {
	case strings.HasPrefix(cells[0], "-----BEGIN "):
		return errors.New("begins a key or a certificate; subscriptions are CSV or JSON")
	case len(cells) == 1 && strings.ContainsAny(cells[0], ";\t"):
		return errors.New("has no comma; it stands between the columns, and no semicolon or tab")
	case len(cells) <= last:
		return fmt.Errorf("has %s, and %d are needed, with a comma between them", command.Counted(len(cells), "column", "columns"), last+1)
	case strings.Join(extra, "") == "": // a spreadsheet's empty columns
		return nil
	case c.named:
		return fmt.Errorf("has %s, and the heading %d", command.Counted(len(cells), "column", "columns"), c.width)
	}
	return fmt.Errorf("has %d columns, and without a heading there are %d: mailbox, app and device_token", len(cells), c.width)
}

// longestLine is far more than a subscription has, ours.
const longestLine = 1 << 20

// lines reads text, and fails in a line that has no end: a disk's image, a device.
type lines struct {
	r    io.Reader
	size int // of the line so far
}

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

// jsonRow is a subscription, or a list of them as subscription list prints it.
type jsonRow struct {
	Mailbox       string    `json:"mailbox"`
	App           string    `json:"app"`
	DeviceToken   string    `json:"deviceToken"`
	DeviceColumn  string    `json:"device_token"` // as CSV has it
	RemovedAt     *string   `json:"removedAt"`
	Subscriptions []jsonRow `json:"subscriptions"`
	NextPageToken string    `json:"nextPageToken"` // badgerelay's list was cut
	Truncated     bool      `json:"truncated"`     // badgeagent's was
}

func jsonRows(r io.Reader, name string) rows {
	decoder := json.NewDecoder(r)
	var list []jsonRow // what is left of one
	count, yielded := 0, 0
	return func() (row, error) {
		for len(list) == 0 {
			var next jsonRow
			count++
			if err := decoder.Decode(&next); err != nil {
				if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
					err = fmt.Errorf("entry %d: %s can't be a JSON %s", count, cmp.Or(wrong.Field, "it"), wrong.Value)
				} else if !errors.Is(err, io.EOF) {
					err = fmt.Errorf("entry %d is not JSON: %w", count, err)
				}
				return row{}, broken(name, err)
			}
			if list = next.Subscriptions; list == nil {
				list = []jsonRow{next}
			}
			if next.NextPageToken != "" || next.Truncated {
				return row{}, broken(name, fmt.Errorf("entry %d is a list that was cut: list with --limit 0", count))
			}
		}
		next := list[0]
		list = list[1:]
		if next.RemovedAt != nil { // it may show another mailbox by now
			return row{}, broken(name, fmt.Errorf("entry %d: a device of %s was removed, and an import of removed ones would move those that came back elsewhere", count, next.Mailbox))
		}
		yielded++
		return row{&pb.Subscription{Mailbox: next.Mailbox, App: next.App, DeviceToken: cmp.Or(next.DeviceToken, next.DeviceColumn)}, place{"entry", yielded}}, nil
	}
}

// broken says that a file can't be read on: what is in it is wrong, or the system can't
// read it. io.EOF is its proper end.
func broken(name string, err error) error {
	if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	said := fmt.Errorf("%s: %w", inputName(name), err)
	if _, system := errors.AsType[*fs.PathError](err); system {
		return said
	}
	return command.Invalid(said)
}

// inputName is how a file is called that - may be.
func inputName(file string) string {
	if file == "-" {
		return "standard input"
	}
	return file
}

// place is where a subscription stands in what is imported, such as "line 5".
type place struct {
	word   string // line or entry
	number int    // from 1
}

// String returns it for people.
func (p place) String() string { return fmt.Sprintf("%s %d", p.word, p.number) }

// origins says where the subscriptions of an import come from. Those that follow each
// other, with no line between them, are kept as one if the relay has their apps.
type origins struct {
	apps  []string // the relay's; none: not known
	first []origin // of each run
	count int      // subscriptions so far
}

type origin struct {
	position int // in the import, from 1
	place    place
	app      string // empty: the relay has it
}

// follows reports whether o is in the run that first begins.
func (o origin) follows(first origin) bool {
	return o.app == first.app && o.place.number-first.place.number == o.position-first.position
}

// note keeps where what next yields comes from.
func (o *origins) note(next rows) rows {
	return func() (row, error) {
		r, err := next()
		if err != nil {
			return r, err
		}
		o.count++
		here := origin{o.count, r.place, r.GetApp()}
		if slices.Contains(o.apps, here.app) {
			here.app = ""
		}
		if n := len(o.first); n == 0 || !here.follows(o.first[n-1]) {
			o.first = append(o.first, here)
		}
		return r, nil
	}
}

// at returns where the subscription at a position comes from.
func (o *origins) at(position uint64) origin {
	after := sort.Search(len(o.first), func(i int) bool { return uint64(o.first[i].position) > position }) // #nosec G115 -- it is not negative
	if after == 0 || position > uint64(o.count) {                                                          // #nosec G115 -- as above
		return origin{place: place{"entry", int(position)}} // #nosec G115 -- for people; no relay counts so far
	}
	found := o.first[after-1]
	found.place.number += int(position) - found.position // #nosec G115 -- it is at most count
	return found
}

// mostDoubts is how many subscriptions an import warns of one by one, ours.
const mostDoubts = 20

// doubtful warns of mailboxes that the relay takes, and that subscription add refuses or
// warns of.
type doubtful struct {
	terminal     *Terminal
	organization string
	count        int
}

// warn warns of what next yields, and with the last of how many more there were.
func (d *doubtful) warn(next rows) rows {
	return func() (row, error) {
		r, err := next()
		if err != nil {
			if more := d.count - mostDoubts; more > 0 {
				d.terminal.Warn("%s as odd", command.Counted(more, "more mailbox is", "more mailboxes are"))
			}
			return r, err
		}
		doubt := mailboxDoubt(r.GetMailbox(), d.organization)
		if doubt == "" {
			return r, nil
		}
		if d.count++; d.count <= mostDoubts {
			d.terminal.Warn("%v: %s", r.place, doubt)
		}
		return r, nil
	}
}

// mailboxDoubt is what is odd about a mailbox; empty: nothing is, or the relay refuses it.
func mailboxDoubt(mailbox, organization string) string {
	if command.CheckMailboxName("mailbox", mailbox) != nil {
		return ""
	}
	if slip := command.CheckMailbox("mailbox", mailbox); slip != nil {
		return slip.Error()
	}
	return command.MailboxDoubt(mailbox, organization)
}
