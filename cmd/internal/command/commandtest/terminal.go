package commandtest

import (
	"os"
	"testing"
)

// Terminal returns a pseudo-terminal. Where there is none, the test is skipped, and fails
// in CI.
func Terminal(t *testing.T) *os.File {
	t.Helper()
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil && os.Getenv("CI") != "" {
		t.Fatalf("needs a pseudo-terminal: %v", err)
	}
	if err != nil {
		t.Skipf("needs a pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { _ = terminal.Close() }) // nothing was written that could be lost
	return terminal
}
