package relay

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestSharedClock has readings of the shared clock, each with the time until it came,
// and looks how counts are dated in the end: in the order in which they were received.
func TestSharedClock(t *testing.T) {
	type reading struct {
		at, took time.Duration // on the relay's clock
		ahead    time.Duration // of the shared clock
	}
	const ms = time.Millisecond
	for _, c := range []struct {
		name     string
		readings []reading
		received []time.Duration // on the relay's clock
		dated    []time.Duration // the same, on the shared clock
	}{
		{"a slow reading", []reading{{10 * time.Second, 500 * ms, 0}}, []time.Duration{10 * time.Second}, []time.Duration{9500 * ms}},
		{"a better one", []reading{{10 * time.Second, 500 * ms, 0}, {11 * time.Second, ms, 0}}, []time.Duration{10 * time.Second}, []time.Duration{9999 * ms}},
		{"a worse one", []reading{{10 * time.Second, ms, 0}, {11 * time.Second, 500 * ms, 0}}, []time.Duration{10 * time.Second}, []time.Duration{9999 * ms}},
		{"a worse one, when the better is old", []reading{{10 * time.Second, ms, 0}, {41 * time.Second, 500 * ms, 0}},
			[]time.Duration{40500 * ms, 40600 * ms, 42 * time.Second}, []time.Duration{40499 * ms, 40599 * ms, 41500 * ms}},
		{"set forward", []reading{{10 * time.Second, ms, 0}, {20 * time.Second, ms, 2 * time.Second}, {21 * time.Second, 0, 2 * time.Second}},
			[]time.Duration{19 * time.Second, 21 * time.Second}, []time.Duration{18999 * ms, 23 * time.Second}},
		{"set back", []reading{{10 * time.Second, 0, 0}, {20 * time.Second, 0, -5 * time.Second}},
			[]time.Duration{19 * time.Second, 21 * time.Second, 26 * time.Second}, []time.Duration{19 * time.Second, 20 * time.Second, 21 * time.Second}},
		{"a year ahead, and right again", []reading{{10 * time.Second, 0, 365 * day}, {20 * time.Second, 0, 0}},
			[]time.Duration{19 * time.Second, 21 * time.Second}, []time.Duration{19 * time.Second, 21 * time.Second}},
		{"set forward twice", []reading{{10 * time.Second, 0, 0}, {20 * time.Second, 0, time.Second}, {30 * time.Second, 0, time.Hour}},
			[]time.Duration{5 * time.Second, 15 * time.Second, 25 * time.Second, 35 * time.Second},
			[]time.Duration{5 * time.Second, 15 * time.Second, 26 * time.Second, time.Hour + 35*time.Second}},
	} {
		var clock sharedClock
		began := time.Unix(1_700_000_000, 0)
		for _, r := range c.readings {
			clock.note(began.Add(r.at-r.took+r.ahead), int64(r.at-r.took), int64(r.at)) // read as it was sent
		}
		var dated []time.Duration
		for _, at := range c.received {
			dated = append(dated, clock.at(int64(at)).Sub(began))
		}
		if !slices.Equal(dated, c.dated) {
			t.Errorf("%s: what was received at %v is dated %v, want %v", c.name, c.received, dated, c.dated)
		}
	}
}

// TestReportAfterTheClockWasSet has an agent go to another relay within a second of a
// count; then the database's clock is set forward, as by a failover, and an operator
// asks the first relay about the mailbox.
func TestReportAfterTheClockWasSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := newMemoryRegistry()
		registry.subscribeToo(org, "a", phone(1))
		registry.subscribeToo(org, "b", phone(1))
		time.Sleep(time.Hour)
		one, two := newSharing(t, registry, "one"), newSharing(t, registry, "two")
		defer one.stop()
		defer two.stop()
		synctest.Wait()
		first := one.relay.OpenStream(org, "mx")
		one.submit(first, count("a", 4), count("b", 0))
		shows(5*time.Minute, one, two)
		one.submit(first, count("a", 5))
		shows(500*time.Millisecond, one, two)
		first.Close()
		second := two.relay.OpenStream(org, "mx")
		defer second.Close()
		two.submit(second, count("a", 7))
		shows(5*time.Minute, one, two)
		registry.setClock(2 * time.Second)
		shows(5*time.Minute, one, two)
		one.relay.Inspect(MailboxKey{org, "a"}, nil)
		if got := shows(5*time.Minute, one, two); len(got) > 0 {
			t.Errorf("after a report of the mailbox at relay one the device shows %v, and stays so; want 7", got)
		}
	})
}
