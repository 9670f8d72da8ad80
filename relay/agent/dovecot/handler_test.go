package dovecot_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"badgerelay/relay/agent/dovecot"
	"badgerelay/relay/agent/source"

	"github.com/prometheus/client_golang/prometheus"
)

// told is a sink that remembers.
type told struct{ lines []string }

func (s *told) Counted(c source.Count) {
	s.lines = append(s.lines, fmt.Sprintf("%s=%d @%d.%d", c.Mailbox, c.Unread, c.Epoch, c.Version))
}

func (s *told) Changed(mailbox string) { s.lines = append(s.lines, mailbox+"?") }

func (s *told) Recovered() {}

func (s *told) Missed() { s.lines = append(s.lines, "missed") }

// said empties the sink.
func (s *told) said() string {
	all := strings.Join(s.lines, " ")
	s.lines = nil
	return all
}

// rig is a handler with what it tells, logs and measures.
type rig struct {
	told
	handler http.Handler
	log     bytes.Buffer
	metrics *prometheus.Registry
}

func newRig(c dovecot.Config) *rig {
	r := &rig{metrics: prometheus.NewRegistry()}
	c.Metrics, c.Logger = r.metrics, slog.New(slog.NewTextHandler(&r.log, nil))
	r.handler = running(c, r)
	return r
}

// running returns a handler that tells sink.
func running(c dovecot.Config, sink source.Sink) *dovecot.Handler {
	h := dovecot.New(c)
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // Run needs no goroutine to go on telling
	_ = h.Run(ctx, sink)
	return h
}

// send makes a request as Dovecot would, and returns status and code.
func (r *rig) send(method, path, body string) string {
	return r.answer(httptest.NewRequestWithContext(context.Background(), method, path, strings.NewReader(body)))
}

// answer returns status and code of the answer to a request.
func (r *rig) answer(request *http.Request) string {
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, request)
	if w.Code == http.StatusNoContent {
		return "204"
	}
	var refused struct {
		Error struct{ Code, Message string }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &refused); err != nil || refused.Error.Message == "" {
		return fmt.Sprintf("%d %q", w.Code, w.Body.String())
	}
	return fmt.Sprintf("%d %s", w.Code, refused.Error.Code)
}

func (r *rig) want(t *testing.T, answer, said, method, path, body string) {
	t.Helper()
	if got := r.send(method, path, body); got != answer {
		t.Errorf("%s %s %s = %s, want %s", method, path, body, got, answer)
	}
	if got := r.said(); got != said {
		t.Errorf("%s %s %s told %q, want %q", method, path, body, got, said)
	}
}

