package imap

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"badgerelay/relay/agent/source"
)

// scripted is a configuration for a server that says exactly what answer
// returns for a command; an empty answer is a plain OK. {tag} stands for the
// command's tag.
func scripted(greeting string, answer func(command string) string) Config {
	return Config{
		Address: "scripted",
		Login:   func(user string) (Login, error) { return Login{User: user, Password: "secret"}, nil },
		Dial: func(context.Context) (net.Conn, error) {
			here, there := net.Pipe()
			go talk(there, greeting, answer) // ends with the connection
			return here, nil
		},
	}
}

func talk(c net.Conn, greeting string, answer func(string) string) {
	defer c.Close()
	if _, err := fmt.Fprintf(c, "%s\r\n", greeting); err != nil {
		return
	}
	_, capabilities, _ := strings.Cut(greeting, "[")
	capabilities, _, _ = strings.Cut(capabilities, "]")
	idle := "" // the tag of IDLE
	for lines := bufio.NewScanner(c); lines.Scan(); {
		tag, command, _ := strings.Cut(lines.Text(), " ")
		said := ""
		switch {
		case tag == "DONE":
			tag = idle
		case command == "IDLE":
			idle, said = tag, "+ idling\r\n"+answer(command)
		case command == "CAPABILITY":
			said = "* " + capabilities + "\r\n{tag} OK\r\n"
		default:
			said = answer(command)
		}
		if said == "" {
			said = "{tag} OK done\r\n"
		}
		if _, err := c.Write([]byte(strings.ReplaceAll(said, "{tag}", tag))); err != nil {
			return
		}
	}
}

// strange is a server that breaks the grammar wherever real ones do.
func strange(command string) string {
	switch {
	case strings.HasPrefix(command, "STATUS"):
		return "*  STATUS  INBOX ()\r\n{tag} OK\r\n"
	case strings.HasPrefix(command, "EXAMINE"):
		return "* FLAGS (\"\\\\Deleted\")\r\n*  1688 EXISTS\r\n* OK [PERMANENTFLAGS (\"\\\\Deleted\" \\* )]\r\n* OK [UIDVALIDITY 7 ] \r\n" +
			"* OK [HIGHESTMODSEQ 12] \r\n* LIST (bad\r\n{tag}  OK  [READ-ONLY] ok \r\n"
	case strings.HasPrefix(command, "SEARCH") && strings.Contains(command, "UNDELETED"), strings.HasPrefix(command, "SEARCH UNSEEN UNDELETED"):
		return "* SEARCH  3 4 \r\n* OK still here\r\n{tag} OK\r\n"
	case strings.HasPrefix(command, "SEARCH"):
		return "* SEARCH\r\n{tag} OK\r\n"
	case strings.HasPrefix(command, "IDLE"):
		return "* OK [ALERT] \"maintenance\" {5}\r\n"
	}
	return ""
}

func TestAServerThatBreaksTheGrammarIsCountedAndWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := scripted("*  OK [CAPABILITY imap4rev1 idle condstore AUTH=PLAIN (x)]", strange)
		if got, err := mustNew(t, c).Count(t.Context(), "ann"); err != nil || got.Unread != 2 || got.Epoch != 7 || got.Version != 12 {
			t.Errorf("Count = %+v, %v, want 2 at 7.12", got, err)
		}
		s, counts, stop := running(t, c)
		s.Watch("ann")
		pass(time.Hour)
		if got := counts.counts["ann"]; got.Unread != 2 {
			t.Errorf("watched: %+v, want 2", got)
		}
		if n := counts.number(); n < 10 || n > 30 {
			t.Errorf("counted %d times in an hour, want one in four minutes: nothing changes", n)
		}
		stop()
	})
}

