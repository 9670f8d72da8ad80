package main

import (
	"context"
	"os"
	"testing"

	"badgerelay/cmd/internal/child"
)

// TestMain makes the test binary one of the processes of a measurement where
// badgebench starts itself as such.
func TestMain(m *testing.M) {
	if os.Getenv(child.RoleVariable) != "" {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	code := m.Run()
	if relayDir != "" {
		_ = os.RemoveAll(relayDir) // the system clears its temporary directory too
	}
	os.Exit(code)
}
