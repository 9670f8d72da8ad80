package imap

import (
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2/imapclient"
)

// heard returns what go-imap reads of what a server says, in chunks.
func heard(t *testing.T, said string, chunk int, folders ...string) (string, error) {
	t.Helper()
	w := newWire(&script{said: []byte(said), chunk: chunk}, folders)
	w.search = "T7"
	all, err := io.ReadAll(w)
	return string(all), err
}

func TestTheGrammarIsTakenLiberally(t *testing.T) {
	for _, tt := range []struct{ name, said, want string }{
		{"blanks", "*  1688   EXISTS\r\n*   STATUS   INBOX  ( UNSEEN  3  ) \r\nT1  OK   done \r\n", "* STATUS \"INBOX\" (UNSEEN 3)\r\nT1 OK done \r\n"},
		{"bare line feeds", "* OK hi\nT1 OK x\n", "* OK hi\r\nT1 OK x\r\n"},
		{"quoted flags", "* FLAGS (\"\\\\Deleted\")\r\n* OK [PERMANENTFLAGS (\"x\" \\*)] Limited\r\n", "* OK [X-PERMANENTFLAGS] Limited\r\n"},
		{"status without items", "* STATUS INBOX ()\r\n", ""},
		{"status not closed", "* STATUS INBOX (UNSEEN 3 UIDVALIDITY 7\r\n", "* STATUS \"INBOX\" (UNSEEN 3 UIDVALIDITY 7)\r\n"},
		{"status of strange values", "* STATUS inbox (UNSEEN -1 MESSAGES NIL X (1 2) HIGHESTMODSEQ 99999999999999999999 UIDVALIDITY 4294967296 UNSEEN 4)\r\n", "* STATUS \"INBOX\" (UNSEEN 4)\r\n"},
		{"names as literals", "* STATUS {5}\r\nINBOX (UNSEEN {1}\r\n3)\r\n", "* STATUS \"INBOX\" (UNSEEN 3)\r\n"},
		{"names in three forms", "* STATUS \"Entw&APw-rfe\" (UNSEEN 1)\r\n* STATUS \"Entw\u00fcrfe\" (UNSEEN 2)\r\n* STATUS {9}\r\nEntw\u00fcrfe (UNSEEN 3)\r\n* STATUS Other (UNSEEN 4)\r\n",
			"* STATUS \"Entw&APw-rfe\" (UNSEEN 1)\r\n* STATUS \"Entw&APw-rfe\" (UNSEEN 2)\r\n* STATUS \"Entw&APw-rfe\" (UNSEEN 3)\r\n"},
		{"no text", "* OK\r\n* NO [ALERT]\r\nT1 NO\r\n", "* OK -\r\n* NO [ALERT] -\r\nT1 NO -\r\n"},
		{"small letters", "* ok [uidvalidity 5] x\r\nt1 no [unavailable] y\r\n", "* OK [UIDVALIDITY 5] x\r\nt1 NO [UNAVAILABLE] y\r\n"},
		{"codes with anything", "* OK [HIGHESTMODSEQ x] a\r\n* OK [BADCHARSET (\"x\")] b\r\n* OK [never closed\r\n* OK [] c\r\n", "* OK [X-HIGHESTMODSEQ] a\r\n* OK [BADCHARSET] b\r\n* OK never closed\r\n* OK c\r\n"},
		{"capabilities", "* CAPABILITY imap4rev1 IMAP4rev2 (x) Idle AUTH=plain\r\n* OK [CAPABILITY IMAP4rev2 NOTIFY] x\r\n", "* CAPABILITY IMAP4rev1 X IDLE AUTH=PLAIN\r\n* OK [CAPABILITY IMAP4rev2 NOTIFY] x\r\n"},
		{"search", "* SEARCH 1 2  3 (MODSEQ 9)\r\n* SEARCH\r\n* search 4\r\n", "* ESEARCH (TAG \"T7\") COUNT 3\r\n* ESEARCH (TAG \"T7\") COUNT 3\r\n* ESEARCH (TAG \"T7\") COUNT 4\r\n"},
		{"extended search", "* ESEARCH (TAG \"T7\") UID ALL 1:3 COUNT 3\r\n* ESEARCH (TAG \"T7\")\r\n* ESEARCH (TAG \"other\") COUNT 8\r\n", "* ESEARCH (TAG \"T7\") COUNT 3\r\n* ESEARCH (TAG \"T7\") COUNT 0\r\n"},
		{"what nobody asked for", "* LIST (\\x {3}\r\nabc) \"/\" \"\xff\"\r\n* 1 FETCH (FLAGS (\"\\\\Seen\") BODY[] {4}\r\n)\r\n( X)\r\n* XYZ\r\n\r\n*\r\n* 5\r\n", ""},
		{"a literal in words for people", "* OK read {99999}\r\nT1 OK [ALERT] {5}\r\n", "* OK read {99999}\r\nT1 OK [ALERT] {5}\r\n"},
		{"a challenge", "+ YWJj\r\n+\r\n+idling\r\n", "+ YWJj\r\n+ \r\n+ \r\n"},
		{"nested without end", "* STATUS INBOX " + strings.Repeat("(", 60000) + "UNSEEN 3\r\n", "* STATUS \"INBOX\" (UNSEEN 3)\r\n"},
	} {
		for _, chunk := range []int{1, 7, 1 << 20} {
			got, err := heard(t, tt.said, chunk, "INBOX", "Entw\u00fcrfe")
			if err != nil || got != tt.want {
				t.Errorf("%s, by %d bytes: go-imap hears\n%q, %v, want\n%q", tt.name, chunk, got, err, tt.want)
			}
		}
	}
}

