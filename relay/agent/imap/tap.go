package imap

import (
	"bytes"
	"net"
	"sync"
	"sync/atomic"
)

// tap is a connection that adds to go-imap what its version 2.0.0-beta.8 lacks
// for NOTIFY (RFC 5465): it sends the command, and it notices the STATUS
// responses that nobody asked for, which the client drops.
//
// The command takes the place of a NOOP, whose tag and answer it gets; so the
// client's own bookkeeping holds.
type tap struct {
	net.Conn

	seen atomic.Uint64 // STATUS responses
	wake chan struct{} // one slot: another one was seen

	mu      sync.Mutex // guards instead
	instead string     // takes the place of the next NOOP; empty: nothing does

	matched int // bytes of the line that are statusPrefix's; belongs to the reader
}

func newTap(conn net.Conn) *tap { return &tap{Conn: conn, wake: make(chan struct{}, 1)} }

const statusPrefix = "* STATUS "

// replace has command sent in the place of the next NOOP.
func (t *tap) replace(command string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.instead = command
}

// Write implements net.Conn. The client writes a short command at once.
func (t *tap) Write(p []byte) (int, error) {
	tag, isNoop := bytes.CutSuffix(p, []byte(" NOOP\r\n"))
	if !isNoop {
		return t.Conn.Write(p)
	}
	t.mu.Lock()
	command := t.instead
	t.instead = ""
	t.mu.Unlock()
	if command == "" {
		return t.Conn.Write(p)
	}
	if _, err := t.Conn.Write([]byte(string(tag) + " " + command + "\r\n")); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Read implements net.Conn.
func (t *tap) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	for _, b := range p[:n] {
		t.look(b)
	}
	return n, err
}

// look follows the lines of the server's answers.
func (t *tap) look(b byte) {
	switch {
	case b == '\n':
		t.matched = 0
	case t.matched >= len(statusPrefix):
		return
	case upper(b) != statusPrefix[t.matched]:
		t.matched = len(statusPrefix) // not this line
	default:
		if t.matched++; t.matched == len(statusPrefix) {
			t.seen.Add(1)
			notify(t.wake)
		}
	}
}

func upper(b byte) byte {
	if 'a' <= b && b <= 'z' {
		return b - 'a' + 'A'
	}
	return b
}

// notify fills a one-slot channel.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
