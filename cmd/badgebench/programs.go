package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/rig"
)

// relayProgram returns the path of the badgerelay to measure, and builds it as
// the Makefile does if none was named.
func (b *bench) relayProgram(ctx context.Context) (string, error) {
	if b.relay != "" {
		path, err := exec.LookPath(b.relay)
		if err != nil {
			return "", &command.UsageError{Err: fmt.Errorf("--badgerelay: %w", err)}
		}
		return filepath.Abs(path)
	}
	dir, err := os.MkdirTemp("", "badgebench-bin-")
	if err != nil {
		return "", fmt.Errorf("make a directory for badgerelay: %w", err)
	}
	b.built = dir
	path := filepath.Join(dir, "badgerelay")
	if err := rig.BuildRelay(ctx, path); err != nil {
		return "", &command.UsageError{Err: fmt.Errorf("build badgerelay (name a built one with --badgerelay): %w", err)}
	}
	b.relay = path
	return path, nil
}

// close removes what was built.
func (b *bench) close() {
	if b.built == "" {
		return
	}
	if err := os.RemoveAll(b.built); err != nil {
		b.say("badgebench: remove what was built: %v", err)
	}
}
