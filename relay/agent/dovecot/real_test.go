package dovecot_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"badgerelay/auth/authtest"
	"badgerelay/relay/agent/dovecot"
	"badgerelay/relay/agent/imap/imaptest"
	"badgerelay/relay/agent/source"
	"badgerelay/relay/freeport"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

const deploy = "../../../deploy/dovecot/"

// heard is a sink that hands on what it is told, without its version.
type heard chan string

func (h heard) Counted(c source.Count) {
	line := c.Mailbox + " " + string(rune('0'+c.Unread))
	if c.Epoch == 0 || c.Version == 0 {
		line += " without version"
	}
	h <- line
}

func (h heard) Recovered() {}

func (h heard) Missed() { h <- "missed" }

func (h heard) Changed(mailbox string) { h <- mailbox + " ?" }

// want waits until the line was heard, with the lines of others before it.
func (h heard) want(t *testing.T, line string) {
	t.Helper()
	var before []string
	for timeout := time.After(10 * time.Second); ; {
		select {
		case got := <-h:
			if got == line {
				return
			}
			before = append(before, got)
		case <-timeout:
			t.Fatalf("never heard %q, only %q", line, before)
		}
	}
}

// shipped runs Dovecot on a file of deploy/dovecot, with addresses and paths of
// the test, and returns what a handler hears from it.
func shipped(t *testing.T, name, path string) (*imaptest.Server, heard) {
	t.Helper()
	return shippedAt(t, name, path, site{})
}

// site is what else a site has configured.
type site struct {
	dovecot string         // more of Dovecot's configuration
	agent   dovecot.Config // the handler's
	https   bool           // the agent's listener has TLS
}

// shippedAt is shipped at a site.
func shippedAt(t *testing.T, name, path string, at site) (*imaptest.Server, heard) {
	t.Helper()
	if err := imaptest.Missing(); err != nil && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	const token = "0123456789abcdef"
	h := make(heard, 100)
	server := httptest.NewUnstartedServer(withToken(token, running(at.agent, h)))
	if at.https {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	secret := "plugin {\n  badgeagent_token = " + token + "\n}\n"
	if imaptest.Is24() {
		name, secret = strings.Replace(name, ".conf", "-2.4.conf", 1), token
	}
	text, err := os.ReadFile(deploy + name)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script, err := filepath.Abs(deploy + "badgeagent.lua")
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "token.conf", secret)
	include := write(t, dir, name, strings.NewReplacer(
		"/etc/dovecot/badgeagent.lua", script,
		"/etc/dovecot/badgeagent-token.conf", filepath.Join(dir, "token.conf"), "/etc/dovecot/badgeagent-token", filepath.Join(dir, "token.conf"),
		"http://127.0.0.1:9466", server.URL, "127.0.0.1:9466", server.Listener.Addr().String(),
		"badgeagent_url =", "badgeagent_state = "+stateDir(t)+"\n  badgeagent_url =", ":TOKEN@", ":"+token+"@",
	).Replace(string(text))+at.dovecot)
	if !strings.Contains(include, name) || !strings.Contains(string(text), "127.0.0.1:9466"+path) {
		t.Fatalf("%s does not notify %s", name, path)
	}
	return imaptest.Run(t, imaptest.Config{Include: include}), h
}

