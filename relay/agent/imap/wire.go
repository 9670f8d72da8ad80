package imap

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
)

// Bounds of what a server may say, in bytes. Ours: far above what a count needs.
const (
	// maxResponse bounds a response with its literals. A SEARCH may be longer: it
	// is not kept.
	maxResponse = 64 << 10
	// maxBetween bounds what comes between two commands: the numbers of half a
	// million unread messages.
	maxBetween = 4 << 20
)

// errTooLarge: the server said more than a count can need.
var errTooLarge = errors.New("the server's answer is too large")

// wire is a connection between the server and go-imap. It reads the server's
// responses liberally and hands on those that a count needs, each in the one
// form that RFC 9051 has for it:
//
//	server --"*  STATUS {5}\r\nINBOX (UNSEEN 3 )"--> wire --`* STATUS "INBOX" (UNSEEN 3)`--> go-imap
//
// Everything else is dropped, so that a strange flag list ends no connection,
// and nothing is kept that is large. That a selected folder has changed, and
// that STATUS responses came that nobody asked for (RFC 5465), is told in changed
// and in seen, because go-imap 2.0.0-beta.8 does not tell the second.
//
// A command that go-imap lacks takes the place of a NOOP, whose tag and answer
// it gets; so the client's own bookkeeping holds.
type wire struct {
	net.Conn

	changed chan struct{} // one slot: the selected folder has changed
	seen    atomic.Uint64 // STATUS responses
	wake    chan struct{} // one slot: another one was seen

	folders map[string]string // the names of configured folders in every form, and what go-imap calls them

	mu      sync.Mutex // guards what follows, which writer and reader share
	instead string     // takes the place of the next NOOP; empty: nothing does
	search  string     // the tag of the newest SEARCH
	found   uint64     // messages that its answer has named
	exists  uint64     // messages of the selected folder; unknownExists: not told yet
	read    int        // bytes since the last command

	in  *bufio.Reader // the reader's, as what follows
	lex lexer         // the response that is being read
	out []byte        // canonical, and not read by the client yet
}

// unknownExists: the folder was opened, and its size was not told yet.
const unknownExists = 1 << 63

func newWire(conn net.Conn, folders []string) *wire {
	w := &wire{
		Conn: conn, changed: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		folders: make(map[string]string), in: bufio.NewReader(conn),
	}
	for _, f := range folders {
		w.folders[f], w.folders[encodeName(f)] = encodeName(f), encodeName(f)
	}
	return w
}

// replace has command sent in the place of the next NOOP.
func (w *wire) replace(command string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.instead = command
}

