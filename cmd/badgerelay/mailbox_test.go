package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"badgerelay/cmd/internal/command"
	"badgerelay/relay/agent/diagnosis"
)

// verdictOn runs 'mailbox show' at a relay.
func (r *enrolled) verdictOn(t *testing.T, mailbox string) diagnosis.Verdict {
	t.Helper()
	out := want(t, command.Done, "", "mailbox", "show", enrolledOrganization, mailbox, "--output", "json", "--admin", r.Admin)
	var answer struct{ Verdict diagnosis.Verdict }
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return answer.Verdict
}

// wantVerdict waits for a verdict whose sentence has these parts.
func (r *enrolled) wantVerdict(t *testing.T, mailbox string, code diagnosis.Code, parts ...string) {
	t.Helper()
	var got diagnosis.Verdict
	for began := time.Now(); time.Since(began) < testTimeout; time.Sleep(20 * time.Millisecond) { // real processes, not a bubble
		if got = r.verdictOn(t, mailbox); says(got, code, parts) {
			t.Logf("%s: %s", got.Code, got.Sentence)
			return
		}
	}
	page := want(t, command.Done, "", "mailbox", "show", enrolledOrganization, mailbox, "--admin", r.Admin)
	t.Fatalf("%s: %s, %q; want %s with %q\n%s", mailbox, got.Code, got.Sentence, code, parts, page)
}

func says(v diagnosis.Verdict, code diagnosis.Code, parts []string) bool {
	return v.Code == code && !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(v.Sentence, part) })
}

func TestMailboxShow(t *testing.T) {
	r := startRelay(t)
	r.subscribe(t, "ann@fabrikam.com", 1)
	r.wantVerdict(t, "ann@fabrikam.com", diagnosis.NoAgent, "none has been since the relay started")
	a := r.agent(t)
	a.shows(t, "ann@fabrikam.com", 3, 1)
	r.wantVerdict(t, "ann@fabrikam.com", diagnosis.Right, "3 on its device since")
	r.wantVerdict(t, "amn@fabrikam.com", diagnosis.NoSubscription, "did you mean ann@fabrikam.com?")
	r.wantVerdict(t, "Ann@fabrikam.com", diagnosis.SpelledOtherwise, "on ann@fabrikam.com")
	r.wantVerdict(t, "ann", diagnosis.NoSubscription, "did you mean ann@fabrikam.com?")
	r.wantVerdict(t, "zoe@fabrikam.com", diagnosis.NoSubscription, "Nobody is subscribed to this mailbox.")
	a.leave()
	r.wantVerdict(t, "ann@fabrikam.com", diagnosis.Right, "3 on its device since", "the last one, test, left 0 s ago", "administrator starts it")
	t.Log("\n" + want(t, command.Done, "No agent is connected", "mailbox", "show", enrolledOrganization, "ann@fabrikam.com", "--admin", r.Admin))
	want(t, command.Misused, "ann@fabrikam.com is a mailbox", "mailbox", "show", "ann@fabrikam.com", enrolledOrganization, "--admin", r.Admin)
	want(t, command.Misused, "a mailbox is 1 to 256 bytes", "mailbox", "show", enrolledOrganization, "", "--admin", r.Admin)
	want(t, command.Misused, "before the mailbox", "mailbox", "show", "ann@fabrikam.com", "--admin", r.Admin)
}

// TestMailboxShowAcrossRelays asks one of two relays about a mailbox whose agent is at
// the other, and breaks what is between them.
func TestMailboxShowAcrossRelays(t *testing.T) {
	a, b, database := startReplicas(t)
	a.subscribe(t, "ann", 1)
	first := b.agent(t)
	first.shows(t, "ann", 3, 1)
	a.wantVerdict(t, "ann", diagnosis.Right, "3 on its device since")
	want(t, command.Done, b.Agents, "mailbox", "show", enrolledOrganization, "ann", "--admin", a.Admin)

	// Relays that don't hear each other: two processes of an agent, of which one that
	// answers knows the standby alone.
	deafen := func(asked *enrolled, code diagnosis.Code, part string) {
		t.Helper()
		soon(t, string(code), func() bool {
			database.Exec(a.database, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SET client_encoding%LISTEN%'`) // they listen again after a second
			got := asked.verdictOn(t, "ann")
			return got.Code == code && strings.Contains(got.Sentence, part)
		})
	}
	deafen(a, diagnosis.RelaySilent, "did not answer within 2s")
	second := a.agent(t)
	second.shows(t, "ann", 4, 2)
	deafen(a, diagnosis.RelaySilent, "has just died, hangs, or does not hear the others")
	deafen(b, diagnosis.AgentStandby, "Every agent of fabrikam.com stands by (test)")
	soon(t, "they hear each other again", func() bool { return a.verdictOn(t, "ann").Code == diagnosis.Right })

	// What a relay leaves that was killed.
	database.Exec(a.database, `INSERT INTO relays VALUES ('mx9/[::]:8443', 0, (extract(epoch FROM clock_timestamp()) * 1000)::bigint - 90000, false, '')`)
	a.wantVerdict(t, "ann", diagnosis.Right, "relay mx9/[::]:8443 did not answer: it has not been heard of for 1m30s")

	// The database goes, and a mailbox is not known yet.
	a.subscribe(t, "bob", 2)
	database.Stop()
	second.tell(t, "bob", 1)
	a.wantVerdict(t, "bob", diagnosis.RegistryUnavailable, "it is asked who is subscribed")
	a.wantVerdict(t, "ann", diagnosis.Right, "4 on its device", "other relays are not known")
	database.Start()
	soon(t, "the database is back", func() bool { return a.verdictOn(t, "bob").Code == diagnosis.Right })
}
