package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAgentIDAsConfigured(t *testing.T) {
	a := &app{dir: filepath.Join(t.TempDir(), "badgeagent")}
	if id, err := a.agentID("mail1"); err != nil || id != "mail1" {
		t.Errorf("got %q, %v, want the configured id", id, err)
	}
	if _, err := os.Stat(a.dir); err == nil {
		t.Error("an id was kept, too")
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
