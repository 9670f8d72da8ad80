package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"badgerelay/cmd/badgeagent/internal/serve"
	"badgerelay/cmd/internal/command"
	badgerelayv1 "badgerelay/proto/badgerelay/v1"

	"google.golang.org/grpc"
)

// WatchMailboxes tells whoever has a device, and no changes.
func (r *fakeRelay) WatchMailboxes(_ *badgerelayv1.WatchMailboxesRequest, rpc grpc.ServerStreamingServer[badgerelayv1.WatchMailboxesResponse]) error {
	all := &badgerelayv1.WatchMailboxesResponse{Complete: true}
	r.mu.Lock()
	for mailbox := range r.devices {
		all.Changes = append(all.Changes, &badgerelayv1.MailboxChange{
			Mailbox: mailbox, Kind: badgerelayv1.MailboxChangeKind_MAILBOX_CHANGE_KIND_SUBSCRIBED})
	}
	r.mu.Unlock()
	if err := rpc.Send(all); err != nil {
		return err
	}
	select {
	case r.watched <- struct{}{}:
	default: // told already
	}
	<-rpc.Context().Done()
	return nil
}

// TestRun runs the daemon against a mail server that is not there: it is not
// ready, says what is wrong, and ends in good order when the proxy is
// disabled.
func TestRun(t *testing.T) {
	r := newFakeRelay(t)
	r.devices["ann@fabrikam.com"] = "ab"
	c := newConsole(t)
	c.ok("cert", "ensure", "--organization", "fabrikam.com")
	r.enrol(filepath.Join(c.dir, "OAuthCert.cer"))
	c.ok("auth-server", "set", "--metadata-url", r.web, "--ca", r.ca)
	password := filepath.Join(c.dir, "password")
	must(t, os.WriteFile(password, []byte("secret\n"), 0o600))
	file := filepath.Join(c.dir, "badgeagent.yaml")
	must(t, os.WriteFile(file, []byte("imap: {address: \"127.0.0.1:1\", master_user: agent, master_password_file: "+password+"}\n"+
		"ops: {address: \"127.0.0.1:0\"}\ndrain_budget: 1s\n"), 0o600))
	if code, _, text := c.run("serve", "--config", file); code != command.Misused || !strings.Contains(text, "proxy enable") {
		t.Errorf("without the proxy: exit code %d and %q, want misuse and what to do", code, text)
	}
	c.ok("proxy", "enable", "--organization", "fabrikam.com")

	var log bytes.Buffer // read when the daemon has ended
	serving, ended := make(chan serve.Serving, 1), make(chan struct{})
	a := &app{Terminal: &command.Terminal{Out: io.Discard, Err: &log}, dir: c.dir, host: host{ready: func(s serve.Serving) { serving <- s }}}
	ctx, stop := context.WithCancel(context.Background())
	var result error // read when the daemon has ended
	go func() {      // ends when the proxy is disabled, or with the test
		defer close(ended)
		result = a.runDaemon(ctx, file)
	}()
	t.Cleanup(func() { stop(); <-ended })
	var ops string
	select {
	case s := <-serving:
		ops = "http://" + s.Ops
	case <-ended:
		t.Fatalf("run: %v before it served:\n%s", result, log.String())
	}
	await(t, ops+"/readyz", `not ready: mail server can't be reached \(imap\)`)
	await(t, ops+"/metrics", "badgeagent_mailboxes_waiting 1\n")
	await(t, ops+"/metrics", "badgeagent_connected 1\n")
	await(t, ops+"/metrics", "badgeagent_imap_server_trouble 1\n")
	await(t, ops+"/healthz", "alive")
	c.ok("proxy", "disable")
	if <-ended; result != nil {
		t.Errorf("run: %v", result)
	}
	if !strings.Contains(log.String(), "proxy disabled") || strings.Contains(log.String(), "ann@") || strings.Contains(log.String(), "secret") {
		t.Errorf("the log lacks the reason, or tells too much:\n%s", log.String())
	}
}

// await polls a page of another goroutine's, which tells nobody when it changes,
// until it holds what matches pattern.
func await(t *testing.T, page, pattern string) {
	t.Helper()
	found := regexp.MustCompile(pattern)
	deadline, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		request, err := http.NewRequestWithContext(deadline, http.MethodGet, page, nil)
		must(t, err)
		response, err := http.DefaultClient.Do(request)
		must(t, err)
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close() // read whole
		must(t, err)
		if found.Match(body) {
			tick.Stop()
			return
		}
		select {
		case <-tick.C:
		case <-deadline.Done():
			t.Fatalf("%s never held %q, but\n%s", page, pattern, body)
		}
	}
}
