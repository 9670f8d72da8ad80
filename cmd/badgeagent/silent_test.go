package main

import (
	"net"
	"strings"
	"testing"

	"badgerelay/cmd/internal/command"
)

// silent returns the address of a port where connections are taken, and nothing is said.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// TestNobodyAnswers has each command that calls a relay meet one that stays silent: it says
// so, and claims nothing else.
func TestNobodyAnswers(t *testing.T) {
	c, r := enrolled(t)
	where := silent(t)
	at := []string{"--relay", where, "--timeout", "300ms"}
	for _, test := range []struct {
		want string
		args []string
	}{
		{"not settled within --timeout: ann: no relay answers at " + where, append([]string{"publish", "ann=1"}, at...)},
		{"not settled within --timeout: ann: no relay answers at " + r.address, []string{"publish", "ann=1", "--timeout", "1ms"}},
		{"no relay answers at " + where, append([]string{"subscription", "list"}, at...)},
		{"no relay answers at " + where, append([]string{"subscription", "add", "--mailbox", "ann@x", "--app", "mail", "--device-token", "ab"}, at...)},
		{"no relay answers at " + where, append([]string{"device", "set", "--none", "--app", "mail", "--device-token", "ab"}, at...)},
		{"No relay can be asked from here: no relay answers at " + where, append([]string{"explain", "ann"}, at...)},
		{"nothing answers at " + where, []string{"auth-server", "set", "--metadata-url", "https://" + where + "/metadata/json/1?realm=fabrikam.com", "--timeout", "300ms"}},
	} {
		code, out, stderr := c.run(test.args...)
		if said := out + stderr; code != command.Unreachable || !strings.Contains(said, test.want) || strings.Contains(said, "the relay has it") {
			t.Errorf("%v: exit code %d, want %d; %q, want %q in it", test.args, code, command.Unreachable, said, test.want)
		}
	}
}

// TestWaitingForAnAnswer says after a while what it waits for.
func TestWaitingForAnAnswer(t *testing.T) {
	t.Parallel() // it waits
	c, _ := enrolled(t)
	where := silent(t)
	if _, _, stderr := c.run("publish", "ann=1", "--relay", where, "--timeout", "2500ms"); !strings.Contains(stderr, "warning: waiting up to 2.5s for a relay to answer at "+where+"\n") {
		t.Errorf("it says %q", stderr)
	}
}

// TestOneRelayOfTwoIsDown is told of that one alone.
func TestOneRelayOfTwoIsDown(t *testing.T) {
	c, r := enrolled(t)
	code, out, stderr := c.run("publish", "ann=0", "--relay", "127.0.0.1:1", "--relay", r.address)
	if code != 0 || out != "ann=0 no_subscription\n" || !strings.Contains(stderr, "no relay listens at 127.0.0.1:1;") {
		t.Errorf("exit code %d, %q, %q", code, out, stderr)
	}
}
