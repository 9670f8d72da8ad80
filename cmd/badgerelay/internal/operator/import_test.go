package operator

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"

	"badgerelay/cmd/internal/command"
)

// readRows reads a whole file and writes each row as mailbox|app|device.
func readRows(file, format string) (string, error) {
	if format == "" {
		format = "auto"
	}
	next := rowReader(bufio.NewReader(strings.NewReader(file)), "f", format)
	var rows []string
	for {
		s, err := next()
		if errors.Is(err, io.EOF) {
			return strings.Join(rows, " "), nil
		}
		if err != nil {
			return strings.Join(rows, " "), err
		}
		rows = append(rows, s.GetMailbox()+"|"+s.GetApp()+"|"+s.GetDeviceToken())
	}
}

func TestImportFormats(t *testing.T) {
	tests := []struct{ name, file, format, want, err string }{
		{"csv", "a@b,mail,00\nc@d,mail,01\n", "", "a@b|mail|00 c@d|mail|01", ""},
		{"csv with spaces", "a@b, mail, 00\n", "", "a@b|mail|00", ""},
		{"heading in another order", "Device_Token,Mailbox,App,note\n00,a@b,mail,x\n", "", "a@b|mail|00", ""},
		{"heading of a spreadsheet", "\ufeffmailbox,app,device_token\r\na@b,mail,00\r\n", "", "a@b|mail|00", ""},
		{"quoted", "\"a,b\",mail,00\n", "", "a,b|mail|00", ""},
		{"short row", "a@b,mail,00\nc@d,mail\n", "", "a@b|mail|00", "f: line 2 has 2 columns, and 3 are needed, with a comma between them"},
		{"heading as JSON has it", "mailbox,app,deviceToken\na@b,mail,00\n", "", "a@b|mail|00", ""},
		{"heading with a space", "Mailbox,App,Device token\na@b,mail,00\n", "", "a@b|mail|00", ""},
		{"heading with another word", "mailbox,app,token\na@b,mail,00\n", "", "", "f: the heading has no column device_token"},
		{"one column", "apps:\n", "", "", "f: line 1 has 1 column, and 3 are needed, with a comma between them"},
		{"semicolons", "a@b;mail;00\n", "", "", "f: line 1 has no comma; it stands between the columns, and no semicolon or tab"},
		{"tabs", "\na@b\tmail\t00\n", "", "", "f: line 2 has no comma; "},
		{"a certificate", "-----BEGIN CERTIFICATE-----\n", "", "", "f: line 1 begins a key or a certificate; subscriptions are CSV or JSON"},
		{"a fourth column", "a@b,mail,00\na@b,mail,00,x\n", "", "a@b|mail|00", "f: line 2 has 4 columns, and without a heading there are 3: mailbox, app and device_token"},
		{"a fourth column beside a heading", "mailbox,app,device_token\na@b,mail,00,x\n", "", "", "f: line 2 has 4 columns, and the heading 3"},
		{"an empty fourth column", "a@b,mail,00,\n", "", "a@b|mail|00", ""},
		{"json with a column's name", `{"mailbox":"a@b","app":"mail","device_token":"00"}`, "", "a@b|mail|00", ""},
		{"json lines", `{"mailbox":"a@b","app":"mail","deviceToken":"00"}` + "\n" + `{"mailbox":"c"}`, "", "a@b|mail|00 c||", ""},
		{"json after empty lines", "\r\n \t\n" + `{"mailbox":"a@b","app":"mail","deviceToken":"00"}`, "", "a@b|mail|00", ""},
		{"csv after empty lines", "\n\na@b,mail,00\n", "", "a@b|mail|00", ""},
		{"half of json", `{"mailbox":"a`, "", "", "f: entry 1 is not JSON: unexpected EOF"},
		{"what list prints", `{"nextPageToken": "", "subscriptions": [{"app": "mail", "createdAt": "2026-11-28T10:00:00Z", "deviceToken": "00", "mailbox": "a@b", "removalReason": "", "removedAt": null}, {"app": "mail", "deviceToken": "01", "mailbox": "c@d"}]}`, "", "a@b|mail|00 c@d|mail|01", ""},
		{"a list that was cut", `{"nextPageToken": "x", "subscriptions": [{"mailbox": "a@b"}]}`, "", "", "f: entry 1 is a list that was cut"},
		{"removed ones", `{"subscriptions": [{"mailbox": "a@b", "removedAt": "2026-11-28T10:00:00Z"}]}`, "", "", "f: entry 1: a device of a@b was removed"},
		{"an empty list", `{"nextPageToken": "", "subscriptions": []}`, "", "", ""},
		{"not what was said", "a,b,c\n", "jsonl", "", "f: entry 1 is not JSON: invalid character"},
		{"empty", "", "", "", ""},
		{"heading only", "mailbox,app,device_token\n", "", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readRows(tt.file, tt.format)
			if got != tt.want {
				t.Errorf("rows = %q, want %q", got, tt.want)
			}
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error = %v, want %q", err, tt.err)
			}
		})
	}
}

