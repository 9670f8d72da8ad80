package main

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"badgerelay/cmd/internal/diagnosis"
	"badgerelay/relay/agent/imap/imaptest"
)

// explains waits until 'badgeagent explain' has a verdict, and looks at its sentence.
func (w *harness) explains(user string, code diagnosis.Code, parts ...string) {
	w.t.Helper()
	var answer struct{ Verdict diagnosis.Verdict }
	for began := time.Now(); time.Since(began) < soon; time.Sleep(50 * time.Millisecond) { // real processes, not a bubble
		out, err := w.Do(w.t.Context(), "badgeagent", "explain", Mailbox(user), "--config", w.path("agent.yaml"), "--output", "json", "--timeout", "5s")
		w.do(err)
		w.do(json.Unmarshal([]byte(out), &answer))
		if answer.Verdict.Code == code {
			break
		}
	}
	got := answer.Verdict
	if got.Code != code {
		w.t.Fatalf("%s: %s, %q; want %s", user, got.Code, got.Sentence, code)
	}
	for _, part := range parts {
		if !strings.Contains(got.Sentence, part) {
			w.t.Errorf("%s: %q; want %q in it", user, got.Sentence, part)
		}
	}
	w.t.Logf("%s: %s", got.Code, got.Sentence)
}

// TestExplain has the way from a mail to a badge broken on the mail server's side, and
// 'badgeagent explain' say where.
func TestExplain(t *testing.T) {
	t.Parallel()
	w := run(t, Config{Users: []string{"ann"}, Lua: true, Watch: "off", Window: 100 * time.Millisecond})
	w.do(w.Dovecot.Deliver("ann", "one"))
	w.want("mail", "ann", 1)
	w.explains("ann", diagnosis.Right, "The badge is right: 1 on its device since")
	w.explains("amn", diagnosis.NoSubscription, "did you mean "+Mailbox("ann"))
	page, err := w.Do(t.Context(), "badgeagent", "explain", Mailbox("ann"), "--config", w.path("agent.yaml"))
	w.do(err)
	t.Log("\n" + page)

	w.do(w.Dovecot.PutBehind("ann", "two"))
	w.explains("ann", diagnosis.CountDiffers, "The mail server counts 2, and what the relay has is 1")
	w.do(w.Dovecot.Deliver("ann", "three"))
	w.explains("ann", diagnosis.Right, "3 on its device")

	w.do(os.WriteFile(w.path("master-password"), []byte("wrong\n"), 0o600))
	w.do(w.Agent.Signal(syscall.SIGHUP))
	w.explains("ann", diagnosis.CountFailed, "The mail server does not tell the count")
	w.do(os.WriteFile(w.path("master-password"), []byte(imaptest.MasterPassword+"\n"), 0o600))
	w.do(w.Agent.Signal(syscall.SIGHUP))
	w.explains("ann", diagnosis.Right)

	w.Agent.Kill()
	w.explains("ann", diagnosis.AgentNotRunning, "it does not run")
	w.do(w.StartAgent(t.Context()))
	w.explains("ann", diagnosis.Right, "3 on its device")
	_, err = w.Do(t.Context(), "badgerelay", "organization", "disable", Organization)
	w.do(err)
	w.explains("ann", diagnosis.OrganizationDisabled)
	w.Relay.Kill()
	w.explains("ann", diagnosis.RelayUnreachable, "no relay listens at")
}
