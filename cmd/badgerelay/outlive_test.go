package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"badgerelay/cmd/internal/command"
)

// A relay's log and its service manager may go away, or stop listening. Each of
// these takes what the relay writes its log to, and the manager's socket.
var readers = []struct {
	name  string
	after func(t *testing.T, serving *outliver) // what happens when it serves
	log   func(t *testing.T, o *outliver) *os.File
	stuck bool // the manager does not listen either
}{
	{name: "the log's reader ends", log: pipeOf, after: func(_ *testing.T, o *outliver) { _ = o.reader.Close() }}, // nobody reads any more
	{name: "the log's reader is stuck", log: fullPipe},
	{name: "log and manager are stuck", log: fullPipe, stuck: true},
	{name: "the log's disk is full", log: func(t *testing.T, _ *outliver) *os.File { return opened(t, "/dev/full") }},
	{name: "there is no log", log: func(*testing.T, *outliver) *os.File { return nil }},
}

// outliver is a relay as a process of its own.
type outliver struct {
	cmd    *exec.Cmd
	reader *os.File // of its log; nil: none
	admin  string
}

func opened(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() }) // the process has its own
	return f
}

// pipeOf is a pipe that somebody could read.
func pipeOf(t *testing.T, o *outliver) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	o.reader = r
	return w
}

// fullPipe is a pipe that takes nothing more.
func fullPipe(t *testing.T, o *outliver) *os.File {
	t.Helper()
	w := pipeOf(t, o)
	fill(t, int(w.Fd())) // Fd has made it blocking
	return w
}

// fill writes to a descriptor until it would have to wait.
func fill(t *testing.T, fd int) {
	t.Helper()
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	for size := 4096; size > 0; size /= 2 {
		for {
			if _, err := unix.Write(fd, make([]byte, size)); err != nil {
				if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOBUFS) {
					t.Fatal(err)
				}
				break
			}
		}
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
}

// stuckManager is a service manager whose socket is full.
func stuckManager(t *testing.T) (path string) {
	t.Helper()
	path = t.TempDir() + "/notify"
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = manager.Close() }) // nobody has read it
	for end := false; !end; {
		conn, err := net.Dial("unixgram", path)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)) // Write fails if this does
		_, err = conn.Write([]byte("WATCHDOG=1"))
		end = err != nil
		_ = conn.Close()
	}
	return path
}

// TestOutlivesItsLog has the reader of its log and its service manager fail a
// relay: it serves, is operated and drains as ever.
func TestOutlivesItsLog(t *testing.T) {
	for _, test := range readers {
		t.Run(test.name, func(t *testing.T) {
			f := newFiles(t)
			o := &outliver{admin: f.path("admin.sock")}
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			// The shell closes standard error where there is no log.
			script, log := `exec "$0" "$@"`, test.log(t, o)
			if log == nil {
				script += " 2>&-"
			}
			o.cmd = exec.CommandContext(t.Context(), "/bin/sh", "-c", script, exe, "serve", "--config", f.base(t, "log: {format: text, level: debug}\n"))
			o.cmd.Env = append(os.Environ(), asProgram+"=1")
			if test.stuck {
				o.cmd.Env = append(o.cmd.Env, "NOTIFY_SOCKET="+stuckManager(t), "WATCHDOG_USEC=1000000")
			}
			if log != nil {
				o.cmd.Stderr, o.cmd.Stdout = log, log
			}
			if err := o.cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- o.cmd.Wait() }() // ends with the process
			o.answers(t, ended)
			if test.after != nil {
				test.after(t, o)
			}
			for i := range 5 {
				send(t, o.cmd, syscall.SIGHUP) // a few lines of the log
				want(t, command.Done, "", "organization", "add", fmt.Sprintf("example-%d.com", i), "--admin", o.admin)
			}
			send(t, o.cmd, syscall.SIGTERM)
			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("the relay ended with %v, want 0", err)
				}
			case <-time.After(testTimeout):
				t.Error("the relay does not end")
				_ = o.cmd.Process.Kill() // so that the test does
				t.Logf("it ended with %v", <-ended)
			}
		})
	}
}

// TestDemoEndsWithItsReader has nobody read what a demonstration prints: it leaves
// nothing of what it made behind, keys among it.
func TestDemoEndsWithItsReader(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := exec.CommandContext(t.Context(), exe, "demo", "--check", "1s")
	c.Env = append(os.Environ(), asProgram+"=1", "TMPDIR="+dir)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = reader.Close() // nothing was read
	c.Stdout = writer
	if err := c.Run(); c.ProcessState.ExitCode() != command.Failed {
		t.Errorf("it ended with %v, want exit code 1", err)
	}
	_ = writer.Close() // it was the program's
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}

// answers waits until an operator is answered.
func (o *outliver) answers(t *testing.T, ended <-chan error) {
	t.Helper()
	deadline := time.Now().Add(testTimeout)
	for {
		code, out := execute(t, "organization", "list", "--admin", o.admin)
		if code == command.Done {
			return
		}
		select {
		case err := <-ended:
			t.Fatalf("the relay ended with %v before it served", err)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("the relay does not serve: %s", strings.TrimSpace(out))
		}
	}
}

// TestCommandEndsWithItsReader is about what is no daemon: in front of head it
// ends when head does.
func TestCommandEndsWithItsReader(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close() // the reader has seen enough
	c := exec.CommandContext(t.Context(), exe, "config", "example")
	c.Env = append(os.Environ(), asProgram+"=1")
	c.Stdout = w
	err = c.Run()
	_ = w.Close() // it had its own
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGPIPE {
		t.Errorf("the command ended with %v, want by SIGPIPE", err)
	}
}
