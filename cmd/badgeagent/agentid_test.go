package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"badgerelay/cmd/internal/command"
	"badgerelay/relay/agent"
)

// TestAgentIDIsKept is the same over restarts, and another in another directory.
func TestAgentIDIsKept(t *testing.T) {
	in := func(dir string) *app {
		return &app{Terminal: &command.Terminal{Out: io.Discard, Err: io.Discard}, dir: dir}
	}
	dir := filepath.Join(t.TempDir(), "badgeagent")
	first, err := in(dir).agentID("")
	must(t, err)
	if host := hostName(); first == "" || len(first) > agent.MaxAgentIDBytes || !strings.HasPrefix(first, host[:min(len(host), 64)]+"-") {
		t.Errorf("the id is %q, want the host's name and something random", first)
	}
	again, err := in(dir).agentID("")
	must(t, err)
	if again != first {
		t.Errorf("the next start calls itself %q, want %q", again, first)
	}
	other, err := in(t.TempDir()).agentID("")
	must(t, err)
	if other == first {
		t.Errorf("agents of two directories are both called %q", other)
	}
	if configured, err := in(dir).agentID("mail1"); err != nil || configured != "mail1" {
		t.Errorf("got %q, %v, want the configured id", configured, err)
	}
}

// TestAgentIDThatCannotBeKept says what would do without.
func TestAgentIDThatCannotBeKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	a := &app{dir: filepath.Join(file, "badgeagent")}
	if id, err := a.agentID(""); err == nil || !strings.Contains(err.Error(), "agent_id") {
		t.Errorf("got %q, %v, want an error that names agent_id", id, err)
	}
}