func TestLua(t *testing.T) {
	r := newRig(dovecot.Config{})
	lua := func(answer, said, query string) {
		t.Helper()
		r.want(t, answer, said, "POST", dovecot.LuaPath+"?"+query, "")
	}
	lua("204", "ann=7 @5.9", "user=ann&folder=INBOX&event=MessageNew&unseen=7&uidvalidity=5&highestmodseq=9")
	lua("204", "ann=0 @5.10", "user=ann&folder=inbox&event=MessageRead&unseen=0&uidvalidity=5&highestmodseq=10")
	lua("204", "ann=1 @0.0", "user=ann&folder=INBOX&unseen=1&uidvalidity=5") // half an order is none
	lua("204", "ann?", "user=ann&folder=INBOX&event=MailboxDelete")
	lua("204", "", "user=ann&folder=Archive&event=MessageAppend&unseen=3&uidvalidity=6&highestmodseq=2")
	lua("204", "we \"ird\\ j&u=r+gen=2147483647 @0.0", "user=we%20%22ird%5C%20j%26u%3Dr%2Bgen&folder=INBOX&unseen=2147483647")
	lua("204", "jürgen=3 @0.0", "user=j%C3%BCrgen&folder=INBOX&unseen=3&x=%FF&x=1") // of what is not wanted nothing is asked

	for _, query := range []string{
		"", "x", "user=ann", "user=ann&folder=", "user=ann&folder=INBOX&unseen=%", "user=ann;folder=INBOX",
		"user=ann&user=bob&folder=INBOX", "user=ann&folder=INBOX&unseen", "user=ann&folder=INBOX&unseen=",
		"user=ann&folder=INBOX&unseen=-1", "user=ann&folder=INBOX&unseen=+1", "user=ann&folder=INBOX&unseen=1.5", "user=ann&folder=INBOX&unseen=1e3",
		"user=ann&folder=INBOX&unseen=many", "user=ann&folder=INBOX&unseen=2147483648", "user=ann&folder=INBOX&unseen=99999999999999999999",
		"user=ann&folder=INBOX&highestmodseq=9007199254740993", "user=ann%FF&folder=INBOX", "user=ann&folder=IN%FFBOX", "user=ann&folder=INBOX&missed=perhaps",
	} {
		lua("400 malformed", "", query)
	}
	lua("422 invalid", "", "folder=INBOX&unseen=1")
	lua("422 invalid", "", "user="+strings.Repeat("a", 257)+"&folder=INBOX&unseen=1")
	lua("413 too_large", "", "user=ann&folder=INBOX&unseen=1&x="+strings.Repeat("a", 16<<10))
	r.want(t, "400 malformed", "", "POST", dovecot.LuaPath+"?user=ann&folder=INBOX&unseen=1", "{}") // there is no body
	r.want(t, "405 wrong_method", "", "PUT", dovecot.LuaPath+"?user=ann&folder=INBOX&unseen=1", "")
}

func TestNothingIsTakenBeforeTheStart(t *testing.T) {
	r := &rig{handler: dovecot.New(dovecot.Config{})}
	r.want(t, "503 starting", "", "POST", dovecot.LuaPath+"?user=ann&folder=INBOX&unseen=7", "")
}

func TestOX(t *testing.T) {
	const body = `{"user":"ann","event":"messageNew","folder":"INBOX","imap-uidvalidity":5,"imap-uid":2,` +
		`"from":"boss@example.org","subject":"you are fired","snippet":"Dear Ann","unseen":2}`
	r := newRig(dovecot.Config{})
	r.want(t, "204", "ann?", "PUT", dovecot.OXPath, body)
	r.want(t, "204", "", "PUT", dovecot.OXPath, strings.Replace(body, "INBOX", "Archive", 1))
	r.want(t, "405 wrong_method", "", "POST", dovecot.OXPath, body)
	for _, body := range []string{
		"", "x", "[]", "null", `"user"`, "{}", `{"user":"ann"}`, `{"user":"ann","folder":"INBOX"`, `{"user":"ann","folder":"INBOX"}{}`,
		`{"user":"ann","user":"bob","folder":"INBOX"}`, `{"user":1,"folder":"INBOX"}`, `{"user":"ann","folder":["INBOX"]}`,
		`{"user":"ann","folder":"INBOX","unseen":-1}`, `{"user":"ann","folder":"INBOX","unseen":1.5}`, `{"user":"ann","folder":"INBOX","unseen":1e3}`,
		`{"user":"ann","folder":"INBOX","unseen":"1"}`, `{"user":"ann","folder":"INBOX","unseen":null}`, `{"user":"ann","folder":"INBOX","unseen":2147483648}`,
		`{"user":"ann","folder":"INBOX","imap-uidvalidity":9007199254740993}`, "{\"user\":\"ann\xff\",\"folder\":\"INBOX\"}",
		`{"user":"ann","folder":"INBOX","x":` + strings.Repeat("[", 8000),
	} {
		r.want(t, "400 malformed", "", "PUT", dovecot.OXPath, body)
	}
	r.want(t, "413 too_large", "", "PUT", dovecot.OXPath, strings.Replace(body, "Dear Ann", strings.Repeat("Dear Ann", 40<<10), 1))
	for _, private := range []string{"boss", "fired", "Dear"} {
		if strings.Contains(r.log.String(), private) {
			t.Errorf("the log holds %q:\n%s", private, r.log.String())
		}
	}

	blind := newRig(dovecot.Config{Blind: true})
	blind.want(t, "204", "ann=2 @0.0", "PUT", dovecot.OXPath, body) // nobody else can tell
}

