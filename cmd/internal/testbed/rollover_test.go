package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// eventually waits until something that nothing tells of has happened.
func (w *harness) eventually(why string, happened func() bool) {
	w.t.Helper()
	late := time.After(soon)
	for tick := time.NewTicker(50 * time.Millisecond); !happened(); {
		select {
		case <-tick.C:
		case <-late:
			w.t.Fatalf("%s: not within %v", why, soon)
		}
	}
}

// run runs a command that must succeed.
func (w *harness) run(program string, args ...string) string {
	w.t.Helper()
	out, err := w.Do(w.t.Context(), program, args...)
	w.do(err)
	return out
}

// credential is a line of badgerelay credential list.
type credential struct {
	Thumbprint string
	LastUsedAt time.Time
}

func (w *harness) credentials() map[string]credential {
	w.t.Helper()
	var list struct{ Credentials []credential }
	w.do(json.Unmarshal([]byte(w.run("badgerelay", "credential", "list", "--organization", Organization, "--output", "json")), &list))
	all := map[string]credential{}
	for _, c := range list.Credentials {
		all[c.Thumbprint] = c
	}
	return all
}

// certificates returns the thumbprints of the current and the next certificate.
func (w *harness) certificates() (current, next string) {
	w.t.Helper()
	var r struct{ Current, Next struct{ Thumbprint string } }
	w.do(json.Unmarshal([]byte(w.run("badgeagent", "cert", "show", "--output", "json")), &r))
	return r.Current.Thumbprint, r.Next.Thumbprint
}

// The organization's key rolls over while mail flows: the relay reads of the
// next one in the agent's document, no stream breaks, and the old one can go.
func TestKeyRollsOverWhileMailFlows(t *testing.T) {
	t.Parallel()
	w := run(t, Config{Users: []string{"ann"}, Watch: "idle", Window: 50 * time.Millisecond})
	mails := uint32(0)
	deliver := func(why string) {
		t.Helper()
		mails++
		w.do(w.Dovecot.Deliver("ann", "mail"))
		w.want(why, "ann", mails)
	}
	streams := func(want int) {
		t.Helper()
		if got := strings.Count(w.Log(), "stream opened"); got != want {
			t.Errorf("%d streams were opened, want %d", got, want)
		}
	}
	deliver("first key")
	effective := time.Now().Add(2 * time.Second).Truncate(time.Second)
	w.run("badgeagent", "cert", "stage", "--force", "--effective", effective.UTC().Format(time.RFC3339))
	first, next := w.certificates()
	w.run("badgerelay", "organization", "update", Organization, "--metadata-url", w.Document())
	w.eventually("the relay reads the document", func() bool { return len(w.credentials()) == 2 })
	w.eventually("the agent changes over", func() bool {
		deliver("rolling")
		return strings.Contains(w.Log(), "certificate rolled over")
	})
	deliver("next key")
	if current, _ := w.certificates(); current != next {
		t.Errorf("current certificate is %s, want %s", current, next)
	}
	streams(1)

	w.do(w.Relay.Stop(t.Context())) // which writes down what it has seen
	w.do(w.StartRelay(t.Context()))
	w.eventually("the agent comes back", func() bool { return strings.Count(w.Log(), "stream opened") == 2 })
	seen := w.credentials()
	if seen[next].LastUsedAt.Before(effective) || !seen[first].LastUsedAt.Before(seen[next].LastUsedAt) || seen[first].LastUsedAt.IsZero() {
		t.Errorf("credential list says %+v, want the next key seen after %v and the first before it", seen, effective)
	}
	w.run("badgerelay", "credential", "remove", "--organization", Organization, first)
	deliver("old key gone")
	w.run("badgeagent", "cert", "retire", "--force")
	deliver("retired")
	streams(2)
	w.run("badgeagent", "probe", "--config", w.Dir+"/agent.yaml")
	w.blameless()
}

// An app back end subscribes a device over the agent's socket, and hears that
// Apple has declared another one dead.
func TestBackEndOverTheSocket(t *testing.T) {
	t.Parallel()
	w := run(t, Config{Users: []string{"ann", "bob"}, Watch: "idle", Window: 50 * time.Millisecond})
	call := func(method, path, body string) (int, string) {
		t.Helper()
		conn, err := net.Dial("unix", w.Socket())
		w.do(err)
		defer conn.Close()
		q, err := http.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
		w.do(err)
		q.Header.Set("Content-Type", "application/json")
		q.Close = true
		w.do(q.Write(conn))
		answer, err := http.ReadResponse(bufio.NewReader(conn), q)
		w.do(err)
		defer answer.Body.Close()
		data, err := io.ReadAll(answer.Body)
		w.do(err)
		return answer.StatusCode, string(data)
	}
	dead := deviceToken("bob")
	registration := fmt.Sprintf(`{"mailbox":%q,"app":%q,"deviceToken":%q}`, Mailbox("bob"), App, dead)
	if code, body := call("POST", "/v1/subscribe", registration); code != http.StatusOK {
		t.Fatalf("subscribe: %d %s", code, body)
	}
	// The app is uninstalled: the next mail shows it.
	w.do(w.Phones.Leave(t.Context(), "bob"))
	w.do(w.Dovecot.Deliver("bob", "mail"))
	code, body := call("GET", "/v1/removed?wait=30", "")
	if code != http.StatusOK || !strings.Contains(body, dead) || !strings.Contains(body, `"removalReason":"Unregistered"`) {
		t.Errorf("removed: %d %s, want the dead token with Apple's reason", code, body)
	}
	if code, body = call("POST", "/v1/subscribe", strings.Replace(registration, `"mail"`, `"nothing"`, 1)); code != 400 || !strings.Contains(body, "APP_UNKNOWN") {
		t.Errorf("unknown app: %d %s", code, body)
	}
	if code, body = call("GET", "/v1/subscriptions", ""); code != 200 || !strings.Contains(body, Mailbox("ann")) || strings.Contains(body, dead) {
		t.Errorf("subscriptions: %d %s, want ann's and not the dead one", code, body)
	}

	// Another agent's count is the one that Apple refuses.
	_, body = call("GET", "/v1/removed", "")
	var before struct{ Cursor string }
	w.do(json.Unmarshal([]byte(body), &before))
	w.do(w.Phones.Leave(t.Context(), "ann"))
	heard := make(chan string, 1)
	go func() { // ends with the answer, or the agent
		_, body := call("GET", "/v1/removed?wait=60&cursor="+before.Cursor, "")
		heard <- body
	}()
	_, err := w.Do(t.Context(), "badgeagent", "publish", Mailbox("ann")+"=7")
	began := time.Now()
	if body := <-heard; !strings.Contains(body, deviceToken("ann")) || time.Since(began) > 10*time.Second { // without the news it takes half a minute
		t.Errorf("heard %s after %v (published: %v), want ann's dead token at once", body, time.Since(began), err)
	}
	t.Logf("of what another agent found out the back end hears within %v", time.Since(began))
}