// withToken lets through what shows the token as the listener would have it. The
// script's requests must not have Dovecot wait for a "100 Continue".
func withToken(token string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == dovecot.LuaPath && r.Header.Get("Expect") != "" {
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		if _, password, _ := r.BasicAuth(); r.Header.Get("Authorization") != "Bearer "+token && password != token {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// stateDir makes a directory for the script's files, and returns its name in
// Dovecot's system. They tell the scripts of one machine of each other, and tests
// run side by side.
func stateDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Join(imaptest.Root(), os.TempDir()), "state-")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // a leftover fails nothing
	must(t, os.Chmod(dir, 0o777))
	return strings.TrimPrefix(dir, imaptest.Root())
}

func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Every way in which an unread count changes is told by the script as shipped,
// with the count and its version.
func TestShippedLua(t *testing.T) {
	t.Parallel()
	s, h := shipped(t, "11-badgeagent.conf", dovecot.LuaPath)
	must(t, s.Deliver("ann", "one"))
	h.want(t, "ann 1")
	must(t, s.Deliver("ann", "two"))
	h.want(t, "ann 2")
	r, err := s.Reader("ann")
	must(t, err)
	defer r.Close()
	all, err := r.Messages(false)
	must(t, err)
	for _, step := range []struct {
		name, want string
		do         error
	}{
		{"read", "ann 1", r.MarkRead(all[0])},
		{"all read", "ann 0", r.MarkRead(all...)},
		{"unread again", "ann 1", r.MarkUnread(all[0])},
		{"appended", "ann 2", r.Append()},
		{"moved out", "ann 1", r.Move("Archive", all[0])},
		{"expunged", "ann 1", r.Expunge(all[1])},
	} {
		if step.do != nil {
			t.Fatalf("%s: %v", step.name, step.do)
		}
		h.want(t, step.want)
	}
	const odd = `we "ird\`
	must(t, s.Deliver(odd, "one"))
	h.want(t, odd+" 1")
	other, err := s.Reader("jürgen müller")
	must(t, err)
	defer other.Close()
	must(t, other.Append())
	h.want(t, "jürgen müller 1")
	if log := s.Log(); strings.Contains(log, "badgeagent:") || strings.Contains(log, "Error") {
		t.Errorf("Dovecot complains:\n%s", log)
	}
}

// notifying is a configuration that has the script tell url.
func notifying(script, url string) string {
	if imaptest.Is24() {
		return `
mail_plugins {
  mail_lua = yes
  notify = yes
  push_notification = yes
  push_notification_lua = yes
}
push_notification badgeagent {
  driver = lua
  lua_file = ` + script + `
  lua_settings {
    badgeagent_url = ` + url + `
  }
}
`
	}
	return `
mail_plugins = mail_lua notify push_notification push_notification_lua
plugin {
  push_notification_driver = lua:file=` + script + `
  badgeagent_url = ` + url + `
}
`
}

// Mail is delivered although nobody listens, and Dovecot's log says so.
func TestShippedLuaWithoutAgent(t *testing.T) {
	t.Parallel()
	nobody, err := freeport.Address()
	must(t, err)
	script, err := filepath.Abs(deploy + "badgeagent.lua")
	must(t, err)
	s := imaptest.Run(t, imaptest.Config{Include: write(t, t.TempDir(), "lua.conf", notifying(script, "http://"+nobody+"/"))})
	must(t, s.Deliver("ann", "one"))
	s.Stop() // the answer to a delivery may be sooner than its line
	if log := s.Log(); !strings.Contains(log, "badgeagent: http://"+nobody+"/ answered 90") || !strings.Contains(log, "saved mail to INBOX") {
		t.Errorf("want a saved mail and a warning in\n%s", log)
	}
}

// The OX driver tells of new mail, once the mailbox asks for it.
func TestShippedOX(t *testing.T) {
	t.Parallel()
	s, h := shipped(t, "11-badgeagent-ox.conf", dovecot.OXPath)
	must(t, s.Deliver("ann", "one")) // makes the mailbox
	must(t, s.Admin("mailbox", "metadata", "set", "-u", "ann", "-s", "", "/private/vendor/vendor.dovecot/http-notify", "user=ann"))
	must(t, s.Deliver("ann", "two"))
	h.want(t, "ann ?")
	if len(h) != 0 {
		t.Errorf("also heard %q: of the first mail nothing was to be told", <-h)
	}
}

// The user with which the agent counts sees everybody's mailboxes, and nobody
// but who knows the password does.
func TestShippedMaster(t *testing.T) {
	t.Parallel()
	name := "11-badgeagent-master.conf"
	if imaptest.Is24() {
		name = "11-badgeagent-master-2.4.conf"
	}
	text, err := os.ReadFile(deploy + name)
	must(t, err)
	dir, err := os.MkdirTemp("", "masters-") // TempDir is closed to Dovecot's users
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // a leftover fails nothing
	must(t, os.Chmod(dir, 0o755))
	masters := write(t, dir, "badgeagent-masters", "counter:{plain}secret::::::allow_nets=127.0.0.1/32,::1/128\n")
	must(t, os.Chmod(masters, 0o644))
	acl := "mail_plugins = $mail_plugins acl\nplugin {\n  acl = vfile\n}\n"
	if imaptest.Is24() {
		acl = "mail_plugins {\n  acl = yes\n}\nacl_driver = vfile\n"
	}
	shipped := strings.ReplaceAll(string(text), "/etc/dovecot/badgeagent-masters", masters)
	for name, include := range map[string]string{"": shipped, " with the ACL plugin": acl + shipped} {
		s := imaptest.Run(t, imaptest.Config{Include: write(t, dir, "master.conf", include)})
		must(t, s.Deliver("ann", "one"))
		for password, want := range map[string]bool{"secret": true, "another": false} {
			client, err := imapclient.DialInsecure(s.IMAP, nil)
			must(t, err)
			err = client.Login("ann*counter", password).Wait()
			if (err == nil) != want {
				t.Errorf("login with %q%s: %v, want success %v", password, name, err, want)
			}
			if err == nil {
				data, err := client.Status("INBOX", &imap.StatusOptions{NumUnseen: true}).Wait()
				if err != nil || *data.NumUnseen != 1 {
					t.Errorf("STATUS%s: %v, want one", name, err)
				}
			}
			must(t, client.Close())
		}
	}
}

// stopped is an agent that takes connections and says nothing, like a process
// that is stopped; until resume is called.
func stopped(t *testing.T, h http.Handler) (address string, resume func()) {
	t.Helper()
	hold := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-hold:
			h.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}))
	resume = sync.OnceFunc(func() { close(hold) })
	t.Cleanup(func() { resume(); server.Close() })
	return server.Listener.Addr().String(), resume
}

// While the agent does not answer, mail to many and a row of commands wait one
// second in all, and the agent is told afterwards that it has missed something.
func TestMailWaitsASecondInAll(t *testing.T) {
	t.Parallel()
	h := make(heard, 100)
	address, resume := stopped(t, running(dovecot.Config{}, h))
	script, err := filepath.Abs(deploy + "badgeagent.lua")
	must(t, err)
	state := stateDir(t)
	url := "http://" + address + dovecot.LuaPath + "\n  badgeagent_state = " + state
	s := imaptest.Run(t, imaptest.Config{Include: write(t, t.TempDir(), "lua.conf", notifying(script, url))})
	began := time.Now()
	c, err := s.Courier()
	must(t, err)
	var users []string
	for i := range 20 {
		users = append(users, fmt.Sprintf("user%02d", i))
	}
	must(t, c.DeliverAll(users, "to all"))
	must(t, c.Close())
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("a delivery to 20 took %v, want a second and what Dovecot needs", took)
	}
	r, err := s.Reader("user03")
	must(t, err)
	defer r.Close()
	all, err := r.Messages(false)
	must(t, err)
	began = time.Now()
	for range 5 {
		must(t, r.MarkRead(all...))
		must(t, r.MarkUnread(all...))
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("ten STOREs took %v, want a second at most", took)
	}
	resume()
	late := time.Now().Add(30 * time.Second)
	for told := ""; told != "missed"; {
		if time.Now().After(late) {
			t.Fatal("the agent was never told that it has missed something")
		}
		must(t, r.MarkRead(all...))
		must(t, r.MarkUnread(all...))
		select {
		case told = <-h:
		case <-time.After(500 * time.Millisecond): // Dovecot's script waits for the next slot of ten seconds
		}
	}
	files, err := os.ReadDir(filepath.Join(imaptest.Root(), state))
	must(t, err)
	for _, f := range files {
		if strings.HasPrefix(f.Name(), "badgeagent-missed") {
			t.Errorf("%s is left: the agent would count everything again and again", f.Name())
		}
	}
}

// Of what is marked \Deleted the script tells no count: STATUS counts it.
func TestWhatIsMarkedDeletedIsAskedFor(t *testing.T) {
	t.Parallel()
	s, h := shipped(t, "11-badgeagent.conf", dovecot.LuaPath)
	must(t, s.Deliver("ann", "one"))
	must(t, s.Deliver("ann", "two"))
	h.want(t, "ann 1")
	h.want(t, "ann 2")
	r, err := s.Reader("ann")
	must(t, err)
	defer r.Close()
	all, err := r.Messages(false)
	must(t, err)
	must(t, r.MarkDeleted(all[0]))
	h.want(t, "ann ?")
}

// Who reads mail in somebody else's mailbox changes the owner's count; the event
// names the reader, and the folder by the reader's name for it.
func TestSharedMailbox(t *testing.T) {
	t.Parallel()
	s, h := shippedAt(t, "11-badgeagent.conf", dovecot.LuaPath, site{dovecot: imaptest.Sharing(), agent: dovecot.Config{Shared: []string{"shared/{user}/"}}})
	must(t, s.Deliver("ann", "one"))
	must(t, s.Deliver("ann", "two"))
	h.want(t, "ann 2")
	must(t, s.Admin("acl", "set", "-u", "ann", "INBOX", "user=bob", "lookup", "read", "write", "write-seen", "insert", "expunge"))
	bob, err := s.Opened("bob", "shared/ann/INBOX")
	must(t, err)
	defer bob.Close()
	all, err := bob.Messages(false)
	must(t, err)
	if len(all) != 2 {
		t.Fatalf("bob sees %d messages of ann, want 2", len(all))
	}
	must(t, bob.MarkRead(all[0]))
	h.want(t, "ann ?")
	ann, err := s.Reader("ann")
	must(t, err)
	defer ann.Close()
	if unread, err := ann.Messages(true); err != nil || len(unread) != 1 {
		t.Errorf("ann has %d unread messages, want 1: bob's flag is hers (%v)", len(unread), err)
	}
}

// Over networks that others are on the script speaks TLS, and shows its token to
// nobody whose authority Dovecot does not know.
func TestShippedLuaOverTLS(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "authority-") // TempDir is closed to Dovecot's users
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // a leftover fails nothing
	must(t, os.Chmod(dir, 0o755))
	known := httptest.NewTLSServer(http.NotFoundHandler())
	defer known.Close() // all such servers have one certificate
	ca := write(t, dir, "ca.pem", string(authtest.CertificatePEM(known.Certificate())))
	must(t, os.Chmod(ca, 0o644))
	s, h := shippedAt(t, "11-badgeagent.conf", dovecot.LuaPath, site{https: true, dovecot: "\nssl_client_ca_file = " + ca + "\n"})
	must(t, s.Deliver("ann", "one"))
	h.want(t, "ann 1")

	s, h = shippedAt(t, "11-badgeagent.conf", dovecot.LuaPath, site{https: true})
	must(t, s.Deliver("ann", "one"))
	s.Stop() // the answer to a delivery may be sooner than its line
	if log := s.Log(); len(h) != 0 || !strings.Contains(log, "badgeagent: https://") {
		t.Errorf("want nothing told to an authority that is not known, and a warning in\n%s", log)
	}
}
