package dovecot_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"badgerelay/relay/agent/dovecot"
	"badgerelay/relay/agent/source"
)

// judge is a sink that knows what may be told.
type judge struct {
	t    *testing.T
	told int
}

func (j *judge) Counted(c source.Count) {
	if c.Unread > 1<<31-1 || c.Epoch > 1<<53 || c.Version > 1<<53 {
		j.t.Errorf("told %+v, beyond the bounds", c)
	}
	j.Changed(c.Mailbox)
}

func (j *judge) Recovered() {}

func (j *judge) Missed() {}

func (j *judge) Changed(mailbox string) {
	j.told++
	if mailbox == "" || len(mailbox) > 256 || !utf8.ValidString(mailbox) {
		j.t.Errorf("told of %q, which is no mailbox", mailbox)
	}
}

func FuzzLua(f *testing.F) {
	f.Add("user=ann&folder=INBOX&event=MessageNew&unseen=7&uidvalidity=5&highestmodseq=9")
	f.Add("user=a%ED%A0%80&folder=INBOX&unseen=0")
	f.Add("user=a&folder=INBOX&missed=true&unseen[]=1;")
	f.Fuzz(func(t *testing.T, query string) {
		notify(t, &http.Request{Method: "POST", URL: &url.URL{Path: dovecot.LuaPath, RawQuery: query}, Body: http.NoBody})
	})
}

func FuzzOX(f *testing.F) {
	f.Add(`{"user":"ann","event":"messageNew","folder":"INBOX","imap-uidvalidity":5,"imap-uid":2,"from":"a","subject":"b","snippet":"c","unseen":2}`)
	f.Add(`{"user":"ann","folder":"inbox","unseen":99999999999999999999}`)
	f.Add(`{"user":"a\ud800","folder":"INBOX","unseen":0}`)
	f.Add(`{"user":"a","folder":"INBOX","x":{"unseen":[{}]}}`)
	f.Fuzz(func(t *testing.T, body string) {
		notify(t, httptest.NewRequestWithContext(t.Context(), "PUT", dovecot.OXPath, strings.NewReader(body)))
	})
}

// notify makes a request; whoever is told of has to be taken, and nobody else.
func notify(t *testing.T, request *http.Request) {
	j := &judge{t: t}
	r := &rig{handler: running(dovecot.Config{Blind: true}, j)}
	answer := r.answer(request)
	if taken := answer == "204"; j.told > 1 || j.told == 1 && !taken || !taken && !strings.HasPrefix(answer, "4") {
		t.Errorf("it is answered %s, told of %d", answer, j.told)
	}
}
