package imaptest_test

import (
	"maps"
	"slices"
	"testing"

	"badgerelay/relay/agent/imap/imaptest"

	"github.com/emersion/go-imap/v2/imapclient"
)

// TestServer shows how the server is used: mail comes in over LMTP, is read
// over IMAP, and is still there after a restart.
func TestServer(t *testing.T) {
	t.Parallel()
	s := imaptest.Run(t, imaptest.Config{})
	for _, user := range []string{"ann", `we "ird\`} {
		if err := s.Deliver(user, "one"); err != nil {
			t.Fatal(err)
		}
	}
	if err := read(t, s, "jürgen müller").Append(); err != nil { // lmtpd takes ASCII only
		t.Error(err)
	}
	r := read(t, s, "ann")
	unread, err := r.Messages(true)
	if err != nil || len(unread) != 1 {
		t.Fatalf("unread = %v, %v; want the delivered one", unread, err)
	}
	if err := r.MarkRead(unread...); err != nil {
		t.Fatal(err)
	}
	if err := r.Append(); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	r = read(t, s, "ann") // the restart ended the first
	all, err := r.Messages(false)
	if err != nil || len(all) != 2 {
		t.Errorf("messages = %v, %v; want two after a restart", all, err)
	}
	if unread, err := r.Messages(true); err != nil || len(unread) != 1 || unread[0] != all[1] {
		t.Errorf("unread = %v, %v; want the appended one of %v", unread, err, all)
	}
	if err := r.Expunge(all[0]); err != nil {
		t.Error(err)
	}
	if err := r.Move("Archive", all[1]); err != nil {
		t.Error(err)
	}
	if all, err := r.Messages(false); err != nil || len(all) != 0 {
		t.Errorf("messages = %v, %v; want none", all, err)
	}
}

func read(t *testing.T, s *imaptest.Server, user string) *imaptest.Reader {
	t.Helper()
	r, err := s.Reader(user)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() }) // Dovecot may have ended it
	return r
}

func TestCapabilities(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		config       imaptest.Config
		notify, idle bool
	}{
		"all":       {imaptest.Config{}, true, true},
		"no notify": {imaptest.Config{NoNotify: true}, false, true},
		"no idle":   {imaptest.Config{NoIdle: true}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := imaptest.Run(t, tt.config)
			client, err := imapclient.DialInsecure(s.IMAP, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if err := client.Login("ann*"+imaptest.Master, imaptest.MasterPassword).Wait(); err != nil {
				t.Fatalf("the master user can't log in: %v", err)
			}
			caps, err := client.Capability().Wait()
			if err != nil {
				t.Fatal(err)
			}
			if caps.Has("NOTIFY") != tt.notify || caps.Has("IDLE") != tt.idle || !caps.Has("CONDSTORE") {
				t.Errorf("capabilities %v; want notify %v, idle %v, condstore", slices.Collect(maps.Keys(caps)), tt.notify, tt.idle)
			}
		})
	}
}
