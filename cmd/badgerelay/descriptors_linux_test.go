package main

import (
	"bufio"
	"crypto/tls"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"badgerelay/cmd/internal/command"
)

// noFiles has a process open no file more: it keeps those that it has, and new ones
// would have to be one of the first three. again lets it open files as before.
func noFiles(t *testing.T, c *exec.Cmd) (again func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Prlimit(c.Process.Pid, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		t.Fatal(err)
	}
	set := func(limit unix.Rlimit) {
		t.Helper()
		if err := unix.Prlimit(c.Process.Pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
			t.Fatal(err)
		}
	}
	set(unix.Rlimit{Cur: 3, Max: before.Max})
	return func() { t.Helper(); set(before) }
}

// TestFilesRunOut has a relay open no more files: it says so of each listener, goes on for
// the agents that it has, and lets the others in when there are files again.
func TestFilesRunOut(t *testing.T) {
	s, running := newSwap(t, 1, 1, "relay: {coalescing_window: 50ms}")
	s.subscribeAll(t)
	stop := s.load(t)
	s.untilShown(t, 2*swapMailboxes)
	again := noFiles(t, running[0])

	stranger, err := net.DialTimeout("tcp", s.addresses[0], testTimeout) // the system takes it, the relay can't
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	handshake := make(chan error, 1)
	go func() { // ends with the connection
		handshake <- tls.Client(stranger, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}).HandshakeContext(t.Context()) //nolint:gosec // who answers is not the question
	}()
	s.log.wait(t, "no connection can be accepted: too many files are open\" address="+s.addresses[0])
	operator := make(chan int, 1)
	go func() { // ends with the relay at the latest
		code, _ := execute(t, "organization", "list", "--admin", s.Admin)
		operator <- code
	}()
	s.log.wait(t, "no connection can be accepted: too many files are open\" address="+s.Admin)
	s.mu.Lock()
	shown := len(s.behind)
	s.mu.Unlock()
	s.untilShown(t, shown+2*swapMailboxes) // those that are here are served
	select {
	case err := <-handshake:
		t.Errorf("the handshake ended with %v while no file could be opened", err)
	default:
	}

	again()
	for what, done := range map[string]func() bool{
		"the stranger": func() bool { return <-handshake == nil },
		"the operator": func() bool { return <-operator == command.Done },
	} {
		in := make(chan bool, 1)
		go func() { in <- done() }() // ends with what it waits for
		select {
		case ok := <-in:
			if !ok {
				t.Errorf("%s was not served when there were files again", what)
			}
		case <-time.After(testTimeout):
			t.Errorf("%s still waits", what)
		}
	}
	stop()
	s.settle(t)
	send(t, running[0], syscall.SIGTERM)
	if err := running[0].Wait(); err != nil {
		t.Errorf("the relay ended with %v, want 0", err)
	}
}

// TestFewFilesAreSaidAtStart starts a relay that may open fewer files than its limit of
// connections needs.
func TestFewFilesAreSaidAtStart(t *testing.T) {
	f := newFiles(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), "/bin/sh", "-c", `ulimit -n 700; exec "$0" "$@"`, exe, "serve", "--config", f.base(t, "log: {format: text}\n"))
	c.Env = append(os.Environ(), asProgram+"=1")
	log, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.Process.Kill(), c.Wait() })
	lines := make(chan string, 1000)
	go func() { // ends with the program
		defer close(lines)
		for s := bufio.NewScanner(log); s.Scan(); {
			lines <- s.Text()
		}
	}()
	waitLine(t, lines, "fewer files may be open than limits.connections needs; fewer agents are let in\" connections=")
	waitLine(t, lines, "msg=serving")
}
