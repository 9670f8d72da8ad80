package backend

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"badgerelay/relay/agent"
)

// hear asks for removals and returns their mailboxes, and the answer.
func (a *api) hear(query string) (string, Removals) {
	a.t.Helper()
	w := a.do("GET", "/v1/removed?"+query, "")
	var m Removals
	if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil || w.Code != 200 {
		a.t.Fatalf("%s: %d %s", query, w.Code, w.Body)
	}
	var mailboxes []string
	for _, s := range m.Removed {
		mailboxes = append(mailboxes, s.Mailbox)
	}
	return strings.Join(mailboxes, " "), m
}

func TestRemovalsAreHeardOnceInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		got, first := a.hear("")
		if got != "" || first.More {
			t.Errorf("heard %q of nothing", got)
		}
		a.relay.remove("zoe")
		time.Sleep(fresh)
		a.relay.remove("ann")
		got, second := a.hear("cursor=" + first.Cursor)
		if got != "zoe ann" || second.Removed[0].RemovalReason != "Unregistered" || second.Removed[0].RemovedAt.IsZero() {
			t.Errorf("heard %q, %+v", got, second.Removed)
		}
		if got, _ = a.hear("cursor=" + second.Cursor); got != "" {
			t.Errorf("heard %q again", got)
		}
		got, part := a.hear("limit=1")
		if got != "zoe" || !part.More {
			t.Errorf("first of two: %q, more %t", got, part.More)
		}
		if got, _ = a.hear("limit=1&cursor=" + part.Cursor); got != "ann" {
			t.Errorf("second of two: %q", got)
		}
		if got, _ = a.hear("cursor=elsewhere-2"); got != "zoe ann" {
			t.Errorf("with another process's cursor: %q, want everything", got)
		}
		a.relay.mu.Lock()
		a.relay.removed = a.relay.removed[1:] // zoe has registered again
		a.relay.mu.Unlock()
		time.Sleep(fresh)
		if got, _ = a.hear(""); got != "ann" {
			t.Errorf("after a new registration: %q", got)
		}
	})
}

func TestWaitForNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		wait := func(query string) (<-chan string, time.Time) {
			heard := make(chan string, 1)
			go func() { // ends within a minute
				got, _ := a.hear(query)
				heard <- got
			}()
			synctest.Wait()
			return heard, time.Now()
		}
		heard, began := wait("wait=60")
		if got := <-heard; got != "" || time.Since(began) != time.Minute {
			t.Errorf("without news: %q after %v, want nothing after a minute", got, time.Since(began))
		}
		heard, began = wait("wait=60")
		time.Sleep(time.Second)
		a.relay.remove("ann")
		a.Left("ann")
		if got := <-heard; got != "ann" || time.Since(began) != time.Second {
			t.Errorf("told by the relay: %q after %v, want it at once", got, time.Since(began))
		}
		heard, began = wait("wait=60&cursor=" + lastCursor(a))
		time.Sleep(time.Second)
		a.relay.remove("bob") // and the relay tells nothing
		if got := <-heard; got != "bob" || time.Since(began) > maxAge {
			t.Errorf("told by nobody: %q after %v, want it within %v", got, time.Since(began), maxAge)
		}
	})
}

// Many devices that leave at once are read together, and whatever comes after
// them is heard within a second too.
func TestManyLeaveAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		cursor := lastCursor(a)
		time.Sleep(fresh)
		before := a.relay.pages()
		for i := range 1000 {
			mailbox := fmt.Sprintf("box %d", i)
			a.relay.remove(mailbox)
			a.Left(mailbox)
		}
		began := time.Now()
		_, m := a.hear("wait=60&cursor=" + cursor)
		if len(m.Removed) != 1000 || time.Since(began) > time.Second {
			t.Errorf("heard %d after %v, want 1000 within a second", len(m.Removed), time.Since(began))
		}
		if n := a.relay.pages() - before; n > maxLeft+2 {
			t.Errorf("asked the relay for %d pages, want at most %d", n, maxLeft+2)
		}
	})
}

func TestAProbeLeavesNoTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.relay.remove(agent.ProbeMailbox)
		a.relay.remove("ann")
		if got, _ := a.hear(""); got != "ann" {
			t.Errorf("heard %q, want ann alone", got)
		}
	})
}

func lastCursor(a *api) string {
	_, m := a.hear("")
	return m.Cursor
}

func TestManyAskOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		for range 20 {
			a.hear("")
		}
		if a.relay.lists != 1 {
			t.Errorf("asked the relay %d times, want once in %v", a.relay.lists, fresh)
		}
		time.Sleep(fresh)
		a.relay.refusal = refusal(codes.Unavailable, "REGISTRY_UNAVAILABLE", "", 0)
		a.want(a.do("GET", "/v1/removed", ""), 503, "REGISTRY_UNAVAILABLE")
		a.relay.refusal = nil
		a.relay.remove("ann")
		if got, _ := a.hear(""); got != "ann" {
			t.Errorf("after a failure: %q, want the relay asked again at once", got)
		}
	})
}

func TestTooManyRemovals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.relay.fill(maxRemovals + 1)
		ask := func(query string) *httptest.ResponseRecorder { return a.do("GET", "/v1/removed"+query, "") }
		w := ask("")
		a.want(w, 503, CodeTooMany, "badgeagent subscription list --removed")
		if after := w.Header().Get("Retry-After"); after != "30" {
			t.Errorf("Retry-After: %q, want 30", after)
		}
		for range 10 {
			a.Left("")
			time.Sleep(maxAge/10 - time.Millisecond)
			a.want(ask("?wait=60"), 503, CodeTooMany)
		}
		if got := a.relay.pages(); got != maxRemovals/maxPage+1 {
			t.Errorf("asked the relay for %d pages within half a minute, want the list read once", got)
		}
		a.relay.fill(1)
		time.Sleep(10 * time.Millisecond)
		if got, _ := a.hear(""); got != "box 0" {
			t.Errorf("when it has fewer: %q", got)
		}
	})
}

// A long list is not read anew for each dead token: that would cost the relay
// hundreds of pages where a campaign ends many devices. What is told meanwhile
// is heard at once all the same.
func TestALongListIsReadSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAPI(t)
		a.relay.fill(20 * maxPage)
		epoch, _, _ := strings.Cut(lastCursor(a), "-")
		cursor := func(n int) string { return "wait=60&cursor=" + epoch + fmt.Sprintf("-%d", 20*maxPage+n) }
		for i := range 8 {
			time.AfterFunc(500*time.Millisecond, func() {
				a.relay.remove("ann")
				a.Left("ann")
				a.Left("") // and the watch begins anew, again and again
			})
			began := time.Now()
			if got, _ := a.hear(cursor(i)); got != "ann" || time.Since(began) > time.Second {
				t.Errorf("heard %q after %v, want it within a second", got, time.Since(began))
			}
		}
		if got := a.relay.pages(); got != 20+8 {
			t.Errorf("asked the relay for %d pages within 4 s, want its list of 20 read once", got)
		}
	})
}