func TestNamesAreWrittenAsTheServerReadsThem(t *testing.T) {
	for greeting, name := range map[string]string{
		"* OK [CAPABILITY IMAP4rev1 IMAP4rev2 AUTH=PLAIN] beside the older, and no ENABLE was sent": "Entw&APw-rfe",
		"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] the older":                                          "Entw&APw-rfe",
		"* OK [CAPABILITY IMAP4rev2 AUTH=PLAIN] the newer alone":                                    "Entwürfe",
	} {
		synctest.Test(t, func(t *testing.T) {
			c := scripted(greeting, func(command string) string {
				switch {
				case strings.HasPrefix(command, "STATUS "+quote(name)):
					return "* STATUS " + quote(name) + " (UNSEEN 2)\r\n{tag} OK\r\n"
				case strings.HasPrefix(command, "EXAMINE "+quote(name)):
					return "{tag} OK\r\n"
				case strings.HasPrefix(command, "SEARCH") && !strings.Contains(command, " DELETED"):
					return "* ESEARCH (TAG \"{tag}\") COUNT 2\r\n* SEARCH 1 2\r\n{tag} OK\r\n"
				case strings.HasPrefix(command, "STATUS"), strings.HasPrefix(command, "EXAMINE"):
					return "{tag} NO no such mailbox\r\n"
				}
				return ""
			})
			c.Folders = []string{"Entwürfe"}
			if got, err := mustNew(t, c).Count(t.Context(), "ann"); err != nil || got.Unread != 2 {
				t.Errorf("%s: Count = %+v, %v, want 2", greeting, got, err)
			}
		})
	}
}

func TestAFolderThatIsNotShownIsNotARefusedLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustNew(t, scripted("* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] x", func(command string) string {
			if strings.HasPrefix(command, "STATUS") {
				return "{tag} NO [NONEXISTENT] Mailbox doesn't exist: INBOX\r\n"
			}
			return ""
		}))
		_, err := s.Count(t.Context(), "ann")
		if !errors.Is(err, ErrFolder) || !errors.Is(err, source.ErrMailbox) || !strings.Contains(err.Error(), "doesn't exist: INBOX") {
			t.Errorf("Count: %v, want ErrFolder and the server's words", err)
		}
	})
}

// crowd is a server that allows some connections, and how it refuses others.
func crowd(allowed int64, refusal string) (c Config, refused *atomic.Int64) {
	var open atomic.Int64
	refused = new(atomic.Int64)
	c = scripted("", nil)
	c.Dial = func(context.Context) (net.Conn, error) {
		here, there := net.Pipe()
		go func() { // ends with the connection
			defer open.Add(-1)
			if open.Add(1) <= allowed {
				talk(there, "* OK [CAPABILITY IMAP4rev1 IDLE AUTH=PLAIN] x", strange)
				return
			}
			refused.Add(1)
			switch {
			case strings.HasPrefix(refusal, "{tag}"):
				talk(there, "* OK [CAPABILITY IMAP4rev1 IDLE AUTH=PLAIN] x", func(string) string { return refusal })
			case refusal != "":
				_, _ = there.Write([]byte(refusal))
			}
			_ = there.Close()
		}()
		return here, nil
	}
	return c, refused
}

