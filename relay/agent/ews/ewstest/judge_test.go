package ewstest_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"badgerelay/relay/agent/ews/ewstest"
)

// heard is a line that the client prints.
type heard struct {
	Mailbox      string
	Event        string
	Folder       bool
	Unread       *int
	Error        string
	Disconnected bool
}

// String writes what matters of it.
func (h heard) String() string {
	unread := "-"
	if h.Unread != nil {
		unread = fmt.Sprint(*h.Unread)
	}
	switch {
	case h.Error != "":
		return h.Mailbox + " " + h.Error
	case h.Disconnected:
		return "disconnected"
	}
	return fmt.Sprint(h.Mailbox, " ", h.Event, " folder:", h.Folder, " ", unread)
}

// ews-javascript-api, a port of Microsoft's client that nobody here wrote, hears
// from the simulator what it would hear from an Exchange.
func TestJudgedByAnotherClient(t *testing.T) {
	node, npm := realProgram(t, "node"), realProgram(t, "npm")
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "ews-javascript-api"))); err != nil {
		t.Fatal(err)
	}
	install := exec.CommandContext(t.Context(), npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	const ann, bob = "ann@fabrikam.com", "bob@fabrikam.com"
	// The client takes one envelope for each piece that it reads: heartbeats carry
	// what came together.
	server, err := ewstest.New(ewstest.Config{Mailboxes: []string{ann, bob}, User: "badgeagent", Password: "secret", Heartbeat: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	server.Deliver(bob)

	cmd := exec.CommandContext(t.Context(), node, "client.mjs", server.URL(), "badgeagent", "secret", ann, bob)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() }).Stop() // it is stuck
	lines := bufio.NewScanner(out)
	want := func(why string, all ...string) {
		t.Helper()
		for _, w := range all {
			if !lines.Scan() {
				t.Fatalf("%s: the client ended, want %q\n%s", why, w, &stderr)
			}
			var h heard
			if err := json.Unmarshal(lines.Bytes(), &h); err != nil {
				t.Fatalf("%s: the client printed %q", why, lines.Text())
			}
			if h.String() != w {
				t.Errorf("%s: it heard %q, want %q", why, h, w)
			}
		}
	}
	want("at the start", ann+"  folder:false 0", bob+"  folder:false 1")
	id := server.Deliver(ann)
	want("new mail", ann+" Created folder:false -", ann+" NewMail folder:false -", ann+" Modified folder:true 1")
	server.MarkRead(ann, true, id)
	want("read", ann+" Modified folder:false -", ann+" Modified folder:true 0")
	server.Move(ann, id, "junkemail")
	want("moved", ann+" Moved folder:false -", ann+" Modified folder:true 0")
	server.LoseSubscription(bob)
	want("a subscription is lost", bob+" ErrorReadEventsFailed")
	server.CloseStreams(true)
	want("closed in order", "disconnected")
	_ = in.Close() // and so it ends
	if err := cmd.Wait(); err != nil {
		t.Errorf("the client ended with %v\n%s", err, &stderr)
	}
	if v := server.Violations(); !slices.Equal(v, nil) {
		t.Errorf("the simulator holds against Microsoft's client: %q", v)
	}
}

// realProgram finds a program that the test runs for real. In CI it has to be
// there.
func realProgram(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("this test runs %s, which is not installed", name)
	}
	t.Skipf("this test runs %s, which is not installed", name)
	return ""
}
