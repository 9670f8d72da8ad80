package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"badgerelay/cmd/internal/command"
	"badgerelay/relay/registry/postgrestest"
)

// listed is what status --all says of a relay.
type listed struct {
	Name, State, Heard string
	Status             struct {
		Instance, Version, NotReadyReason string
		Ready                             bool
		Apps                              []struct{ State string }
	}
}

// relayProcess is a relay that shares its registry.
type relayProcess struct {
	*exec.Cmd
	admin string // its socket
}

// startSharing starts a relay process on a database.
func startSharing(t *testing.T, url, app string) *relayProcess {
	t.Helper()
	f := newFiles(t)
	c, lines := program(t, "serve", "--config", f.base(t, fmt.Sprintf("registry: {url: %q}\n%s", url, app)))
	waitLine(t, lines, "msg=serving")
	go func() { // ends with the program
		for range lines {
			continue
		}
	}()
	return &relayProcess{c, f.path("admin.sock")}
}

// relays asks it for all of them.
func (r *relayProcess) relays(t *testing.T) (all []listed, registryFailed bool) {
	t.Helper()
	out := want(t, command.Done, "", "status", "--all", "--output", "json", "--admin", r.admin)
	var answer struct {
		Relays        []listed
		RegistryError string
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return answer.Relays, answer.RegistryError != ""
}

// states are those of all relays, by name, without what they begin with.
func states(all []listed) map[string]int {
	found := map[string]int{}
	for _, r := range all {
		found[strings.TrimPrefix(r.State, "RELAY_STATE_")]++
	}
	return found
}

// TestStatusOfAll has each of three relays tell of all three, one that stops and
// one that is killed among them.
func TestStatusOfAll(t *testing.T) {
	database := postgrestest.Start(t)
	name := database.Database()
	_, app := apple(t, newFiles(t))
	var relays []*relayProcess
	for range 3 {
		relays = append(relays, startSharing(t, database.URL(name), app))
	}
	for i, r := range relays {
		soon(t, fmt.Sprintf("relay %d tells of all", i), func() bool {
			all, _ := r.relays(t)
			return states(all)["READY"] == 3
		})
		all, _ := r.relays(t)
		here, instances := 0, map[string]bool{}
		for _, one := range all {
			if one.Heard == "" {
				here++
			}
			instances[one.Status.Instance] = true
			if one.Status.Version == "" || len(one.Status.Apps) != 1 || !strings.Contains(one.Name, "/127.0.0.1:") {
				t.Errorf("relay %d says little of a relay: %+v", i, one)
			}
		}
		if here != 1 || len(instances) != 3 {
			t.Errorf("relay %d tells of itself %d times, and of %d processes; want 1 and 3", i, here, len(instances))
		}
	}
	want(t, command.Done, "RELAY ", "status", "--all", "--admin", relays[0].admin)

	send(t, relays[1].Cmd, syscall.SIGTERM)
	if err := relays[1].Wait(); err != nil {
		t.Errorf("relay 1 ended with %v", err)
	}
	if err := relays[2].Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = relays[2].Wait()                                                                 // killed
	database.Exec(name, "UPDATE relays SET seen_at = seen_at - 21000 WHERE NOT stopped") // as if that long ago
	soon(t, "the one that is left tells what became of the others", func() bool {
		all, _ := relays[0].relays(t)
		found := states(all)
		return found["READY"] == 1 && found["STOPPED"] == 1 && found["SILENT"] == 1
	})
	want(t, command.Done, "silent", "status", "--all", "--admin", relays[0].admin)

	database.Stop()
	if all, failed := relays[0].relays(t); !failed || states(all)["NOT_READY"] != 1 || !strings.Contains(all[0].Status.NotReadyReason, "degraded") {
		t.Errorf("without the registry: %+v, failed %t; want this relay, and that others are not known", all, failed)
	}
	want(t, command.Done, "not known what it holds: registry unavailable", "status", "--admin", relays[0].admin)
	want(t, command.Done, "There may be other relays: registry unavailable", "status", "--all", "--admin", relays[0].admin)
}

// TestStatusOfOne: a relay with a file of its own knows of no other.
func TestStatusOfOne(t *testing.T) {
	s := serve(t, newFiles(t).base(t, ""))
	r := &relayProcess{admin: s.Admin}
	if all, failed := r.relays(t); len(all) != 1 || failed || all[0].State != "RELAY_STATE_READY" || all[0].Status.Instance != s.Instance {
		t.Errorf("got %+v, failed %t; want itself", all, failed)
	}
	want(t, command.Misused, "page", "status", "--all", "--page", "--admin", s.Admin)
	if code, _ := get(t, "http://"+s.Ops+"/status"); code != http.StatusOK {
		t.Errorf("the page answers %d", code)
	}
}
