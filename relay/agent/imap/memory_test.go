package imap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/test/bufconn"

	"badgerelay/relay/agent/source"
)

// memory is a mail server in memory, and how it misbehaves. It runs in a bubble,
// so that a test of an hour takes no time.
type memory struct {
	t        *testing.T
	listener *bufconn.Listener
	server   *imapserver.Server
	log      bytes.Buffer // the source's; read it when nothing runs

	mu       sync.Mutex // guards what follows
	users    *imapmemserver.Server
	logins   map[string]int // by user, and "" for those refused
	dials    int
	open     int
	most     int    // connections open at once
	down     error  // nobody connects
	mute     bool   // who connects hears nothing
	refusing bool   // nobody is let in
	sick     string // this user's login fails, and not by a refusal
	cutOff   bool   // who is let in is cut off
}

func newMemory(t *testing.T, caps ...imap.Cap) *memory {
	m := &memory{
		t: t, listener: bufconn.Listen(64 << 10), users: imapmemserver.New(),
		logins: make(map[string]int),
	}
	set := imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapESearch: {}}
	for _, c := range caps {
		set[c] = struct{}{}
	}
	m.server = imapserver.New(&imapserver.Options{
		Caps: set, InsecureAuth: true, Logger: log.New(io.Discard, "", 0),
		NewSession: func(c *imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return &visit{Session: m.users.NewSession(), of: m, conn: c.NetConn()}, nil, nil
		},
	})
	go func() { _ = m.server.Serve(m.listener) }() // ends with close; the bubble waits for it
	return m
}

// visit is a login that is counted.
type visit struct {
	imapserver.Session
	of   *memory
	conn net.Conn
}

// Login implements imapserver.Session.
func (s *visit) Login(user, password string) error {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	if s.of.refusing {
		s.of.logins[""]++
		return imapserver.ErrAuthFailed
	}
	if user == s.of.sick {
		s.of.logins[""]++
		return &imap.Error{Type: imap.StatusResponseTypeNo, Code: imap.ResponseCodeServerBug, Text: "index is broken"}
	}
	if err := s.Session.Login(user, password); err != nil {
		s.of.logins[""]++
		return err
	}
	s.of.logins[user]++
	return nil
}

// Idle implements imapserver.Session.
func (s *visit) Idle(w *imapserver.UpdateWriter, stop <-chan struct{}) error {
	s.of.mu.Lock()
	cutOff := s.of.cutOff
	s.of.mu.Unlock()
	if cutOff {
		return s.conn.Close()
	}
	return s.Session.Idle(w, stop)
}

func (m *memory) add(users ...string) {
	for _, name := range users {
		u := imapmemserver.NewUser(name, "secret")
		must(m.t, u.Create("INBOX", nil))
		m.users.AddUser(u)
	}
}

// config is that of a source for this server.
func (m *memory) config() Config {
	return Config{
		Address: "memory", Dial: m.dial, Logger: slog.New(slog.NewTextHandler(&m.log, nil)),
		Login: func(user string) (Login, error) { return Login{User: user, Password: "secret"}, nil },
	}
}

func (m *memory) dial(ctx context.Context) (net.Conn, error) {
	m.mu.Lock()
	m.dials++
	down, mute := m.down, m.mute
	m.open++
	m.most = max(m.most, m.open)
	m.mu.Unlock()
	if down != nil {
		m.closed()
		return nil, down
	}
	if mute {
		here, _ := net.Pipe()
		return &counted{here, sync.OnceFunc(m.closed)}, nil
	}
	conn, err := m.listener.DialContext(ctx)
	if err != nil {
		m.closed()
		return nil, err
	}
	return &counted{conn, sync.OnceFunc(m.closed)}, nil
}

func (m *memory) closed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open--
}

// counted is a connection whose end is noticed.
type counted struct {
	net.Conn
	closed func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.closed()
	return c.Conn.Close()
}

// set changes how the server misbehaves.
func (m *memory) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// take returns how often each user has logged in, and starts over.
func (m *memory) take() (logins map[string]int, dials int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	logins, dials = m.logins, m.dials
	m.logins, m.dials = make(map[string]int), 0
	return logins, dials
}

