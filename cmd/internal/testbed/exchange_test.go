package main

import (
	"context"
	"encoding/base64"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"badgerelay/relay/agent/ews/ewstest"
)

// exchange is a simulated Exchange over https that a service account logs in to.
func exchange(scheme string) *ewstest.Config {
	return &ewstest.Config{BackEnds: 2, User: `FABRIKAM\badgeagent`, Password: "correct horse", Schemes: []string{scheme, "Negotiate"}, TLS: true, Heartbeat: time.Second}
}

// From a mail at Exchange to a badge and back, with each kind of access and a
// login of each.
func TestFromExchangeToBadge(t *testing.T) {
	for _, scheme := range []string{"Basic", "NTLM"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			c := exchange(scheme)
			c.NoImpersonation, c.NoDelegation = scheme == "Basic", scheme == "NTLM"
			w := run(t, Config{Users: []string{"ann", "bob", "eve", "dan"}, Window: 100 * time.Millisecond, Exchange: c})
			ann, bob := Mailbox("ann"), Mailbox("bob")
			first := w.EWS.Deliver(ann)
			w.want("mail", "ann", 1)
			second := w.EWS.Deliver(ann)
			w.want("second mail", "ann", 2)
			w.EWS.MarkRead(ann, true, first)
			w.want("read", "ann", 1)
			w.EWS.ReadAll(ann)
			w.want("all read", "ann", 0)
			w.EWS.MarkRead(ann, false, first, second)
			w.want("unread again", "ann", 2)
			w.EWS.Move(ann, first, "junkemail")
			w.want("moved out", "ann", 1)
			w.EWS.Move(ann, first, "inbox")
			w.want("moved back", "ann", 2)
			w.EWS.Delete(ann, second)
			w.want("deleted", "ann", 1)
			w.wantPrompt("changes")

			// The parts go away one after the other, and mail comes meanwhile.
			w.EWS.Stop()
			w.EWS.Deliver(ann)
			w.do(w.EWS.Start())
			w.want("exchange back", "ann", 2)
			w.EWS.MoveMailbox(ann)
			w.EWS.Deliver(ann)
			w.want("mailbox moved", "ann", 3)
			w.Agent.Kill()
			w.EWS.ReadAll(ann)
			w.EWS.Deliver(bob)
			w.do(w.StartAgent(t.Context()))
			w.want("agent back", "ann", 0)
			w.want("agent back", "bob", 1)
			w.EWS.SetPassword("battery staple")
			w.EWS.CloseStreams(false)
			w.EWS.Deliver(bob)
			w.do(w.SetPasswordFile("battery staple"))
			w.do(w.Agent.Signal(syscall.SIGHUP))
			w.want("new password", "bob", 2)
			w.Relay.Kill()
			w.EWS.Deliver(bob)
			w.do(w.StartRelay(t.Context()))
			w.want("relay back", "bob", 3)
			w.wantPrompt("restarts")
			w.blameless()
			w.unobjectionable()
			for _, secret := range []string{"correct horse", "battery staple", base64.StdEncoding.EncodeToString([]byte(c.User + ":correct horse"))} {
				if strings.Contains(w.Log(), secret) {
					t.Errorf("a log holds the password %q", secret)
				}
			}
		})
	}
}

// unobjectionable checks that Exchange would hold nothing against the agent.
func (w *harness) unobjectionable() {
	w.t.Helper()
	for _, v := range w.EWS.Violations() {
		w.t.Errorf("the simulated Exchange holds against the agent: %s", v)
	}
}

// While Exchange closes, cuts and stalls streams, loses subscriptions and
// affinity, moves mailboxes and is busy, at times that a seed says, a badge is
// right soon, and every badge in the end.
func TestUnrestAtExchange(t *testing.T) {
	const seed = 1
	users := []string{"ann", "bob", "eve", "dan", "fay", "gus", "hal"}
	w := run(t, Config{Users: append(users, "mia"), Window: 100 * time.Millisecond, Exchange: exchange("NTLM")})
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.EWS.Unrest(ctx, seed, time.Second, 2*time.Second)
	}()
	metered := make(chan uint32)
	go func() { // ends with ctx
		n := uint32(0)
		for ctx.Err() == nil {
			n++
			w.EWS.Deliver(Mailbox("mia"))
			if took, err := w.Phones.Await(ctx, "mia", n, soon); err == nil {
				w.took = append(w.took, took)
			}
		}
		metered <- n
	}()
	random := rand.New(rand.NewPCG(seed, 1))
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		user := users[random.IntN(len(users))]
		if random.IntN(3) == 0 {
			w.EWS.ReadAll(Mailbox(user))
		} else {
			w.EWS.Deliver(Mailbox(user))
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		tick.Stop()
		break
	}
	<-ended
	mails := <-metered
	w.wantPrompt("amid unrest")
	w.EWS.Misbehave(ewstest.Faults{})
	w.want("in the end", "mia", mails)
	for _, user := range users {
		w.want("in the end", user, w.EWS.Unread(Mailbox(user)))
	}
	w.blameless()
	w.unobjectionable()
}
