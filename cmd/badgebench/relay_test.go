package main

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"badgerelay/cmd/badgebench/internal/report"
	"badgerelay/cmd/internal/command"
	"badgerelay/cmd/internal/rig/names"
	"badgerelay/cmd/internal/rig/rigtest"
	"badgerelay/relay/registry/postgrestest"
)

// relayReport runs a command on a relay and returns its report. The command
// must leave nothing behind.
func relayReport(t *testing.T, args ...string) *report.Report {
	t.Helper()
	rigtest.Clean(t)
	return measured(t, args...)
}

// programs are the flags that name the programs of the tests.
func programs(t *testing.T) []string {
	t.Helper()
	dir := rigtest.Programs(t)
	return []string{"--badgerelay", filepath.Join(dir, "badgerelay"), "--apnssim", filepath.Join(dir, "apnssim")}
}

func TestRelayDeliversWhatItMeasures(t *testing.T) {
	r := relayReport(t, "relay", "--mailboxes", "2000", "--devices-per-mailbox", "2", "--duration", "1s", "--warmup", "200ms")
	for _, name := range []string{"badges_per_second", "relay_cpu_per_badge", "relay_resident", "settle_p99", "apns_cpu_per_badge", "agents_cpu_per_event"} {
		if f := figure(t, r, "", name); f <= 0 {
			t.Errorf("%s is %v", name, f)
		}
	}
	if f := figure(t, r, "", "events_per_push"); f > 0.6 || f < 0.4 {
		t.Errorf("%v events a push, want 0.5: each goes to two devices", f)
	}
	if r.Machine.Cores == 0 || r.Machine.Go == "" || r.Settings["mailboxes"] != "2000" {
		t.Errorf("machine %+v and settings %v are not told", r.Machine, r.Settings)
	}
}

func TestFleetMeasuresEveryAgent(t *testing.T) {
	r := relayReport(t, "fleet", "--agents", "130", "--rate", "400", "--duration", "2s", "--warmup", "500ms")
	for _, name := range []string{"relay_cpu_per_badge", "reads_per_event", "writes_per_event", "relay_push_p99", "settle_p50", "relay_resident_per_agent", "agents_cpu_per_event"} {
		if f := figure(t, r, "", name); f <= 0 {
			t.Errorf("%s is %v", name, f)
		}
	}
	if f := figure(t, r, "", "badges_per_second"); f < 100 || f > 800 {
		t.Errorf("%v badges a second, want about the offered 400", f)
	}
}

// TestFleetSendsBatches sees that ten events of an agent go in one message.
func TestFleetSendsBatches(t *testing.T) {
	r := relayReport(t, "fleet", "--agents", "10", "--organizations", "2", "--batch", "10", "--rate", "400", "--duration", "2s", "--warmup", "500ms")
	if f := figure(t, r, "", "reads_per_event"); f <= 0 || f > 2 {
		t.Errorf("%v reads an event, want less than 2, which events take that come alone", f)
	}
	if f := figure(t, r, "", "events_per_second"); f < 300 || f > 500 {
		t.Errorf("%v events a second, want about the offered 400", f)
	}
}

func TestFleetComesBack(t *testing.T) {
	r := relayReport(t, "fleet", "--agents", "30", "--organizations", "2", "--rate", "100", "--warmup", "500ms", "--reconnect")
	if f := figure(t, r, "", "start_to_settled"); f <= 0 {
		t.Errorf("the agents were back after %v s", f)
	}
	if f := figure(t, r, "", "refusals"); f != 0 {
		t.Errorf("%v agents were refused", f)
	}
}

func TestRelaysShareADatabase(t *testing.T) {
	postgrestest.Need(t)
	r := relayReport(t, "relay", "--relays", "3", "--mailboxes", "300", "--duration", "500ms", "--warmup", "200ms")
	for _, of := range []string{"relays: 1", "relays: 3"} {
		for _, name := range []string{"badges_per_second", "relay_cpu_per_badge", "relay_resident"} {
			if f := figure(t, r, of, name); f <= 0 {
				t.Errorf("%s: %s is %v", of, name, f)
			}
		}
	}
	if f := figure(t, r, "relays: 3", "relay_cpu_per_badge_to_one_relay"); f <= 0 {
		t.Errorf("three relays cost %v of what one does", f)
	}
}