// during runs a source on the server while f runs.
func (m *memory) during(c Config, f func(*Source, *sink)) {
	m.t.Helper()
	s, err := New(c)
	if err != nil {
		m.t.Fatal(err)
	}
	counts := newSink()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx, counts) }) // always nil
	synctest.Wait()
	f(s, counts)
	cancel()
	running.Wait()
	_ = m.server.Close() // and the bubble sees whether something is left
	if m.open != 0 {
		m.t.Errorf("%d connections are left open", m.open)
	}
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestTurnsAreFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, imap.CapIdle)
		all := users(40)
		m.add(all...)
		c := m.config()
		c.MaxConnections, c.PollInterval = 6, 4*time.Minute
		m.during(c, func(s *Source, _ *sink) {
			for _, u := range all {
				s.Watch(u)
			}
			pass(c.PollInterval + time.Second)
			logins, _ := m.take()
			for _, u := range all {
				if logins[u] == 0 {
					t.Errorf("%s had no turn within the poll interval", u)
				}
			}
			pass(time.Hour)
			logins, _ = m.take()
			for _, u := range all {
				if n := logins[u]; n < 14 || n > 16 {
					t.Errorf("%s had %d turns in an hour, want one each 4 minutes", u, n)
				}
			}
			if m.most != (c.connections() - c.askers(c.connections())) {
				t.Errorf("%d connections at once, want all %d that watch", m.most, (c.connections() - c.askers(c.connections())))
			}
			for _, u := range all[(c.connections() - c.askers(c.connections())):] {
				s.Unwatch(u)
			}
			pass(10 * time.Minute)
			m.take()
			pass(time.Hour)
			if logins, _ := m.take(); len(logins) != 0 {
				t.Errorf("logins %v, want none: each mailbox has a connection of its own now", logins)
			}
		})
	})
}

func TestPollingKeepsItsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t)
		m.add("ann", "bob")
		c := m.config()
		c.Watch = "poll"
		m.during(c, func(s *Source, counts *sink) {
			s.Watch("ann")
			s.Watch("bob")
			pass(time.Second)
			if got, _ := m.take(); got["ann"] != 1 || got["bob"] != 1 || counts.number() != 2 {
				t.Errorf("logins %v and %d counts at the start, want one each", got, counts.number())
			}
			pass(time.Hour)
			if got, _ := m.take(); got["ann"] != 12 || got["bob"] != 12 {
				t.Errorf("logins %v in an hour, want one each 5 minutes", got)
			}
		})
	})
}

func TestAServerThatIsDownIsNotStormed(t *testing.T) {
	for name, misbehave := range map[string]func(m *memory, on bool){
		"refuses connections": func(m *memory, on bool) {
			m.down = nil
			if on {
				m.down = errors.New("connection refused")
			}
		},
		"says nothing": func(m *memory, on bool) { m.mute = on },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory(t, imap.CapIdle)
				all := users(200)
				m.add(all...)
				c := m.config()
				c.MaxConnections = 300
				m.during(c, func(s *Source, counts *sink) {
					m.set(func() { misbehave(m, true) })
					for _, u := range all {
						s.Watch(u)
					}
					pass(time.Minute)
					m.take()
					pass(time.Hour)
					if _, dials := m.take(); dials < 30 || dials > 150 {
						t.Errorf("%d attempts in an hour, want one or two a minute", dials)
					}
					m.set(func() { misbehave(m, false) })
					pass(unreachableMax + c.timeout() + failedMin)
					if n := counts.mailboxes(); n != len(all) {
						t.Errorf("%d mailboxes counted after it came back, want %d", n, len(all))
					}
				})
				if n := bytes.Count(m.log.Bytes(), []byte("mail server can't be reached")); n != 1 {
					t.Errorf("%d lines in the log, want one:\n%s", n, m.log.String())
				}
			})
		})
	}
}