func TestFoldersAndNames(t *testing.T) {
	r := newRig(dovecot.Config{Folders: []string{"inbox", "Lists/Go"}, Mailbox: func(user string) string { return user + "@fabrikam.com" }})
	r.want(t, "204", "ann@fabrikam.com?", "POST", dovecot.LuaPath+"?user=ann&folder=INBOX&unseen=7&uidvalidity=5&highestmodseq=9", "") // a part of the sum
	r.want(t, "204", "ann@fabrikam.com?", "POST", dovecot.LuaPath+"?user=ann&folder=Lists%2FGo&unseen=7", "")
	r.want(t, "204", "", "POST", dovecot.LuaPath+"?user=ann&folder=lists%2Fgo&unseen=7", "")
	r.want(t, "422 invalid", "", "POST", dovecot.LuaPath+"?user=&folder=INBOX&unseen=7", "") // not the suffix alone
}

func TestFoldersOfOthers(t *testing.T) {
	r := newRig(dovecot.Config{
		Folders: []string{"INBOX", "shared/team/INBOX"}, Shared: []string{"shared/{user}/", "user.{user}."},
		Mailbox: func(user string) string { return user + "@fabrikam.com" },
	})
	for folder, want := range map[string]string{
		"shared/ann/INBOX":   "ann@fabrikam.com?",
		"shared/ann":         "ann@fabrikam.com?", // Dovecot's other name for it
		"user.ann.INBOX":     "ann@fabrikam.com?",
		"shared/ann/Archive": "",
		"shared/team/INBOX":  "team@fabrikam.com? missed", // in everybody's count
		"shared//INBOX":      "",
		"shared":             "",
		"INBOX":              "bob@fabrikam.com?",
	} {
		r.want(t, "204", want, "POST", dovecot.LuaPath+"?user=bob&folder="+folder+"&unseen=7&uidvalidity=5&highestmodseq=9", "")
	}
	r.want(t, "204", "missed bob@fabrikam.com?", "POST", dovecot.LuaPath+"?user=bob&folder=INBOX&missed=true", "")
}

func TestRefusalsAreCountedAndLoggedOnce(t *testing.T) {
	r := newRig(dovecot.Config{})
	const secret = "do-not-repeat"
	for range 3 {
		r.send("POST", dovecot.LuaPath+"?user="+secret+"&folder=INBOX&unseen="+secret, "")
	}
	r.send("POST", dovecot.LuaPath+"?user=ann&folder=INBOX&unseen=1", "")
	if got := strings.Count(r.log.String(), "notification refused"); got != 1 || strings.Contains(r.log.String(), secret) {
		t.Errorf("three refusals within a minute were logged %d times, want once and without what they held:\n%s", got, r.log.String())
	}
	for series, want := range map[string]float64{"lua counted": 1, "lua malformed": 3, "ox counted": 0} {
		if got, ok := r.measured(t)[series]; !ok || got != want {
			t.Errorf("notifications %s = %v, want %v", series, got, want)
		}
	}
}

// measured is every series of the handler's metric.
func (r *rig) measured(t *testing.T) map[string]float64 {
	t.Helper()
	families, err := r.metrics.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "dovecot_notifications_total" {
		t.Fatalf("metrics are %v, %v; want one family", families, err)
	}
	all := make(map[string]float64)
	for _, m := range families[0].Metric {
		all[m.Label[0].GetValue()+" "+m.Label[1].GetValue()] = m.GetCounter().GetValue()
	}
	return all
}