func TestOneMailboxStaysWithinTheWindow(t *testing.T) {
	r := relayReport(t, "relay", "--mailboxes", "1", "--agents", "1", "--rate", "5000", "--coalescing-window", "200ms", "--duration", "1s", "--warmup", "200ms")
	if f := figure(t, r, "", "badges_per_second"); f < 1 || f > 6 {
		t.Errorf("%v pushes a second, want five windows' worth", f)
	}
	if f := figure(t, r, "", "events_per_second"); f < 1000 {
		t.Errorf("%v events a second, want about the offered 5000", f)
	}
}

func TestMorePushesThanWindowsAreAProblem(t *testing.T) {
	at := time.Now()
	sp := &sample{}
	sp.from.apple.Usage.At, sp.to.apple.Usage.At = at, at.Add(10*time.Second)
	once := &throughput{}
	once.Window = time.Second
	if most := once.mostPushes(sp, 3); most != 33 {
		t.Errorf("%v pushes to three devices are allowed in ten windows, want 33", most)
	}
}

// TestIngestAlone has events of mailboxes to which nobody is subscribed.
func TestIngestAlone(t *testing.T) {
	r := relayReport(t, "relay", "--devices-per-mailbox", "0", "--mailboxes", "200", "--duration", "500ms", "--warmup", "200ms")
	if f := figure(t, r, "", "relay_cpu_per_event"); f <= 0 {
		t.Errorf("an event costs %v us", f)
	}
	if f := figure(t, r, "", "badges_per_second"); f != 0 {
		t.Errorf("%v badges a second to no device", f)
	}
}

// TestHalfOfTheGreatestRate sees that what is offered is what comes, and that the
// relay's own part is told.
func TestHalfOfTheGreatestRate(t *testing.T) {
	r := relayReport(t, "relay", "--half", "--mailboxes", "500", "--duration", "2s", "--warmup", "200ms")
	offered, came := figure(t, r, "", "offered"), figure(t, r, "", "events_per_second")
	if offered <= 0 || came > 1.5*offered {
		t.Errorf("%v events a second came, and %v were offered", came, offered)
	}
	if f := figure(t, r, "", "relay_push_p99"); f <= 0 {
		t.Errorf("a push is at the socket after %v ms", f)
	}
}

func TestAnInterruptLeavesNothing(t *testing.T) {
	rigtest.Clean(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // in the middle of a measurement, or before it
	defer cancel()
	var out, said bytes.Buffer
	code := run(ctx, append(programs(t), "relay", "--mailboxes", "100", "--duration", "1h"), &out, &said)
	if code != command.Failed || !strings.Contains(said.String(), "interrupted") || out.Len() > 0 {
		t.Errorf("exit code %d, %q, report %q; want %d, why, and none", code, &said, &out, command.Failed)
	}
}

func TestWrongBadgesAreFound(t *testing.T) {
	versions := []uint32{3, 0}
	right := []uint32{names.Unread(0, 3), names.Unread(0, 3), 0, 0}
	if n, example := wrongBadges(right, versions, 2); n != 0 {
		t.Errorf("%d wrong badges, %s; want none", n, example)
	}
	for i := range right {
		shown := append([]uint32(nil), right...)
		shown[i]++
		if n, _ := wrongBadges(shown, versions, 2); n != 1 {
			t.Errorf("%d wrong badges with device %d's changed, want 1", n, i)
		}
	}
}

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{
		{"nonsense"}, {"relay", "--output", "xml"}, {"relay", "--repeat", "0"}, {"relay", "--agents", "3", "--mailboxes", "2"},
		{"relay", "--batch", "10001"}, {"relay", "--badgerelay", "/nonexistent/badgerelay"},
		{"apns", "--apnssim", "/nonexistent/apnssim"}, {"relay"}, {"apns"}, // no program is beside the test's
		{"relay", "--relays", "17"}, {"relay", "--registry", "mysql://x"},
		{"fleet", "--organizations", "0"}, {"fleet", "--agents", "9"}, {"fleet", "--agents", "20", "--organizations", "21"},
	} {
		var out, said bytes.Buffer
		if code := run(t.Context(), args, &out, &said); code != command.Misused || said.Len() == 0 {
			t.Errorf("badgebench %v = %d, %q; want %d and why", args, code, said.String(), command.Misused)
		}
	}
}