func TestAWrongPasswordDoesNotLookLikeAnAttack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, imap.CapIdle)
		all := users(50)
		m.add(all...)
		c := m.config()
		m.during(c, func(s *Source, counts *sink) {
			s.SetLogin(func(user string) (Login, error) { return Login{User: user, Password: "wrong"}, nil })
			for _, u := range all {
				s.Watch(u)
			}
			pass(time.Minute)
			m.take()
			pass(time.Hour)
			if logins, _ := m.take(); logins[""] < 10 || logins[""] > 30 {
				t.Errorf("%d refused logins in an hour, want one in five minutes or somewhat more", logins[""])
			}
			s.SetLogin(m.config().Login)
			pass(failedMin + time.Second)
			if n := counts.mailboxes(); n != len(all) {
				t.Errorf("%d mailboxes counted after it was mended, want %d", n, len(all))
			}
			if n := counts.recoveries(); n != 1 {
				t.Errorf("told %d times that it is mended, want once", n)
			}
		})
		if n := bytes.Count(m.log.Bytes(), []byte("refuses every login")); n != 1 {
			t.Errorf("%d lines in the log, want one:\n%s", n, m.log.String())
		}
	})
}

func TestRefusedMailboxesAreNoTroubleForTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, imap.CapIdle)
		m.add("ann", "bob")
		m.during(m.config(), func(s *Source, counts *sink) {
			for _, u := range []string{"ann", "bob"} {
				s.Watch(u)
			}
			pass(time.Second)
			for _, u := range []string{"gone", "away", "elsewhere", "nowhere"} {
				s.Watch(u)
			}
			pass(time.Hour)
			logins, _ := m.take()
			if logins["ann"] != 1 || logins["bob"] != 1 || logins[""] < 4*5 || logins[""] > 4*12 {
				t.Errorf("logins %v, want one each, and the refused ones tried less and less", logins)
			}
			if s.gate.state() != troubleNone {
				t.Error("the server seems to be in trouble")
			}
			if n := bytes.Count(m.log.Bytes(), []byte("mailbox not watched")); n != 4 {
				t.Errorf("%d lines in the log, want one for each mailbox:\n%s", n, m.log.String())
			}
			m.add("gone") // as when a user comes back
			pass(failedMax)
			if counts.mailboxes() != 3 {
				t.Errorf("%d mailboxes counted, want the third as well", counts.mailboxes())
			}
		})
	})
}

func TestAMailboxInTroubleIsNoneForTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, imap.CapIdle)
		m.add("ann", "bob", "sick")
		m.during(m.config(), func(s *Source, counts *sink) {
			s.Watch("ann")
			pass(time.Second)
			m.set(func() { m.sick = "sick" })
			s.Watch("sick")
			pass(10 * time.Minute)
			s.Watch("bob")
			pass(time.Millisecond)
			if counts.mailboxes() != 2 {
				t.Error("bob waits because of somebody else's mailbox")
			}
			pass(50 * time.Minute)
			if logins, _ := m.take(); logins[""] < 5 || logins[""] > 12 {
				t.Errorf("logins %v, want the one in trouble tried less and less", logins)
			}
			if trouble := s.Status().Trouble; trouble != "" {
				t.Errorf("the server %s, it seems", trouble)
			}
			m.set(func() { m.sick = "" })
			pass(failedMax)
			if counts.mailboxes() != 3 {
				t.Error("it is not counted though it is well again")
			}
		})
	})
}

func TestLoginsThatFailAreTheMailboxsOrTheServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		for _, name := range append(users(9), "other") {
			g.watch(name)
		}
		for _, name := range users(9) {
			g.reached(name)
		}
		for i, name := range []string{"user000", "user000", "other", "user001", "other", "user002"} {
			g.broken(name)
			if got, want := g.state() != troubleNone, i == 5; got != want {
				t.Errorf("after failure %d, %s: trouble %v, want it after the third that was let in before", i, name, got)
			}
		}
		g = newGate()
		g.watch("ann")
		g.reached("ann")
		if g.broken("ann"); g.state() != troubleUnavailable {
			t.Error("nobody is let in any more, and no trouble is seen")
		}
	})
}

func TestWatchOffKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t)
		c, registry := m.config(), prometheus.NewRegistry()
		c.Watch, c.Registerer = "off", registry
		m.during(c, func(s *Source, _ *sink) {
			s.Watch("ann")
			families, err := registry.Gather()
			must(t, err)
			for _, f := range families {
				if f.GetName() == "imap_mailboxes_waiting" && f.GetMetric()[0].GetGauge().GetValue() != 0 {
					t.Errorf("%v, want none waiting for what is off", f)
				}
			}
		})
	})
}