func TestAServersLimitIsLearned(t *testing.T) {
	for name, refusal := range map[string]string{
		"closes at once":    "", // Courier
		"says good bye":     "* BYE Too many connections\r\n",
		"refuses the login": "{tag} NO [LIMIT] enough of you\r\n",
		"says it in words":  "{tag} NO Maximum number of connections from user+IP exceeded\r\n",
		"says unavailable":  "{tag} NO [UNAVAILABLE] Too many simultaneous connections\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, refused := crowd(20, refusal)
				s, counts, stop := running(t, c)
				all := users(60)
				for _, u := range all {
					s.Watch(u)
				}
				pass(6 * time.Minute)
				if n := counts.mailboxes(); n != len(all) {
					t.Errorf("%d mailboxes counted within the poll interval, want all %d", n, len(all))
				}
				if n := refused.Load(); n > 120 {
					t.Errorf("%d connections were refused, want few", n)
				}
				notes := strings.Join(s.Status().Notes, "; ")
				if told := s.limit.told(); told < 17 || told > 22 || !strings.Contains(notes, fmt.Sprintf("allows %d, configured are 100", told)) || !strings.Contains(notes, "60 mailboxes take turns") {
					t.Errorf("the notes are %q, want them to tell", notes)
				}
				refused.Store(0)
				pass(time.Hour)
				if n := refused.Load(); n > 20 {
					t.Errorf("%d connections were refused in an hour, want a handful", n)
				}
				if trouble := s.Status().Trouble; trouble != "" {
					t.Errorf("the server %s, it seems", trouble)
				}
				done := make(chan error, 1)
				go func() { // ends with an answer
					_, err := s.Count(t.Context(), "user007")
					for range 60 {
						if err == nil {
							break
						}
						time.Sleep(5 * time.Second) // as the daemon asks again
						_, err = s.Count(t.Context(), "user007")
					}
					done <- err
				}()
				pass(5 * time.Minute)
				select {
				case err := <-done:
					if err != nil {
						t.Errorf("Count: %v", err)
					}
				default:
					t.Error("Count waits for those that watch")
				}
				stop()
			})
		})
	}
}

func TestALimitThatIsGoneIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimit(30)
		fill := func() {
			for l.in < l.now() {
				l.begin()
				l.accepted()
			}
		}
		for range 10 {
			l.begin()
			l.accepted()
		}
		l.begin()
		if allowed, news := l.refused(time.Now()); allowed != 10 || !news {
			t.Errorf("after a refusal: %d, %v, want 10 and news", allowed, news)
		}
		l.failed()
		for range 10 { // the server still means it
			pass(time.Until(l.raise(time.Now())))
			if l.raise(time.Now()); l.now() > l.in {
				l.begin()
				l.refused(time.Now())
				l.failed()
			}
		}
		if told := l.told(); told != 10 || l.pause != raiseMax {
			t.Errorf("%d are known and one more is tried in %v, want 10 and %v", told, l.pause, raiseMax)
		}
		pass(raiseMax)
		for range 5 * 60 {
			l.raise(time.Now())
			fill()
			pass(time.Second)
		}
		if next := l.raise(time.Now()); l.told() != 30 || !next.IsZero() {
			t.Errorf("%d are allowed after a while, and more at %v, want 30 and no more", l.told(), next)
		}
	})
}

func TestMailboxesThatFailDelayNobody(t *testing.T) {
	for name, refusal := range map[string]string{
		"refused":     "{tag} NO [AUTHENTICATIONFAILED] Authentication failed.\r\n",
		"unavailable": "{tag} NO [UNAVAILABLE] Temporary authentication failure.\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var logins atomic.Int64
				c := scripted("* OK [CAPABILITY IMAP4rev1 IDLE] x", func(command string) string {
					if strings.HasPrefix(command, "LOGIN \"a") || strings.HasPrefix(command, "LOGIN a") {
						logins.Add(1)
						time.Sleep(2 * time.Second) // as Dovecot does
						return refusal
					}
					return strange(command)
				})
				s, counts, stop := running(t, c)
				for _, u := range users(30) {
					s.Watch("a" + u) // they sort first
				}
				for _, u := range users(30) {
					s.Watch(u)
				}
				pass(2 * time.Minute)
				if n := counts.mailboxes(); n != 30 {
					t.Errorf("%d mailboxes counted, want the other 30", n)
				}
				if trouble := s.Status().Trouble; trouble != "" {
					t.Errorf("the server %s, it seems", trouble)
				}
				pass(3 * time.Hour)
				logins.Store(0)
				for range 60 {
					for _, u := range users(30) {
						go func() { _, _ = s.Count(t.Context(), "a"+u) }() // news of them
					}
					pass(time.Minute)
				}
				most := int64(60) // refusals: one in about two minutes at the most
				if name == "unavailable" {
					most = 2000
				}
				if n := logins.Load(); n > most {
					t.Errorf("%d failing logins in an hour, want at most %d", n, most)
				}
				stop()
			})
		})
	}
}