// Write implements net.Conn. The client writes a short command at once.
func (w *wire) Write(p []byte) (int, error) {
	tag, rest, _ := bytes.Cut(p, []byte(" "))
	verb, _, _ := bytes.Cut(bytes.TrimRight(rest, "\r\n"), []byte(" "))
	w.mu.Lock()
	w.read = 0
	command := ""
	switch string(verb) {
	case "NOOP":
		command, w.instead = w.instead, ""
	case "SEARCH":
		w.search, w.found = string(tag), 0
	case "EXAMINE":
		w.exists = unknownExists
	}
	w.mu.Unlock()
	if command == "" {
		return w.Conn.Write(p)
	}
	if _, err := w.Conn.Write([]byte(string(tag) + " " + command + "\r\n")); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Read implements net.Conn.
func (w *wire) Read(p []byte) (int, error) {
	for len(w.out) == 0 {
		if err := w.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, w.out)
	w.out = w.out[n:]
	return n, nil
}

// say adds a line to what the client reads.
func (w *wire) say(format string, args ...any) {
	w.out = fmt.Appendf(w.out, format+"\r\n", args...)
}

// next reads one response and says what of it the client needs.
func (w *wire) next() error {
	w.out = w.out[:0]
	l, err := w.response()
	if err != nil {
		return err
	}
	switch tag := l.word(); {
	case tag == "":
	case tag[0] == '+':
		w.say("+ %s", strings.TrimPrefix(text(l.rest()), "-"))
	case tag == "*":
		return w.data(l)
	default:
		kind := strings.ToUpper(l.word())
		if kind != "OK" && kind != "NO" && kind != "BAD" || strings.ContainsFunc(tag, notTag) {
			return fmt.Errorf("the server answers %.20q", tag+" "+kind)
		}
		w.condition(tag, kind, l)
	}
	return nil
}

// notTag says whether a character is in none of go-imap's tags.
func notTag(r rune) bool {
	return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
}

// response reads one response. A SEARCH comes without its numbers.
func (w *wire) response() (*lexer, error) {
	l := &w.lex
	l.reset()
	for {
		more, err := w.line(l)
		if err != nil {
			return nil, err
		}
		if more {
			return l, w.drain(l)
		}
		n, ok := literal(l.text)
		if !ok || l.human() {
			return l, nil
		}
		if n > maxResponse-len(l.text) {
			return nil, errTooLarge
		}
		value := make([]byte, n)
		if err := w.took(n); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(w.in, value); err != nil {
			return nil, err
		}
		l.literals = append(l.literals, string(value))
		l.text = append(l.text[:bytes.LastIndexByte(l.text, '{')], literalMark)
	}
}

// line adds a line to l, without its end. It says whether there is more of it
// that l does not hold.
func (w *wire) line(l *lexer) (more bool, err error) {
	for {
		part, err := w.in.ReadSlice('\n')
		if err := w.took(len(part)); err != nil {
			return false, err
		}
		l.add(part)
		switch {
		case err == nil:
			l.text = bytes.TrimRight(l.text, "\r\n")
			return false, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return false, err
		case len(l.text) > maxResponse && !l.search():
			return false, errTooLarge
		case len(l.text) > maxResponse:
			return true, nil
		}
	}
}

// drain counts the numbers of a SEARCH to its end, keeping none.
func (w *wire) drain(l *lexer) error {
	n, partial := uint64(0), true // l may have ended in the middle of a number
	for {
		b, err := w.in.ReadByte()
		if err != nil {
			return err
		}
		if err := w.took(1); err != nil {
			return err
		}
		switch {
		case b == '\n':
			l.further = n
			return nil
		case b == '(':
			l.nested = true
		case b >= '0' && b <= '9' && !partial && !l.nested:
			n, partial = n+1, true
		case b == ' ':
			partial = false
		}
	}
}

// took notes that n bytes were read.
func (w *wire) took(n int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.read += n; w.read > maxBetween {
		return errTooLarge
	}
	return nil
}

// literal returns the length of the literal that a line ends with.
func literal(line []byte) (n int, ok bool) {
	open := bytes.LastIndexByte(line, '{')
	if open < 0 || line[len(line)-1] != '}' {
		return 0, false
	}
	digits := bytes.TrimSuffix(line[open+1:len(line)-1], []byte("+"))
	if len(digits) == 0 {
		return 0, false
	}
	for _, d := range digits {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = min(n*10+int(d-'0'), 1<<40)
	}
	return n, true
}

// data takes what the server sends untagged.
func (w *wire) data(l *lexer) error {
	first := l.word()
	if n, ok := number(first); ok {
		w.message(n, strings.ToUpper(l.word()))
		return nil
	}
	switch kind := strings.ToUpper(first); kind {
	case "OK", "NO", "BAD", "BYE", "PREAUTH":
		w.condition("*", kind, l)
	case "CAPABILITY":
		w.say("* CAPABILITY %s", capabilities(l))
	case "STATUS":
		w.folder(l)
	case "SEARCH":
		w.numbers(l)
	case "ESEARCH":
		w.extended(l)
	case "VANISHED":
		notify(w.changed)
	}
	return nil
}

// message takes what the server says of messages of the selected folder.
func (w *wire) message(n uint64, kind string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch kind {
	case "EXISTS":
		if n == w.exists {
			return // some say it at each command
		}
		w.exists = n
	case "EXPUNGE":
		if w.exists != unknownExists && w.exists > 0 {
			w.exists--
		}
	case "FETCH":
	default:
		return
	}
	notify(w.changed)
}

// condition says a status response (RFC 9051, section 7.1): of its code what is
// understood, and of its text what can be printed.
func (w *wire) condition(tag, kind string, l *lexer) {
	code, human := cutCode(l.rest())
	if code == "" {
		w.say("%s %s %s", tag, kind, text(human))
		return
	}
	inner := &lexer{text: []byte(code)}
	name := strings.ToUpper(inner.word())
	switch name {
	case "CAPABILITY":
		code = name + " " + capabilities(inner)
	case "UIDVALIDITY", "HIGHESTMODSEQ":
		n, ok := number(inner.word())
		if !ok || name == "UIDVALIDITY" && n >= 1<<32 || n >= 1<<63 {
			code = "X-" + name
			break
		}
		code = fmt.Sprintf("%s %d", name, n)
	case "PERMANENTFLAGS", "UIDNEXT", "APPENDUID", "COPYUID":
		code = "X-" + name // what they say is not needed
	default:
		code = atom(name)
	}
	w.say("%s %s [%s] %s", tag, kind, code, text(human))
}

// folder says a STATUS response with the items that are numbers.
func (w *wire) folder(l *lexer) {
	w.seen.Add(1)
	notify(w.wake)
	name, ok := w.canonical(l.word())
	if !ok {
		return // of another folder; only that it came matters
	}
	var items []string
	item := ""
	for word := l.word(); word != ""; word = l.word() {
		n, ok := number(word)
		switch item {
		case "UNSEEN", "UIDVALIDITY":
			ok = ok && n < 1<<32
		case "HIGHESTMODSEQ":
			ok = ok && n < 1<<63
		default:
			ok = false
		}
		if ok {
			items = append(items, fmt.Sprintf("%s %d", item, n))
		}
		item = strings.ToUpper(word)
	}
	if len(items) > 0 {
		w.say("* STATUS %s (%s)", quote(name), strings.Join(items, " "))
	}
}

// canonical returns what go-imap calls a configured folder, however the server
// writes it.
func (w *wire) canonical(name string) (string, bool) {
	if strings.EqualFold(name, inbox) {
		return inbox, true
	}
	known, ok := w.folders[name]
	return known, ok
}

// numbers says how many messages a SEARCH response names.
func (w *wire) numbers(l *lexer) {
	n := l.further
	for {
		word := l.word()
		if word == "" || l.depth > 0 { // (MODSEQ 917162500)
			break
		}
		if _, ok := number(word); ok {
			n++
		}
	}
	w.mu.Lock()
	w.found += n
	tag, found := w.search, w.found
	w.mu.Unlock()
	if tag != "" {
		w.say(`* ESEARCH (TAG "%s") COUNT %d`, tag, min(found, 1<<31-1))
	}
}

// extended says the count of an ESEARCH response (RFC 9051, section 7.3.4). An
// answer without one has found nothing.
func (w *wire) extended(l *lexer) {
	count, tag := uint64(0), ""
	for {
		word := l.word()
		if word == "" {
			break
		}
		switch strings.ToUpper(word) {
		case "TAG":
			tag = l.word()
		case "COUNT":
			if n, ok := number(l.word()); ok {
				count = n
			}
		}
	}
	w.mu.Lock()
	mine := w.search
	w.mu.Unlock()
	if mine != "" && (tag == "" || tag == mine) {
		w.say(`* ESEARCH (TAG "%s") COUNT %d`, mine, min(count, 1<<31-1))
	}
}
