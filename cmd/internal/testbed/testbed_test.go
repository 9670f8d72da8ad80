package main

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"badgerelay/cmd/internal/rig/rigtest"
	"badgerelay/relay/agent/imap/imaptest"
)

// soon bounds the wait for a badge. It is wide: how fast four processes are is
// the machine's affair, and the log tells how long each badge took.
const soon = 30 * time.Second

func TestMain(m *testing.M) {
	roles.Run()
	rigtest.Main(m)
}

// run sets up the whole way for one test.
func run(t *testing.T, c Config) *harness {
	t.Helper()
	if err := imaptest.Missing(); err != nil && c.Exchange == nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("", "badge-") // TempDir's names are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // a leftover fails nothing
	c.Bin, c.Deploy, c.Dir = rigtest.Programs(t), "../../../deploy/dovecot", dir
	w, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("relay, agent and simulator:\n%s", w.Log())
			if w.Dovecot != nil {
				t.Logf("dovecot:\n%s", w.Dovecot.Log())
			}
		}
	})
	return &harness{Testbed: w, t: t}
}

// harness is the whole way with a test's reactions.
type harness struct {
	*Testbed
	t    *testing.T
	took []time.Duration // until badges were right
}

// do ends the test if a step failed.
func (w *harness) do(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// want waits for a badge.
func (w *harness) want(why, user string, badge uint32) {
	w.t.Helper()
	took, err := w.Phones.Await(w.t.Context(), user, badge, soon)
	if err != nil {
		w.t.Fatalf("%s: %v", why, err)
	}
	w.t.Logf("%-12s %s shows %d after %v", why, user, badge, took.Round(time.Millisecond))
	w.took = append(w.took, took)
}

// prompt is how long a badge may take after what changed it. One that takes longer
// may be the machine's fault, half of them can't be.
const prompt = 2 * time.Second

// wantPrompt checks that most badges were right soon, and forgets what they took.
func (w *harness) wantPrompt(why string) {
	w.t.Helper()
	slices.Sort(w.took)
	n := len(w.took)
	w.t.Logf("%s: %d badges, half of them right after %v, all after %v", why, n, w.took[n/2], w.took[n-1])
	if w.took[n/2] > prompt {
		w.t.Errorf("%s: half of the badges took %v, want %v", why, w.took[n/2], prompt)
	}
	w.took = nil
}

// reader opens a user's inbox until the test ends.
func (w *harness) reader(user string) *imaptest.Reader {
	w.t.Helper()
	r, err := w.Dovecot.Reader(user)
	w.do(err)
	w.t.Cleanup(func() { _ = r.Close() }) // Dovecot may have ended it
	return r
}

// blameless checks that Apple would hold nothing against the relay.
func (w *harness) blameless() {
	w.t.Helper()
	total, which, err := w.Phones.ClientFaults(w.t.Context())
	if err != nil || total != 0 {
		w.t.Errorf("the simulator holds %d faults against the relay: %v (%v)", total, which, err)
	}
}

// From a mail to a badge and back, in each of the ways in which the agent hears
// of it.
func TestFromMailToBadge(t *testing.T) {
	for name, c := range map[string]Config{
		"lua":    {Lua: true, Watch: "off"},
		"notify": {Watch: "notify"},
		"idle":   {Watch: "idle"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.Users, c.Window = []string{"ann", "bob"}, 100*time.Millisecond
			w := run(t, c)
			w.do(w.Dovecot.Deliver("ann", "one"))
			w.want("mail", "ann", 1)
			w.do(w.Dovecot.Deliver("ann", "second mail of two"))
			w.want("second mail", "ann", 2)
			r := w.reader("ann")
			all, err := r.Messages(false)
			w.do(err)
			w.do(r.MarkRead(all[0]))
			w.want("read", "ann", 1)
			w.do(r.MarkRead(all...))
			w.want("all read", "ann", 0)
			w.do(r.MarkUnread(all...))
			w.want("unread again", "ann", 2)
			w.do(r.Move("Archive", all[0]))
			w.want("moved out", "ann", 1)
			w.do(r.Append())
			w.want("appended", "ann", 2)
			w.do(r.Expunge(all[1]))
			w.want("expunged", "ann", 1)
			w.wantPrompt("changes")

			// The parts go away one after the other, and mail comes meanwhile.
			w.do(w.Dovecot.Restart())
			w.do(w.Dovecot.Deliver("ann", "three"))
			w.want("dovecot back", "ann", 2)
			w.Agent.Kill()
			w.do(w.Dovecot.Deliver("ann", "four"))
			w.do(w.Dovecot.Deliver("bob", "one"))
			w.do(w.StartAgent(t.Context()))
			w.want("agent back", "ann", 3)
			w.want("agent back", "bob", 1)
			w.Relay.Kill()
			w.do(w.Dovecot.Deliver("bob", "two"))
			r = w.reader("ann")
			all, err = r.Messages(true)
			w.do(err)
			w.do(r.MarkRead(all...))
			w.do(w.StartRelay(t.Context()))
			w.want("relay back", "ann", 0)
			w.want("relay back", "bob", 2)
			w.blameless()
			for _, private := range []string{imaptest.Text, "second mail of", "sender@"} {
				if strings.Contains(w.Log(), private) {
					t.Errorf("a log of agent or relay holds %q of the mail", private)
				}
			}
		})
	}
}

