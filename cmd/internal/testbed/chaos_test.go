package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"badgerelay/cmd/internal/rig/rigtest"
	"badgerelay/cmd/internal/testbed/chaos"
	"badgerelay/relay/registry/postgrestest"
)

// chaosOf runs testbed chaos on few mailboxes for seconds, and returns the figures
// that it prints and its last line. The command must leave nothing behind.
func chaosOf(t *testing.T, args ...string) (figures map[string]float64, last map[string]any) {
	t.Helper()
	rigtest.Clean(t)
	var out, said bytes.Buffer
	c := root(&out)
	c.SetErr(&said)
	c.SetArgs(append([]string{"chaos", "--bin", rigtest.Programs(t), "--mailboxes", "40", "--devices-per-mailbox", "2", "--rate", "100",
		"--duration", "4s", "--sites", "1"}, args...))
	if err := c.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("%v: %s%s", err, &said, &out)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	figures = map[string]float64{}
	for _, line := range lines[:len(lines)-1] {
		var name string
		var value float64
		if n, _ := fmt.Sscan(line, &name, &value); n == 2 { // or it is a time
			figures[name] = value
		}
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		t.Fatalf("the last line is no JSON: %v in %s", err, &out)
	}
	for _, name := range []string{"wrongBadges", "foreignBadges", "clientFaults", "problems"} {
		if n, ok := last[name]; !ok || n != 0.0 {
			t.Errorf("%s is %v in the last line, want 0", name, n)
		}
	}
	if figures["events"] < 100 || figures["accepted"] < 40 {
		t.Errorf("hardly anything happened: %v", figures)
	}
	return figures, last
}

// TestChaos is a short run; make chaos makes long ones.
func TestChaos(t *testing.T) {
	figures, last := chaosOf(t, "--seed", "11")
	if figures["kills"] < 1 || last["seed"] != 11.0 {
		t.Errorf("%v kills with seed %v, want some with 11", figures["kills"], last["seed"])
	}
}

// TestChaosOfSeveralRelays is a short run with everything that several relays
// have, among it a relay that is frozen and a database that fails over.
func TestChaosOfSeveralRelays(t *testing.T) {
	postgrestest.Need(t)
	figures, last := chaosOf(t, "--relays", "2", "--registry", "postgres", "--seed", "3")
	for _, name := range []string{"step_freeze_relay", "step_fail_over", "kills"} {
		if figures[name] < 1 {
			t.Errorf("%s is %v in the schedule of this seed, want some", name, figures[name])
		}
	}
	if last["relays"] != 2.0 {
		t.Errorf("the last line says %v relays, want 2", last["relays"])
	}
}

func TestChaosRefusesFlagsThatMakeNoRun(t *testing.T) {
	for _, args := range []string{
		"--duration 10ms", "--rate 0", "--outage -1s", "--organizations 9 --mailboxes 1000", "--sites 0", "--shared 2", "--relays 17",
		"--relays 0", "--devices-per-mailbox 0", "--registry mysql://x", "--small-disk --registry postgres", "--small-disk --relays 2", "more",
	} {
		var out bytes.Buffer
		c := root(&out)
		c.SetErr(&out)
		c.SetArgs(append([]string{"chaos", "--bin", "/nonexistent"}, strings.Fields(args)...))
		if err := c.ExecuteContext(t.Context()); err == nil || strings.Contains(err.Error(), "/nonexistent") {
			t.Errorf("chaos %s: %v, want what is wrong with it", args, err)
		}
	}
}

func TestChaosSaysWhatIsWrong(t *testing.T) {
	x := &chaosRun{relays: 1}
	x.Duration = time.Minute
	var out bytes.Buffer
	if err := x.print(&out, &chaos.Result{
		Steps: map[string]int{"kill_relay": 2}, Longest: 1500 * time.Millisecond, Wrong: 1, Problems: []string{"device 7 shows 3"},
	}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"PROBLEM: device 7 shows 3\n", "longest_behind  1.5s", "step_kill_relay", `"wrongBadges":1`, `"longestBehindSeconds":1.5`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("chaos prints %s, want %s in it", &out, want)
		}
	}
}
