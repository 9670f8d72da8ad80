package main

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/rig/rigtest"
	"badgerelay/cmd/internal/testbed/chaos"
	"badgerelay/relay/registry/postgrestest"
)

// chaosOf runs testbed chaos on few mailboxes for seconds, and returns the result that
// it prints. The command must leave nothing behind.
func chaosOf(t *testing.T, args ...string) *chaos.Result {
	t.Helper()
	rigtest.Clean(t)
	var out, said bytes.Buffer
	args = append([]string{"chaos", "--bin", rigtest.Programs(t), "--mailboxes", "40", "--devices-per-mailbox", "2", "--rate", "100",
		"--duration", "4s", "--sites", "1"}, args...)
	if code := testbed(t, &out, &said, args...); code != command.Done {
		t.Fatalf("exit code %d: %s%s", code, &said, &out)
	}
	r := &chaos.Result{}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), r); err != nil {
		t.Fatalf("the last line is no JSON: %v in %s", err, &out)
	}
	if r.Wrong > 0 || r.Foreign > 0 || len(r.Problems) > 0 {
		t.Errorf("%d wrong badges, %d foreign ones, problems %v; want none", r.Wrong, r.Foreign, r.Problems)
	}
	if r.Events < 100 || r.Accepted < 40 {
		t.Errorf("hardly anything happened: %+v", r)
	}
	return r
}

// testbed runs a command line and returns its exit code.
func testbed(t *testing.T, out, said io.Writer, args ...string) int {
	t.Helper()
	terminal := &command.Terminal{Out: out, Err: said}
	return command.Run(t.Context(), root(terminal), terminal, args)
}

// TestChaos is a short run; make chaos makes long ones.
func TestChaos(t *testing.T) {
	r := chaosOf(t, "--seed", "11", "--shared", "0.25")
	if r.Kills < 1 || r.Seed != 11 || r.Seconds != 4 {
		t.Errorf("%d kills in %v s with seed %d, want some in 4 with 11", r.Kills, r.Seconds, r.Seed)
	}
	if r.Shared != 20 {
		t.Errorf("%d of 80 devices are shared, want a quarter", r.Shared)
	}
}

// TestChaosOfSeveralRelays is a short run with everything that several relays
// have, among it a relay that is frozen and a database that fails over.
func TestChaosOfSeveralRelays(t *testing.T) {
	postgrestest.Need(t)
	r := chaosOf(t, "--relays", "2", "--registry", "postgres", "--seed", "3")
	if r.Steps[string(chaos.Freeze)] < 1 || r.Steps[string(chaos.FailOver)] < 1 || r.Kills < 1 {
		t.Errorf("steps %v, %d kills; want a frozen relay, a database that fails over and a kill in the schedule of this seed", r.Steps, r.Kills)
	}
	if r.Relays != 2 {
		t.Errorf("the result says %d relays, want 2", r.Relays)
	}
}

func TestFlagsThatMakeNoRunAreRefused(t *testing.T) {
	for _, args := range []string{
		"burst --events 0", "burst --mailboxes 0", "burst --mailboxes 20001", "burst more",
		"chaos --duration 10ms", "chaos --rate 0", "chaos --outage -1s", "chaos --organizations 9 --mailboxes 1000", "chaos --sites 0", "chaos --shared 2", "chaos --relays 17",
		"chaos --relays 0", "chaos --devices-per-mailbox 0", "chaos --registry mysql://x", "chaos --small-disk --registry postgres", "chaos --small-disk --relays 2", "chaos more",
	} {
		var out bytes.Buffer
		if code := testbed(t, &out, &out, append(strings.Fields(args), "--bin", "/nonexistent")...); code != command.Misused || strings.Contains(out.String(), "/nonexistent") {
			t.Errorf("testbed %s: exit code %d, %s; want %d, and what is wrong with it", args, code, &out, command.Misused)
		}
	}
}