// What somebody else reads in a mailbox is gone from its owner's badge, and not
// from the reader's.
func TestSharedMailbox(t *testing.T) {
	t.Parallel()
	w := run(t, Config{Users: []string{"ann", "bob"}, Window: 100 * time.Millisecond, Lua: true, Watch: "off", Shared: true})
	w.do(w.Dovecot.Deliver("ann", "one"))
	w.do(w.Dovecot.Deliver("ann", "two"))
	w.do(w.Dovecot.Deliver("bob", "one"))
	w.want("mail", "ann", 2)
	w.want("mail", "bob", 1)
	w.do(w.Dovecot.Admin("acl", "set", "-u", "ann", "INBOX", "user=bob", "lookup", "read", "write-seen"))
	r, err := w.Dovecot.Opened("bob", "shared/ann/INBOX")
	w.do(err)
	defer r.Close()
	all, err := r.Messages(false)
	w.do(err)
	w.do(r.MarkRead(all[0]))
	w.want("bob reads", "ann", 1)
	w.do(r.MarkUnread(all[0]))
	w.want("unread again", "ann", 2)
	w.do(r.MarkRead(all...))
	w.want("all read", "ann", 0)
	w.want("his own", "bob", 1)
	w.blameless()
}

// A burst of deliveries and reads over many mailboxes leaves every badge right;
// make dovecot-burst is the same with more of both.
func TestBurst(t *testing.T) {
	w := run(t, Config{Users: Users(100), Lua: true, Watch: "off"})
	r, err := w.Play(t.Context(), 0, 300)
	w.do(err)
	t.Logf("%+v", *r)
	if r.WrongBadges != 0 || r.ClientFaults != 0 {
		t.Errorf("%d badges are wrong, and Apple would hold %d faults against the relay", r.WrongBadges, r.ClientFaults)
	}
	if r.Agent.MicrosPerEvent <= 0 || r.Relay.MicrosPerEvent <= 0 {
		t.Errorf("an event cost the agent %v us and the relay %v", r.Agent.MicrosPerEvent, r.Relay.MicrosPerEvent)
	}
	if r.Pushes == 0 || r.Pushes > uint64(2*r.Mailboxes+r.Deliveries+r.Reads) { // one each at the start, and counts that a busy agent asks for once more: the relay pushes these in its first minute
		t.Errorf("%d pushes for %d events", r.Pushes, r.Deliveries+r.Reads)
	}
}
