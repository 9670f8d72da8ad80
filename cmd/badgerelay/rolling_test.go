package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"badgerelay/relay/agent"
	"badgerelay/relay/registry/postgrestest"
)

// rollingRelays share one PostgreSQL, and rollingAgents are spread over them.
const (
	rollingRelays = 3
	rollingAgents = 6
)

// rollingRounds, in the environment, has the relays replaced more often, and
// delays judged; make upgrade sets it.
const rollingRounds = "UPGRADE_TEST_ROUNDS"

// TestRollingUpgrade replaces three relays one after the other by another
// version while counts change, and then goes back the same way. In the end one
// is killed.
func TestRollingUpgrade(t *testing.T) {
	database := postgrestest.Start(t)
	s, running := newSwap(t, rollingRelays, rollingAgents, fmt.Sprintf("relay: {coalescing_window: 50ms}\nregistry: {url: %q}", database.URL(database.Database())))
	s.subscribeAll(t)
	stop := s.load(t)
	s.untilShown(t, swapMailboxes)
	rounds, judged := 1, false
	if n, err := strconv.Atoi(os.Getenv(rollingRounds)); err == nil {
		rounds, judged = n, true
	}
	for range rounds {
		for _, version := range []string{"next", "previous"} {
			s.roll(t, running, version)
		}
	}
	p999 := s.report(t, fmt.Sprintf("%d relays replaced", 2*rounds*rollingRelays))
	if judged && p999 > 2*time.Second {
		t.Errorf("badges were behind for %v at the 99.9th percentile, want 2 s at most", p999)
	}
	if took := s.lose(t, running[0]); judged && took > 5*time.Second {
		t.Errorf("agents were at another relay after %v, want seconds", took)
	}
	stop()
	s.settle(t)
}

// lose kills the first relay, and returns how long it takes until its agents are
// at the others.
func (s *swap) lose(t *testing.T, relay *exec.Cmd) time.Duration {
	t.Helper()
	began := time.Now()
	send(t, relay, syscall.SIGKILL)
	_ = relay.Wait() // killed
	soon(t, "every agent is at another relay", func() bool {
		for _, a := range s.agents {
			if st := a.Status(); !st.Connected || st.Address == s.addresses[0] {
				return false
			}
		}
		return true
	})
	return time.Since(began)
}

// roll replaces each relay in turn. Agents are told of it beforehand, and meet
// no error.
func (s *swap) roll(t *testing.T, running []*exec.Cmd, version string) {
	t.Helper()
	for i, old := range running {
		send(t, old, syscall.SIGTERM)
		if err := old.Wait(); err != nil {
			t.Errorf("relay %d ended with %v, want 0", i, err)
		}
		running[i] = s.begin(t, i, asVersion+"="+version)
		s.mu.Lock()
		shown := len(s.behind)
		s.mu.Unlock()
		s.untilShown(t, shown+swapMailboxes/4)
	}
	told := s.kinds()
	for _, kind := range told {
		if kind != agent.FailureDraining {
			t.Errorf("agents were told %v, want nothing but drain notices", told)
			break
		}
	}
	if len(told) < len(s.agents) {
		t.Errorf("agents were told %d times that a relay leaves, want %d at least", len(told), len(s.agents))
	}
	for i, a := range s.agents {
		if st := a.Status(); !st.Connected || st.Relay != version {
			t.Errorf("agent %d is at %+v, want a relay of version %s", i, st, version)
		}
	}
}
