package main

import (
	"encoding/json"
	"testing"
	"time"

	"badgerelay/apns/apnstest"
	"badgerelay/cmd/internal/command"
)

// TestRestore has APNs end subscriptions by mistake, and an operator bring them
// back: the next count reaches the devices, save the one that has moved on.
func TestRestore(t *testing.T) {
	r := startRelay(t)
	for n, mailbox := range []string{"ann", "bob", "cid"} {
		r.subscribe(t, mailbox, n)
	}
	for n, mailbox := range []string{"ann", "bob", "cid"} {
		r.sim.Unregister(numberedDevice(t, n), time.Now())
		r.publishAs(t, mailbox, 1, "OUTCOME_UNDELIVERABLE")
		r.publishAs(t, mailbox, 2, "OUTCOME_NO_SUBSCRIPTION")
		r.sim.RegisterDevice(numberedDevice(t, n), "com.example.mail", apnstest.Production, apnstest.Meta{Mailbox: mailbox})
	}
	r.subscribe(t, "elsewhere", 2)
	admin := func(code int, part string, args ...string) string {
		t.Helper()
		return want(t, code, part, append(append([]string{"subscription", "restore"}, args...), "--admin", r.Admin)...)
	}
	admin(command.Misused, "--all")
	admin(command.Misused, "nor how long ago, such as 6h", "--since", "yesterday")
	admin(command.Misused, "--all goes with none", "--all", "--app", "mail")
	admin(command.Failed, "organization", "--organization", "nobody.example.com")
	admin(command.Misused, "--until \"2h\" is not after the time from which they ended (FIELD_INVALID)", "--since", "1h", "--until", "2h")
	admin(command.Done, "0 subscriptions would be restored.", "--reason", "Expired", "--dry-run")
	admin(command.Done, "0 subscriptions would be restored.", "--until", "1h", "--dry-run")
	admin(command.Done, "2 subscriptions would be restored.\n1 subscription left out", "--app", "mail", "--dry-run")
	r.publishAs(t, "ann", 3, "OUTCOME_NO_SUBSCRIPTION")

	var got struct {
		Restored, Superseded, LimitReached int
		DryRun, Truncated                  bool
		Restorations                       []struct{ Organization, Outcome string }
	}
	out := admin(command.Done, "", "--since", "10m", "--reason", "Unregistered", "--organization", enrolledOrganization, "--output", "json", "--limit", "1")
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.Restored != 2 || got.Superseded != 1 || got.LimitReached != 0 || got.DryRun || !got.Truncated ||
		len(got.Restorations) != 1 || got.Restorations[0].Outcome != "RESTORATION_OUTCOME_RESTORED" || got.Restorations[0].Organization != enrolledOrganization {
		t.Errorf("got %s, %v; want 2 restored, the first of them shown", out, err)
	}
	r.log.wait(t, "subscriptions restored")
	r.publish(t, "ann", 4)
	r.publish(t, "bob", 5)
	r.publishAs(t, "cid", 6, "OUTCOME_NO_SUBSCRIPTION")
	r.publish(t, "elsewhere", 7)
	admin(command.Done, "0 subscriptions restored.\n1 subscription left out", "--all")
}
