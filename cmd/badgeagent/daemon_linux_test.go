package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"badgerelay/cmd/internal/command"
)

// TestAStartThatHangsDoesNotHoldUpTheEnd has the configuration be where nothing comes
// from, as on a file system that is away.
func TestAStartThatHangsDoesNotHoldUpTheEnd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "badgeagent.yaml")
	must(t, syscall.Mkfifo(file, 0o600))
	w, err := os.OpenFile(file, os.O_RDWR, 0)
	must(t, err)
	defer w.Close() // so that the reader ends
	late := time.AfterFunc(10*time.Second, func() {
		t.Error("what the start reads holds up the end")
		_ = w.Close() // the test has failed already
	})
	defer late.Stop()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	a := &app{Terminal: &command.Terminal{Out: io.Discard, Err: new(bytes.Buffer)}, dir: t.TempDir()}
	if err := a.runDaemon(ctx, file); err != nil {
		t.Errorf("runDaemon: %v", err)
	}
}
