package imap

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"badgerelay/relay/agent/imap/imaptest"
	"badgerelay/relay/agent/source"
)

// TestEveryWayOfWatching lets the same things happen to a mailbox whatever way
// it is watched.
func TestEveryWayOfWatching(t *testing.T) {
	t.Parallel()
	d := imaptest.Run(t, imaptest.Config{})
	for _, watch := range []string{"notify", "idle", "poll"} {
		t.Run(watch, func(t *testing.T) {
			t.Parallel()
			mailbox := watch + `"s box`
			c := ofDovecot(d)
			c.Watch = watch
			if watch == "poll" {
				c.PollInterval = 50 * time.Millisecond
			}
			s, counts := run(t, c)
			s.Watch(mailbox)
			first := counts.want(t, mailbox, 0, "an empty mailbox")
			must(t, d.Deliver(mailbox, "one"))
			counts.want(t, mailbox, 1, "a mail was delivered")
			must(t, d.Deliver(mailbox, "two"))
			counts.want(t, mailbox, 2, "another mail was delivered")
			r, err := d.Reader(mailbox)
			must(t, err)
			defer r.Close()
			all, err := r.Messages(false)
			must(t, err)
			must(t, r.MarkRead(all[0]))
			counts.want(t, mailbox, 1, "one was read")
			must(t, r.MarkUnread(all[0]))
			counts.want(t, mailbox, 2, "it was marked unread again")
			must(t, r.Append())
			counts.want(t, mailbox, 3, "a message was appended")
			must(t, r.Expunge(all[1]))
			counts.want(t, mailbox, 2, "an unread message was expunged")
			must(t, r.Move("Archive", all[0]))
			counts.want(t, mailbox, 1, "an unread message was moved away")
			rest, err := r.Messages(true)
			must(t, err)
			must(t, r.MarkRead(rest...))
			last := counts.want(t, mailbox, 0, "all is read")
			if last.Epoch == 0 || last.Epoch != first.Epoch || last.Version <= first.Version {
				t.Errorf("versions went from %d/%d to %d/%d, want the same epoch and a higher version", first.Epoch, first.Version, last.Epoch, last.Version)
			}
		})
	}
}

func TestFoldersAreAddedUp(t *testing.T) {
	t.Parallel()
	d := imaptest.Run(t, imaptest.Config{})
	for _, watch := range []string{"auto", "notify"} {
		c := ofDovecot(d)
		work, other := "Work", "Projects"
		if watch == "auto" { // names that NOTIFY can't be used for
			work, other = "Work & Play", "Ünread"
			c.PollInterval = 300 * time.Millisecond
		}
		c.Watch, c.Folders = watch, []string{work, "inbox", other}
		s, counts := run(t, c)
		mailbox := "two-" + watch
		s.Watch(mailbox)
		if got := counts.want(t, mailbox, 0, "nothing is there"); got.Epoch != 0 || got.Version != 0 {
			t.Errorf("version %d/%d, want none: two of the folders are missing", got.Epoch, got.Version)
		}
		for range 3 {
			must(t, d.Deliver(mailbox, "x"))
		}
		counts.want(t, mailbox, 3, "three in the inbox")
		r, err := d.Reader(mailbox)
		must(t, err)
		all, err := r.Messages(false)
		must(t, err)
		must(t, r.Move(work, all[0]))
		must(t, r.Move(other, all[1]))
		must(t, r.MarkRead(all[2]))
		counts.want(t, mailbox, 2, "one in each of the other folders")
		must(t, r.Close())
	}
}

func TestCountIsAskedForWithOrWithoutATurn(t *testing.T) {
	t.Parallel()
	d := imaptest.Run(t, imaptest.Config{})
	must(t, d.Deliver("ann", "x"))
	for _, watch := range []string{"off", "notify", "idle"} {
		c := ofDovecot(d)
		c.Watch = watch
		s, counts := run(t, c)
		if watch != "off" {
			s.Watch("ann")
			counts.want(t, "ann", 1, "one mail")
		}
		got, err := s.Count(t.Context(), "ann")
		if err != nil || got.Unread != 1 || got.Mailbox != "ann" || got.Version == 0 {
			t.Errorf("%s: Count = %+v, %v, want one unread", watch, got, err)
		}
	}
}

func TestMoreMailboxesThanConnections(t *testing.T) {
	t.Parallel()
	d := imaptest.Run(t, imaptest.Config{})
	c := ofDovecot(d)
	c.MaxConnections, c.PollInterval = 4, time.Second
	s, counts := run(t, c)
	all := users(20)
	for _, u := range all {
		s.Watch(u)
	}
	for _, u := range all {
		counts.want(t, u, 0, "its first turn")
	}
	for _, u := range all {
		must(t, d.Deliver(u, "x"))
	}
	for _, u := range all {
		counts.want(t, u, 1, "its next turn")
	}
	s.mu.Lock()
	turns := s.turns
	s.mu.Unlock()
	if turns > (c.connections() - c.askers(c.connections())) {
		t.Errorf("%d turns at once, want at most %d", turns, (c.connections() - c.askers(c.connections())))
	}
}