// TestBrokenFileIsWrongInput, as an empty one is and one in UTF-16: to repeat the import
// does not help, while a disk may be read another time.
func TestBrokenFileIsWrongInput(t *testing.T) {
	if _, err := readRows("a\n", ""); !isInvalid(err) {
		t.Errorf("%v is not marked as wrong input", err)
	}
	failing := &fs.PathError{Op: "read", Path: "f", Err: syscall.EIO}
	if err := broken("f", failing); isInvalid(err) {
		t.Errorf("%v is marked as wrong input", err)
	}
}

func isInvalid(err error) bool {
	_, invalid := errors.AsType[*command.InvalidError](err)
	return invalid
}

// TestOrigins has lines be left out, and apps that the relay has take turns, as where a
// user has both: what is kept grows with neither, but with an app that the relay lacks.
func TestOrigins(t *testing.T) {
	from := origins{apps: []string{"mail", "tablet"}}
	next := from.note(rowReader(bufio.NewReader(strings.NewReader("mailbox,app,device_token\n\na,mail,00\na,tablet,01\n\nc,mail,00\nd,mial,00\ne,mail,00\ne,tablet,01\n")), "f", "csv"))
	for {
		if _, err := next(); err != nil {
			break
		}
	}
	for position, want := range []string{"entry 0 ", "line 3 ", "line 4 ", "line 6 ", "line 7 mial", "line 8 ", "line 9 ", "entry 7 "} {
		got := from.at(uint64(position))
		if s := fmt.Sprintf("%v %s", got.place, got.app); s != want {
			t.Errorf("subscription %d: %s, want %s", position, s, want)
		}
	}
	if len(from.first) != 4 {
		t.Errorf("%d origins are kept, want 4: one for each run", len(from.first))
	}
}

func FuzzImport(f *testing.F) {
	f.Add("mailbox,app,device_token\na,b,c\n", "")
	f.Add("app,app,mailbox,device_token\n1,2,3\n\n\"", "csv")
	f.Add("{\"mailbox\":1}[]", "jsonl")
	f.Fuzz(func(t *testing.T, file, format string) {
		next, err := rowReader(bufio.NewReader(strings.NewReader(file)), "f", format), error(nil)
		for rows := 0; err == nil; rows++ {
			if rows > len(file) {
				t.Fatalf("%d rows from %d bytes", rows, len(file))
			}
			var r row
			if r, err = next(); (r.Subscription == nil) == (err == nil) {
				t.Fatalf("next() = %v, %v", r, err)
			}
		}
	})
}

func TestWhereTheAdminListenerIs(t *testing.T) {
	for _, tt := range []struct{ flag, want string }{
		{"/run/a.sock", "/run/a.sock"},
		{"a.sock", "./a.sock"},
		{"relay.example.com:8444", "relay.example.com:8444"},
	} {
		terminal := &Terminal{address: tt.flag}
		if got, err := terminal.where(&cobra.Command{}); err != nil || got != tt.want {
			t.Errorf("where(%q) = %q, %v; want %q", tt.flag, got, err, tt.want)
		}
	}
}