// silent is an answer that never comes.
const silent = "* OK still here\r\n"

// Mailboxes whose login or count gets no answer hold up the others for seconds,
// also where the server allows few connections; and they get their time later.
func TestMailboxesThatHangDelayNobody(t *testing.T) {
	for where, commands := range map[string][]string{"login": {"LOGIN"}, "count": {"STATUS", "EXAMINE"}} {
		for _, watch := range []string{"auto", "off"} {
			t.Run(where+" "+watch, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var slow atomic.Bool // it is slow, and no more than that
					c := perUser("* OK [CAPABILITY IMAP4rev1 IDLE] x", func(user, command string) string {
						if strings.HasPrefix(user, "a") && slices.Contains(commands, strings.Fields(command)[0]) {
							if !slow.Load() {
								return silent
							}
							time.Sleep(20 * time.Second)
						}
						return strange(command)
					})
					c.MaxConnections, c.Watch = 20, watch
					s, counts, stop := running(t, c)
					var all []string
					for _, u := range users(100) {
						all = append(all, "a"+u)
					}
					all = append(all, users(15)...)
					for _, u := range all {
						s.Watch(u)
					}
					counted := newSink()
					next := make(chan string, len(all))
					for _, u := range all {
						next <- u
					}
					asking, cancel := context.WithCancel(t.Context())
					for range 16 { // as the daemon asks: four workers that wait two seconds each, for eight in all
						go func() { // ends with asking
							for asking.Err() == nil {
								u := <-next
								ctx, cancel := context.WithTimeout(asking, 8*time.Second)
								if n, err := s.Count(ctx, u); err == nil {
									counted.Counted(n)
								}
								cancel()
								next <- u // those that failed come last
								time.Sleep(time.Second)
							}
						}()
					}
					pass(2 * time.Minute)
					if n := counted.mailboxes(); n != 15 {
						t.Errorf("%d mailboxes counted when asked, want 15", n)
					}
					if n := counts.mailboxes(); watch != "off" && n != 15 {
						t.Errorf("%d mailboxes watched, want 15", n)
					}
					if trouble := s.Status().Trouble; trouble != "" {
						t.Errorf("the server %s, it seems", trouble)
					}
					cancel()
					slow.Store(true)
					pass(3 * time.Hour)
					if n := counts.mailboxes(); watch != "off" && n != len(all) {
						t.Errorf("%d mailboxes watched, want those that are slow as well", n)
					}
					stop()
					pass(time.Minute) // what the server is doing
				})
			})
		}
	}
}

// perUser is a scripted server that knows whose connection it is.
func perUser(greeting string, answer func(user, command string) string) Config {
	c := scripted(greeting, nil)
	c.Dial = func(context.Context) (net.Conn, error) {
		here, there := net.Pipe()
		var user string
		go talk(there, greeting, func(command string) string { // ends with the connection
			if login, ok := strings.CutPrefix(command, "LOGIN "); ok {
				user = strings.Trim(strings.Fields(login)[0], `"`)
			}
			return answer(user, command)
		})
		return here, nil
	}
	return c
}

func mustNew(t *testing.T, c Config) *Source {
	t.Helper()
	s, err := New(c)
	must(t, err)
	return s
}

// running runs a source in a bubble until stop is called.
func running(t *testing.T, c Config) (s *Source, counts *sink, stop func()) {
	t.Helper()
	s, counts = mustNew(t, c), newSink()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, counts) }()
	return s, counts, func() {
		cancel()
		must(t, <-ended)
		pass(5 * time.Second) // what the server is doing
	}
}
