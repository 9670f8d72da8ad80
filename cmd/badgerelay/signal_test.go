package main

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "badgerelay/proto/badgerelay/v1"

	"badgerelay/cmd/internal/buildinfo"
	"badgerelay/cmd/internal/command"
)

// asProgram, set in the environment, makes the test binary the program itself,
// and asVersion one of another version.
const (
	asProgram = "BADGERELAY_TEST_AS_PROGRAM"
	asVersion = "BADGERELAY_TEST_AS_VERSION"
)

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		buildinfo.Version = os.Getenv(asVersion)
		main()
	}
	os.Exit(m.Run())
}

// program starts the real program and returns it with the lines of its log.
func program(t *testing.T, args ...string) (*exec.Cmd, <-chan string) {
	t.Helper()
	return programWith(t, nil, args...)
}

// programWith is program with more in its environment.
func programWith(t *testing.T, environment []string, args ...string) (*exec.Cmd, <-chan string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), exe, args...)
	c.Env = append(append(os.Environ(), asProgram+"=1"), environment...)
	log, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 1000)
	go func() { // ends with the program
		defer close(lines)
		for s := bufio.NewScanner(log); s.Scan(); {
			lines <- s.Text()
		}
	}()
	return c, lines
}

func waitLine(t *testing.T, lines <-chan string, part string) {
	t.Helper()
	timeout := time.After(testTimeout)
	for {
		select {
		case line, more := <-lines:
			if strings.Contains(line, part) {
				return
			}
			if !more {
				t.Fatalf("the program ended before it said %q", part)
			}
		case <-timeout:
			t.Fatalf("the program never said %q", part)
		}
	}
}

func send(t *testing.T, c *exec.Cmd, s os.Signal) {
	t.Helper()
	if err := c.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// sendUntilEnd repeats the signal until the program has ended: the first ones
// may come while the program still gives back the handling of signals.
func sendUntilEnd(t *testing.T, c *exec.Cmd, s os.Signal) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }() // ends with the program
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		_ = c.Process.Signal(s) // it may have ended just now
		select {
		case err := <-ended:
			return err
		case <-again.C:
		}
	}
}

func TestFirstSignalDrains(t *testing.T) {
	f := newFiles(t)
	c, lines := program(t, "serve", "--config", f.base(t, ""))
	waitLine(t, lines, "msg=serving")
	send(t, c, syscall.SIGHUP)
	waitLine(t, lines, "reloaded")
	send(t, c, syscall.SIGTERM)
	waitLine(t, lines, "msg=stopped")
	if err := c.Wait(); err != nil {
		t.Errorf("the program ended with %v, want 0", err)
	}
}

// TestAHangupEndsACommand: closing its terminal leaves no command that waits.
func TestAHangupEndsACommand(t *testing.T) {
	f := newFiles(t)
	file := f.base(t, "")
	s := serve(t, file)
	want(t, command.Done, "is enrolled", "organization", "add", "fabrikam.com", "--admin", s.Admin)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	c := exec.CommandContext(ctx, exe, "subscription", "import", "--organization", "fabrikam.com", "--admin", s.Admin, "-")
	c.Env = append(os.Environ(), asProgram+"=1")
	in, err := c.StdinPipe() // stays open: more may come
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(make([]byte, 128<<10)); err != nil { // more than a pipe holds: it is being read then
		t.Fatal(err)
	}
	send(t, c, syscall.SIGHUP)
	err = c.Wait()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGHUP {
		t.Errorf("the import ended with %v, want it killed by SIGHUP", err)
	}
}

func TestSecondSignalKills(t *testing.T) {
	f := newFiles(t)
	c, lines := program(t, "serve", "--config", f.base(t, ""))
	waitLine(t, lines, "msg=serving")
	// An operator's import that does not end holds up the stop for seconds.
	conn, err := grpc.NewClient("unix:"+f.path("admin.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() // nothing more comes
	admin := pb.NewAdminServiceClient(conn)
	if _, err := admin.ImportSubscriptions(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.GetStatus(t.Context(), &pb.GetStatusRequest{}); err != nil { // the import came before it
		t.Fatal(err)
	}
	send(t, c, syscall.SIGTERM)
	waitLine(t, lines, "step=ingest")
	err = sendUntilEnd(t, c, syscall.SIGTERM)
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("the program ended with %v, want it killed by the second signal", err)
	}
}

// TestCrashIsNoBadConfiguration aborts the program as systemd's watchdog does,
// with the environment of the unit: it has to end otherwise than with the exit
// code of a bad configuration, which is never started again.
func TestCrashIsNoBadConfiguration(t *testing.T) {
	unit, err := os.ReadFile("../../deploy/systemd/badgerelay.service")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(unit)) {
		if setting, found := strings.CutPrefix(strings.TrimSpace(line), "Environment="); found {
			name, value, _ := strings.Cut(setting, "=")
			t.Setenv(name, value)
		}
	}
	f := newFiles(t)
	c, lines := program(t, "serve", "--config", f.base(t, ""))
	waitLine(t, lines, "msg=serving")
	send(t, c, syscall.SIGABRT)
	waitLine(t, lines, "goroutine ")
	for range lines { // the rest of the trace
	}
	exit, ok := errors.AsType[*exec.ExitError](c.Wait())
	if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGABRT {
		t.Errorf("the program ended with %v, want it killed by SIGABRT", exit)
	}
}