func TestAConnectionThatDoesNotLastIsMadeLessAndLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, imap.CapIdle)
		m.add("ann")
		m.cutOff = true
		m.during(m.config(), func(s *Source, _ *sink) {
			s.Watch("ann")
			pass(time.Hour)
			if _, dials := m.take(); dials < 3 || dials > 12 {
				t.Errorf("%d connections in an hour, want a handful\n%s", dials, m.log.String())
			}
		})
	})
}

func TestGateLetsOneTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		if pause, first := g.unreachable(); !first || pause < unreachableMin/2 || pause > unreachableMin {
			t.Errorf("the first failure: %v, %v", pause, first)
		}
		pass(unreachableMin)
		gone, leave := context.WithCancel(t.Context())
		leave()
		if err := g.enter(gone); err == nil {
			t.Error("somebody entered who had left")
		}
		if err := g.enter(t.Context()); err != nil {
			t.Errorf("enter after the pause: %v", err)
		}
		if _, first := g.unreachable(); first {
			t.Error("the second failure in a row says that it is the first")
		}
		entered := make(chan int, 10)
		var waiting sync.WaitGroup
		for i := range 10 {
			waiting.Go(func() {
				if g.enter(t.Context()) == nil {
					entered <- i
				}
			})
		}
		pass(2 * unreachableMin)
		if n := len(entered); n != 1 {
			t.Errorf("%d entered after the pause, want one to try", n)
		}
		if again := g.reached("ann"); !again {
			t.Error("reached did not end the trouble")
		}
		waiting.Wait()
		if n := len(entered); n != 10 {
			t.Errorf("%d entered in the end, want all", n)
		}
	})
}

func TestARefusalIsTheMailboxsOrTheServers(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want error
	}{
		{nil, nil},
		{io.ErrUnexpectedEOF, io.ErrUnexpectedEOF},
		{&imap.Error{Type: imap.StatusResponseTypeNo}, source.ErrMailbox},
		{&imap.Error{Type: imap.StatusResponseTypeNo, Code: imap.ResponseCodeAuthenticationFailed}, source.ErrMailbox},
		{&imap.Error{Type: imap.StatusResponseTypeNo, Code: imap.ResponseCodeNoPerm}, source.ErrMailbox},
		{&imap.Error{Type: imap.StatusResponseTypeNo, Code: imap.ResponseCodeUnavailable}, source.ErrUnavailable},
		{&imap.Error{Type: imap.StatusResponseTypeNo, Code: imap.ResponseCodeLimit}, source.ErrUnavailable},
		{&imap.Error{Type: imap.StatusResponseTypeNo, Code: imap.ResponseCodeServerBug}, source.ErrUnavailable},
	} {
		err := refusal(tt.err)
		if !errors.Is(err, tt.want) || !errors.Is(err, tt.err) || errors.Is(err, source.ErrMailbox) != errors.Is(tt.want, source.ErrMailbox) {
			t.Errorf("refusal(%v) = %v, want it to be %v", tt.err, err, tt.want)
		}
	}
}

