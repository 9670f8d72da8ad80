package operator

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	pb "badgerelay/proto/badgerelay/v1"
)

// readRows reads a whole file and writes each row as mailbox|app|device.
func readRows(file, format string) (string, error) {
	if format == "" {
		format = "auto"
	}
	next := rowReader(bufio.NewReader(strings.NewReader(file)), "f", format).next
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
		{"short row", "a@b,mail,00\nc@d,mail\n", "", "a@b|mail|00", "f: line 2 has 2 columns, 3 are needed"},
		{"json lines", `{"mailbox":"a@b","app":"mail","deviceToken":"00"}` + "\n" + `{"mailbox":"c"}`, "", "a@b|mail|00 c||", ""},
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

func FuzzImport(f *testing.F) {
	f.Add("mailbox,app,device_token\na,b,c\n", "")
	f.Add("app,app,mailbox,device_token\n1,2,3\n\n\"", "csv")
	f.Add("{\"mailbox\":1}[]", "jsonl")
	f.Fuzz(func(t *testing.T, file, format string) {
		next, err := rowReader(bufio.NewReader(strings.NewReader(file)), "f", format).next, error(nil)
		for rows := 0; err == nil; rows++ {
			if rows > len(file) {
				t.Fatalf("%d rows from %d bytes", rows, len(file))
			}
			var s *pb.Subscription
			if s, err = next(); (s == nil) == (err == nil) {
				t.Fatalf("next() = %v, %v", s, err)
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
