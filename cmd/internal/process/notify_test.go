package process

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// manager is the socket on which systemd listens.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // nobody reads it any more
	t.Setenv("NOTIFY_SOCKET", path)
	return conn
}

// hear returns the next message, or "" when none comes within d.
func hear(t *testing.T, conn *net.UnixConn, d time.Duration) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		t.Fatal(err)
	}
	var buffer [256]byte
	n, err := conn.Read(buffer[:])
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return string(buffer[:n])
}

func TestStates(t *testing.T) {
	conn := manager(t)
	n := &Notifier{log: slog.New(slog.DiscardHandler)}
	for _, say := range []struct {
		f    func()
		want string
	}{{n.Ready, "READY=1"}, {n.Reloading, "RELOADING=1"}, {n.Stopping, "STOPPING=1"}} {
		say.f()
		if got := hear(t, conn, 10*time.Second); got != say.want {
			t.Errorf("told %q, want %q", got, say.want)
		}
	}
}

func TestWatchFallsSilentWithTheDaemon(t *testing.T) {
	conn := manager(t)
	t.Setenv("WATCHDOG_USEC", "40000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	ctx, cancel := context.WithCancel(t.Context())
	hangs, hang, done := make(chan struct{}), make(chan struct{}), make(chan error)
	calls := 0
	go func() { // ends with ctx
		done <- (&Notifier{log: slog.Default()}).Watch(ctx, func() {
			if calls++; calls == 4 {
				close(hangs)
				<-hang
			}
		})
	}()
	for i := range 3 {
		if got := hear(t, conn, 10*time.Second); got != "WATCHDOG=1" {
			t.Fatalf("message %d is %q, want a sign of life", i, got)
		}
	}
	<-hangs // whatever was said before has arrived
	if got := hear(t, conn, time.Millisecond); got != "" {
		t.Errorf("told %q while the daemon hung", got)
	}
	close(hang)
	if got := hear(t, conn, 10*time.Second); got != "WATCHDOG=1" {
		t.Errorf("told %q, want a sign of life again", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("watch returned %v", err)
	}
}

func TestWithoutSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	var out bytes.Buffer
	n := &Notifier{log: slog.New(slog.NewTextHandler(&out, nil))}
	n.Ready()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Watch(ctx, func() { t.Error("asked whether it is alive for nobody") }); err != nil || out.Len() > 0 {
		t.Errorf("watch: %v; logged %q, want silence", err, out.String())
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	if n.Ready(); !strings.Contains(out.String(), "service manager not told") {
		t.Errorf("logged %q, want that systemd was not told", out.String())
	}
}

// TestManagerThatDoesNotListen has the manager's socket be full: nobody waits
// for it, and when it is read again it is told what it missed.
func TestManagerThatDoesNotListen(t *testing.T) {
	conn := manager(t)
	other, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close() // the test is over
	for err == nil {
		_ = other.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)) // Write fails if this does
		_, err = other.Write([]byte("noise"))
	}
	n := &Notifier{log: slog.New(slog.DiscardHandler)}
	n.Reloading()
	n.Ready() // returns, and is owed
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- n.Watch(ctx, func() {}) }() // ends with ctx
	got := "noise"
	for got == "noise" {
		got = hear(t, conn, 10*time.Second)
	}
	if got != "READY=1" {
		t.Errorf("told %q when it listened again, want READY=1", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