func TestNotifyCommand(t *testing.T) {
	got := notifyCommand([]string{"INBOX", "Work/2026"})
	if want := `NOTIFY SET (mailboxes ("INBOX" "Work/2026") (MessageNew MessageExpunge FlagChange))`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	got = notifyCommand([]string{"a&b", "Entwürfe", `a"b`})
	if want := `NOTIFY SET (mailboxes ("a&-b" "Entw&APw-rfe" "a\"b") (MessageNew MessageExpunge FlagChange))`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestLoginOfAMasterUser(t *testing.T) {
	for _, tt := range []struct {
		name, separator string
		want            Login
	}{
		{"agent", "", Login{User: "agent", Password: "secret", Identity: "ann"}},
		{"agent", "*", Login{User: "ann*agent", Password: "secret"}},
		{"FABRIKAM/agent/{user}", "", Login{User: "FABRIKAM/agent/ann", Password: "secret"}},
		{"agent@fabrikam.com/{user}@fabrikam.com", "", Login{User: "agent@fabrikam.com/ann@fabrikam.com", Password: "secret"}},
	} {
		if got, err := Master(tt.name, "secret", tt.separator)("ann"); err != nil || got != tt.want {
			t.Errorf("Master(%q, %q): %+v, %v, want %+v", tt.name, tt.separator, got, err, tt.want)
		}
	}
	for _, user := range []string{"", "a\x00b", "a*b"} {
		if login, err := Master("agent", "secret", "*")(user); err == nil {
			t.Errorf("%q logs in as %+v", user, login)
		}
	}
}

func TestCredentialsSayWhichLineIsWrong(t *testing.T) {
	logins, err := parseCredentials([]byte("# comment\n\nann\tann@corp\tpass word\r\nbob\tx\nann\ta\tb\n\tq\tr\nzoe\tz\t\x00\n"), false)
	want := "line 4: want user, login name and password, with tabs between them\nline 5: user given twice\n" +
		"line 6: want user, login name and password, with tabs between them\nline 7: holds a zero byte"
	if fmt.Sprint(err) != want {
		t.Errorf("errors:\n%v\nwant:\n%s", err, want)
	}
	if got := logins["ann"]; got != (Login{User: "ann@corp", Password: "pass word"}) {
		t.Errorf("ann's login is %+v", got)
	}
}

// TestAUserIsFoundInAnyCase has the app register with another spelling of the user's name.
func TestAUserIsFoundInAnyCase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials")
	must(t, os.WriteFile(path, []byte("Ann\tann\tone\nbob\tbob\ttwo\n"), 0o600))
	for _, caseSensitive := range []bool{false, true} {
		logins, err := CredentialsFile(path, caseSensitive)
		must(t, err)
		for user, exact := range map[string]bool{"Ann": true, "ann": false, "bob": true, "Bob": false} {
			if login, err := logins(user); (err == nil) != (exact || !caseSensitive) || err == nil && login.User != strings.ToLower(user) {
				t.Errorf("case sensitive %v: %s logs in as %q, %v", caseSensitive, user, login.User, err)
			}
		}
	}
	const twice = "ann\tann\tone\nAnn\tAnn\ttwo\n"
	if errs := CheckCredentials([]byte(twice), false); len(errs) != 1 {
		t.Errorf("two logins of one user: %v, want one error", errs)
	}
	if errs := CheckCredentials([]byte(twice), true); len(errs) > 0 {
		t.Errorf("logins of two users: %v", errs)
	}
}

// FuzzCredentials reads a file of logins: whatever is taken can be logged in
// with, and no error shows a password.
func FuzzCredentials(f *testing.F) {
	f.Add([]byte("# comment\n\nann\tann@corp\tpass word\r\nbob\tx\nann\ta\tb\n\tq\tr\nzoe\tz\t\x00\n"))
	f.Add([]byte("a\tb\tc\r\r\n\t\t\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		logins, err := parseCredentials(data, false)
		for user, login := range logins {
			for _, s := range []string{user, login.User, login.Password} {
				if s == "" || strings.ContainsAny(s, "\t\n\x00") {
					t.Errorf("%q: taken %q with %+v", data, user, login)
				}
			}
		}
		if err == nil {
			return
		}
		for line := range strings.Lines(err.Error()) {
			rest, ok := strings.CutPrefix(line, "line ")
			if _, text, _ := strings.Cut(rest, ": "); !ok || !slices.Contains(credentialProblems, strings.TrimSpace(text)) {
				t.Errorf("%q: the error says %q", data, line)
			}
		}
	})
}

// credentialProblems are all that is said about a line.
var credentialProblems = []string{"want user, login name and password, with tabs between them", "holds a zero byte", "user given twice"}

// script is a connection that says something in chunks.
type script struct {
	deaf
	said  []byte
	chunk int
}

// Read implements net.Conn.
func (s *script) Read(p []byte) (int, error) {
	if len(s.said) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.said[:min(s.chunk, len(s.said))])
	s.said = s.said[n:]
	return n, nil
}