func TestChangesOfTheOpenFolderAreNoticed(t *testing.T) {
	for said, want := range map[string]bool{
		"* 3 EXISTS\r\n": true, "*  3   exists\r\n": true, "* 3 EXPUNGE\r\n": true, "* VANISHED 3:5\r\n": true,
		"* 3 FETCH (FLAGS (\\Seen))\r\n": true, "* 2 EXISTS\r\n": false, "* 3 RECENT\r\n": false, "* OK still here\r\n": false, "* FLAGS ()\r\n": false,
	} {
		w := newWire(&script{said: []byte(said), chunk: 3}, nil)
		w.exists = 2
		_, err := io.ReadAll(w)
		must(t, err)
		if got := len(w.changed) == 1; got != want {
			t.Errorf("%q: changed %v, want %v", said, got, want)
		}
	}
}

// endless is a connection whose server says one thing again and again.
type endless struct {
	deaf
	first, again string
	at           int
}

// Read implements net.Conn.
func (e *endless) Read(p []byte) (int, error) {
	if e.first != "" {
		n := copy(p, e.first)
		e.first = e.first[n:]
		return n, nil
	}
	for i := range p {
		p[i] = e.again[e.at%len(e.again)]
		e.at++
	}
	return len(p), nil
}

func TestNoAnswerCostsMoreThanABound(t *testing.T) {
	for name, e := range map[string]*endless{
		"a huge literal":                {first: "* STATUS {2000000000}\r\n", again: "x"},
		"a literal of more than an int": {first: "* STATUS {99999999999999999999999999}\r\n", again: "x"},
		"many literals":                 {first: "* STATUS ", again: "{60000}\r\n" + strings.Repeat("x", 60000)},
		"a line without end":            {first: "* STATUS ", again: "x"},
		"a greeting without end":        {first: "* OK ", again: "x"},
		"a challenge without end":       {first: "+ ", again: "x"},
		"a search without end":          {first: "* SEARCH ", again: "1 "},
		"responses without end":         {again: "* OK still here\r\n"},
		"empty lines without end":       {again: "\r\n"},
	} {
		limit := uint64(16 << 20)
		if e.first == "" {
			limit = 256 << 20 // many small ones, none of which is kept
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		w := newWire(e, nil)
		client := imapclient.New(w, nil) // as it is used
		err := client.WaitGreeting()
		<-client.Closed()
		_ = client.Close()
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > limit {
			t.Errorf("%s: %d MB were allocated", name, took>>20)
		}
		if w.read > maxBetween+maxResponse {
			t.Errorf("%s: %d bytes were read (%v)", name, w.read, err)
		}
	}
	_, err := heard(t, "* STATUS {2000000000}\r\n", 100)
	if !errors.Is(err, errTooLarge) {
		t.Errorf("a huge literal: %v, want %v", err, errTooLarge)
	}
}

// deaf is what connections of these tests have in common: nobody listens.
type deaf struct{ net.Conn }

// Write implements net.Conn.
func (deaf) Write(p []byte) (int, error) { return len(p), nil }

// Close implements net.Conn.
func (deaf) Close() error { return nil }

// SetReadDeadline implements net.Conn.
func (deaf) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (deaf) SetWriteDeadline(time.Time) error { return nil }

func TestNamesAreEncoded(t *testing.T) {
	for name, want := range map[string]string{
		"INBOX": "INBOX", "inbox": "INBOX", "a b": "a b", "a&b": "a&-b", "Entw\u00fcrfe": "Entw&APw-rfe", // RFC 3501, section 5.1.3
		"~peter/mail/\u53f0\u5317/\u65e5\u672c\u8a9e": "~peter/mail/&U,BTFw-/&ZeVnLIqe-", "\U0001F4E7": "&2D3c5w-",
	} {
		if got := encodeName(name); got != want {
			t.Errorf("encodeName(%q) = %q, want %q", name, got, want)
		}
	}
}

// FuzzWire: whatever a server says, go-imap reads lines that it understands, and
// nothing is large.
func FuzzWire(f *testing.F) {
	f.Add([]byte("* OK [CAPABILITY IMAP4rev1 IDLE] hi\r\n* STATUS {5}\r\nINBOX (UNSEEN 3)\r\n* 1688 EXISTS\r\nT1 OK x\r\n"), uint8(3))
	f.Add([]byte("* SEARCH 1 2 (MODSEQ 3)\r\n* ESEARCH (TAG \"T7\") COUNT 3\r\n+ x\r\n* BYE\r\n"), uint8(200))
	f.Add([]byte("* OK [UIDVALIDITY 1\x00{3}\r\n* FLAGS ({3}\r\nabc{3+}\r\n)))\r\n"), uint8(0))
	f.Fuzz(func(t *testing.T, said []byte, chunk uint8) {
		got, _ := heard(t, string(said), int(chunk)+1, "INBOX", "Entw\u00fcrfe")
		if len(got) > 16*len(said)+64 {
			t.Errorf("%q became %d bytes", said, len(got))
		}
		for line := range strings.Lines(got) {
			if !strings.HasSuffix(line, "\r\n") || strings.ContainsAny(strings.TrimSuffix(line, "\r\n"), "\r\n\x00") {
				t.Errorf("%q: go-imap hears the line %q", said, line)
			}
			if line[0] != '*' {
				continue // it would be the answer to no command
			}
			one := &script{said: []byte("* OK [CAPABILITY IMAP4rev1] hi\r\n" + line), chunk: 1}
			client := imapclient.New(one, nil)
			_ = client.WaitGreeting()
			<-client.Closed()
			if len(one.said) > 0 {
				t.Errorf("%q: go-imap does not understand the line %q", said, line)
			}
		}
	})
}