func TestRestartOfTheServerIsSurvived(t *testing.T) {
	t.Parallel()
	d := imaptest.Run(t, imaptest.Config{})
	s, counts := run(t, ofDovecot(d))
	all := users(5)
	for _, u := range all {
		s.Watch(u)
		counts.want(t, u, 0, "before")
	}
	must(t, d.Restart())
	for _, u := range all {
		must(t, d.Deliver(u, "x"))
	}
	for _, u := range all {
		counts.want(t, u, 1, "after the restart")
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	d := imaptest.Run(t, imaptest.Config{})
	c := ofDovecot(d)
	c.Suffix = "@fabrikam.com"
	s, counts := run(t, c)
	if _, err := s.Count(t.Context(), "ann@elsewhere.com"); !errors.Is(err, source.ErrElsewhere) {
		t.Errorf("foreign mailbox: %v, want ErrElsewhere", err)
	}
	if _, err := s.Count(t.Context(), "a\x00b@fabrikam.com"); !errors.Is(err, source.ErrMailbox) {
		t.Errorf("name with a zero byte: %v, want ErrMailbox", err)
	}
	must(t, d.Deliver("ann", "x"))
	s.SetLogin(Master(imaptest.Master, "wrong", ""))
	if _, err := s.Count(t.Context(), "ann@fabrikam.com"); !errors.Is(err, errRefused) {
		t.Errorf("wrong password: %v, want a refusal", err)
	}
	s.SetLogin(Master(imaptest.Master, imaptest.MasterPassword, "*"))
	s.Watch("ann@fabrikam.com")
	counts.want(t, "ann@fabrikam.com", 1, "the right password came by reload")
}

// TestTheSuffixIsFoundInAnyCase has apps register with other spellings of the domain than
// the one that is configured.
func TestTheSuffixIsFoundInAnyCase(t *testing.T) {
	t.Parallel()
	d := imaptest.Run(t, imaptest.Config{})
	must(t, d.Deliver("bob", "x"))
	for _, suffix := range []string{"@fabrikam.com", "@FABRIKAM.COM"} {
		c := ofDovecot(d)
		c.Suffix = suffix
		s, counts := run(t, c)
		for _, mailbox := range []string{"bob@fabrikam.com", "bob@Fabrikam.COM"} {
			s.Watch(mailbox)
			counts.want(t, mailbox, 1, "the suffix is "+suffix)
		}
		c.CaseSensitive = true
		s, _ = run(t, c)
		if _, err := s.Count(t.Context(), "bob@Fabrikam.COM"); !errors.Is(err, source.ErrElsewhere) {
			t.Errorf("the suffix is %s, and its case counts: %v, want ErrElsewhere", suffix, err)
		}
		if _, err := s.Count(t.Context(), "b"); !errors.Is(err, source.ErrElsewhere) {
			t.Errorf("a name shorter than the suffix: %v, want ErrElsewhere", err)
		}
	}
}

func TestOddNames(t *testing.T) {
	t.Parallel()
	d := imaptest.Run(t, imaptest.Config{})
	for _, separator := range []string{"", "*"} {
		c := ofDovecot(d)
		c.Login = Master(imaptest.Master, imaptest.MasterPassword, separator)
		s, counts := run(t, c)
		for _, name := range []string{`with space`, `qu"ote`, `back\slash`, "jürgen müller", "日本語", "o'brien", "a+b@c.example"} {
			s.Watch(name)
			counts.want(t, name, 0, "separator "+separator)
			got, err := s.Count(t.Context(), name)
			if err != nil || got.Mailbox != name {
				t.Errorf("Count(%q) = %v, %v", name, got, err)
			}
		}
	}
}

func TestWhatIsMarkedDeletedIsNotCounted(t *testing.T) {
	t.Parallel()
	d := imaptest.Run(t, imaptest.Config{})
	mark := func(user string) {
		r, err := d.Reader(user)
		must(t, err)
		defer r.Close()
		unread, err := r.Messages(true)
		must(t, err)
		must(t, r.MarkDeleted(unread[0]))
	}
	for _, tt := range []struct {
		watch   string
		folders []string
	}{
		{"notify", nil}, {"notify", []string{"INBOX", "Trash"}}, {"idle", nil}, {"idle", []string{"INBOX", "Trash"}}, {"poll", nil}, {"off", nil},
	} {
		user := fmt.Sprint(tt.watch, len(tt.folders))
		for range 3 {
			must(t, d.Deliver(user, "x"))
		}
		c := ofDovecot(d)
		c.Watch, c.Folders = tt.watch, tt.folders
		if c.PollInterval = 10 * time.Minute; tt.watch == "poll" {
			c.PollInterval = 500 * time.Millisecond
		}
		s, counts := run(t, c)
		if tt.watch == "off" {
			mark(user)
			if got, err := s.Count(t.Context(), user); err != nil || got.Unread != 2 || got.Deleted != 1 {
				t.Errorf("%s: Count = %+v, %v, want 2 and 1 that is marked", user, got, err)
			}
			continue
		}
		s.Watch(user)
		counts.want(t, user, 3, "none is marked")
		mark(user)
		counts.want(t, user, 2, "one was marked")
		must(t, d.Deliver(user, "x"))
		if got := counts.want(t, user, 3, "one came"); got.Deleted != 1 {
			t.Errorf("%s: %+v, want one that is marked", user, got)
		}
	}
}

func TestAFolderThatIsNotThereIsTold(t *testing.T) {
	t.Parallel()
	d := imaptest.Run(t, imaptest.Config{})
	must(t, d.Deliver("ann", "x"))
	for _, watch := range []string{"notify", "idle", "off"} {
		c := ofDovecot(d)
		c.Watch, c.Folders = watch, []string{"INBOX", "Entwürfe"}
		s, counts := run(t, c)
		s.Watch("ann")
		got, err := s.Count(t.Context(), "ann")
		if err != nil || got.Unread != 1 || !slices.Equal(got.Missing, []string{"Entwürfe"}) {
			t.Errorf("%s: Count = %+v, %v, want one and what is missing", watch, got, err)
		}
		if notes := s.Status().Notes; !slices.ContainsFunc(notes, func(n string) bool { return strings.Contains(n, "Entwürfe") }) {
			t.Errorf("%s: the notes are %q, want the missing folder", watch, notes)
		}
		if watch != "off" {
			counts.want(t, "ann", 1, "the inbox is counted")
		}
		c.Folders = []string{"Entwürfe", "Gone"}
		s, _ = run(t, c)
		if _, err := s.Count(t.Context(), "ann"); !errors.Is(err, ErrFolder) || !errors.Is(err, source.ErrMailbox) {
			t.Errorf("%s: no folder is there: %v, want ErrFolder and no 0", watch, err)
		}
	}
	must(t, d.Admin("mailbox", "create", "-u", "ann", "Entwürfe"))
	c := ofDovecot(d)
	c.Folders = []string{"INBOX", "Entwürfe"}
	s, counts := run(t, c)
	s.Watch("ann")
	counts.want(t, "ann", 1, "both are there")
	if notes := s.Status().Notes; len(notes) > 0 {
		t.Errorf("the notes are %q, want none", notes)
	}
}

// What reaches a Maildir behind Dovecot's back, and what no index on disk tells of,
// is seen as soon by the way of watching that is chosen where none is configured.
func TestAutoSeesWhatDovecotIsNotTold(t *testing.T) {
	t.Parallel()
	memory := "mail_location = maildir:~/Maildir:INDEX=MEMORY"
	if imaptest.Is24() {
		memory = "mail_index_path = MEMORY"
	}
	for name, more := range map[string]string{"an index on disk": "", "an index in memory": memory} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := imaptest.Run(t, imaptest.Config{More: more})
			s, counts := run(t, ofDovecot(d))
			s.Watch("ann")
			counts.want(t, "ann", 0, "an empty mailbox")
			began := time.Now()
			must(t, d.Deliver("ann", "one"))
			counts.want(t, "ann", 1, "a mail was delivered")
			must(t, d.PutBehind("ann", "two"))
			counts.want(t, "ann", 2, "a file was put into the Maildir")
			r, err := d.Reader("ann")
			must(t, err)
			defer r.Close()
			all, err := r.Messages(true)
			must(t, err)
			must(t, r.MarkRead(all...))
			counts.want(t, "ann", 0, "all was read")
			t.Logf("three changes were seen in %v", time.Since(began))
		})
	}
}

// After many refused logins Dovecot lets everybody from that address wait, also
// where it trusts the address; what the agent's guide names makes an end of it.
func TestRefusedLoginsSlowDownTheOthers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		more string
		slow bool
	}{
		"by default":             {"", true},
		"login_trusted_networks": {"login_trusted_networks = 127.0.0.0/8", true},
		"no penalty":             {"service anvil {\n  unix_listener anvil-auth-penalty {\n    mode = 0\n  }\n}", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := imaptest.Run(t, imaptest.Config{More: c.more})
			var refused sync.WaitGroup
			for _, user := range users(30) {
				refused.Go(func() { // ends with the answer
					if _, err := d.LogIn(user, "stale password"); err == nil {
						t.Error("a wrong password is let in")
					}
				})
			}
			refused.Wait()
			took, err := d.LogIn("good", imaptest.Password)
			must(t, err)
			if took > time.Second != c.slow {
				t.Errorf("the next login took %v, want it slowed down: %v", took, c.slow)
			}
		})
	}
}
