package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"badgerelay/cmd/internal/command"
)

// program returns the path of a program that badgebench runs: what its flag says, or
// the one beside badgebench, where "make build" puts it.
func (b *bench) program(name, flag string) (string, error) {
	if flag != "" {
		found, err := exec.LookPath(flag)
		if err != nil {
			return "", command.Usage("--%s: %w", name, err)
		}
		return filepath.Abs(found)
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	found, err := exec.LookPath(filepath.Join(filepath.Dir(self), name))
	if err != nil {
		return "", command.Usage("there is no %s beside %s: run 'make build', which puts both into bin, or name one with --%s", name, self, name)
	}
	return found, nil
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
