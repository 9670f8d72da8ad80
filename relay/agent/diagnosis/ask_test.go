package diagnosis

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"badgerelay/relay/agent/daemon"
)

// TestAgentIsAsked has an agent answer on its socket, be asked by too many, and be gone.
func TestAgentIsAsked(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	if _, err := Ask(t.Context(), socket, "ann"); err == nil || !strings.Contains(err.Error(), "it does not run: nothing listens on "+socket) {
		t.Errorf("nobody is there: %v", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	asked, answers := make(chan struct{}), make(chan struct{})
	server := &http.Server{Handler: Handler(func(_ context.Context, mailbox string) daemon.MailboxReport {
		asked <- struct{}{}
		<-answers
		return daemon.MailboxReport{Mailbox: mailbox, AgentID: "mx1"}
	})}
	served := make(chan error)
	go func() { served <- server.Serve(l) }() // ends with server
	told := make(chan error)
	for range maxQuestions {
		go func() { // ends with its answer
			r, err := Ask(t.Context(), socket, "ann & bob")
			if err == nil && (r.Mailbox != "ann & bob" || r.AgentID != "mx1") {
				t.Errorf("got %+v, want what was told of ann & bob", r)
			}
			told <- err
		}()
		<-asked
	}
	if _, err := Ask(t.Context(), socket, "ann"); err == nil || !strings.Contains(err.Error(), "it answers 503 Service Unavailable") {
		t.Errorf("one more than %d at once: %v", maxQuestions, err)
	}
	late, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	if _, err := Ask(late, socket, "ann"); err == nil || !strings.Contains(err.Error(), "it does not answer on "+socket+" in time") {
		t.Errorf("an agent that hangs: %v", err)
	}
	close(answers)
	for range maxQuestions {
		if err := <-told; err != nil {
			t.Error(err)
		}
	}
	if _, err := Ask(t.Context(), socket, ""); err == nil || !strings.Contains(err.Error(), "it answers 400 Bad Request") {
		t.Errorf("no mailbox: %v", err)
	}
	_ = server.Close() // its end is what Serve tells
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}
