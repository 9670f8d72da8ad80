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

// program returns the path of a program that badgebench runs. path is that of the
// flag with its name; if that is empty, the program is built as the Makefile does,
// once.
func (b *bench) program(ctx context.Context, name string, path *string) (string, error) {
	if *path != "" {
		found, err := exec.LookPath(*path)
		if err != nil {
			return "", &command.UsageError{Err: fmt.Errorf("--%s: %w", name, err)}
		}
		return filepath.Abs(found)
	}
	dir, err := b.temp()
	if err != nil {
		return "", err
	}
	built := filepath.Join(dir, name)
	if err := rig.Build(ctx, name, built); err != nil {
		return "", &command.UsageError{Err: fmt.Errorf("build %s (name a built one with --%s): %w", name, name, err)}
	}
	*path = built
	return built, nil
}

// temp returns a directory that close removes.
func (b *bench) temp() (string, error) {
	if b.dir == "" {
		dir, err := os.MkdirTemp("", "badgebench-")
		if err != nil {
			return "", fmt.Errorf("make a directory: %w", err)
		}
		b.dir = dir
	}
	return b.dir, nil
}

// close removes what badgebench wrote for itself.
func (b *bench) close() {
	if err := os.RemoveAll(b.dir); err != nil {
		b.say("badgebench: remove what was written: %v", err)
	}
}
