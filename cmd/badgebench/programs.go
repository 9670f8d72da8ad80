package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"badgerelay/cmd/badgebench/internal/clock"
	"badgerelay/cmd/internal/command"
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
	if err := b.makeBuilt(); err != nil {
		return "", err
	}
	path := filepath.Join(b.built, "badgerelay")
	if err := build(ctx, path); err != nil {
		return "", &command.UsageError{Err: fmt.Errorf("build badgerelay (name a built one with --badgerelay): %w", err)}
	}
	b.relay = path
	return path, nil
}

// steppedProgram builds a badgerelay whose clock can be stepped.
func (b *bench) steppedProgram(ctx context.Context) (string, error) {
	if b.stepped != "" {
		return b.stepped, nil
	}
	if err := b.makeBuilt(); err != nil {
		return "", err
	}
	overlay, err := clock.Overlay(ctx, b.built)
	if err != nil {
		return "", err
	}
	b.say("building a relay whose clock can be stepped; the first time, that takes some minutes")
	path := filepath.Join(b.built, "badgerelay-stepped")
	if err := build(ctx, path, "-overlay", overlay); err != nil {
		return "", fmt.Errorf("build badgerelay with a clock of its own: %w", err)
	}
	b.stepped = path
	return path, nil
}

// makeBuilt makes the directory for what is built.
func (b *bench) makeBuilt() (err error) {
	if b.built == "" {
		b.built, err = os.MkdirTemp("", "badgebench-bin-")
	}
	if err != nil {
		return fmt.Errorf("make a directory for badgerelay: %w", err)
	}
	return nil
}

// build builds badgerelay as the Makefile does.
func build(ctx context.Context, path string, flags ...string) error {
	args := append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", path}, flags...)
	c := exec.CommandContext(ctx, "go", append(args, "badgerelay/cmd/badgerelay")...)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
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
